//! What all loggers let the user say: the format, bodies, and when a batch leaves.
//!
//! A type with an unknown field is a fault, so the fields can not be flattened into another type: `logger_config!` writes
//! them out behind those that a plugin has of its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Format;
use crate::model::field::{InRange, Seconds};

/// Most bytes of a body of which a use may have a part in its entries.
pub type BodyBytes = InRange<1, 16_777_216>;
/// Most entries in a batch that a use may ask for.
pub type Entries = InRange<1, 1_000_000>;

/// What holds for all uses of a logger.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// What an entry says where a use does not say.
    pub log_format: Format,
    /// Further fields of entries without a `log_format`, where a use does not say.
    pub log_format_extra: Format,
    /// Most entries that wait for one destination; beyond, batches are dropped.
    #[serde(default)]
    pub max_pending_entries: MaxPending,
}

/// How many entries may wait.
#[derive(Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct MaxPending(InRange<1, 1_000_000>);

impl Default for MaxPending {
    fn default() -> Self {
        Self(InRange::literal(8192))
    }
}

impl MaxPending {
    /// The number.
    pub fn get(self) -> u64 {
        self.0.u64()
    }
}

/// APISIX's.
pub const fn body_bytes_max() -> BodyBytes {
    InRange::literal(524_288)
}

pub const fn batch_max_size() -> Entries {
    InRange::literal(1000)
}

pub const fn inactive_timeout() -> Seconds {
    Seconds::literal(5)
}

pub const fn buffer_duration() -> Seconds {
    Seconds::literal(60)
}

pub const fn retry_delay() -> Seconds {
    Seconds::literal(1)
}

/// A plugin's `Config`, with the fields that all loggers have behind its own; `without batches:` where they are no user's matter.
#[macro_export]
macro_rules! logger_config {
    (@entries [$(#[$outer:meta])*] { $($own:tt)* } { $($behind:tt)* }) => {
        $(#[$outer])*
        #[derive(serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Config {
            $($own)*
            /// What an entry says: fields with texts in which `$name` stands for a variable, or with further fields, five deep
            /// at most. Absent: that of the metadata, else everything.
            log_format: $crate::plugin::logger::Format,
            /// Further fields of an entry, where no format says which it has.
            log_format_extra: $crate::plugin::logger::Format,
            /// Has an entry without a format the body of the request?
            #[serde(default)]
            include_req_body: bool,
            /// Only if this holds, when the request is over.
            include_req_body_expr: Option<$crate::model::field::NonEmpty<serde_json::Value>>,
            /// Is the body of the response kept for the entry?
            #[serde(default)]
            include_resp_body: bool,
            /// Only if this holds, when the response begins.
            include_resp_body_expr: Option<$crate::model::field::NonEmpty<serde_json::Value>>,
            /// Most bytes of the body of a request in an entry; the rest is cut off.
            #[serde(default = "config::body_bytes_max")]
            max_req_body_bytes: config::BodyBytes,
            /// Most bytes of the body of a response in an entry; the rest is cut off.
            #[serde(default = "config::body_bytes_max")]
            max_resp_body_bytes: config::BodyBytes,
            $($behind)*
        }

        impl Config {
            /// The bodies it wants, of requests and of responses.
            fn wishes(&mut self) -> ($crate::plugin::logger::bodies::Wish, $crate::plugin::logger::bodies::Wish) {
                use $crate::plugin::logger::bodies::Wish;
                (
                    Wish {
                        is_wanted: self.include_req_body,
                        condition: self.include_req_body_expr.take(),
                        bytes_max: self.max_req_body_bytes.usize(),
                    },
                    Wish {
                        is_wanted: self.include_resp_body,
                        condition: self.include_resp_body_expr.take(),
                        bytes_max: self.max_resp_body_bytes.usize(),
                    },
                )
            }
        }
    };
    (without batches: $(#[$outer:meta])* pub struct Config { $($own:tt)* }) => {
        $crate::logger_config!(@entries [$(#[$outer])*] { $($own)* } {});
    };
    ($(#[$outer:meta])* pub struct Config { $($own:tt)* }) => {
        $crate::logger_config!(@entries [$(#[$outer])*] { $($own)* } {
            /// Entries after which a core hands a batch over; with 1 an entry travels alone.
            #[serde(default = "config::batch_max_size")]
            batch_max_size: config::Entries,
            /// Seconds that an entry waits on its core at most.
            #[serde(default = "config::inactive_timeout")]
            inactive_timeout: $crate::model::field::Seconds,
            /// The same; the smaller one counts.
            #[serde(default = "config::buffer_duration")]
            buffer_duration: $crate::model::field::Seconds,
            /// How often a batch is tried again.
            #[serde(default)]
            max_retry_count: $crate::model::field::InRange<0, 100>,
            /// Seconds before that.
            #[serde(default = "config::retry_delay")]
            retry_delay: $crate::model::field::Seconds,
            /// A name for the batches; read by nobody.
            #[serde(rename = "name")]
            #[schemars(rename = "name")]
            _name: Option<String>,
        });
    };
}

//! `file-logger`: a line of JSON for each request, in a file.
//!
//! ```yaml
//! plugins:
//!   file-logger:
//!     path: /var/log/ringway/orders.log
//!     match: [[[status, ">=", 500]]]
//!     log_format: {client: $remote_addr, what: "$request_method $uri", status: $status}
//! ```
//!
//! A core collects lines for a moment, and the reports thread writes them (`control/export/files.rs`). Differs from APISIX: lines
//! are written up to 50 ms later; unknown fields are refused.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::exchange::{Chunk, Exchange};
use crate::expr::Rule;
use crate::link::lines::{Carrier, Destination, Logger};
use crate::model::field::{NonEmpty, Text};
use crate::plugin::logger::{Batches, Bodies, Entry, Format, Shape, config};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, Observe, Phases, Plugin, Step, Transform};

/// Bytes of lines after which a core hands them over.
const BATCH_BYTES: usize = 64 * 1024;
/// How long a line waits on its core at most: little to who looks at the file, much to who writes it.
const AGE: Duration = Duration::from_millis(50);

crate::logger_config! {
without batches:
/// A line of JSON for each request, in a file.
pub struct Config {
    /// The file; it is made where it is not there, its folder is not. Absent: that of the metadata.
    path: Option<Text<1, 4096>>,
    /// Only what one of these conditions holds for.
    #[serde(rename = "match")]
    #[schemars(rename = "match")]
    matches: Option<NonEmpty<Vec<Value>>>,
}
}

/// What holds for all uses.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The file of uses that name none.
    path: Option<Text<1, 4096>>,
    /// What a line says where a use does not say.
    log_format: Format,
    /// Further fields of lines without a `log_format`, where a use does not say.
    log_format_extra: Format,
}

/// What the core reads.
pub struct FileLogger {
    entry: Entry,
    bodies: Bodies,
    batches: Batches,
    /// One of them must hold; none always does.
    conditions: Box<[Rule]>,
}

impl Plugin for FileLogger {
    const NAME: &'static str = "file-logger";
    const PRIORITY: i32 = 399;
    type Config = Config;
    type Metadata = Metadata;

    const ACCESS: Gate<Self> = Some(Self::ask);
    const BODY_FILTER: Transform<Self> = Some(Self::keep);
    const LOG: Observe<Self> = Some(Self::note);

    fn compile(mut config: Config, metadata: Metadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let path = config.path.take().or(metadata.path);
        let path = path.ok_or_else(|| {
            ConfigError::new("property \"path\" is not set in either the plugin conf or the metadata")
        })?;
        let rule = |(at, items): (usize, Vec<Value>)| {
            let rule = Rule::compile(&Value::Array(items));
            rule.map_err(|why| ConfigError::at(format!("match[{at}]"), why.to_string()))
        };
        let conditions = config.matches.take().map(NonEmpty::into_vec).unwrap_or_default();
        let to = Destination {
            logger: Logger::File,
            host: path.as_str().into(),
            port: 0,
            carrier: Carrier::File,
            timeout: Duration::ZERO,
            waiting_bytes_max: 0,
            waiting_entries_max: 0,
            retries: 0,
            retry_delay: Duration::ZERO,
        };
        let (request, response) = config.wishes();
        let format = config.log_format.or(metadata.log_format);
        let entry = Entry::compile(format, config.log_format_extra.or(metadata.log_format_extra))?;
        let me = cx.local();
        Ok(Self {
            conditions: conditions.into_iter().enumerate().map(rule).collect::<Result<_, _>>()?,
            bodies: Bodies::compile(request, response, &entry, (me, cx))?,
            entry,
            batches: Batches {
                to: Arc::new(to),
                shape: Shape::Lines,
                waiting: me,
                bytes: BATCH_BYTES,
                entries: u64::MAX,
                age: AGE,
            },
        })
    }

    fn reads_sent_head(&self) -> bool {
        self.entry.reads_sent_head()
    }

    fn active(&self) -> Phases {
        self.bodies.active()
    }
}

impl FileLogger {
    fn ask<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        self.bodies.ask(ex);
        Step::Next
    }

    fn keep(&self, ex: &mut Exchange, _: Env<'_>, chunk: &mut Chunk<'_>) {
        self.bodies.keep(ex, chunk);
    }

    fn note(&self, ex: &Exchange, env: Env<'_>) {
        if !self.conditions.is_empty() && !self.conditions.iter().any(|rule| rule.holds(ex)) {
            return;
        }
        let logged = self.bodies.logged(ex);
        self.batches.take(env.core, |scratch, out| {
            self.entry.write(ex, logged, scratch, out);
            out.push(b'\n');
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::outbox::Report;
    use crate::plugin::testing::{Desk, Request, agree, check};

    #[test]
    fn only_what_a_condition_holds_for_is_logged() {
        let config = r#"{"path": "/tmp/x", "match": [[["arg_a", "==", "1"]], [["arg_b", "==", "1"]]],
            "log_format": {"q": "$query_string", "route_id": ""}}"#;
        let bench = check::<FileLogger>(config).expect("valid");
        for target in ["/?a=1", "/?c=1", "/?b=1"] {
            bench.request(Request::get(target)).passes().response(200, &[], b"");
        }
        // Long ones make the batch leave.
        let long = format!("/?a=1&c={}", "y".repeat(1500));
        let mut came = Vec::new();
        while came.is_empty() {
            bench.request(Request::get(&long)).passes().response(200, &[], b"");
            came = bench.reports();
        }
        let [Report::Lines { bytes, .. }] = came.as_slice() else { panic!("one batch: {came:?}") };
        let text = std::str::from_utf8(bytes).expect("text");
        assert!(text.starts_with("{\"q\":\"a=1\",\"route_id\":\"\"}\n{\"q\":\"b=1\","), "{text:.80}");
        assert!(!text.contains("\"c=1\""));
    }

    #[test]
    fn lines_leave_when_there_are_enough_of_them() {
        let config = r#"{"path": "/tmp/x", "log_format": {"q": "$query_string", "route_id": ""}}"#;
        let bench = check::<FileLogger>(config).expect("valid");
        let target = format!("/?{}", "y".repeat(1500));
        let mut came = Vec::new();
        while came.is_empty() {
            bench.request(Request::get(&target)).passes().response(200, &[], b"");
            came = bench.reports();
        }
        let [Report::Lines { to, bytes, lines }] = came.as_slice() else { panic!("one batch: {came:?}") };
        assert_eq!((&*to.host, &to.carrier), ("/tmp/x", &Carrier::File));
        let text = std::str::from_utf8(bytes).expect("text");
        assert!(text.ends_with("}\n") && bytes.len() >= BATCH_BYTES);
        assert_eq!(text.lines().count() as u64, *lines);
    }

    #[test]
    fn the_metadata_names_the_file_of_who_names_none() {
        let mut desk = Desk::new().metadata("file-logger", r#"{"path": "/tmp/all"}"#);
        let bench = desk.compile::<FileLogger>("routes/1", "{}").expect("valid");
        assert_eq!(&*bench.plugin.batches.to.host, "/tmp/all");
        let faults = format!("{:?}", check::<FileLogger>("{}").err());
        assert!(faults.contains("is not set in either the plugin conf or the metadata"), "{faults}");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<FileLogger>(
            &[
                r#"{"path": "a.log"}"#,
                r#"{"path": "/a", "match": [[["status", ">", 499]]], "include_resp_body": true}"#,
            ],
            &[
                (r#"{"path": ""}"#, "path"),
                (r#"{"path": "a", "match": []}"#, "match"),
                (r#"{"path": "a", "batch_max_size": 1}"#, "additional properties forbidden"),
            ],
        );
        let faults = check::<FileLogger>(r#"{"path": "a", "match": [["x"]]}"#);
        assert!(format!("{:?}", faults.err()).contains("match[0]"));
    }
}

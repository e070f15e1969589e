//! The Admin API: whether it is offered, where, and to whom.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Listen, none};
use crate::model::field::{AddressRange, Secret, ShortText, Unique};

/// The Admin API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Is the Admin API offered on a port? Absent: when no file holds the objects, so that there is another way to them.
    pub enabled: Option<bool>,
    /// Where, in the forms of the outer `listen`. Loopback by default: whoever may write here owns the gateway.
    pub listen: Listen,
    /// Is TLS spoken there? Absent: it is served in clear.
    pub tls: Option<AdminTls>,
    /// Addresses of those who may come near it at all; others get 403. Empty: everybody who reaches the port.
    pub allow: Unique<AddressRange>,
    /// Is a key asked for?
    pub key_required: bool,
    /// Who has which key. Empty: one is made at the first start, and kept in `admin.key` of `state_dir`.
    pub keys: Vec<AdminKey>,
    /// May pages of other origins use it from a browser?
    pub cors: bool,
    /// Are secrets told on the port: `masked`, as `***`, or `shown`, for clients that write back what they have read and know
    /// no other way? Private keys of certificates are told in neither.
    pub secrets: AdminSecrets,
    /// The form of answers about objects on the port: `v3`, or `v2` for tools that know no other.
    pub api_version: AdminApiVersion,
    /// Are stream routes taken where streams come in nowhere? Then they are checked and kept. With `stream_proxy` they are
    /// taken in any case.
    pub stream_routes: bool,
    /// The file that every change is noted in; `off`: none. Absent: `audit.jsonl` in `state_dir`.
    pub audit_log: Option<PathBuf>,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            enabled: None,
            listen: Listen::loopback(9180),
            tls: None,
            allow: none(),
            key_required: true,
            keys: Vec::new(),
            cors: false,
            secrets: AdminSecrets::Masked,
            api_version: AdminApiVersion::V3,
            stream_routes: false,
            audit_log: None,
        }
    }
}

/// TLS of the Admin API. Files are read again when they change.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTls {
    /// A file with the certificate, in PEM, and those that lead from it to an authority.
    pub cert: PathBuf,
    /// The file with its private key.
    pub key: PathBuf,
    /// A file with the authorities of those who may connect: who shows no certificate by one of them gets no further. Absent: nobody is
    /// asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// A key to the Admin API.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminKey {
    /// Whose the key is, for the record of changes.
    pub name: ShortText,
    /// The key itself.
    pub key: Secret,
    /// What it opens.
    #[serde(default)]
    pub role: AdminRole,
}

/// What a key opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AdminRole {
    /// Everything.
    #[default]
    Admin,
    /// Reading.
    Viewer,
}

/// Whether secrets are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AdminSecrets {
    /// `***` stands in their place.
    #[default]
    Masked,
    /// As they are, to who may write.
    Shown,
}

/// The form of answers about objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum AdminApiVersion {
    /// An object with its node around it.
    V2,
    /// An object as it is.
    #[default]
    V3,
}

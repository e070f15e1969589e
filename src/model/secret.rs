//! A secret store: where `$secret://MANAGER/ID/…` is looked up. Kept, not acted upon yet.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::field::{Secret, Unique};
use super::stored;

stored! {
    /// Where references of the form `$secret://MANAGER/ID/PATH/KEY` are looked up. Its id is `MANAGER/ID`, with
    /// `vault`, `aws` or `gcp` for the manager, and the fields are that manager's.
    pub struct SecretStore {
        /// vault: where it is.
        pub uri: Option<String>,
        /// vault: what paths start with.
        pub prefix: Option<String>,
        /// vault: what opens it.
        pub token: Option<Secret>,
        /// vault: the namespace.
        pub namespace: Option<String>,
        /// aws: the key's id.
        pub access_key_id: Option<Secret>,
        /// aws: the key.
        pub secret_access_key: Option<Secret>,
        /// aws: the session's token.
        pub session_token: Option<Secret>,
        /// aws: the region; us-east-1 where absent.
        pub region: Option<String>,
        /// aws: another place to ask.
        pub endpoint_url: Option<String>,
        /// gcp: the account, written here.
        pub auth_config: Option<GcpAccount>,
        /// gcp: the file with the account.
        pub auth_file: Option<String>,
        /// gcp: is the certificate of the other side checked?
        pub ssl_verify: Option<bool>,
    }
}

/// An account of Google's cloud.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpAccount {
    /// Whose it is.
    pub client_email: String,
    /// The key.
    pub private_key: Secret,
    /// The project.
    pub project_id: String,
    /// Where tokens are given out.
    pub token_uri: Option<String>,
    /// What the token is for.
    pub scope: Option<Unique<String>>,
    /// Where secrets are.
    pub entries_uri: Option<String>,
}

/// Whether a text refers to a secret kept elsewhere: in the environment, or in a store of secrets.
pub fn is_reference(text: &str) -> bool {
    ["$env://", "$ENV://", "$secret://"].iter().any(|start| text.starts_with(start))
}

/// Whether a value has a reference in it, at any depth.
pub fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().any(has_reference),
        Value::Object(fields) => fields.values().any(has_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

//! A secret store: where `$secret://MANAGER/ID/…` is looked up. Only Vault is asked; the others are kept.

use serde::{Deserialize, Serialize};

use super::field::{Secret, Unique};
use super::{ConfigError, stored};

stored! {
    /// Where references of the form `$secret://MANAGER/ID/PATH/KEY` are looked up. Its id is `MANAGER/ID`, with
    /// `vault`, `aws` or `gcp` for the manager, and the fields are that manager's.
    pub struct SecretStore {
        /// vault, required: where it is, `http://127.0.0.1:8200`.
        pub uri: Option<String>,
        /// vault, required: the path of a key-value store as Vault's API has it: `kv` for version 1, `secret/data` for
        /// version 2.
        pub prefix: Option<String>,
        /// vault, required: the token that opens it.
        pub token: Option<Secret>,
        /// vault: the namespace. Absent: the root.
        pub namespace: Option<String>,
        /// aws, required: the id of the access key.
        pub access_key_id: Option<Secret>,
        /// aws, required: the access key.
        pub secret_access_key: Option<Secret>,
        /// aws: the token of a session.
        pub session_token: Option<Secret>,
        /// aws: the region. Absent: us-east-1.
        pub region: Option<String>,
        /// aws: another address to ask.
        pub endpoint_url: Option<String>,
        /// gcp: the account, written here.
        pub auth_config: Option<GcpAccount>,
        /// gcp: the path of the file with the account.
        pub auth_file: Option<String>,
        /// gcp: is the certificate of the other side checked? Absent: yes.
        pub ssl_verify: Option<bool>,
    }
}

/// An account of Google's cloud.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GcpAccount {
    /// The address of the account.
    pub client_email: String,
    /// The account's private key.
    pub private_key: Secret,
    /// The id of the project.
    pub project_id: String,
    /// Where tokens are given out.
    pub token_uri: Option<String>,
    /// What the token is for.
    pub scope: Option<Unique<String>>,
    /// Where secrets are.
    pub entries_uri: Option<String>,
}

impl SecretStore {
    /// What is lacking for a store of that manager.
    pub fn faults(&self, manager: &str) -> Vec<ConfigError> {
        let needed: &[(&str, bool)] = match manager {
            "vault" => &[
                ("uri", self.uri.is_some()),
                ("prefix", self.prefix.is_some()),
                ("token", self.token.is_some()),
            ],
            "aws" => &[
                ("access_key_id", self.access_key_id.is_some()),
                ("secret_access_key", self.secret_access_key.is_some()),
            ],
            _ => &[],
        };
        let absent = needed.iter().filter(|(_, is_there)| !is_there);
        let fault = |(name, _): &(&str, bool)| {
            ConfigError::at(*name, format!("expected, as a store of {manager} needs it, got nothing"))
        };
        absent.map(fault).collect()
    }

    /// What a store asks for and this version does not do.
    pub fn lacks(&self, manager: &str) -> Vec<ConfigError> {
        if manager != "vault" {
            let problem = format!("kept only: references to {manager} are not looked up yet");
            return vec![ConfigError::new(problem)];
        }
        Vec::new()
    }
}

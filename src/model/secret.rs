//! A secret store: where `$secret://MANAGER/ID/…` is looked up. Only Vault is asked; the others are kept.

use serde::{Deserialize, Serialize};

use super::field::{Secret, Unique};
use super::{ConfigError, stored};

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

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
        let mut faults: Vec<ConfigError> = absent.map(fault).collect();
        if manager == "gcp" && self.auth_config.is_some() == self.auth_file.is_some() {
            let found = if self.auth_file.is_some() { "both" } else { "neither" };
            faults.push(ConfigError::new(format!("expected auth_config or auth_file, got {found}")));
        }
        faults.extend([("uri", &self.uri), ("endpoint_url", &self.endpoint_url)].into_iter().filter_map(
            |(name, address)| {
                address.as_ref().filter(|address| !is_address(address)).map(|address| {
                    ConfigError::at(name, format!("expected http:// or https:// and a host, got {address:?}"))
                })
            },
        ));
        faults.extend(self.of_others(manager).map(|name| {
            ConfigError::at(name, format!("expected nothing, as a store of {manager} has no such field"))
        }));
        faults
    }

    /// Fields that are there and are those of other managers.
    fn of_others(&self, manager: &str) -> impl Iterator<Item = &'static str> {
        let fields = [
            ("vault", "uri", self.uri.is_some()),
            ("vault", "prefix", self.prefix.is_some()),
            ("vault", "token", self.token.is_some()),
            ("vault", "namespace", self.namespace.is_some()),
            ("aws", "access_key_id", self.access_key_id.is_some()),
            ("aws", "secret_access_key", self.secret_access_key.is_some()),
            ("aws", "session_token", self.session_token.is_some()),
            ("aws", "region", self.region.is_some()),
            ("aws", "endpoint_url", self.endpoint_url.is_some()),
            ("gcp", "auth_config", self.auth_config.is_some()),
            ("gcp", "auth_file", self.auth_file.is_some()),
            ("gcp", "ssl_verify", self.ssl_verify.is_some()),
        ];
        let others = fields.into_iter().filter(move |(owner, _, is_there)| *is_there && *owner != manager);
        others.map(|(_, name, _)| name)
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

/// Whether a text says over HTTP where to ask.
fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split(['/', ':', '?', '#']).next().unwrap_or_default());
    host.is_some_and(|host| !host.is_empty()) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(manager: &str, text: &str, expected: &[&str]) {
        let store: SecretStore = serde_json::from_str(text).expect("a store");
        let told: Vec<String> = store.faults(manager).iter().map(ToString::to_string).collect();
        assert_eq!(told, expected, "{manager} {text}");
    }

    #[test]
    fn each_manager_has_fields_of_its_own_and_needs_some() {
        check("vault", r#"{"uri":"https://a:8200","prefix":"kv","token":"t","namespace":"n"}"#, &[]);
        check("vault", r#"{"uri":"http://[::1]:8200/base","prefix":"kv","token":"t"}"#, &[]);
        for uri in ["vault:8200", "ftp://a", "http://", "http:///a", "http://a b"] {
            let store = format!(r#"{{"uri":"{uri}","prefix":"kv","token":"t"}}"#);
            check("vault", &store, &[&format!("uri: expected http:// or https:// and a host, got {uri:?}")]);
        }
        check("aws", r#"{"access_key_id":"a","secret_access_key":"b","region":"c"}"#, &[]);
        check(
            "aws",
            r#"{"access_key_id":"a","token":"t","endpoint_url":"localhost"}"#,
            &[
                "secret_access_key: expected, as a store of aws needs it, got nothing",
                "endpoint_url: expected http:// or https:// and a host, got \"localhost\"",
                "token: expected nothing, as a store of aws has no such field",
            ],
        );
        check("gcp", r#"{"auth_file":"/a.json","ssl_verify":false}"#, &[]);
        check("gcp", "{}", &["expected auth_config or auth_file, got neither"]);
        let account = r#"{"client_email":"e","private_key":"k","project_id":"p"}"#;
        let both = format!(r#"{{"auth_file":"/a.json","auth_config":{account}}}"#);
        check("gcp", &both, &["expected auth_config or auth_file, got both"]);
    }
}

//! Whose certificates are believed when the gateway is the client: the system's, or those of a file.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What TLS of our own connections goes by.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SslSettings {
    /// Files of certificates, in PEM, of those who vouch for the services that the gateway itself asks (etcd, Vault);
    /// `system` stands for what the system has of them. A list, or a text with commas.
    pub trusted_certificate: TrustedCertificates,
}

/// Those who vouch for others.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "Form")]
pub struct TrustedCertificates(Vec<Trusted>);

/// How they are written.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Form {
    Text(String),
    List(Vec<String>),
}

/// Somebody who vouches for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Whoever the system trusts.
    System,
    /// Whoever has a certificate in this file.
    File(PathBuf),
}

impl TrustedCertificates {
    pub fn list(&self) -> &[Trusted] {
        &self.0
    }
}

impl Default for TrustedCertificates {
    fn default() -> Self {
        Self(vec![Trusted::System])
    }
}

impl Serialize for TrustedCertificates {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_seq(self.0.iter().map(|trusted| match trusted {
            Trusted::System => "system".into(),
            Trusted::File(path) => path.to_string_lossy(),
        }))
    }
}

impl<'de> Deserialize<'de> for TrustedCertificates {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let words = match Form::deserialize(input)? {
            Form::Text(text) => text.split(',').map(str::to_owned).collect(),
            Form::List(list) => list,
        };
        let trusted = |word: &str| match word {
            "system" => Trusted::System,
            path => Trusted::File(PathBuf::from(path)),
        };
        let list: Vec<Trusted> =
            words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()).map(trusted).collect();
        if list.is_empty() {
            return Err(serde::de::Error::custom("expected at least one path or `system`, got nothing"));
        }
        Ok(Self(list))
    }
}

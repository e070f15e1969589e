//! `data_encryption`: how secrets of objects are kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::ConfigError;
use crate::model::field::Secret;

/// Characters of a key: it is one of AES-128 for APISIX.
const KEY_BYTES: usize = 16;

/// How secrets of objects are kept.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataEncryption {
    /// Are secrets encrypted where they are kept? What is encrypted already is read in any case.
    pub enable: bool,
    /// Keys of 16 characters: the first encrypts, all decrypt. Empty: a key is made, in `data.key` of `state_dir`.
    pub keyring: Vec<Secret>,
}

impl Default for DataEncryption {
    fn default() -> Self {
        Self { enable: true, keyring: Vec::new() }
    }
}

impl DataEncryption {
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let wrong = |(at, key): (usize, &Secret)| {
            let length = key.expose().len();
            (length != KEY_BYTES).then(|| {
                let problem = format!("expected a key of {KEY_BYTES} characters, got one of {length}");
                ConfigError::at(format!("data_encryption.keyring[{at}]"), problem)
            })
        };
        self.keyring.iter().enumerate().filter_map(wrong).collect()
    }
}

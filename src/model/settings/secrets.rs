//! `secrets`: where values that configuration refers to may be read.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::ConfigError;

/// Where orchestrators put what they keep secret for a process.
const DIRECTORY: &str = "/run/secrets";

/// Where values that configuration refers to may be read.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsSettings {
    /// Folders whose files, at any depth, `$file://` may refer to. Whoever may write objects can use what is in them, and
    /// nothing elsewhere. Empty: no file may be referred to.
    pub directories: Vec<PathBuf>,
}

impl Default for SecretsSettings {
    fn default() -> Self {
        Self { directories: vec![PathBuf::from(DIRECTORY)] }
    }
}

impl SecretsSettings {
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let relative = self.directories.iter().enumerate().filter(|(_, path)| !path.is_absolute());
        let fault = |(at, path): (usize, &PathBuf)| {
            let problem =
                format!("expected a path from the root, such as {DIRECTORY}, got {}", path.display());
            ConfigError::at(format!("secrets.directories[{at}]"), problem)
        };
        relative.map(fault).collect()
    }
}

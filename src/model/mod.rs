//! The objects as the user writes them: one file an object, serde and JSON schema.

pub mod error;

pub use error::ConfigError;

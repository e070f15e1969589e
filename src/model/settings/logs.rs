//! The process's own log, and the record of requests.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::field::Seconds;

/// Bytes of records gathered before they are written: one write for some hundred lines.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long a record may wait for others, in seconds: who watches the log should not wait longer.
const FLUSH_SECONDS: u64 = 1;

/// The process's own log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// How much is told: this level and those above it.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
    /// Where: `stderr`, `stdout`, `off`, or the path of a file, which is opened anew on USR1.
    pub output: LogOutput,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text, output: LogOutput::Stderr }
    }
}

/// How much is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogLevel {
    /// Someone must act.
    Error,
    /// Someone should look.
    Warn,
    /// What becomes of the process and its configuration.
    #[default]
    Info,
    /// What becomes of connections.
    Debug,
    /// Everything.
    Trace,
}

/// The form of the process's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// A JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// The record of every request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogSettings {
    /// Is a record of each request written at all?
    pub enabled: bool,
    /// Where: `stdout`, `stderr`, `off`, or the path of a file, which is opened anew on USR1.
    pub output: LogOutput,
    /// In which form: `json` (an object a line), `combined` (nginx's), or a text with `$variables`.
    pub format: AccessFormat,
    /// Bytes gathered before they are written; 0: each record at once.
    #[schemars(range(max = 16_777_216))]
    pub buffer_bytes: usize,
    /// Seconds that a record may wait for others.
    pub flush_interval: Seconds,
}

impl Default for AccessLogSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            output: LogOutput::Stdout,
            format: AccessFormat::Json,
            buffer_bytes: BUFFER_BYTES,
            flush_interval: Seconds::literal(FLUSH_SECONDS),
        }
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    Stdout,
    Stderr,
    Off,
    File(PathBuf),
}

impl fmt::Display for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Off => f.write_str("off"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for LogOutput {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Ok(match text.as_str() {
            "stdout" | "/dev/stdout" => Self::Stdout,
            "stderr" | "/dev/stderr" => Self::Stderr,
            "off" => Self::Off,
            // A word without a slash is likelier a slip (`stdrr`) than a file in the working directory.
            path if path.contains('/') => Self::File(PathBuf::from(text)),
            _ => return Err(D::Error::custom("expected stdout, stderr, off or the path of a file")),
        })
    }
}

impl Serialize for LogOutput {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl JsonSchema for LogOutput {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "LogOutput".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^(stdout|stderr|off)$|/",
            "x-expected": "stdout, stderr, off or the path of a file",
        })
    }
}

/// The form of a request's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// A JSON object a line, with all fields.
    Json,
    /// nginx's `combined`.
    Combined,
    /// A text with `$variables`.
    Template(String),
}

impl<'de> Deserialize<'de> for AccessFormat {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        Ok(match text.as_str() {
            "json" => Self::Json,
            "combined" => Self::Combined,
            template if template.contains('$') => Self::Template(text),
            _ => return Err(D::Error::custom("expected json, combined or a text with $variables")),
        })
    }
}

impl Serialize for AccessFormat {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(match self {
            Self::Json => "json",
            Self::Combined => "combined",
            Self::Template(text) => text,
        })
    }
}

impl JsonSchema for AccessFormat {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AccessFormat".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": r"^(json|combined)$|\$",
            "x-expected": "json, combined or a text with $variables",
        })
    }
}

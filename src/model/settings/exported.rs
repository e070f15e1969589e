//! `plugin_attr.prometheus`: what APISIX's plugin is told once for the process. What has no meaning here is told, one by one.
//!
//! | attribute | what becomes of it |
//! |---|---|
//! | `export_addr` (`{ip, port}`) | `metrics.listen` |
//! | `enable_export_server`, `export_uri`, `metric_prefix` | as they say |
//! | `default_buckets` | the bounds of `http_latency`, in milliseconds |
//! | `metrics.http_status.extra_labels`, of `http_latency` and `bandwidth` as well | further labels, each a text with variables |
//! | `metrics.*.expire`, `refresh_interval`, what else there is | nothing; a warning each |

use serde_json::{Map, Value, json};

use super::Settings;
use super::apisix::Translated;
use crate::model::ConfigError;
use crate::model::schema::shown_value;

/// Where metrics are read, if nobody says otherwise.
pub const METRICS_URI: &str = "/apisix/prometheus/metrics";
/// What names of metrics begin with that APISIX has as well, if nobody says otherwise.
pub const METRIC_PREFIX: &str = "apisix_";
/// Most bounds of a histogram. Worst case 32 KiB more for each thousand of its series, per core.
pub const BUCKETS_MAX: usize = 64;
/// Most further labels of a family.
pub const EXTRA_LABELS_MAX: usize = 8;

/// The families that take further labels.
const FAMILIES: [&str; 3] = ["http_status", "http_latency", "bandwidth"];

impl Settings {
    /// `plugin_attr.prometheus.export_uri`.
    pub fn metrics_uri(&self) -> &str {
        self.of_prometheus("export_uri").and_then(Value::as_str).unwrap_or(METRICS_URI)
    }

    /// `plugin_attr.prometheus.enable_export_server`: whether metrics have a port of their own.
    pub fn exports_metrics(&self) -> bool {
        self.of_prometheus("enable_export_server") != Some(&Value::Bool(false))
    }

    /// `plugin_attr.prometheus.metric_prefix`.
    pub fn metric_prefix(&self) -> &str {
        self.of_prometheus("metric_prefix").and_then(Value::as_str).unwrap_or(METRIC_PREFIX)
    }

    fn of_prometheus(&self, name: &str) -> Option<&Value> {
        self.plugin_attr.get("prometheus")?.get(name)
    }
}

/// Bounds in milliseconds as whole microseconds, each above the one before.
///
/// # Errors
/// What was expected.
pub fn bounds_us(written: &Value) -> Result<Vec<u64>, String> {
    let expected = || {
        format!(
            "expected a list of at most {BUCKETS_MAX} numbers of milliseconds above 0, each above the one before, got {}",
            shown_value(written)
        )
    };
    let items = written.as_array().filter(|items| (1..=BUCKETS_MAX).contains(&items.len()));
    let mut bounds: Vec<u64> = Vec::new();
    for item in items.ok_or_else(expected)? {
        let us = item.as_f64().map(|ms| (ms * 1000.0).round()).filter(|us| (1.0..1e15).contains(us));
        let us = us.ok_or_else(expected)? as u64;
        if bounds.last().is_some_and(|last| *last >= us) {
            return Err(expected());
        }
        bounds.push(us);
    }
    Ok(bounds)
}

/// Further labels of a family, `[{name: $variable}]`: names and texts.
///
/// # Errors
/// What was expected.
pub fn extra_labels(written: &Value) -> Result<Vec<(String, String)>, String> {
    let expected = || {
        format!(
            "expected a list of at most {EXTRA_LABELS_MAX} objects such as {{upstream_addr: $upstream_addr}}, got {}",
            shown_value(written)
        )
    };
    let mut labels: Vec<(String, String)> = Vec::new();
    for item in written.as_array().ok_or_else(expected)? {
        for (name, value) in item.as_object().ok_or_else(expected)? {
            let value = value.as_str().ok_or_else(expected)?;
            let is_reserved = name == "le" || name.starts_with("__");
            if !is_name(name) || is_reserved || labels.iter().any(|(known, _)| known == name) {
                return Err(format!(
                    "expected the name of a label, no two alike, got {}",
                    shown_value(&json!(name))
                ));
            }
            labels.push((name.clone(), value.to_owned()));
        }
    }
    if labels.len() > EXTRA_LABELS_MAX { Err(expected()) } else { Ok(labels) }
}

/// Whether a text may be the beginning of a metric's name or a label's name.
fn is_name(text: &str) -> bool {
    let is_begun = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    is_begun && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl Translated {
    /// Checks what is said of metrics, and moves their address to where ours is.
    pub(super) fn prometheus(&mut self, settings: &mut Value, faults: &mut Vec<ConfigError>) {
        let Some(Value::Object(fields)) = settings.pointer("/plugin_attr/prometheus").cloned() else {
            return;
        };
        for (name, value) in &fields {
            let path = format!("plugin_attr.prometheus.{name}");
            let mut expect = |is_so: bool, expected: &str| {
                if !is_so {
                    let problem = format!("expected {expected}, got {}", shown_value(value));
                    faults.push(ConfigError::at(path.as_str(), problem));
                }
            };
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("enable_export_server", value) => expect(value.is_boolean(), "true or false"),
                ("export_uri", value) => {
                    expect(value.as_str().is_some_and(|uri| uri.starts_with('/')), "a path");
                }
                ("metric_prefix", value) => {
                    let is_prefix = value.as_str().is_some_and(|prefix| prefix.is_empty() || is_name(prefix));
                    expect(is_prefix, "the beginning of a name: letters, digits and _");
                }
                ("default_buckets", value) => {
                    faults.extend(bounds_us(value).err().map(|problem| ConfigError::at(path, problem)));
                }
                ("export_addr", Value::Object(address)) => self.export_addr(settings, address, faults),
                ("metrics", Value::Object(families)) => self.families(families, faults),
                ("export_addr" | "metrics", _) => expect(false, "an object"),
                ("refresh_interval", _) => {
                    self.warnings.push(format!("{path} is ignored: the page is made when it is asked for"));
                }
                (_, value) => self.ignore(&path, value),
            }
        }
    }

    fn export_addr(
        &mut self,
        settings: &mut Value,
        address: &Map<String, Value>,
        faults: &mut Vec<ConfigError>,
    ) {
        let mut listen = json!({"address": "127.0.0.1", "port": 9091});
        for (name, value) in address {
            match name.as_str() {
                "ip" => listen["address"] = value.clone(),
                "port" => listen["port"] = value.clone(),
                _ => self.ignore(&format!("plugin_attr.prometheus.export_addr.{name}"), value),
            }
        }
        self.place(settings, "metrics.listen", "plugin_attr.prometheus.export_addr", listen, faults);
    }

    fn families(&mut self, families: &Map<String, Value>, faults: &mut Vec<ConfigError>) {
        for (family, fields) in families {
            let path = format!("plugin_attr.prometheus.metrics.{family}");
            let (true, Value::Object(fields)) = (FAMILIES.contains(&family.as_str()), fields) else {
                self.ignore(&path, fields);
                continue;
            };
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                match name.as_str() {
                    "extra_labels" => {
                        faults
                            .extend(extra_labels(value).err().map(|problem| ConfigError::at(path, problem)));
                    }
                    "expire" => self.warnings.push(format!("{path} is ignored: series are not forgotten")),
                    _ => self.ignore(&path, value),
                }
            }
        }
    }
}

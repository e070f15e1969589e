//! Labels that the settings add to a family: `plugin_attr.prometheus.metrics.FAMILY.extra_labels`.
//!
//! Their values are of the request, so a client may write them: each is cut, and the bound of all series holds for them, too.

use serde_json::Value;

use super::FAMILIES;
use crate::exchange::Exchange;
use crate::expr::Template;
use crate::model::settings::exported::extra_labels;
use crate::plugin::ConfigError;

/// Longest value of a label; the rest is cut.
const VALUE_BYTES_MAX: usize = 128;

/// One label more.
pub(super) struct Extra {
    pub(super) name: String,
    pub(super) value: Template,
}

/// Those that `metrics` of the settings says, by family.
pub(super) fn of_settings(metrics: Option<&Value>) -> Result<[Vec<Extra>; FAMILIES.len()], ConfigError> {
    let mut all = [const { Vec::new() }; FAMILIES.len()];
    for ((family, own), list) in FAMILIES.iter().zip(&mut all) {
        let Some(written) = metrics.and_then(|metrics| metrics.get(family)?.get("extra_labels")) else { continue };
        let fault = |problem: String| {
            ConfigError::new(format!("plugin_attr.prometheus.metrics.{family}.extra_labels: {problem}"))
        };
        for (name, value) in extra_labels(written).map_err(fault)? {
            if own.contains(&name.as_str()) {
                return Err(fault(format!("the label {name} is there already")));
            }
            list.push(Extra { name, value: Template::parse(&value) });
        }
    }
    Ok(all)
}

/// What a request says of them, in the order of families; nothing, and nothing is allocated, where there are none.
pub(super) fn values(all: &[Vec<Extra>], ex: &Exchange) -> Vec<String> {
    if all.iter().all(Vec::is_empty) {
        return Vec::new();
    }
    let value = |extra: &Extra| {
        let mut text = Vec::new();
        extra.value.render(ex, &mut text);
        text.truncate(VALUE_BYTES_MAX);
        String::from_utf8_lossy(&text).into_owned()
    };
    all.iter().flatten().map(value).collect()
}

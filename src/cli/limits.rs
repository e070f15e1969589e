//! `limits`: what is left of limits for a key, as a running gateway tells it over its control socket.

use std::fmt::Write as _;

use serde_json::Value;

use super::args::{LimitsArgs, OutputFormat};
use super::explain::encode;
use super::load::Surroundings;
use super::node::Node;
use super::{OK, Told};

pub(super) fn limits(args: &LimitsArgs, around: &Surroundings) -> Result<Told, Told> {
    let node = Node::find(&args.node, around)?;
    let said = [
        ("key", &args.key),
        ("route", &args.route),
        ("consumer", &args.consumer),
        ("stream_route", &args.stream_route),
    ];
    let query =
        said.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))));
    let told = node.look(&format!("/v1/limits?{}", query.collect::<Vec<_>>().join("&")))?.json();
    let text = if args.format == OutputFormat::Json { format!("{told}\n") } else { text(&told) };
    Ok(Told { code: OK, text })
}

fn text(told: &Value) -> String {
    let mut out =
        format!("{:<24} {:<24} {:>12} {:>12} {:>12}  FROM\n", "LIMIT", "PER", "COUNT", "LEFT", "RESET IN");
    for limit in told["list"].as_array().into_iter().flatten() {
        let word = |name: &str| match &limit[name] {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let name = if limit["limit"].is_null() { word("plugin") } else { word("limit") };
        let kind = limit["as"].as_str().map_or_else(String::new, |kind| format!(", as {kind}"));
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{name:<24} {:<24} {:>12} {:>12} {:>12}  {}{kind}",
            word("per"),
            word("count"),
            word("remaining"),
            word("reset_in"),
            word("from")
        );
    }
    if told["left_off"].as_u64().is_some_and(|count| count > 0) {
        let _ = writeln!(out, "{} more", told["left_off"]);
    }
    out
}

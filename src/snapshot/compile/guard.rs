//! What is left of an object that can not be taken and may guard something: enough to refuse in its place.
//!
//! A route that is left out leaves its requests, or connections, to another, which may ask for less; a global rule that is left out
//! leaves all requests open. Where an earlier version is in force, none of this is needed.

use serde_json::{Map, Value, json};

use crate::link::lines::LOGGERS;
use crate::model::Kind;
use crate::plugin::Phase;
use crate::plugins::Card;

/// What says which requests a route takes.
const OF_REQUESTS: [&str; 12] = [
    "uri",
    "uris",
    "host",
    "hosts",
    "remote_addr",
    "remote_addrs",
    "methods",
    "priority",
    "vars",
    "filter_func",
    "status",
    "service_id",
];

/// What says which connections a stream route takes.
const OF_STREAMS: [&str; 5] = ["remote_addr", "server_addr", "server_port", "sni", "service_id"];

/// A route that takes the same requests, or connections, and has nothing to do with them; none if no plugin can have been meant to guard them.
pub(super) fn stand_in_for(kind: Kind, wanted: &str) -> Option<String> {
    let kept = match kind {
        Kind::Route => OF_REQUESTS.as_slice(),
        Kind::StreamRoute => OF_STREAMS.as_slice(),
        _ => return None,
    };
    let Ok(Value::Object(mut written)) = serde_json::from_str(wanted) else { return None };
    let has_plugins = written.get("plugins").is_some_and(|plugins| !is_nothing(plugins));
    let takes_over = ["plugin_config_id", "service_id"].iter().any(|field| written.contains_key(*field));
    if !has_plugins && !takes_over {
        return None;
    }
    let superior = written.get("protocol").and_then(|protocol| protocol.get("superior_id"));
    if kind == Kind::StreamRoute && superior.is_some_and(|id| !id.is_null()) {
        // It is for what passes inside another's connections, and no connection is its own.
        return None;
    }
    let frame = kept.iter().filter_map(|field| Some(((*field).to_owned(), written.remove(*field)?)));
    let mut frame: Map<String, Value> = frame.collect();
    frame.insert("plugins".to_owned(), json!({}));
    Some(Value::Object(frame).to_string())
}

/// Whether a global rule has a plugin that may turn requests away, or one that nobody here can judge.
pub(super) fn is_in_rule(wanted: &str) -> bool {
    let Ok(Value::Object(written)) = serde_json::from_str(wanted) else { return true };
    match written.get("plugins") {
        Some(Value::Object(plugins)) => plugins.iter().any(|(name, config)| may_guard(name, config)),
        Some(plugins) => !is_nothing(plugins),
        None => false,
    }
}

fn may_guard(name: &str, config: &Value) -> bool {
    let is_off = config.pointer("/_meta/disable") == Some(&Value::Bool(true));
    let gates = [Phase::Rewrite, Phase::Access, Phase::BeforeProxy];
    // These have gates for bodies, and let everybody pass.
    let only_tells = LOGGERS.contains(&name);
    !is_off
        && !only_tells
        && Card::of(name).is_none_or(|card| gates.iter().any(|phase| card.phases.contains(*phase)))
}

fn is_nothing(plugins: &Value) -> bool {
    plugins.is_null() || plugins.as_object().is_some_and(Map::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plugins_that_may_turn_requests_away_are_missed() {
        for (rule, expect) in [
            (r#"{"plugins":{"key-auth":{"header":5}}}"#, true),
            (r#"{"plugins":{"no-such-plugin":{}}}"#, true),
            (r#"{"plugins":{"file-logger":{"path":5}}}"#, false),
            (r#"{"plugins":{"file-logger":{"path":5},"ip-restriction":{}}}"#, true),
            (r#"{"plugins":{"key-auth":{"_meta":{"disable":true},"x":1}}}"#, false),
            (r#"{"plugins":{}}"#, false),
            (r#"{"plugins":[]}"#, true),
            (r#""{not json""#, true),
        ] {
            assert_eq!(is_in_rule(rule), expect, "{rule}");
        }
    }

    #[test]
    fn a_stand_in_takes_what_the_route_takes_and_has_nothing_else_of_it() {
        let route =
            r#"{"id":"1","uri":"/a","vars":[["arg_a","==","b"]],"plugins":{"key-auth":7},"upstream":{}}"#;
        let expect = r#"{"uri":"/a","vars":[["arg_a","==","b"]],"plugins":{}}"#;
        assert_eq!(stand_in_for(Kind::Route, route).as_deref(), Some(expect));
        for open in [r#"{"uri":"/a","upstream":{}}"#, r#"{"uri":"/a","plugins":{}}"#, r#""text""#] {
            assert_eq!(stand_in_for(Kind::Route, open), None, "{open}");
        }
        assert_eq!(stand_in_for(Kind::Service, route), None, "it takes nothing by itself");
        // A field that only stream routes have takes no guard away.
        let stray = r#"{"uri":"/a","plugins":{"key-auth":{}},"protocol":{"superior_id":"1"}}"#;
        assert_eq!(stand_in_for(Kind::Route, stray).as_deref(), Some(r#"{"uri":"/a","plugins":{}}"#));
    }

    #[test]
    fn a_stand_in_of_a_stream_route_takes_its_connections_if_it_has_any() {
        let route = r#"{"id":"1","server_port":9100,"plugins":{"ip-restriction":7},"upstream":{}}"#;
        let expect = r#"{"server_port":9100,"plugins":{}}"#;
        assert_eq!(stand_in_for(Kind::StreamRoute, route).as_deref(), Some(expect));
        for open in [
            r#"{"server_port":9100,"upstream":{}}"#,
            r#"{"plugins":{"ip-restriction":7},"protocol":{"name":"redis","superior_id":"1"}}"#,
        ] {
            assert_eq!(stand_in_for(Kind::StreamRoute, open), None, "{open}");
        }
        let nobodys = r#"{"plugins":{"ip-restriction":7},"protocol":{"name":"redis","superior_id":null}}"#;
        assert_eq!(stand_in_for(Kind::StreamRoute, nobodys).as_deref(), Some(r#"{"plugins":{}}"#));
    }
}

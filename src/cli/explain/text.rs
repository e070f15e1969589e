//! An explanation as a person reads it.

use std::fmt::Write as _;

use serde_json::Value;

/// The phases, in their order.
const PHASES: [&str; 7] =
    ["rewrite", "access", "before_proxy", "header_filter", "body_filter", "log", "disabled"];

/// All of it.
pub(super) fn text(told: &Value) -> String {
    let mut out = String::new();
    request(told, &mut out);
    candidates(told, &mut out);
    plugins(told, &mut out);
    consumer(&told["consumer"], &mut out);
    limits(&told["limits"], &mut out);
    upstream(&told["upstream"], &mut out);
    let notes = list(&told["notes"]);
    if !notes.is_empty() {
        out.push_str("\nnotes\n");
        for note in notes {
            let _ = writeln!(out, "  {}", word(note));
        }
    }
    if let Some(sent) = told.get("sent") {
        let _ = writeln!(
            out,
            "\nsent to {}: status {}\n  route: {}",
            word(&sent["to"]),
            sent["status"],
            word(&sent["route"])
        );
    }
    out
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Text as it is, anything else as JSON; nothing for null.
fn word(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The same, with something for null.
fn word_or(value: &Value, instead: &str) -> String {
    if value.is_null() { instead.to_owned() } else { word(value) }
}

fn request(told: &Value, out: &mut String) {
    let request = &told["request"];
    let query = request["query"].as_str().map_or_else(String::new, |query| format!("?{query}"));
    match request["target"].as_str() {
        // It could not be read any further.
        Some(target) => {
            let _ = writeln!(out, "{} {target}", word(&request["method"]));
        }
        None => {
            let _ = writeln!(
                out,
                "{} {}{}{query} from {}",
                word(&request["method"]),
                word(&request["host"]),
                word(&request["path"]),
                word(&request["client"]),
            );
        }
    }
    let route = &told["route"];
    if route.is_object() {
        let name = route["name"].as_str().map_or_else(String::new, |name| format!(" {name:?}"));
        let host = route["matched_host"].as_str().map_or_else(String::new, |host| format!(", host {host}"));
        let _ = writeln!(
            out,
            "  route     routes/{}{name}: {}{host}",
            word(&route["id"]),
            word(&route["matched_uri"])
        );
        for (param, value) in route["params"].as_object().into_iter().flatten() {
            let _ = writeln!(out, "            {param} = {}", word(value));
        }
    } else {
        out.push_str("  route     none\n");
    }
    let _ = writeln!(out, "  outcome   {}", outcome(&told["outcome"]));
    let _ = writeln!(out, "  in force  generation {}", told["generation"]);
}

fn outcome(outcome: &Value) -> String {
    match outcome["kind"].as_str() {
        Some("forwarded") => {
            let host = outcome["host"].as_str().unwrap_or("each node's own");
            format!(
                "sent to {} as {} {}, Host: {host}",
                word(&outcome["to"]),
                word(&outcome["method"]),
                word(&outcome["target"])
            )
        }
        Some("answered") => format!(
            "answered {} by {} ({})",
            outcome["status"],
            word(&outcome["by"]),
            word(&outcome["reason"])
        ),
        _ => format!("{} panics: that is a fault of its", word(&outcome["by"])),
    }
}

fn candidates(told: &Value, out: &mut String) {
    let Some(router) = told.get("router") else { return };
    let hosts: Vec<String> = list(&router["hosts"]).iter().map(|host| word_or(host, "any host")).collect();
    let _ =
        writeln!(out, "\nroutes, as {} looks at them (among: {})", word(&router["http"]), hosts.join(", "));
    for (at, candidate) in list(&told["candidates"]).iter().enumerate() {
        let _ = writeln!(out, "  {:>3}  {}", at + 1, of_candidate(candidate));
    }
    match told["candidates_left_off"].as_u64() {
        None | Some(0) => {}
        Some(more) => {
            let _ = writeln!(out, "       and {more} more");
        }
    }
    if let Some(asked) = told.get("asked_route") {
        let _ = writeln!(out, "  asked about  {}", of_candidate(asked));
    }
}

fn of_candidate(candidate: &Value) -> String {
    let mut line = format!("routes/{}", word(&candidate["route"]));
    if let Some(uri) = candidate["uri"].as_str() {
        line.push_str(&format!("  {uri}"));
    }
    if let Some(host) = candidate["host"].as_str() {
        line.push_str(&format!(" on {host}"));
    }
    line.push_str("  ");
    match candidate["verdict"].as_str() {
        Some("won") => line.push_str("takes it"),
        Some("behind") => line.push_str("not asked: another came first"),
        Some("absent") => line.push_str(&word(&candidate["why"])),
        verdict => {
            let failed = &candidate["failed_on"];
            let elsewhere = if verdict == Some("elsewhere") { "not come to: " } else { "" };
            let why: Vec<String> = list(&failed["why"]).iter().map(reason).collect();
            line.push_str(&format!("{elsewhere}{}", why.join("; ")));
        }
    }
    line
}

/// A condition with what was found.
fn reason(why: &Value) -> String {
    let expected = match &why["expected"] {
        // A list of what would do; a condition is a list, too, and told as it is written.
        Value::Array(items) if why["variable"].is_null() => {
            items.iter().map(word).collect::<Vec<_>>().join(", ")
        }
        other => word_or(other, "something else"),
    };
    format!("{}: expected {expected}, found {}", word(&why["field"]), word_or(&why["found"], "nothing"))
}

fn plugins(told: &Value, out: &mut String) {
    let Some(plugins) = told["plugins"].as_object().filter(|plugins| !plugins.is_empty()) else { return };
    out.push_str("\nplugins, in the order they run\n");
    for phase in PHASES {
        let Some(entries) = plugins.get(phase) else { continue };
        let _ = writeln!(out, "  {phase}");
        for entry in list(entries) {
            let _ = writeln!(
                out,
                "    {:<22} {:<26} {}",
                word(&entry["plugin"]),
                word(&entry["from"]),
                result(entry)
            );
            if let Some(body) = entry["body"].as_str() {
                let _ = writeln!(out, "      {body}");
            }
            for change in list(&entry["changes"]) {
                let _ = writeln!(out, "      {}", word(change));
            }
            for why in list(&entry["filter"]) {
                let _ = writeln!(out, "      {}", reason(why));
            }
            let over: Vec<String> = list(&entry["instead_of"]).iter().map(word).collect();
            if !over.is_empty() {
                let _ = writeln!(out, "      in place of the one of {}", over.join(", "));
            }
        }
    }
}

fn result(entry: &Value) -> String {
    let mut text = match entry["result"].as_str().unwrap_or_default() {
        "passed" => "lets it pass".to_owned(),
        "answered" => format!("answers {}", entry["status"]),
        "filtered" => "does not run: _meta.filter".to_owned(),
        "waits" => "waits: what it says is not known".to_owned(),
        "not_reached" => "not come to".to_owned(),
        "runs" => "runs on the answer".to_owned(),
        "depends" => "_meta.filter asks about the answer".to_owned(),
        "silent" => "silent: the route has its own".to_owned(),
        "disabled" => "switched off: _meta.disable".to_owned(),
        other => other.to_owned(),
    };
    if entry["by_chance"] == true {
        text.push_str(" (throws dice)");
    }
    if entry["by_state"] == true {
        text.push_str(" (goes by what it counted, which is not looked at)");
    }
    text
}

fn consumer(consumer: &Value, out: &mut String) {
    if !consumer.is_object() {
        return;
    }
    let _ = writeln!(out, "\nconsumer {}", word(&consumer["name"]));
    let _ = writeln!(out, "  known by {}", word_or(&consumer["identified_by"], "nothing"));
    for (field, what) in [("credential_id", "credential"), ("group_id", "group")] {
        if let Some(id) = consumer[field].as_str() {
            let _ = writeln!(out, "  {what} {id}");
        }
    }
    for plugin in list(&consumer["plugins"]) {
        let instead = plugin["instead_of"]
            .as_str()
            .map_or_else(String::new, |of| format!(", in place of that of {of}"));
        let _ = writeln!(out, "  brings {} of {}{instead}", word(&plugin["plugin"]), word(&plugin["from"]));
    }
    for plugin in list(&consumer["disables"]) {
        let _ = writeln!(out, "  switches {} off", word(plugin));
    }
}

fn limits(limits: &Value, out: &mut String) {
    let limits = list(limits);
    if !limits.is_empty() {
        out.push_str("\nlimits\n");
    }
    for limit in limits {
        let own = ["plugin", "from", "key", "key_type", "key_value"];
        let amounts =
            limit.as_object().into_iter().flatten().filter(|(name, _)| !own.contains(&name.as_str()));
        let amounts: Vec<String> = amounts.map(|(name, value)| format!("{name} {}", word(value))).collect();
        let _ = writeln!(
            out,
            "  {:<22} {:<26} {}",
            word(&limit["plugin"]),
            word(&limit["from"]),
            amounts.join(", ")
        );
        if limit["key"].is_null() {
            continue;
        }
        let _ = writeln!(
            out,
            "      key {}: {}",
            word(&limit["key"]),
            word_or(&limit["key_value"], "the same for all")
        );
    }
}

fn upstream(upstream: &Value, out: &mut String) {
    if !upstream.is_object() {
        return;
    }
    let _ = writeln!(out, "\nupstream {}", word(&upstream["name"]));
    for node in list(&upstream["nodes"]) {
        let named = node["host"].as_str().filter(|host| !word(&node["address"]).contains(host));
        let named = named.map_or_else(String::new, |host| format!(" ({host})"));
        let _ = writeln!(
            out,
            "  node {}{named}  weight {}, priority {}",
            word(&node["address"]),
            word_or(&node["weight"], "unknown"),
            word_or(&node["priority"], "unknown")
        );
    }
    match upstream["nodes_left_off"].as_u64() {
        None | Some(0) => {}
        Some(more) => {
            let _ = writeln!(out, "  and {more} more");
        }
    }
    let retry_timeout = upstream["retry_timeout"]
        .as_f64()
        .map_or_else(String::new, |limit| format!(", all within {limit} s"));
    let _ = writeln!(
        out,
        "  retries {} ({}){retry_timeout}",
        upstream["retries"],
        word(&upstream["retries_from"])
    );
    let timeout = &upstream["timeout"];
    let _ = writeln!(
        out,
        "  timeouts: connect {} s, send {} s, read {} s ({})",
        timeout["connect"],
        timeout["send"],
        timeout["read"],
        word(&timeout["from"])
    );
}

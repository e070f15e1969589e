//! Objects of a running gateway, shown: `get` and `dump`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::Value;

use super::args::{DumpArgs, GetArgs, OutputFormat};
use super::load::Surroundings;
use super::node::Node;
use super::{FAILED, OK, Told, USAGE};
use crate::base::text::push_percent;
use crate::control::MASK;
use crate::model::{Kind, object_name};

/// What a list tells of an object, at most.
const SUMMARY_CHARS_MAX: usize = 100;

/// `get KIND [ID]`.
pub(super) fn get(args: &GetArgs, around: &Surroundings) -> Result<Told, Told> {
    let misuse = |why: &str| Told { code: USAGE, text: format!("{why}\n") };
    let path = match (args.kind, args.id.as_deref()) {
        (Kind::Credential, None) => {
            return Err(misuse("credentials: expected a consumer (get credentials USER) or one (USER/ID)"));
        }
        (Kind::Credential, Some(id)) => match id.replace("/credentials/", "/").split_once('/') {
            None => format!("/consumers/{}/credentials", encoded(id)),
            Some((user, id)) => format!("/consumers/{}/credentials/{}", encoded(user), encoded(id)),
        },
        (Kind::CostDecoration, None) => {
            let why = "graphql_cost_decorations: expected a service (get graphql_cost_decorations SERVICE) or one (SERVICE/ID)";
            return Err(misuse(why));
        }
        (kind @ Kind::CostDecoration, Some(id)) => {
            let word = kind.plural();
            match id.replace(&format!("/{word}/"), "/").split_once('/') {
                None => format!("/services/{}/{word}", encoded(id)),
                Some((service, id)) => format!("/services/{}/{word}/{}", encoded(service), encoded(id)),
            }
        }
        (kind, None) => format!("/{}", kind.plural()),
        (kind, Some(id)) => {
            // The parts of `vault/1` are parts of the path.
            let parts: Vec<String> = id.split('/').map(encoded).collect();
            format!("/{}/{}", kind.plural(), parts.join("/"))
        }
    };
    let path = format!("{path}?secrets={}", args.secrets);
    let said = Node::find(&args.node, around)?.ask(Method::GET, &path, &[], String::new());
    let said = said.map_err(|told| match &args.id {
        Some(id) if told.text.contains("Key not found") => {
            Told { code: FAILED, text: format!("{}: there is none\n", object_name(args.kind, id)) }
        }
        _ => told,
    })?;
    let said = said.json();
    let text = match (args.format, said["list"].as_array()) {
        (OutputFormat::Json, _) => format!("{said}\n"),
        (OutputFormat::Text, Some(list)) => list.iter().map(line).collect(),
        (OutputFormat::Text, None) => yaml(&said["value"])?,
    };
    Ok(Told { code: OK, text })
}

/// A part of a path.
fn encoded(part: &str) -> String {
    let mut out = Vec::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            push_percent(&mut out, byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn yaml(value: &Value) -> Result<String, Told> {
    serde_yaml_ng::to_string(value)
        .map_err(|error| Told { code: FAILED, text: format!("not to be told in YAML: {error}\n") })
}

/// An object of a list: its name, and what it is about.
fn line(item: &Value) -> String {
    let name = item["key"].as_str().unwrap_or_default().trim_start_matches("/apisix/");
    let mut line = format!("{name:<32} {}", summary(&item["value"]));
    line.truncate(line.trim_end().len());
    line + "\n"
}

/// What tells an object from others of its kind, on a line.
fn summary(value: &Value) -> String {
    let texts = |name: &str| -> Vec<String> {
        match &value[name] {
            Value::String(text) => vec![text.clone()],
            Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    };
    let several = |one: &str, many: &str| [texts(one), texts(many)].concat().join(",");
    let nodes = match &value["nodes"] {
        Value::Object(nodes) => nodes.keys().cloned().collect::<Vec<_>>().join(","),
        Value::Array(nodes) => {
            let node =
                |node: &Value| format!("{}:{}", node["host"].as_str().unwrap_or_default(), node["port"]);
            nodes.iter().map(node).collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    };
    let plugins = value["plugins"]
        .as_object()
        .map_or_else(String::new, |plugins| plugins.keys().cloned().collect::<Vec<_>>().join(","));
    let parts = [
        several("methods", "method"),
        several("host", "hosts"),
        several("uri", "uris"),
        several("sni", "snis"),
        nodes,
        plugins,
        value["name"].as_str().map_or_else(String::new, |name| format!("\"{name}\"")),
    ];
    let all = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if all.chars().count() <= SUMMARY_CHARS_MAX {
        return all;
    }
    all.chars().take(SUMMARY_CHARS_MAX - 1).collect::<String>() + "…"
}

/// `dump`.
pub(super) fn dump(args: &DumpArgs, around: &Surroundings) -> Result<Told, Told> {
    let node = Node::find(&args.node, around)?;
    let mut document = node.get(&format!("/configs?secrets={}", args.secrets))?.json();
    if let Value::Object(fields) = &mut document {
        // Of use to those who keep several gateways alike, and to no reader of a file.
        fields.retain(|name, _| !name.ends_with("_conf_version"));
    }
    let text = match args.format {
        OutputFormat::Json => format!("{document:#}\n"),
        OutputFormat::Text => format!("{}{}#END\n", remark(&document), yaml(&document)?),
    };
    let Some(path) = &args.output else { return Ok(Told { code: OK, text }) };
    let path = around.folder.join(path);
    write(&path, &text)
        .map_err(|error| Told { code: FAILED, text: format!("{}: {error}\n", path.display()) })?;
    let objects: usize =
        document.as_object().into_iter().flatten().map(|(_, list)| list.as_array().map_or(0, Vec::len)).sum();
    Ok(Told { code: OK, text: format!("{}: written; objects: {objects}\n", path.display()) })
}

/// What a reader of the file should know.
fn remark(document: &Value) -> &'static str {
    if has_mask(document) {
        "# *** stands for secrets. `ringway apply` takes those that are held; to run by this file, `dump --secrets`.\n"
    } else {
        ""
    }
}

fn has_mask(value: &Value) -> bool {
    match value {
        Value::String(text) => text == MASK,
        Value::Array(items) => items.iter().any(has_mask),
        Value::Object(fields) => fields.values().any(has_mask),
        _ => false,
    }
}

/// Whole or not at all, and for its owner only: a file that says how a gateway is reached tells much.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.tmp", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_tells_what_an_object_is_about() {
        let check = |value: Value, told: &str| {
            assert_eq!(line(&json!({"key": "/apisix/routes/1", "value": value})), format!("{told}\n"));
        };
        check(json!({}), "routes/1");
        check(
            json!({"uris": ["/a", "/b"], "methods": ["GET"], "host": "a.test", "plugins": {"cors": {}}, "name": "one"}),
            "routes/1                         GET a.test /a,/b cors \"one\"",
        );
        check(json!({"nodes": {"a:1": 1, "b:2": 1}}), "routes/1                         a:1,b:2");
        check(json!({"nodes": [{"host": "a", "port": 1}]}), "routes/1                         a:1");
        assert!(line(&json!({"key": "/apisix/routes/1", "value": {"uri": "x".repeat(500)}})).len() < 150);
    }

    #[test]
    fn parts_of_paths_are_encoded() {
        assert_eq!(encoded("a-b_c.d~1"), "a-b_c.d~1");
        assert_eq!(encoded("a b/?"), "a%20b%2F%3F");
    }
}

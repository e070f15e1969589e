//! The past of a running gateway's objects: `history` and `rollback`.

use hyper::Method;
use serde_json::{Value, json};

use super::args::{HistoryArgs, OutputFormat, RollbackArgs};
use super::load::Surroundings;
use super::node::{Node, warnings};
use super::{OK, Told};
use crate::base::clock::write_rfc3339;

/// `history`.
pub(super) fn history(args: &HistoryArgs, around: &Surroundings) -> Result<Told, Told> {
    let said = Node::find(&args.node, around)?.get(&format!("/history?limit={}", args.limit))?.json();
    let text = match args.format {
        OutputFormat::Json => format!("{said}\n"),
        OutputFormat::Text => {
            let head = format!("{:<10} {:<24} {:<16} CHANGES\n", "REVISION", "TIME", "WHO");
            head + &said["list"].as_array().into_iter().flatten().map(line).collect::<String>()
        }
    };
    Ok(Told { code: OK, text })
}

/// A revision: when, by whom, and each object with the sign of what became of it.
fn line(revision: &Value) -> String {
    let mut time = Vec::new();
    write_rfc3339(&mut time, revision["time"].as_u64().unwrap_or(0));
    let changes: Vec<String> = revision["changes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|change| {
            let sign = match (change["before"].is_null(), change["after"].is_null()) {
                (true, _) => '+',
                (_, true) => '-',
                (false, false) => '~',
            };
            format!("{sign} {}", name_of(&change["key"]))
        })
        .collect();
    format!(
        "{:<10} {:<24} {:<16} {}\n",
        revision["revision"].as_u64().unwrap_or(0),
        String::from_utf8_lossy(&time),
        revision["who"].as_str().unwrap_or_default(),
        changes.join(", ")
    )
}

fn name_of(key: &Value) -> &str {
    key.as_str().unwrap_or_default().trim_start_matches("/apisix/")
}

/// `rollback REVISION`.
pub(super) fn rollback(args: &RollbackArgs, around: &Surroundings) -> Result<Told, Told> {
    let query = if args.dry_run { "?dry_run=true" } else { "" };
    let path = format!("/rollback/{}{query}", args.revision);
    let heard = Node::find(&args.node, around)?.ask(Method::POST, &path, &[], String::new())?;
    let said = heard.json();
    let names: Vec<&str> = said["keys"].as_array().into_iter().flatten().map(name_of).collect();
    let warned = warnings(&heard);
    let text = match args.format {
        OutputFormat::Json => json!({
            "dry_run": args.dry_run,
            "objects": names,
            "revision": said["revision"],
            "warnings": warned,
        })
        .to_string(),
        OutputFormat::Text => {
            let mut lines: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            lines.extend(warned.iter().map(|warning| format!("warning: {warning}")));
            let (to, now) = (args.revision, said["revision"].as_u64().unwrap_or(0));
            lines.push(match (names.is_empty(), args.dry_run) {
                (true, _) => format!("nothing to do; all is as at revision {to}"),
                (false, true) => format!("would be as at revision {to}; objects: {}", names.len()),
                (false, false) => format!("as at revision {to}; objects: {}; revision: {now}", names.len()),
            });
            lines.join("\n")
        }
    };
    Ok(Told { code: OK, text: text + "\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_line() {
        let told = line(&json!({
            "revision": 7,
            "time": 1_700_000_000_000_u64,
            "who": "unix:uid=0",
            "changes": [
                {"key": "/apisix/routes/1", "before": null, "after": {}},
                {"key": "/apisix/routes/2", "before": {}, "after": {}},
                {"key": "/apisix/consumers/jack/credentials/c", "before": {}, "after": null},
            ],
        }));
        let expected = "7          2023-11-14T22:13:20.000Z unix:uid=0       \
                        + routes/1, ~ routes/2, - consumers/jack/credentials/c\n";
        assert_eq!(told, expected);
    }
}

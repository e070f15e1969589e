//! `explain`: what becomes of a request, and why. A running gateway is asked over its control socket; with
//! `--resources` the same code answers here, from files, and nobody need be running.

mod send;
mod text;

use std::fmt::Write as _;

use serde_json::Value;

use super::args::{ExplainArgs, OutputFormat};
use super::load::{self, FileArgs, Overrides, Surroundings};
use super::node::Node;
use super::{OK, Told, USAGE};
use crate::control::explain as question;
use crate::control::names::{self, Names};
use crate::control::roots_of_nodes;
use crate::control::secrets::{Files, environment};
use crate::snapshot::Compiler;

/// Asks, and tells the answer.
pub(super) fn explain(args: &ExplainArgs, around: &Surroundings) -> Result<Told, Told> {
    let query = query_of(args);
    let ask =
        question::ask_of(&query).map_err(|faults| Told { code: USAGE, text: faults.join("\n") + "\n" })?;
    let told = match &args.resources {
        Some(_) => offline(args, &ask, around)?,
        None => {
            let node = Node::find(&args.node, around)?;
            let mut told = node.look(&format!("/v1/explain?{query}"))?.json();
            if args.send {
                let process = node.look("/process")?.json();
                told["sent"] = send::send(&ask, &process["listeners"])?;
            }
            told
        }
    };
    let text =
        if args.json || args.format == OutputFormat::Json { format!("{told}\n") } else { text::text(&told) };
    Ok(Told { code: OK, text })
}

/// The question in the form that the gateway takes.
fn query_of(args: &ExplainArgs) -> String {
    let place = if args.url.starts_with('/') || args.url == "*" { "uri" } else { "url" };
    let mut query = String::new();
    let mut add = |name: &str, value: &str| {
        let joint = if query.is_empty() { "" } else { "&" };
        let _ = write!(query, "{joint}{name}={}", encode(value));
    };
    add("method", &args.method);
    add(place, &args.url);
    args.headers.iter().for_each(|line| add("header", line));
    if let Some(address) = &args.remote_addr {
        add("remote_addr", address);
    }
    if let Some(route) = &args.route {
        add("route", route);
    }
    query
}

/// A value as it stands in a query.
pub(super) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

/// Compiles the files as `run` would, and asks the outcome.
fn offline(
    args: &ExplainArgs,
    ask: &crate::snapshot::explain::Ask,
    around: &Surroundings,
) -> Result<Value, Told> {
    let files = FileArgs { config: args.node.config.clone(), resources: args.resources.clone() };
    let loaded = load::load(&files, &Overrides::default(), around)
        .map_err(|trouble| Told { code: trouble.code(), text: trouble.lines().join("\n") + "\n" })?;
    let compiler = Compiler::new(&loaded.settings, Names::new(&loaded.settings).resolve_within(names::START))
        .trusting(roots_of_nodes(&loaded.settings));
    let files = Files::new(&loaded.settings).reader();
    let mut compiler = compiler.reading_env(Box::new(environment)).reading_files(files);
    compiler.compile(&loaded.resources);
    Ok(compiler.explain(ask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_survives_the_way_through_a_query() {
        let args = ExplainArgs {
            method: "PUT".to_owned(),
            url: "/a%20b?c=d&e=f+g".to_owned(),
            headers: vec!["X-A: 1&2=3 %41".to_owned(), "Host: ä.test".to_owned()],
            remote_addr: Some("::1".to_owned()),
            route: Some("r-1".to_owned()),
            send: false,
            resources: None,
            json: false,
            format: OutputFormat::Text,
            node: Default::default(),
        };
        let ask = question::ask_of(&query_of(&args)).expect("valid");
        assert_eq!((&*ask.method, &*ask.target), ("PUT", "/a%20b?c=d&e=f+g"));
        assert_eq!(ask.headers[0], ("X-A".to_owned(), "1&2=3 %41".to_owned()));
        assert_eq!((ask.headers[1].1.as_str(), ask.host), ("ä.test", None));
        assert_eq!((ask.peer.to_string().as_str(), ask.route.as_deref()), ("::1", Some("r-1")));
    }
}

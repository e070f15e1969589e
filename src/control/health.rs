//! The health of nodes as the control API and the metrics show it.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::api::answer;
use super::board::Board;
use crate::base::clock;
use crate::model::Kind;
use crate::snapshot::{CheckScheme, Upstream};

/// Kinds that may have checks.
const CHECKED: [Kind; 4] = [Kind::Route, Kind::Service, Kind::Upstream, Kind::StreamRoute];

/// The object that `/v1/healthcheck/{kind}/{id}` asks for, or a status and why there is none.
pub(super) fn named<'p>(kind: &str, rest: &[&'p str]) -> Result<(Kind, &'p str), (u16, String)> {
    let Some(id) = rest.first() else {
        return Err((404, format!("missing src id for src type {kind}")));
    };
    match CHECKED.into_iter().find(|known| known.plural() == kind) {
        Some(kind) => Ok((kind, id)),
        None => Err((400, format!("invalid src type {kind}"))),
    }
}

/// All checkers.
pub(super) fn all(board: &Board, headers: &HeaderMap) -> Response {
    let checkers = board
        .watched()
        .iter()
        .filter(|upstream| upstream.judges_nodes())
        .map(|upstream| checker(upstream))
        .collect();
    shown(headers, Value::Array(checkers))
}

/// The checker of one object.
pub(super) fn one(board: &Board, headers: &HeaderMap, kind: Kind, id: &str, is_there: bool) -> Response {
    let kind = kind.plural();
    if !is_there {
        return answer(Err((404, format!("{kind}[{id}] not found"))));
    }
    let object = format!("{kind}/{id}");
    match board.watched().iter().find(|upstream| upstream.judges_nodes() && object_of(upstream) == object) {
        Some(upstream) => shown(headers, checker(upstream)),
        None => answer(Err((404, format!("no checker for {kind}[{id}]")))),
    }
}

/// The name of an upstream as APISIX shows it: that of its object, unless it belongs to a plugin.
pub(super) fn name_of(upstream: &Upstream) -> String {
    format!("/apisix/{}", object_of(upstream))
}

/// As `kind/id`; the upstream of a plugin has more behind it.
fn object_of(upstream: &Upstream) -> &str {
    upstream.name.strip_suffix("#upstream").unwrap_or(&upstream.name)
}

fn checker(upstream: &Upstream) -> Value {
    let now = clock::now();
    let ejects = upstream.additions.outliers.is_some();
    let scheme = upstream.checks.as_ref().map_or(CheckScheme::Http, |checks| checks.active.scheme);
    let kind = match scheme {
        CheckScheme::Http => "http",
        CheckScheme::Https => "https",
        CheckScheme::Tcp => "tcp",
        CheckScheme::Grpc => "grpc",
        CheckScheme::Grpcs => "grpcs",
    };
    let nodes: Vec<Value> = upstream
        .nodes
        .iter()
        .map(|node| {
            let record = node.cell.as_ref().map(|cell| cell.record()).unwrap_or_default();
            let port = upstream.checks.as_ref().and_then(|checks| checks.active.port);
            let mut told = json!({
                "ip": node.address.host().to_string(),
                "port": port.unwrap_or_else(|| node.address.port()),
                "hostname": node.name,
                "status": record.health.word(),
                "counter": {
                    "success": record.successes,
                    "http_failure": record.http_failures,
                    "tcp_failure": record.tcp_failures,
                    "timeout_failure": record.timeouts,
                },
            });
            if let Some(cell) = node.cell.as_ref().filter(|_| ejects) {
                told["ejected"] = cell.outlier.is_ejected(now).into();
                told["ejected_for"] = cell.outlier.left(now).as_secs_f64().into();
                told["ejections"] = cell.outlier.times().into();
            }
            told
        })
        .collect();
    json!({"name": name_of(upstream), "type": kind, "nodes": nodes})
}

/// As JSON, or as a page where a browser asks.
fn shown(headers: &HeaderMap, found: Value) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accept.contains("text/html") {
        return answer(Ok(found));
    }
    let checkers = match found {
        Value::Array(checkers) => checkers,
        one => vec![one],
    };
    let mut page = String::from(
        "<!doctype html>\n<title>Upstream health</title>\n<h1>Upstream health</h1>\n<table>\n\
         <tr><th>Upstream<th>Check<th>Node<th>Status<th>Successes<th>Bad statuses<th>Broken connections<th>Timeouts</tr>\n",
    );
    for checker in &checkers {
        for node in checker["nodes"].as_array().into_iter().flatten() {
            // Names, addresses and words of letters, digits, dots, colons and dashes; fields of plugins have brackets.
            let text = |value: &Value| value.as_str().unwrap_or_default().replace('<', "&lt;");
            page.push_str(&format!("<tr><td>{}<td>{}", text(&checker["name"]), text(&checker["type"])));
            let ejected = if node["ejected"] == true { ", ejected" } else { "" };
            page.push_str(&format!(
                "<td>{}:{}<td>{}{ejected}",
                text(&node["ip"]),
                node["port"],
                text(&node["status"])
            ));
            for count in ["success", "http_failure", "tcp_failure", "timeout_failure"] {
                page.push_str(&format!("<td>{}", node["counter"][count]));
            }
            page.push_str("</tr>\n");
        }
    }
    page.push_str("</table>\n");
    (StatusCode::OK, [(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

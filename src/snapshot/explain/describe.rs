//! Routes and what they ask for, in the words of their objects.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::Grounds;
use super::candidates::failed;
use crate::exchange::Exchange;
use crate::expr::{Rule, condition_at};
use crate::model;
use crate::proto::head::Method;
use crate::router::Mode;
use crate::snapshot::compile::Filed;

/// Values of a list that are shown.
const LISTED_MAX: usize = 20;

/// The name of a route's object.
pub(super) fn name_of(grounds: &Grounds<'_>, at: u32) -> String {
    format!("routes/{}", grounds.snapshot.routes[at].labels.route_id())
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}

/// What a route in force is called.
pub(super) fn candidate(grounds: &Grounds<'_>, at: u32) -> Map<String, Value> {
    let labels = &grounds.snapshot.routes[at].labels;
    let priority = field(grounds, at, "priority").unwrap_or_else(|| 0.into());
    let mut entry = Map::new();
    entry.insert("route".to_owned(), labels.route_id().into());
    entry.insert("name".to_owned(), text_or_null(labels.route_name()));
    entry.insert("priority".to_owned(), priority);
    entry
}

/// What a route is called, in force or not.
pub(super) fn filed(filed: &Filed<'_>, route: Option<&model::Route>) -> Map<String, Value> {
    let name = route.and_then(|route| route.name.as_ref()).map(|name| name.as_str());
    let mut entry = Map::new();
    entry.insert("route".to_owned(), filed.id.into());
    entry.insert("name".to_owned(), name.into());
    entry.insert("priority".to_owned(), route.map_or(0, |route| route.priority).into());
    entry
}

/// A field of a route's object.
fn field(grounds: &Grounds<'_>, at: u32, name: &str) -> Option<Value> {
    grounds.archive.object(&name_of(grounds, at))?.get(name).cloned()
}

/// The first of two fields that a route has: one value, or several.
fn either(grounds: &Grounds<'_>, at: u32, one: &'static str, several: &'static str) -> (&'static str, Value) {
    match field(grounds, at, one) {
        Some(value) => (one, value),
        None => (several, shortened(field(grounds, at, several).unwrap_or_default())),
    }
}

/// A list without what goes beyond what is shown.
pub(super) fn shortened(value: Value) -> Value {
    match value {
        Value::Array(mut items) if items.len() > LISTED_MAX => {
            let beyond = items.len() - LISTED_MAX;
            items.truncate(LISTED_MAX);
            items.push(format!("… and {beyond} more").into());
            Value::Array(items)
        }
        other => other,
    }
}

/// The methods of a set.
pub(super) fn methods(set: u32) -> Vec<&'static str> {
    Method::ALL.iter().filter(|method| method.bit() & set != 0).map(|method| method.text()).collect()
}

/// The client is none of those that a route is for.
pub(super) fn clients(grounds: &Grounds<'_>, at: u32, client: IpAddr) -> Value {
    let (name, expected) = either(grounds, at, "remote_addr", "remote_addrs");
    failed("remote_addrs", name, expected, client.to_string().into())
}

/// The host is none of a route in force.
pub(super) fn hosts(grounds: &Grounds<'_>, at: u32, host: &str) -> Value {
    let route =
        grounds.archive.route(grounds.snapshot.routes[at].labels.route_id()).and_then(|filed| filed.route());
    route.map_or_else(
        || failed("host", "hosts", Value::Null, host.into()),
        |route| hosts_of_route(grounds, &route, host),
    )
}

/// The host is none of a route's, which may be its service's.
pub(super) fn hosts_of_route(grounds: &Grounds<'_>, route: &model::Route, host: &str) -> Value {
    let mut expected: Vec<String> = Vec::new();
    // The hosts are the same for each of its paths.
    let _ = grounds.archive.patterns(route, |pattern| {
        expected = pattern.hosts.iter().map(|host| (*host).to_owned()).collect();
        Ok(())
    });
    let field = match (&route.host, &route.hosts, &route.service_id) {
        (Some(_), _, _) => "host".to_owned(),
        (None, None, Some(service)) => format!("services/{}: hosts", service.as_str()),
        _ => "hosts".to_owned(),
    };
    failed("host", &field, shortened(expected.into()), host.into())
}

/// The conditions because of which a rule does not hold; `written` is the rule as it stands at `field`.
pub(super) fn unmet(
    grounds: &Grounds<'_>,
    field: &str,
    rule: &Rule,
    written: Option<&Value>,
    ex: &Exchange,
) -> Value {
    let unmet = rule.unmet(ex).into_iter().map(|unmet| {
        let at = written.and_then(|written| condition_at(written, &unmet.place));
        let (way, condition) = at.map_or((String::new(), Value::Null), |(way, condition)| {
            let way = way.iter().map(|at| format!("[{at}]")).collect();
            let mut shown = grounds.veil.condition(unmet.var, condition);
            // What is compared with may be a list of thousands.
            for part in shown.as_array_mut().into_iter().flatten() {
                *part = shortened(part.take());
            }
            (way, shown)
        });
        json!({
            "field": format!("{field}{way}"),
            "variable": unmet.var.name(),
            "expected": condition,
            "found": grounds.veil.variable(unmet.var, unmet.found.as_deref()),
        })
    });
    unmet.collect()
}

/// How the router went about it: what decides first, and the hosts whose routes it went among.
pub(super) fn router(grounds: &Grounds<'_>, hosts: &[Option<&str>]) -> Value {
    let mode = match grounds.snapshot.router.mode() {
        Mode::HostUri => "radixtree_host_uri",
        Mode::Uri => "radixtree_uri",
        Mode::UriWithParameter => "radixtree_uri_with_parameter",
    };
    json!({"http": mode, "hosts": hosts})
}

/// The route that was found.
pub(super) fn route(grounds: &Grounds<'_>, ex: &Exchange, at: u32) -> Value {
    let found = &grounds.snapshot.routes[at];
    let labels = &ex.route;
    let params: Map<String, Value> = ex
        .request
        .params
        .iter()
        .map(|(name, range)| {
            let value = ex.request.path.get(range.start as usize..range.end as usize).unwrap_or_default();
            (name.clone(), grounds.veil.named(name, value).into())
        })
        .collect();
    json!({
        "id": labels.route_id(),
        "name": text_or_null(labels.route_name()),
        "service_id": text_or_null(labels.service_id()),
        "service_name": text_or_null(labels.service_name()),
        "matched_uri": labels.matched_uri(),
        "matched_host": text_or_null(labels.matched_host()),
        "params": params,
        "websocket": found.websocket,
    })
}

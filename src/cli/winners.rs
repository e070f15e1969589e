//! Which route wins: before and after, for requests that the routes themselves suggest.
//!
//! Each route of either side gives requests that it asks for: its hosts, paths and methods, a client of its addresses,
//! and what its plain conditions (`["arg_v", "==", "2"]`) want. Both sides are compiled and asked as a core does it.
//! What only other requests would show is not seen.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::control::roots_of_nodes;
use crate::expr::{Var, Vars};
use crate::model::resources::Resources;
use crate::model::settings::{RouterKind, Settings};
use crate::model::{ConfigError, Kind, Object, Route, typed};
use crate::proto::head::Method;
use crate::router::Query;
use crate::snapshot::{Compiler, Snapshot, at_once};

/// Requests of one route, at most; one with a hundred hosts and paths would give ten thousand.
const REQUESTS_OF_ROUTE_MAX: usize = 64;
/// A host that no route names: what is reserved for documents (RFC 6761).
const ANY_HOST: &str = "other.invalid";
/// A client of no address in particular (RFC 5737).
const ANY_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A request as a route would have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    pub(super) method: &'static str,
    pub(super) host: String,
    pub(super) path: String,
    client: IpAddr,
    /// Variables by name, such as `arg_v`, with their values.
    given: Vec<(String, String)>,
}

impl Request {
    /// As a person reads it.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{} {}{}", self.method, self.host, self.path);
        for (name, value) in &self.given {
            text.push_str(&format!(" {name}={value}"));
        }
        if self.client != ANY_CLIENT {
            text.push_str(&format!(" from {}", self.client));
        }
        text
    }
}

impl Vars for Request {
    fn var<'a>(&'a self, var: &Var) -> Option<Cow<'a, [u8]>> {
        let text = |text: &'a str| Some(Cow::Borrowed(text.as_bytes()));
        match var {
            Var::Uri | Var::RequestUri => text(&self.path),
            Var::RequestMethod => text(self.method),
            Var::Host => text(&self.host),
            Var::Scheme => text("http"),
            Var::RemoteAddr | Var::RealipRemoteAddr => Some(Cow::Owned(self.client.to_string().into_bytes())),
            other => {
                self.given.iter().find(|(name, _)| Var::parse(name) == *other).and_then(|(_, v)| text(v))
            }
        }
    }
}

/// A request that another route wins than before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Winner {
    pub(super) request: Request,
    /// As `routes/1`; `None`: no route takes it.
    pub(super) before: Option<String>,
    pub(super) after: Option<String>,
}

/// Requests whose winner differs, in order; or what is wrong with the objects that are wanted.
pub(super) fn differences(
    held: &Resources,
    wanted: &Resources,
    settings: &Settings,
) -> Result<Vec<Winner>, Vec<ConfigError>> {
    let (before, _) = compiled(held, settings);
    let (after, faults) = compiled(wanted, settings);
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut requests = BTreeSet::new();
    for side in [held, wanted] {
        suggest(side, settings.router.http, &mut requests);
    }
    let asked = requests.into_iter().map(|request| {
        let (before, after) = (winner(&before, &request), winner(&after, &request));
        Winner { request, before, after }
    });
    Ok(asked.filter(|winner| winner.before != winner.after).collect())
}

/// What cores would read, and the faults of objects that would be set aside.
fn compiled(resources: &Resources, settings: &Settings) -> (std::sync::Arc<Snapshot>, Vec<ConfigError>) {
    // Where a name leads is not what routes are found by.
    let resolve = |_: &str| Ok(vec![ANY_CLIENT]);
    let outcome =
        Compiler::new(settings, at_once(resolve)).trusting(roots_of_nodes(settings)).compile(resources);
    let faults = outcome.quarantined.into_iter().flat_map(|object| object.faults);
    // What references stand for is not known here, and not asked.
    (outcome.snapshot, faults.filter(|fault| !fault.may_pass).collect())
}

/// The route that a core would take.
fn winner(snapshot: &Snapshot, request: &Request) -> Option<String> {
    let query = Query {
        path: request.path.as_bytes(),
        host: request.host.as_bytes(),
        raw_host: request.host.as_bytes(),
        method_bit: Method::of(request.method.as_bytes())?.bit(),
    };
    let found = snapshot.router.find(&query, |at, _| snapshot.routes[*at].takes(request.client, request))?;
    Some(format!("routes/{}", snapshot.routes[*found.value].labels.route_id()))
}

/// Adds what the routes of one side ask for.
fn suggest(resources: &Resources, router: RouterKind, requests: &mut BTreeSet<Request>) {
    let hosts_of_service = |id: &str| -> Vec<String> {
        let service = resources.objects.iter().find(|raw| raw.kind == Kind::Service && raw.id.as_str() == id);
        match service.map(typed) {
            Some(Ok(Object::Service(service))) => {
                service.hosts.iter().flatten().map(|host| host.as_str().to_owned()).collect()
            }
            _ => Vec::new(),
        }
    };
    for raw in resources.objects.iter().filter(|raw| raw.kind == Kind::Route) {
        // One with faults takes no request.
        let Ok(Object::Route(route)) = typed(raw) else { continue };
        let mut hosts: Vec<String> = route.hosts().map(|host| host.as_str().to_owned()).collect();
        if let (true, Some(id)) = (hosts.is_empty(), &route.service_id) {
            hosts = hosts_of_service(id.as_str());
        }
        requests.extend(of_route(&route, hosts, router).into_iter().take(REQUESTS_OF_ROUTE_MAX));
    }
}

fn of_route(route: &Route, hosts: Vec<String>, router: RouterKind) -> Vec<Request> {
    let hosts: Vec<String> = if hosts.is_empty() {
        vec![ANY_HOST.to_owned()]
    } else {
        hosts.iter().map(|host| example_host(host)).collect()
    };
    let methods: Vec<&'static str> =
        route.methods.iter().flatten().map(|method| (*method).as_str()).collect();
    let methods = if methods.is_empty() { vec![Method::default().text()] } else { methods };
    let client = route.remote_addrs().next().map_or(ANY_CLIENT, |range| range.parts().0);
    let given: Vec<(String, String)> = route.vars.iter().flatten().filter_map(equality).collect();
    let mut requests = Vec::new();
    for uri in route.uris() {
        for host in &hosts {
            for method in &methods {
                requests.push(Request {
                    method,
                    host: host.clone(),
                    path: example_path(uri.as_str(), router),
                    client,
                    given: given.clone(),
                });
            }
        }
    }
    requests
}

/// `["arg_v", "==", "2"]`: a variable and the value it should have.
fn equality(condition: &Value) -> Option<(String, String)> {
    let [name, operator, value] = condition.as_array()?.as_slice() else { return None };
    let value = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (operator == "==").then_some((name.as_str()?.to_owned(), value))
}

/// A host that a pattern takes, without its port.
fn example_host(pattern: &str) -> String {
    let host = pattern.to_ascii_lowercase();
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host.to_owned(),
        _ => host,
    };
    match host.strip_prefix('*') {
        None => host,
        Some("") => ANY_HOST.to_owned(),
        Some(behind) => format!("x{behind}"),
    }
}

/// A path that a pattern takes.
fn example_path(pattern: &str, router: RouterKind) -> String {
    let path = match router {
        RouterKind::RadixtreeHostUri | RouterKind::RadixtreeUri => match pattern.strip_suffix('*') {
            Some(before) => format!("{before}x"),
            None => pattern.to_owned(),
        },
        RouterKind::RadixtreeUriWithParameter => {
            let (before, has_rest) =
                pattern.split_once('*').map_or((pattern, false), |(before, _)| (before, true));
            let parts = before.split('/').map(|part| if part.starts_with(':') { "x" } else { part });
            let path = parts.collect::<Vec<_>>().join("/");
            if has_rest { path + "x" } else { path }
        }
    };
    if path.starts_with('/') { path } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resources::{Format, parse};

    fn resources(text: &str) -> Resources {
        parse(text, Format::Yaml, &|_| None).expect("a file of objects")
    }

    /// Each difference as `REQUEST: BEFORE > AFTER`.
    fn differ(before: &str, after: &str) -> Vec<String> {
        let found = differences(&resources(before), &resources(after), &Settings::default());
        let name = |winner: &Option<String>| winner.clone().unwrap_or_else(|| "none".to_owned());
        let line = |w: &Winner| format!("{}: {} > {}", w.request.text(), name(&w.before), name(&w.after));
        found.expect("no faults").iter().map(line).collect()
    }

    fn route(id: &str, fields: &str) -> String {
        format!("{{id: {id}, {fields}, upstream: {{nodes: {{'127.0.0.1:1': 1}}}}}}")
    }

    #[test]
    fn a_route_that_comes_before_another_takes_its_requests() {
        let old = route("1", "uri: /a*");
        let before = format!("routes: [{old}]");
        let check = |fields: &str, told: &[&str]| {
            assert_eq!(
                differ(&before, &format!("routes: [{old}, {}]", route("2", fields))),
                told,
                "{fields}"
            );
        };
        check("uri: /a*, priority: 5", &["GET other.invalid/ax: routes/1 > routes/2"]);
        check("uri: /a*, priority: -5", &[]);
        check("uri: /abc", &["GET other.invalid/abc: routes/1 > routes/2"]);
        check("uri: /b, methods: [POST]", &["POST other.invalid/b: none > routes/2"]);
        check("uri: /a*, host: '*.a.test'", &["GET x.a.test/ax: routes/1 > routes/2"]);
        check(
            "uri: /a*, priority: 5, vars: [[arg_v, ==, '2']]",
            &["GET other.invalid/ax arg_v=2: routes/1 > routes/2"],
        );
        check(
            "uri: /a*, priority: 5, remote_addr: 10.1.0.0/16",
            &["GET other.invalid/ax from 10.1.0.0: routes/1 > routes/2"],
        );
    }

    #[test]
    fn a_route_that_goes_leaves_its_requests_to_others_or_nobody() {
        let both = format!("routes: [{}, {}]", route("1", "uri: /*"), route("2", "uris: [/a, /b]"));
        let one = format!("routes: [{}]", route("1", "uri: /*"));
        assert_eq!(
            differ(&both, &one),
            ["GET other.invalid/a: routes/2 > routes/1", "GET other.invalid/b: routes/2 > routes/1"]
        );
        assert_eq!(differ(&one, ""), ["GET other.invalid/x: routes/1 > none"]);
    }

    #[test]
    fn hosts_of_the_service_are_those_of_the_route() {
        let service = "services: [{id: s, hosts: [s.test], upstream: {nodes: {'127.0.0.1:1': 1}}}]";
        let after = format!("{{{service}, routes: [{{id: 1, uri: /a, service_id: s}}]}}");
        assert_eq!(differ("", &after), ["GET s.test/a: none > routes/1"]);
    }

    #[test]
    fn objects_with_faults_are_told_rather_than_compared() {
        let bad = format!("routes: [{}]", route("1", "uri: /a, priority: high"));
        let faults = differences(&Resources::default(), &resources(&bad), &Settings::default());
        assert_eq!(faults.expect_err("a fault")[0].object, "routes/1");
    }

    #[test]
    fn paths_with_parameters_are_filled() {
        let check = |pattern: &str, path: &str| {
            assert_eq!(example_path(pattern, RouterKind::RadixtreeUriWithParameter), path);
        };
        check("/user/:id", "/user/x");
        check("/user/:id/files/*path", "/user/x/files/x");
        check("/a*", "/ax");
        check("*", "/x");
        assert_eq!(example_path("/user/:id", RouterKind::RadixtreeUri), "/user/:id");
        assert_eq!(
            (example_host("*.a.test:80"), example_host("A.test")),
            ("x.a.test".into(), "a.test".into())
        );
    }
}

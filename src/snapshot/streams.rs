//! Stream routes, compiled, and which of them a connection takes.
//!
//! They are found by the router of requests: a server name stands for the host, the port a connection came in on for
//! the path. So what says more is tried first, whatever the order of the objects: an exact name, a longer wildcard, no
//! name; then a port, no port; then the longer prefix of `server_addr`, then of `remote_addr`; then the older.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{Chain, Target};
use crate::base::cidr::CidrSet;
use crate::base::slots::Slots;
use crate::exchange::RouteLabels;
use crate::model;
use crate::model::field::AddressRange;
use crate::router::{Mode, Pattern, Query, Router, RouterError};

/// The path of a route for any port, and what the path of each port is behind it.
const ANY_PORT: &str = "/*";
/// More than the bits of any address.
const BITS: i64 = 256;

/// A stream route.
#[derive(Debug)]
pub struct StreamRoute {
    pub labels: RouteLabels,
    /// Clients it is for; `None` is all.
    pub clients: Option<CidrSet>,
    /// Addresses of ours it is for; `None` is all.
    pub servers: Option<CidrSet>,
    pub chain: Chain,
    pub target: Target,
    /// It can not work because what it refers to is gone.
    pub is_broken: bool,
}

/// What is asked of a connection.
#[derive(Clone, Copy, Debug)]
pub struct StreamQuery<'a> {
    /// In lower case; empty where none was named.
    pub server_name: &'a str,
    pub port: u16,
    pub server: IpAddr,
    pub client: IpAddr,
}

/// All of them. A copy shares everything with its original.
#[derive(Clone, Debug)]
pub struct Streams {
    router: Router<u32>,
    /// Those that have a name, as if they had none.
    named: Router<u32>,
    routes: Slots<StreamRoute>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            router: Router::new(Mode::HostUri),
            named: Router::new(Mode::HostUri),
            routes: Slots::default(),
        }
    }
}

impl Streams {
    /// The route of a connection.
    pub fn find(&self, query: &StreamQuery<'_>) -> Option<&StreamRoute> {
        let place = self.place(&self.router, query)?;
        self.routes.get(place)
    }

    /// All routes, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = &StreamRoute> {
        self.routes.iter()
    }

    /// Whether the name that a client asks for, which nobody knows yet, may decide its route.
    pub fn asks_for_name(&self, query: &StreamQuery<'_>) -> bool {
        !self.named.is_empty() && self.place(&self.named, query).is_some()
    }

    fn place(&self, router: &Router<u32>, query: &StreamQuery<'_>) -> Option<u32> {
        if router.is_empty() {
            return None;
        }
        let mut path = PortPath::default();
        // It has room for any port.
        let _ = write!(path, "/{}", query.port);
        let name = query.server_name.as_bytes();
        let asked = Query { path: path.bytes(), host: name, raw_host: name, method_bit: 1 };
        let found = router.find(&asked, |place, _| self.routes[*place].takes(query))?;
        Some(*found.value)
    }

    /// Whether the name of a route means something.
    pub(super) fn check(&self, route: &model::StreamRoute) -> Result<(), RouterError> {
        let path = path_of(route);
        let name = route.sni.as_ref().map(|name| name.as_str());
        self.router.check(&pattern(route, &path, name.as_slice()))
    }

    /// Adds a route, whose name was checked; its place.
    pub(super) fn put(&mut self, age: u64, route: &model::StreamRoute, compiled: StreamRoute) -> u32 {
        let place = self.routes.add(compiled);
        let path = path_of(route);
        let name = route.sni.as_ref().map(|name| name.as_str());
        let _ = self.router.insert(&pattern(route, &path, name.as_slice()), age, place);
        if name.is_some() {
            let _ = self.named.insert(&pattern(route, &path, &[]), age, place);
        }
        place
    }

    pub(super) fn remove(&mut self, route: &model::StreamRoute, place: u32) {
        let path = path_of(route);
        let name = route.sni.as_ref().map(|name| name.as_str());
        self.router.remove(&pattern(route, &path, name.as_slice()), &place);
        if name.is_some() {
            self.named.remove(&pattern(route, &path, &[]), &place);
        }
        self.routes.remove(place);
    }

    /// After changes, before a snapshot.
    pub(super) fn settle(&mut self) {
        self.router.settle();
        self.named.settle();
    }
}

impl StreamRoute {
    fn takes(&self, query: &StreamQuery<'_>) -> bool {
        let is_for = |set: &Option<CidrSet>, ip| set.as_ref().is_none_or(|set| set.contains(ip));
        is_for(&self.clients, query.client) && is_for(&self.servers, query.server)
    }
}

fn path_of(route: &model::StreamRoute) -> String {
    route.server_port.map_or_else(|| ANY_PORT.to_owned(), |port| format!("/{}", port.get()))
}

fn pattern<'a>(route: &model::StreamRoute, path: &'a str, hosts: &'a [&'a str]) -> Pattern<'a> {
    let bits = |range: &Option<AddressRange>| range.as_ref().map_or(0, width_of);
    let priority = bits(&route.server_addr) * BITS + bits(&route.remote_addr);
    Pattern { path, hosts, methods: 0, priority }
}

/// How much a range says: bits of its prefix, as many for one address of either family, and one for being there.
fn width_of(range: &AddressRange) -> i64 {
    let (address, bits) = range.parts();
    1 + i64::from(bits) + if address.is_ipv4() { 96 } else { 0 }
}

/// The path that a port stands for, without the heap.
#[derive(Default)]
struct PortPath {
    bytes: [u8; 6],
    len: usize,
}

impl PortPath {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Write for PortPath {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Routes by these conditions, and for each its id.
    fn streams(routes: &[serde_json::Value]) -> Streams {
        let mut streams = Streams::default();
        for (at, route) in routes.iter().enumerate() {
            let route: model::StreamRoute = serde_json::from_value(route.clone()).expect("a stream route");
            streams.check(&route).expect("a name");
            let set = |range: &Option<AddressRange>| {
                range.as_ref().map(|range| [range.cidr()].into_iter().collect())
            };
            let compiled = StreamRoute {
                labels: RouteLabels::new(&at.to_string(), "", "", "", "", ""),
                clients: set(&route.remote_addr),
                servers: set(&route.server_addr),
                chain: Chain::default(),
                target: Target::Nothing,
                is_broken: false,
            };
            streams.put(at as u64, &route, compiled);
        }
        streams.settle();
        streams
    }

    fn ask(streams: &Streams, server_name: &str, port: u16, client: &str) -> Option<String> {
        let (server, client) = ("10.0.0.1".parse().expect("an address"), client.parse().expect("an address"));
        let query = StreamQuery { server_name, port, server, client };
        streams.find(&query).map(|route| route.labels.route_id().to_owned())
    }

    #[test]
    fn what_says_more_is_tried_first_whatever_the_order() {
        let streams = streams(&[
            json!({}),
            json!({"server_port": 9100}),
            json!({"sni": "*.b.test"}),
            json!({"sni": "a.b.test"}),
            json!({"sni": "a.b.test", "server_port": 9100}),
            json!({"remote_addr": "10.0.0.0/8", "server_port": 9100}),
            json!({"remote_addr": "10.1.0.0/16", "server_port": 9100}),
            json!({"server_addr": "10.0.0.1", "server_port": 9101}),
            json!({"remote_addr": "10.1.1.1", "server_port": 9101}),
            json!({"server_port": 9100}),
        ]);
        for (name, port, client, expected) in [
            ("", 1, "192.0.2.1", "0"),
            ("", 9100, "192.0.2.1", "1"),
            ("", 9100, "10.2.0.0", "5"),
            ("", 9100, "10.1.0.0", "6"),
            ("", 9101, "10.1.1.1", "7"),
            ("x.b.test", 9100, "192.0.2.1", "2"),
            ("x.y.b.test", 9100, "192.0.2.1", "2"),
            ("a.b.test", 9101, "192.0.2.1", "3"),
            ("a.b.test", 9100, "192.0.2.1", "4"),
            ("b.test", 9100, "192.0.2.1", "1"),
        ] {
            assert_eq!(
                ask(&streams, name, port, client).as_deref(),
                Some(expected),
                "{name} {port} {client}"
            );
        }
    }

    #[test]
    fn a_name_is_asked_for_only_where_one_may_decide() {
        let streams = streams(&[json!({"sni": "a.test", "server_port": 9100, "remote_addr": "10.0.0.0/8"})]);
        let asks = |port, client: &str| {
            let (server, client) =
                ("10.0.0.1".parse().expect("an address"), client.parse().expect("an address"));
            streams.asks_for_name(&StreamQuery { server_name: "", port, server, client })
        };
        assert!(asks(9100, "10.1.1.1"));
        assert!(!asks(9101, "10.1.1.1") && !asks(9100, "192.0.2.1"));
        assert_eq!(ask(&streams, "", 9100, "10.1.1.1"), None);
        assert_eq!(ask(&streams, "a.test", 9100, "10.1.1.1").as_deref(), Some("0"));
    }

    #[test]
    fn what_was_removed_is_not_found() {
        let route: model::StreamRoute =
            serde_json::from_value(json!({"sni": "a.test"})).expect("a stream route");
        let mut streams = streams(&[json!({"sni": "a.test"})]);
        streams.remove(&route, 0);
        assert_eq!(ask(&streams, "a.test", 1, "10.1.1.1"), None);
    }
}

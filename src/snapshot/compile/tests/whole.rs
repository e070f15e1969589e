//! Which route a request has, where it goes and which plugins run for whom, all at once: random configurations and random
//! requests against one model that looks at every route.

use std::borrow::Cow;
use std::cmp::Reverse;

use super::merging::{PLUGINS, Uses, uses, written};
use super::*;
use crate::expr::{Var, Vars};

/// Configurations, and requests to each.
const WORLDS: usize = 400;
const REQUESTS: usize = 250;

const PATHS: [&str; 9] = ["/", "/*", "/a", "/a*", "/a/*", "/a/b", "/a/b*", "/ab", "/b/a/*"];
const ASKED: [&str; 10] = ["/", "/a", "/a/", "/a/b", "/a/bb", "/ab", "/abc", "/b", "/b/a/c", "/c"];
const HOSTS: [&str; 6] = ["a.test", "b.a.test", "*.a.test", "*.test", "c.b.a.test", "other"];
const ASKED_HOSTS: [&str; 6] = ["a.test", "b.a.test", "c.b.a.test", "d.test", "other", "none"];
const METHODS: [Method; 2] = [Method::Get, Method::Post];

struct Service {
    uses: Uses,
    hosts: Vec<&'static str>,
    has_upstream: bool,
}

struct Routed {
    path: &'static str,
    hosts: Vec<&'static str>,
    methods: Vec<Method>,
    priority: i64,
    /// Only for clients of `10.0.N.0/24`.
    net: Option<u8>,
    /// Only with this as the argument `x`.
    argument: Option<u8>,
    uses: Uses,
    config: Option<usize>,
    service: Option<usize>,
    has_upstream: bool,
}

struct World {
    services: Vec<Service>,
    configs: Vec<Uses>,
    groups: Vec<Uses>,
    consumers: Vec<(Uses, Option<usize>)>,
    routes: Vec<Routed>,
}

/// A request: what a route may ask for.
struct Asked {
    path: &'static str,
    host: &'static str,
    method: Method,
    net: u8,
    argument: String,
    consumer: Option<usize>,
}

impl Vars for Asked {
    fn var<'a>(&'a self, var: &Var) -> Option<Cow<'a, [u8]>> {
        (*var == Var::parse("arg_x")).then_some(Cow::Borrowed(self.argument.as_bytes()))
    }
}

fn one<T: Copy>(rng: &mut Rng, list: &[T]) -> T {
    list[rng.below(list.len() as u64) as usize]
}

fn some<T: Copy + Ord>(rng: &mut Rng, list: &[T], most: u64) -> Vec<T> {
    let mut some: Vec<T> = (0..rng.below(most + 1)).map(|_| one(rng, list)).collect();
    some.sort_unstable();
    some.dedup();
    some
}

fn maybe(rng: &mut Rng, count: u64) -> Option<usize> {
    (rng.below(2) == 0).then(|| rng.below(count) as usize)
}

impl World {
    fn random(rng: &mut Rng) -> Self {
        let route = |rng: &mut Rng| Routed {
            path: one(rng, &PATHS),
            hosts: some(rng, &HOSTS, 2),
            methods: if rng.below(3) == 0 { vec![one(rng, &METHODS)] } else { vec![] },
            priority: rng.below(3) as i64,
            net: (rng.below(4) == 0).then(|| rng.below(3) as u8),
            argument: (rng.below(4) == 0).then(|| rng.below(3) as u8),
            uses: uses(rng),
            config: maybe(rng, 3),
            service: maybe(rng, 3),
            has_upstream: rng.below(2) == 0,
        };
        let service = |rng: &mut Rng| Service {
            uses: uses(rng),
            hosts: some(rng, &HOSTS, 2),
            has_upstream: rng.below(3) > 0,
        };
        Self {
            services: (0..3).map(|_| service(rng)).collect(),
            configs: (0..3).map(|_| uses(rng)).collect(),
            groups: (0..2).map(|_| uses(rng)).collect(),
            consumers: (0..3).map(|_| (uses(rng), maybe(rng, 2))).collect(),
            routes: (0..5 + rng.below(30)).map(|_| route(rng)).collect(),
        }
    }

    fn text(&self) -> String {
        let upstream = |is_there: bool, port: usize| {
            let upstream = format!(", upstream: {{nodes: {{\"127.0.0.1:{port}\": 1}}}}");
            if is_there { upstream } else { String::new() }
        };
        let hosts = |hosts: &[&str]| match hosts {
            [] => String::new(),
            hosts => format!(", hosts: ['{}']", hosts.join("', '")),
        };
        let mut text = "services:\n".to_owned();
        for (place, service) in self.services.iter().enumerate() {
            let Service { uses, hosts: own, has_upstream } = service;
            let (own, upstream) = (hosts(own), upstream(*has_upstream, 1 + place));
            text += &format!("  - {{id: {place}x, plugins: {}{own}{upstream}}}\n", written(uses));
        }
        for (kind, list) in [("plugin_configs", &self.configs), ("consumer_groups", &self.groups)] {
            text += &format!("{kind}:\n");
            for (place, uses) in list.iter().enumerate() {
                text += &format!("  - {{id: {place}x, plugins: {}}}\n", written(uses));
            }
        }
        text += "consumers:\n";
        for (place, (uses, group)) in self.consumers.iter().enumerate() {
            let group = group.map_or(String::new(), |group| format!(", group_id: {group}x"));
            text += &format!("  - {{username: c{place}{group}, plugins: {}}}\n", written(uses));
        }
        text += "routes:\n";
        for (place, route) in self.routes.iter().enumerate() {
            text += &format!("  - {{id: r{place}, uri: '{}', priority: {}", route.path, route.priority);
            text += &hosts(&route.hosts);
            text += &upstream(route.has_upstream, 101 + place);
            for method in &route.methods {
                text += &format!(", methods: [{}]", if *method == Method::Get { "GET" } else { "POST" });
            }
            for (field, value) in [
                ("remote_addr", route.net.map(|net| format!("10.0.{net}.0/24"))),
                ("vars", route.argument.map(|value| format!("[[arg_x, '==', '{value}']]"))),
                ("plugin_config_id", route.config.map(|config| format!("{config}x"))),
                ("service_id", route.service.map(|service| format!("{service}x"))),
            ] {
                text += &value.map_or(String::new(), |value| format!(", {field}: {value}"));
            }
            text += &format!(", plugins: {}}}\n", written(&route.uses));
        }
        text
    }

    /// The route of a request: of all that take it, the one that says most of it.
    fn route(&self, asked: &Asked) -> Option<usize> {
        let mut best = None;
        for (place, route) in self.routes.iter().enumerate() {
            let path_bytes = match route.path.strip_suffix('*') {
                Some(begins) => asked.path.starts_with(begins).then_some((false, begins.len())),
                None => (route.path == asked.path).then_some((true, 0)),
            };
            let (Some(path_bytes), true) = (path_bytes, route.admits(asked)) else { continue };
            let of_service = route.service.map(|service| &self.services[service].hosts);
            let hosts = if route.hosts.is_empty() { of_service } else { Some(&route.hosts) };
            let host = match hosts.map_or(&[][..], |hosts| hosts) {
                [] => None,
                hosts => match hosts.iter().filter_map(|host| host_bytes(host, asked.host)).max() {
                    None => continue,
                    most => most,
                },
            };
            let says = (host, path_bytes, route.priority, route.path.len(), Reverse(place));
            best = best.max(Some(says));
        }
        best.map(|(.., Reverse(place))| place)
    }

    /// What runs on a route for a consumer: name, priority and the object it is from, in the order of names.
    fn plugins(&self, route: usize, consumer: Option<usize>) -> Vec<(&'static str, i32, String)> {
        let Routed { uses, config, service, .. } = &self.routes[route];
        let own = consumer.map(|place| (&self.consumers[place].0, format!("consumers/c{place}")));
        let group = consumer.and_then(|place| self.consumers[place].1);
        let group = group.map(|group| (&self.groups[group], format!("consumer_groups/{group}x")));
        let config = config.map(|config| (&self.configs[config], format!("plugin_configs/{config}x")));
        let service = service.map(|place| (&self.services[place].uses, format!("services/{place}x")));
        let route = Some((uses, format!("routes/r{route}")));
        let layers: Vec<_> = [own, group, route, config, service].into_iter().flatten().collect();
        let running = PLUGINS.iter().filter_map(|(name, usual, _)| {
            let (uses, owner) = layers.iter().find(|(uses, _)| uses.contains_key(name))?;
            let (is_disabled, priority) = uses[name];
            (!is_disabled).then(|| (*name, priority.unwrap_or(*usual), owner.clone()))
        });
        let mut running: Vec<_> = running.collect();
        running.sort_unstable();
        running
    }

    /// The port that a route's requests go to.
    fn port(&self, route: usize) -> Option<u16> {
        let Routed { has_upstream, service, .. } = &self.routes[route];
        let of_service = service.filter(|service| self.services[*service].has_upstream);
        if *has_upstream { Some(101 + route as u16) } else { of_service.map(|service| 1 + service as u16) }
    }
}

impl Routed {
    /// Whether what is asked for beside path and host is there.
    fn admits(&self, asked: &Asked) -> bool {
        (self.methods.is_empty() || self.methods.contains(&asked.method))
            && self.net.is_none_or(|net| net == asked.net)
            && self.argument.is_none_or(|argument| argument.to_string() == asked.argument)
    }
}

/// How much a pattern says of a host: an exact one more than any ending, a longer ending more than a shorter.
fn host_bytes(pattern: &str, host: &str) -> Option<(bool, usize)> {
    match pattern.strip_prefix('*') {
        None => (pattern == host).then_some((true, 0)),
        Some(ending) => host.ends_with(ending).then_some((false, ending.len())),
    }
}

#[test]
fn whatever_is_asked_of_whatever_is_configured_goes_where_the_model_says() {
    let seed = 0x3a7c4;
    let mut rng = Rng::seeded(seed);
    let (mut compared, mut found_none) = (0, 0);
    for round in 0..WORLDS {
        let world = World::random(&mut rng);
        let desk = Desk::of(&world.text());
        assert_eq!(desk.faults(), Vec::<String>::new(), "seed {seed:#x} round {round}");
        let snapshot = desk.snapshot();
        for number in 0..REQUESTS {
            let asked = Asked {
                path: one(&mut rng, &ASKED),
                host: one(&mut rng, &ASKED_HOSTS),
                method: one(&mut rng, &METHODS),
                net: rng.below(4) as u8,
                argument: rng.below(4).to_string(),
                consumer: maybe(&mut rng, 3),
            };
            let told = format!("seed {seed:#x} round {round} request {number}");
            let (path, host) = (asked.path.as_bytes(), asked.host.as_bytes());
            let query = Query { path, host, raw_host: host, method_bit: asked.method.bit() };
            let client = IpAddr::from([10, 0, asked.net, 1]);
            let takes = |place: &u32| snapshot.routes[*place].takes(client, &asked);
            let found = snapshot.router.find(&query, |place, _| takes(place));
            let expected = world.route(&asked);
            let place = found.as_ref().map(|found| *found.value);
            let route = place.map(|place| &snapshot.routes[place]);
            let id = route.map(|route| route.labels.route_id().to_owned());
            assert_eq!(id, expected.map(|expected| format!("r{expected}")), "{told}");
            compared += 1;
            let (Some(route), Some(expected)) = (route, expected) else {
                found_none += 1;
                continue;
            };
            let port = match route.target {
                Target::Upstream(place) => Some(snapshot.upstreams[place].nodes[0].address.port()),
                Target::Nothing | Target::Vanished => None,
            };
            assert_eq!(port, world.port(expected), "{told}");
            let merged = asked.consumer.map(|place| {
                let name = format!("c{place}");
                let consumer = snapshot.consumers.iter().find(|consumer| consumer.labels.name() == name);
                consumer.expect("it is in force").over(&route.chain)
            });
            let mounts = merged.as_ref().unwrap_or(&route.chain).mounts();
            assert!(mounts.is_sorted_by(|a, b| a.priority >= b.priority), "{told}");
            let mut running: Vec<(&str, i32, String)> = mounts
                .iter()
                .map(|mount| (mount.plugin.name(), mount.priority, mount.owner.to_string()))
                .collect();
            running.sort_unstable();
            assert_eq!(running, world.plugins(expected, asked.consumer), "{told}");
        }
    }
    assert_eq!(compared, 100_000);
    assert!((5_000..60_000).contains(&found_none), "{found_none} without a route");
}

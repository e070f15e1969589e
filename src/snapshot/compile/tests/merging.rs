//! Which plugins run for whom, against a model that says it in one line: of a name, the one counts that the first of
//! consumer, group, route, plugin config and service has, and where that one is disabled, none runs.

use super::*;

/// Plugins that need nothing, with their priorities.
pub(super) const PLUGINS: [(&str, i32, &str); 7] = [
    ("cors", 4000, ""),
    ("request-id", 12015, ""),
    ("uri-blocker", 2900, "block_rules: [nothing]"),
    ("ip-restriction", 3000, "blacklist: [192.0.2.1]"),
    ("fault-injection", 11000, "abort: {http_status: 500, percentage: 0}"),
    ("response-rewrite", 899, "status_code: 200"),
    ("echo", 412, "body: x"),
];

/// A plugin of an object: whether it is disabled, and what priority it was given.
pub(super) type Uses = BTreeMap<&'static str, (bool, Option<i32>)>;

pub(super) fn uses(rng: &mut Rng) -> Uses {
    let mut uses = Uses::new();
    for (name, ..) in PLUGINS {
        if rng.below(3) == 0 {
            let priority = (rng.below(4) == 0).then(|| rng.below(20_000) as i32);
            uses.insert(name, (rng.below(5) == 0, priority));
        }
    }
    uses
}

pub(super) fn written(uses: &Uses) -> String {
    let each = uses.iter().map(|(name, (is_disabled, priority))| {
        let (_, _, config) = PLUGINS.iter().find(|(known, ..)| known == name).expect("it is one of them");
        let priority = priority.map_or(String::new(), |priority| format!(", priority: {priority}"));
        let comma = if config.is_empty() { "" } else { ", " };
        format!("{name}: {{_meta: {{disable: {is_disabled}{priority}}}{comma}{config}}}")
    });
    format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
}

/// A route: its own plugins, its plugin config and its service, by place in their lists.
struct Routed {
    uses: Uses,
    config: Option<usize>,
    service: Option<usize>,
}

struct World {
    services: Vec<Uses>,
    configs: Vec<Uses>,
    groups: Vec<Uses>,
    consumers: Vec<(Uses, Option<usize>)>,
    routes: Vec<Routed>,
}

fn maybe(rng: &mut Rng, count: usize) -> Option<usize> {
    (rng.below(3) > 0).then(|| rng.below(count as u64) as usize)
}

impl World {
    fn random(rng: &mut Rng) -> Self {
        let list = |rng: &mut Rng, count: usize| (0..count).map(|_| uses(rng)).collect::<Vec<_>>();
        Self {
            services: list(rng, 3),
            configs: list(rng, 3),
            groups: list(rng, 2),
            consumers: (0..4).map(|_| (uses(rng), maybe(rng, 2))).collect(),
            routes: (0..10)
                .map(|_| Routed { uses: uses(rng), config: maybe(rng, 3), service: maybe(rng, 3) })
                .collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (kind, list) in [
            ("services", &self.services),
            ("plugin_configs", &self.configs),
            ("consumer_groups", &self.groups),
        ] {
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
            let config =
                route.config.map_or(String::new(), |config| format!(", plugin_config_id: {config}x"));
            let service = route.service.map_or(String::new(), |service| format!(", service_id: {service}x"));
            let plugins = written(&route.uses);
            text += &format!(
                "  - {{id: r{place}, uri: /r{place}{config}{service}, upstream: {{nodes: {{\"127.0.0.1:1\": 1}}}}, plugins: {plugins}}}\n"
            );
        }
        text
    }

    /// What runs on a route for a consumer: name, priority and the object it is from, the first first.
    fn expected(&self, route: usize, consumer: Option<usize>) -> Vec<(&'static str, i32, String)> {
        let Routed { uses, config, service } = &self.routes[route];
        let mut layers: Vec<(&Uses, String)> = Vec::new();
        if let Some(place) = consumer {
            let (own, group) = &self.consumers[place];
            layers.push((own, format!("consumers/c{place}")));
            layers.extend(group.map(|group| (&self.groups[group], format!("consumer_groups/{group}x"))));
        }
        layers.push((uses, format!("routes/r{route}")));
        layers.extend(config.map(|config| (&self.configs[config], format!("plugin_configs/{config}x"))));
        layers.extend(service.map(|service| (&self.services[service], format!("services/{service}x"))));
        let mut running: Vec<_> = PLUGINS
            .iter()
            .filter_map(|(name, usual, _)| {
                let (uses, owner) = layers.iter().find(|(uses, _)| uses.contains_key(name))?;
                let (is_disabled, priority) = uses[name];
                (!is_disabled).then(|| (*name, priority.unwrap_or(*usual), owner.clone()))
            })
            .collect();
        running.sort_by_key(|(name, priority, _)| (std::cmp::Reverse(*priority), *name));
        running
    }
}

#[test]
fn plugins_are_merged_as_the_model_says() {
    let seed = 0x3e46;
    let mut rng = Rng::seeded(seed);
    let mut compared = 0;
    let long = std::env::var("RINGWAY_TEST_MERGES").ok().and_then(|rounds| rounds.parse().ok());
    let rounds = long.unwrap_or(400);
    for round in 0..rounds {
        let world = World::random(&mut rng);
        let desk = Desk::of(&world.text());
        assert_eq!(desk.faults(), Vec::<String>::new(), "seed {seed:#x} round {round}");
        for route in 0..world.routes.len() {
            let chain = &desk.route(&format!("r{route}")).expect("it is in force").chain;
            for consumer in std::iter::once(None).chain((0..world.consumers.len()).map(Some)) {
                let merged = consumer.map(|place| {
                    let name = format!("c{place}");
                    let mut all = desk.snapshot().consumers.iter();
                    all.find(|consumer| consumer.labels.name() == name).expect("it is in force").over(chain)
                });
                let mounts = merged.as_ref().unwrap_or(chain).mounts();
                let mut found: Vec<(&str, i32, String)> = mounts
                    .iter()
                    .map(|mount| (mount.plugin.name(), mount.priority, mount.owner.to_string()))
                    .collect();
                assert!(found.is_sorted_by(|a, b| a.1 >= b.1), "seed {seed:#x} round {round}: {found:?}");
                // Equal priorities run in any order.
                found.sort_by_key(|(name, priority, _)| (std::cmp::Reverse(*priority), *name));
                let expected = world.expected(route, consumer);
                assert_eq!(
                    found, expected,
                    "seed {seed:#x} round {round} route {route} consumer {consumer:?}"
                );
                compared += 1;
            }
        }
    }
    assert_eq!(compared, rounds * 50);
}

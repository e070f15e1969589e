//! Whatever the way to a set of objects, what is compiled of it is the same; and only what has changed is compiled.

use super::*;
use crate::model::resources::Resources;
use crate::plugin::Mount;
use crate::snapshot::{AnyPlugin, Upstream};

/// Objects by name, each as a file has it; references may lead nowhere, but nothing is wrong in itself.
#[derive(Clone)]
struct World {
    objects: BTreeMap<(&'static str, u64), String>,
}

const KINDS: [&str; 8] = [
    "upstreams",
    "services",
    "plugin_configs",
    "consumer_groups",
    "consumers",
    "global_rules",
    "routes",
    "routes",
];

impl World {
    fn new() -> Self {
        let group = "{id: 1, plugins: {cors: {}}}".to_owned();
        Self { objects: BTreeMap::from([(("consumer_groups", 1), group)]) }
    }

    fn edit(&mut self, rng: &mut Rng) {
        let kind = KINDS[rng.below(KINDS.len() as u64) as usize];
        let id = 1 + rng.below(6);
        // Without its group a consumer is set aside, and then its past would matter.
        if rng.below(4) == 0 && (kind, id) != ("consumer_groups", 1) {
            self.objects.remove(&(kind, id));
        } else {
            let object = object(rng, kind, id);
            self.objects.insert((kind, id), object);
        }
    }

    fn resources(&self) -> Resources {
        let mut text = String::new();
        for kind in KINDS.iter().take(7) {
            let of_kind = self.objects.iter().filter(|((held, _), _)| held == kind);
            let list: Vec<&str> = of_kind.map(|(_, object)| object.as_str()).collect();
            text += &format!("{kind}: [{}]\n", list.join(", "));
        }
        parse(&text, Format::Yaml, &|_| None).unwrap_or_else(|faults| panic!("{faults:?}\n{text}"))
    }
}

fn object(rng: &mut Rng, kind: &str, id: u64) -> String {
    let mut pick = |items: &[&'static str]| items[rng.below(items.len() as u64) as usize];
    let plugins = pick(&[
        "",
        ", plugins: {request-id: {}}",
        ", plugins: {request-id: {header_name: X-A}, cors: {}}",
        ", plugins: {limit-count: {count: 5, time_window: 60}}",
        ", plugins: {traffic-split: {rules: [{weighted_upstreams: [{upstream_id: 2}, {upstream_id: 3}, {}]}]}}",
        ", plugins: {traffic-split: {rules: [{weighted_upstreams: [{upstream_id: 1}, \
         {upstream: {nodes: {\"10.0.0.4:80\": 1}}}]}]}}",
    ]);
    let some_plugins = if plugins.is_empty() { ", plugins: {cors: {}}" } else { plugins };
    let node = format!("{{\"10.0.0.{}:80\": 1}}", pick(&["1", "2", "3"]));
    let target = pick(&["", ", upstream_id: 1", ", upstream_id: 2", ", upstream_id: 3", "inline"]);
    let target =
        if target == "inline" { format!(", upstream: {{nodes: {node}}}") } else { target.to_owned() };
    match kind {
        "upstreams" => format!("{{id: {id}, nodes: {node}}}"),
        "services" => {
            format!(
                "{{id: {id}{plugins}{target}{}}}",
                pick(&["", ", hosts: [a.test]", ", hosts: ['*.test']"])
            )
        }
        "plugin_configs" | "consumer_groups" => format!("{{id: {id}{some_plugins}}}"),
        // One plugin each, so that none stands in the way of another.
        "global_rules" => {
            let plugin = ["cors", "request-id", "ip-restriction", "redirect", "prometheus", "key-auth"]
                [id as usize - 1];
            let config = match plugin {
                "ip-restriction" => "{whitelist: [10.0.0.0/8]}",
                "redirect" => "{uri: /x}",
                _ => "{}",
            };
            format!("{{id: {id}, plugins: {{{plugin}: {config}}}}}")
        }
        "consumers" => {
            let group = pick(&["", ", group_id: 1"]);
            let key = pick(&["one", "two"]);
            format!("{{username: c{id}{group}, plugins: {{key-auth: {{key: {key}-{id}}}, cors: {{}}}}}}")
        }
        _ => {
            let uri = pick(&["/a", "/a/*", "/*", "/b/c", "/a/b*"]);
            let host = pick(&["", "", ", host: a.test", ", hosts: ['*.test', b.test]"]);
            let service = pick(&["", "", ", service_id: 1", ", service_id: 2"]);
            let config = pick(&["", "", ", plugin_config_id: 1", ", plugin_config_id: 2"]);
            let priority = pick(&["0", "0", "1"]);
            let target = if service.is_empty() && target.is_empty() { ", upstream_id: 1" } else { &target };
            format!(
                "{{id: {id}, uri: '{uri}', priority: {priority}{host}{service}{config}{plugins}{target}}}"
            )
        }
    }
}

/// All that a core could notice of a snapshot.
fn view(outcome: &Outcome) -> Vec<String> {
    let snapshot = &outcome.snapshot;
    let mut lines = Vec::new();
    let upstream = |up: &Upstream| format!("{} {:?}", up.name, up.nodes);
    let chosen = |mounts: &[Mount<AnyPlugin>]| -> Vec<String> {
        let splits = mounts.iter().filter_map(|mount| match &mount.plugin {
            AnyPlugin::TrafficSplit(split) => Some(split.places()),
            _ => None,
        });
        splits.flatten().map(|place| upstream(&snapshot.upstreams[place])).collect()
    };
    for (host, path) in [("", "/a"), ("a.test", "/a"), ("x.test", "/a/b/c"), ("b.test", "/b/c"), ("", "/a/b")]
    {
        let host = host.as_bytes();
        let query = Query { path: path.as_bytes(), host, raw_host: host, method_bit: Method::Get.bit() };
        snapshot.router.find(&query, |place, found| {
            let Route { labels, chain, target, websocket, broken, .. } = &snapshot.routes[*place];
            let mounts: Vec<_> =
                chain.mounts().iter().map(|mount| (mount.plugin.name(), mount.priority)).collect();
            let target = match target {
                Target::Upstream(at) => upstream(&snapshot.upstreams[*at]),
                other => format!("{other:?}"),
            };
            let (host, pattern) = (found.host, found.pattern);
            let (route, service) = (labels.route_id(), labels.service_id());
            lines.push(format!(
                "{path} {host:?} {pattern} {route} {service} {mounts:?} {target} {websocket} {broken:?} {:?}",
                chosen(chain.mounts())
            ));
            false
        });
    }
    for id in 1..=6 {
        for key in ["one", "two"] {
            let shown = format!("{key}-{id}");
            if let Some(known) = snapshot.index.find("key-auth", shown.as_bytes()) {
                let consumer = &snapshot.consumers[known.consumer];
                let mounts: Vec<_> = consumer.mounts.iter().map(|mount| mount.plugin.name()).collect();
                lines.push(format!("{shown} {} {} {mounts:?}", known.labels.name(), known.labels.group_id()));
            }
        }
        let name = format!("c{id}");
        lines.push(format!("{name} {:?}", snapshot.index.named(&name).map(|known| known.labels.name())));
    }
    lines.push(format!(
        "{:?}",
        snapshot.global.mounts().iter().map(|mount| mount.plugin.name()).collect::<Vec<_>>()
    ));
    let sizes =
        [snapshot.routes.len(), snapshot.upstreams.len(), snapshot.consumers.len(), snapshot.router.len()];
    lines.push(format!("{sizes:?} {}", snapshot.live.size()));
    lines.extend(outcome.faults.iter().map(ToString::to_string));
    lines
}

fn changes(from: &World, to: &World) -> Vec<Change> {
    let (old, new) = (from.resources(), to.resources());
    let gone = old
        .objects
        .iter()
        .filter(|raw| !new.objects.iter().any(|other| (other.kind, &other.id) == (raw.kind, &raw.id)));
    let gone = gone.map(|raw| Change::Delete(raw.kind, raw.id.clone()));
    gone.chain(new.objects.iter().filter(|raw| !old.objects.contains(raw)).cloned().map(Change::Put))
        .collect()
}

#[test]
fn changes_one_after_the_other_come_to_the_same_as_all_at_once() {
    let seed = 0x1c2e;
    let mut rng = Rng::seeded(seed);
    for round in 0..40 {
        let (mut by_file, mut by_change) = (Desk::new(), Desk::new());
        let mut world = World::new();
        by_change.outcome = Some(by_change.compiler.compile(&world.resources()));
        for step in 0..60 {
            let before = world.clone();
            for _ in 0..=rng.below(3) {
                world.edit(&mut rng);
            }
            let told = format!("seed {seed:#x}, round {round}, step {step}: {:#?}", world.objects);
            let from_file = view(&by_file.compiler.compile(&world.resources()));
            let at_once = view(&Desk::new().compiler.compile(&world.resources()));
            assert_eq!(from_file, at_once, "{told}");
            // References to nothing refuse a change, so the changes go around the door.
            let edits = changes(&before, &world).iter().map(edit_of).collect();
            let attempt = by_change.compiler.applied(edits);
            let outcome = by_change.compiler.adopt(attempt);
            let (mut one_by_one, mut at_once) = (view(&outcome), at_once);
            // By age, not by id: routes on one path may come in another order.
            one_by_one.sort_unstable();
            at_once.sort_unstable();
            assert_eq!(one_by_one, at_once, "{told}");
        }
    }
}

#[test]
fn upstreams_of_plugins_come_and_go_with_what_brings_them() {
    let split =
        "plugins: {traffic-split: {rules: [{weighted_upstreams: [{upstream: NODE}, {upstream: NODE}]}]}}";
    let split = split.replace("NODE", NODE);
    let mut desk = Desk::new();
    let mut upstreams = |text: &str| desk.read(text).snapshot.upstreams.len();
    assert_eq!(upstreams(&route(&split)), 3);
    assert_eq!(upstreams(&route(&format!("{split}, status: 0"))), 0, "nobody is sent to them");
    assert_eq!(
        upstreams(&format!("plugin_configs: [{{id: 1, {split}}}]\nconsumers: [{{username: a, {split}}}]")),
        4
    );
    assert_eq!(upstreams(&route("plugins: {}")), 1);
    let broken = split.replace("10.0.0.9:80\": 1}}}]", "10.0.0.9:0\": 1}}}]");
    assert_eq!(upstreams(&route(&broken)), 1, "what came before the fault is taken back: {broken}");
}

#[test]
fn of_many_routes_only_the_changed_one_is_made_anew() {
    let route = |id: u64, uri: &str| format!("{{id: {id}, uri: '{uri}', upstream: {NODE}}}");
    let list = |changed: &str| {
        let routes: Vec<String> =
            (1..=500).map(|id| route(id, if id == 77 { changed } else { "/same" })).collect();
        format!("routes: [{}]", routes.join(", "))
    };
    let mut desk = Desk::of(&list("/old"));
    let place = |desk: &Desk| -> BTreeMap<String, usize> {
        let routes = desk.snapshot().routes.iter();
        routes.map(|route| (route.labels.route_id().to_owned(), std::ptr::from_ref(route).addr())).collect()
    };
    let before = place(&desk);
    // Held on to, so that no address is used twice.
    let earlier = Arc::clone(&desk.outcome().snapshot);
    desk.read(&list("/new"));
    let after = place(&desk);
    let moved: Vec<&str> = after.iter().filter(|(id, at)| before[*id] != **at).map(|(id, _)| &**id).collect();
    assert_eq!(moved, ["77"]);
    assert_eq!((desk.takes("", "/new"), desk.takes("", "/old")), ("77", ""));
    assert_eq!(earlier.routes.len(), 500);
}

#[test]
fn who_waits_for_something_gets_it_when_it_comes_or_is_given_up() {
    let mut desk = Desk::new();
    let mut put = |kind, id: &str, text: &str| {
        let resources = parse(text, Format::Yaml, &|_| None).expect("readable");
        let raw = resources.objects.into_iter().next().expect("one object");
        assert_eq!((raw.kind, raw.id.as_str()), (kind, id));
        let attempt = desk.compiler.applied(vec![edit_of(&Change::Put(raw))]);
        let outcome = desk.compiler.adopt(attempt);
        outcome.faults.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let key = |name: &str, key: &str| {
        format!("consumers: [{{username: {name}, plugins: {{key-auth: {{key: {key}}}}}}}]")
    };
    assert_eq!(put(Kind::Consumer, "jack", &key("jack", "one")), [""; 0]);
    let refused =
        "consumers/jill: plugins.key-auth: duplicate key of plugin key-auth found with consumer: jack";
    assert_eq!(put(Kind::Consumer, "jill", &key("jill", "one")), [refused]);
    assert_eq!(put(Kind::Consumer, "jack", &key("jack", "two")), [""; 0]);
    let route = "routes: [{id: 1, uri: /a, upstream_id: 7}]";
    let lacks = "routes/1: upstream_id: expected the id of an upstream in force, found none of id 7";
    assert_eq!(put(Kind::Route, "1", route), [lacks]);
    assert_eq!(put(Kind::Upstream, "7", "upstreams: [{id: 7, nodes: {\"10.0.0.1:80\": 1}}]"), [""; 0]);
    let limit = |id: u64, count: u64| {
        format!(
            "routes: [{{id: {id}, uri: /{id}, plugins: {{limit-count: {{count: {count}, time_window: 60, group: g}}}}}}]"
        )
    };
    assert_eq!(put(Kind::Route, "2", &limit(2, 5)), [""; 0]);
    assert_eq!(put(Kind::Route, "3", &limit(3, 6)).len(), 1);
    assert_eq!(put(Kind::Route, "2", &limit(2, 6)), [""; 0]);
}

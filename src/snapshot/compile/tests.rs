//! What becomes of objects, good and bad.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::*;
use crate::base::rng::Rng;
use crate::model;
use crate::model::resources::{Format, parse};
use crate::plugin::Hooks as _;
use crate::proto::head::Method;
use crate::router::Query;
use crate::snapshot::{Route, Target, Upstream, at_once};

mod incremental;
mod merging;
mod references;
mod whole;

/// A compiler and what was last compiled with it.
struct Desk {
    compiler: Compiler,
    outcome: Option<Outcome>,
}

impl Desk {
    fn new() -> Self {
        let resolve = |name: &str| match name {
            "two.test" => Ok(vec![address("10.0.0.2"), address("10.0.0.1"), address("10.0.0.2")]),
            "empty.test" => Ok(vec![]),
            _ => Err("no such name".to_owned()),
        };
        Self { compiler: Compiler::new(&Settings::default(), at_once(resolve)), outcome: None }
    }

    /// Compiles a file.
    fn read(&mut self, text: &str) -> &Outcome {
        let resources = parse(text, Format::Yaml, &|_| None).unwrap_or_else(|faults| panic!("{faults:?}"));
        self.outcome.insert(self.compiler.compile(&resources))
    }

    fn of(text: &str) -> Self {
        let mut desk = Self::new();
        desk.read(text);
        desk
    }

    fn outcome(&self) -> &Outcome {
        self.outcome.as_ref().expect("something was compiled")
    }

    fn snapshot(&self) -> &Snapshot {
        &self.outcome().snapshot
    }

    /// All faults as an operator reads them.
    fn faults(&self) -> Vec<String> {
        self.outcome().faults.iter().map(ToString::to_string).collect()
    }

    /// What was set aside: its name, and whether an earlier version is in force.
    fn set_aside(&self) -> Vec<(String, bool)> {
        let name = |bad: &Quarantined| model::object_name(bad.kind, &bad.id);
        self.outcome().quarantined.iter().map(|bad| (name(bad), bad.last_good)).collect()
    }

    fn route(&self, id: &str) -> Option<&Route> {
        self.snapshot().routes.iter().find(|route| route.labels.route_id() == id)
    }

    /// The plugins of a route, in order, each with its priority.
    fn mounts(&self, id: &str) -> Vec<(&'static str, i32)> {
        let route = self.route(id).unwrap_or_else(|| panic!("no route {id}: {:?}", self.faults()));
        route.chain.mounts().iter().map(|mount| (mount.plugin.name(), mount.priority)).collect()
    }

    fn consumer_mounts(&self, name: &str) -> Vec<(&'static str, i32)> {
        let found = self.snapshot().consumers.iter().find(|consumer| consumer.labels.name() == name);
        let found = found.unwrap_or_else(|| panic!("no consumer {name}: {:?}", self.faults()));
        found.mounts.iter().map(|mount| (mount.plugin.name(), mount.priority)).collect()
    }

    /// The id of the route that takes a GET.
    fn takes(&self, host: &str, path: &str) -> &str {
        let (host, path) = (host.as_bytes(), path.as_bytes());
        let query = Query { path, host, raw_host: host, method_bit: Method::Get.bit() };
        let snapshot = self.snapshot();
        let found = snapshot.router.find(&query, |_, _| true);
        found.map_or("", |found| snapshot.routes[*found.value].labels.route_id())
    }

    fn owner(&self, plugin: &str, shown: &str) -> Option<(&str, &str)> {
        let known = self.snapshot().index.find(plugin, shown.as_bytes())?;
        Some((known.labels.name(), known.labels.credential_id()))
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Asserts that the file yields these faults, as told to an operator.
#[track_caller]
fn check_faults(text: &str, expect: &[&str]) {
    assert_eq!(Desk::of(text).faults(), expect, "{text}");
}

const NODE: &str = r#"{nodes: {"10.0.0.9:80": 1}}"#;

/// A route `1` at `/` with these further fields.
fn route(fields: &str) -> String {
    format!("routes: [{{id: 1, uri: /, upstream: {NODE}, {fields}}}]")
}

// ---- merging ------------------------------------------------------------------------------------------------

#[test]
fn a_plugin_of_the_route_wins_over_the_plugin_config_and_that_over_the_service() {
    let desk = Desk::of(
        r#"
services:
  - {id: s, plugins: {cors: {_meta: {priority: 1}}, request-id: {_meta: {priority: 1}}, prometheus: {_meta: {priority: 1}}}}
plugin_configs:
  - {id: c, plugins: {cors: {_meta: {priority: 2}}, request-id: {_meta: {priority: 2}}}}
routes:
  - {id: 1, uri: /, service_id: s, plugin_config_id: c, plugins: {cors: {_meta: {priority: 3}}}}
  - {id: 2, uri: /2, service_id: s}
"#,
    );
    assert_eq!(desk.faults(), [""; 0]);
    assert_eq!(desk.mounts("1"), [("cors", 3), ("request-id", 2), ("prometheus", 1)]);
    assert_eq!(desk.mounts("2"), [("cors", 1), ("prometheus", 1), ("request-id", 1)]);
}

#[test]
fn a_plugin_of_the_consumer_wins_over_its_groups_and_credentials_are_not_mounted() {
    let desk = Desk::of(
        r#"
consumer_groups:
  - {id: gold, plugins: {cors: {_meta: {priority: 1}}, request-id: {_meta: {priority: 1}}}}
consumers:
  - {username: jack, group_id: gold, plugins: {key-auth: {key: one}, cors: {_meta: {priority: 2}}}}
  - {username: jill, plugins: {key-auth: {key: two}}}
"#,
    );
    assert_eq!(desk.consumer_mounts("jack"), [("request-id", 1), ("cors", 2)]);
    assert_eq!(desk.consumer_mounts("jill"), []);
    let labels = &desk.snapshot().consumers[0].labels;
    assert_eq!((labels.name(), labels.group_id()), ("jack", "gold"));
}

#[test]
fn the_upstream_and_websocket_of_a_service_are_taken_where_the_route_has_none_of_its_own() {
    let desk = Desk::of(
        r#"
upstreams: [{id: far, nodes: {"10.0.0.1:80": 1}}, {id: near, nodes: {"10.0.0.2:80": 1}}]
services: [{id: s, upstream_id: far, enable_websocket: true}]
routes:
  - {id: own, uri: /own, service_id: s, upstream_id: near, enable_websocket: false}
  - {id: none, uri: /none, service_id: s}
  - {id: inline, uri: /inline, service_id: s, upstream: {nodes: {"10.0.0.3:80": 1}}}
"#,
    );
    let sends_to = |id: &str| {
        let route = desk.route(id).expect("in force");
        let Target::Upstream(at) = route.target else { panic!("{id} goes {:?}", route.target) };
        (desk.snapshot().upstreams[at].nodes[0].address.ip().expect("an address").ip(), route.websocket)
    };
    assert_eq!(sends_to("own"), (address("10.0.0.2"), false));
    assert_eq!(sends_to("none"), (address("10.0.0.1"), true));
    assert_eq!(sends_to("inline"), (address("10.0.0.3"), true));
}

#[test]
fn meta_moves_and_disables_plugins() {
    let desk = Desk::of(&route(
        "plugins: {cors: {_meta: {disable: true}}, request-id: {_meta: {priority: -5}}, prometheus: {}}",
    ));
    let mounts = desk.mounts("1");
    assert_eq!((mounts[0].0, mounts[1]), ("prometheus", ("request-id", -5)));
    assert_eq!(mounts.len(), 2);
}

#[test]
fn a_disabled_copy_hides_what_lies_under_it_until_something_lies_over_it() {
    let desk = Desk::of(
        r#"
services: [{id: s, plugins: {cors: {_meta: {priority: 1}}, prometheus: {}}}]
plugin_configs: [{id: c, plugins: {cors: {_meta: {disable: true}}}}]
routes:
  - {id: 1, uri: /1, service_id: s, plugin_config_id: c}
  - {id: 2, uri: /2, service_id: s, plugin_config_id: c, plugins: {cors: {_meta: {priority: 9}}}}
consumer_groups: [{id: g, plugins: {request-id: {}, cors: {}}}]
consumers: [{username: jack, group_id: g, plugins: {request-id: {_meta: {disable: true}}}}]
"#,
    );
    assert_eq!(desk.mounts("1"), [("prometheus", 500)]);
    assert_eq!(desk.mounts("2"), [("prometheus", 500), ("cors", 9)]);
    assert_eq!(desk.consumer_mounts("jack"), [("cors", 4000)]);
    assert_eq!(desk.snapshot().consumers[0].disabled, ["request-id"]);
}

// ---- faults -------------------------------------------------------------------------------------------------

#[test]
fn a_fault_tells_object_field_expected_and_found() {
    check_faults(
        &route("priority: high"),
        &["routes/1: priority: expected a whole number from -2147483648 to 2147483647, got \"high\""],
    );
    check_faults(
        &route("plugins: {limit-count: {count: 0, time_window: 60}}"),
        &["routes/1: plugins.limit-count.count: expected a whole number above 0 or a template, got 0"],
    );
}

#[test]
fn all_faults_of_an_object_are_told_not_only_the_first() {
    let text =
        "vars: [[a, is, b]], plugins: {cros: {}, cors: {max_age: old}, key-auth: {_meta: {disabled: true}}}";
    let upstream = "upstream: {nodes: {\"10.0.0.9:80\": 1}}";
    let desk = Desk::of(&format!("routes: [{{id: 1, uri: /, {text}, {upstream}}}]"));
    let told = desk.faults().join("\n");
    for part in ["vars: ", "[cros]; did you mean \"cors\"?", "plugins.cors.max_age: ", "key-auth._meta"] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert!(desk.faults().iter().all(|fault| fault.starts_with("routes/1: ")), "{told}");
    assert_eq!(desk.set_aside(), [("routes/1".to_owned(), false)]);
    assert!(desk.snapshot().routes.is_empty());
    assert!(desk.snapshot().upstreams.is_empty());
}

#[test]
fn a_plugin_that_is_not_enabled_is_as_unknown_as_one_that_does_not_exist() {
    let desk = Desk::of(&format!("plugins: [cors]\n{}", route("plugins: {cors: {}, request-id: {}}")));
    assert_eq!(desk.faults(), ["routes/1: plugins.request-id: unknown plugin [request-id]"]);
    let desk = Desk::of(&format!("plugins: [cors]\n{}", route("plugins: {cors: {}}")));
    assert_eq!(desk.faults(), [""; 0]);
}

#[test]
fn metadata_is_checked_like_any_object() {
    let desk = Desk::of("plugin_metadata: [{a: 1}]\nupstreams: [{id: u, nodes: {'127.0.0.1:1': 1}}]");
    assert_eq!(desk.faults(), ["plugin_metadata/arr_1: id is required"]);
    assert_eq!(desk.set_aside(), [("plugin_metadata/arr_1".to_owned(), false)]);
    assert_eq!(desk.snapshot().upstreams.len(), 1, "what is beside it is in force");
    check_faults(
        "plugin_metadata: [{id: nosuch, a: 1}]",
        &["plugin_metadata/nosuch: unknown plugin [nosuch]"],
    );
    let desk = Desk::of("plugin_metadata: [{id: limit-count, limit_header: 7}]");
    assert_eq!(desk.set_aside(), [("plugin_metadata/limit-count".to_owned(), false)]);
    assert!(
        desk.faults()[0].starts_with("plugin_metadata/limit-count: limit_header: "),
        "{:?}",
        desk.faults()
    );
}

#[test]
fn a_filter_function_is_refused_with_what_to_write_instead() {
    check_faults(
        &route("filter_func: 'function(vars) return ngx.now() > 1 end'"),
        &[
            "routes/1: filter_func: expected a predicate such as `function(vars) return vars.arg_name == 'json' end`; ngx is not understood; `vars` can say more",
        ],
    );
}

// ---- set aside, in force, recovered -------------------------------------------------------------------------

/// Route `1` with a priority of its `cors`, and route `2`.
fn two_routes(priority: &str) -> String {
    format!(
        "routes:\n  - {{id: 1, uri: /1, upstream: {NODE}, plugins: {{cors: {{_meta: {{priority: {priority}}}}}}}}}\n  \
         - {{id: 2, uri: /2, upstream: {NODE}, name: after-{priority}}}\n"
    )
}

#[test]
fn the_last_good_version_stays_in_force_while_others_apply_until_the_object_is_good_again() {
    let mut desk = Desk::new();
    desk.read(&two_routes("1"));
    assert_eq!(desk.set_aside(), []);
    // Twice, because what is last good must outlive a second bad version.
    for bad in ["high", "higher"] {
        desk.read(&two_routes(bad));
        assert_eq!(desk.set_aside(), [("routes/1".to_owned(), true)]);
        assert_eq!(desk.outcome().faults, desk.outcome().quarantined[0].faults);
        assert_eq!(desk.mounts("1"), [("cors", 1)]);
        let other = desk.route("2").expect("in force");
        assert_eq!(other.labels.route_name(), format!("after-{bad}"));
    }
    desk.read(&two_routes("7"));
    assert_eq!((desk.set_aside(), desk.mounts("1")), (vec![], vec![("cors", 7)]));
}

#[test]
fn a_deleted_object_is_gone_though_its_last_version_was_bad() {
    let mut desk = Desk::new();
    desk.read(&two_routes("1"));
    desk.read(&two_routes("bad"));
    desk.read(&format!("routes: [{{id: 2, uri: /2, upstream: {NODE}}}]"));
    assert_eq!((desk.takes("", "/1"), desk.takes("", "/2")), ("", "2"));
    // It left nothing behind that a later bad version could fall back to.
    desk.read(&two_routes("bad"));
    assert_eq!(desk.set_aside(), [("routes/1".to_owned(), false)]);
}

#[test]
fn an_object_that_was_never_good_is_set_aside_alone() {
    let desk = Desk::of(&two_routes("bad"));
    assert_eq!(desk.set_aside(), [("routes/1".to_owned(), false)]);
    assert_eq!((desk.takes("", "/1"), desk.takes("", "/2")), ("1", "2"));
    // What another route would take with less asked for is refused.
    assert_eq!(desk.route("1").and_then(|route| route.broken), Some(404));
    let open = Desk::of(&format!("routes: [{{id: 1, uri: /1, upstream: {NODE}, retries: 1}}]"));
    assert_eq!((open.takes("", "/1"), open.outcome().quarantined[0].refuses), ("", false));
}

#[test]
fn what_refers_to_an_object_that_was_set_aside_goes_on_with_its_last_good_version() {
    let file = |kind: &str| {
        format!(
            "upstreams: [{{id: u, type: {kind}, nodes: {{\"10.0.0.1:80\": 1}}}}]\n\
             routes: [{{id: 1, uri: /, upstream_id: u, name: {kind}}}]"
        )
    };
    let mut desk = Desk::new();
    desk.read(&file("roundrobin"));
    desk.read(&file("nonsense"));
    assert_eq!(desk.set_aside(), [("upstreams/u".to_owned(), true)]);
    let route = desk.route("1").expect("in force");
    assert_eq!((route.labels.route_name(), route.target), ("nonsense", Target::Upstream(0)));
}

#[test]
fn a_bad_version_binds_nobody_to_what_it_said() {
    // The bad version agrees on another limit for the group before it turns out to be bad.
    let file = |count: u32, vars: &str| {
        route(&format!(
            "vars: {vars}, plugins: {{limit-count: {{count: {count}, time_window: 60, group: g}}, cors: {{}}}}"
        ))
    };
    let mut desk = Desk::new();
    desk.read(&file(5, "[]"));
    desk.read(&file(6, "[[a, is, b]]"));
    assert_eq!(desk.set_aside(), [("routes/1".to_owned(), true)]);
    assert_eq!(desk.snapshot().upstreams.len(), 1);
}

#[test]
fn routes_of_one_group_must_agree_and_the_later_one_is_set_aside() {
    let limit = |id: u32, count: u32| {
        format!(
            "{{id: {id}, uri: /{id}, upstream: {NODE}, plugins: {{limit-count: {{count: {count}, time_window: 60, group: g}}}}}}"
        )
    };
    let desk = Desk::of(&format!("routes: [{}, {}, {}]", limit(1, 5), limit(2, 6), limit(3, 5)));
    assert_eq!(desk.faults(), ["routes/2: plugins.limit-count.group: group conf mismatched"]);
    assert_eq!((desk.takes("", "/1"), desk.takes("", "/2"), desk.takes("", "/3")), ("1", "2", "3"));
    assert_eq!(desk.route("2").and_then(|route| route.broken), Some(404));
}

#[test]
fn generations_count_up_whatever_becomes_of_the_objects() {
    let mut desk = Desk::new();
    for expect in 1..4 {
        let text = two_routes(if expect == 2 { "bad" } else { "1" });
        assert_eq!(desk.read(&text).snapshot.generation, expect);
    }
}

// ---- references ---------------------------------------------------------------------------------------------

#[test]
fn a_dangling_reference_is_told_and_its_route_answers_so() {
    let desk = Desk::of(
        r#"
routes:
  - {id: config, uri: /config, plugin_config_id: gone, upstream: {nodes: {"10.0.0.1:80": 1}}}
  - {id: service, uri: /service, service_id: gone}
  - {id: upstream, uri: /upstream, upstream_id: gone}
  - {id: whole, uri: /whole, upstream: {nodes: {"10.0.0.1:80": 1}}}
"#,
    );
    assert_eq!(
        desk.faults(),
        [
            "routes/config: plugin_config_id: expected the id of a plugin_config in force, found none of id gone",
            "routes/service: service_id: expected the id of a service in force, found none of id gone",
            "routes/upstream: upstream_id: expected the id of an upstream in force, found none of id gone",
        ]
    );
    assert_eq!(desk.set_aside(), [], "they are in force, to say so");
    let state = |id: &str| desk.route(id).map(|route| (route.broken, route.target)).expect("in force");
    assert_eq!(state("config"), (Some(503), Target::Upstream(0)));
    assert_eq!(state("service"), (Some(404), Target::Nothing));
    assert_eq!(state("upstream"), (None, Target::Vanished));
    assert_eq!(state("whole"), (None, Target::Upstream(1)));
}

#[test]
fn a_service_without_its_upstream_breaks_its_routes_and_only_them() {
    let desk = Desk::of(
        r#"
services: [{id: s, upstream_id: gone}]
routes:
  - {id: 1, uri: /1, service_id: s}
  - {id: 2, uri: /2, service_id: s, upstream: {nodes: {"10.0.0.1:80": 1}}}
"#,
    );
    assert_eq!(
        desk.faults(),
        ["services/s: upstream_id: expected the id of an upstream in force, found none of id gone"]
    );
    assert_eq!(desk.route("1").map(|route| route.target), Some(Target::Vanished));
    assert_eq!(desk.route("2").map(|route| route.target), Some(Target::Upstream(0)));
}

#[test]
fn the_order_of_objects_in_the_file_does_not_matter() {
    let desk = Desk::of(
        r#"
routes: [{id: 1, uri: /, service_id: s}]
consumers: [{username: jack, group_id: g}]
services: [{id: s, upstream_id: u}]
consumer_groups: [{id: g, plugins: {cors: {}}}]
upstreams: [{id: u, nodes: {"10.0.0.1:80": 1}}]
"#,
    );
    assert_eq!(desk.faults(), [""; 0]);
    assert_eq!(desk.consumer_mounts("jack"), [("cors", 4000)]);
}

// ---- consumers ----------------------------------------------------------------------------------------------

#[test]
fn two_consumers_of_one_key_are_not_both_in_force() {
    let desk = Desk::of(
        r#"
consumers:
  - {username: jack, plugins: {key-auth: {key: one}, basic-auth: {username: j, password: p}}}
  - {username: jill, plugins: {key-auth: {key: one}, basic-auth: {username: j, password: q}}}
  - {username: joan, plugins: {key-auth: {key: two}}}
"#,
    );
    assert_eq!(
        desk.faults(),
        [
            "consumers/jill: plugins.key-auth: duplicate key of plugin key-auth found with consumer: jack",
            "consumers/jill: plugins.basic-auth: duplicate key of plugin basic-auth found with consumer: jack",
        ]
    );
    assert_eq!(desk.set_aside(), [("consumers/jill".to_owned(), false)]);
    assert_eq!(desk.owner("key-auth", "one"), Some(("jack", "")));
    assert_eq!(desk.owner("key-auth", "two"), Some(("joan", "")));
    assert!(desk.snapshot().index.named("jill").is_none());
}

#[test]
fn keys_may_change_hands_in_one_edit() {
    let file = |jack: &str, jill: &str| {
        format!(
            "consumers: [{{username: jack, plugins: {{key-auth: {{key: {jack}}}}}}}, \
             {{username: jill, plugins: {{key-auth: {{key: {jill}}}}}}}]"
        )
    };
    let mut desk = Desk::new();
    desk.read(&file("a", "b"));
    desk.read(&file("b", "a"));
    assert_eq!(desk.faults(), [""; 0]);
    assert_eq!(
        (desk.owner("key-auth", "a"), desk.owner("key-auth", "b")),
        (Some(("jill", "")), Some(("jack", "")))
    );
}

#[test]
fn no_credential_of_a_consumer_that_is_set_aside_opens_anything() {
    let desk =
        Desk::of("consumers: [{username: jack, plugins: {key-auth: {key: one}, cors: {max_age: old}}}]");
    assert_eq!(desk.set_aside(), [("consumers/jack".to_owned(), false)]);
    assert_eq!(desk.owner("key-auth", "one"), None);
}

#[test]
fn a_reference_without_a_value_is_no_key_to_anything() {
    for (reference, why) in [
        ("$env://KEY", "the variable KEY is not set"),
        ("$ENV://KEY", "the variable KEY is not set"),
        ("$secret://vault/1/jack/key", "there is no secrets/vault/1"),
        ("$secret://aws/1/jack/key", "secrets of the manager aws are not looked up yet"),
    ] {
        let desk = Desk::of(&format!(
            "consumers: [{{username: jack, plugins: {{key-auth: {{key: '{reference}'}}, basic-auth: {{username: j, password: '{reference}'}}}}}}]"
        ));
        assert_eq!(desk.owner("key-auth", reference), None);
        assert_eq!(desk.owner("basic-auth", "j"), None);
        // The consumer is there all the same, and whoever wrote it is told.
        let told: Vec<String> = desk.faults();
        assert_eq!(told.len(), 2, "{told:?}");
        let fault = format!(
            "consumers/jack: plugins.key-auth.key: {reference}: {why}; until then nobody gets in by this one"
        );
        assert!(told.contains(&fault), "{told:?}");
        assert_eq!(desk.set_aside(), []);
    }
}

#[test]
fn credentials_stand_for_their_consumer_under_their_own_id() {
    let desk = Desk::of(
        r#"
consumers:
  - {username: jack, labels: {custom_id: c-7}, plugins: {key-auth: {key: own}}}
  - {id: jack/credentials/first, plugins: {key-auth: {key: one}}}
  - {id: jack/credentials/twin, plugins: {key-auth: {key: one}}}
  - {id: jack/credentials/odd, plugins: {cors: {}}}
  - {id: jack/credentials/typo, plugins: {key-aut: {}}}
  - {id: nobody/credentials/x, plugins: {key-auth: {key: two}}}
"#,
    );
    assert_eq!(
        desk.faults(),
        [
            "consumers/jack/credentials/twin: plugins.key-auth: duplicate key of plugin key-auth found with consumer: jack",
            "consumers/jack/credentials/odd: plugins.cors: expected an authentication plugin",
            "consumers/jack/credentials/typo: plugins.key-aut: unknown plugin [key-aut]; did you mean \"key-auth\"?",
            "consumers/nobody/credentials/x: consumer not found: nobody",
        ]
    );
    assert_eq!(desk.owner("key-auth", "own"), Some(("jack", "")));
    assert_eq!(desk.owner("key-auth", "one"), Some(("jack", "first")));
    assert_eq!(desk.owner("key-auth", "two"), None);
    let known = desk.snapshot().index.find("key-auth", b"one").expect("in force");
    assert_eq!((known.consumer, known.labels.custom_id()), (0, "c-7"));
}

#[test]
fn a_consumer_of_a_missing_group_is_set_aside_with_all_its_faults() {
    check_faults(
        "consumers: [{username: jack, group_id: gold, plugins: {corz: {}}}]",
        &[
            "consumers/jack: group_id: expected the id of a consumer_group in force, found none of id gold",
            "consumers/jack: plugins.corz: unknown plugin [corz]; did you mean \"cors\"?",
        ],
    );
}

#[test]
fn a_credential_in_a_group_is_left_out_and_told() {
    let desk = Desk::of(
        "consumer_groups: [{id: g, plugins: {key-auth: {key: k}, cors: {}}}]
consumers: [{username: jack, group_id: g}]",
    );
    assert_eq!(
        desk.faults(),
        [
            "consumer_groups/g: plugins.key-auth: expected what acts on requests, got what a consumer proves itself with; \
          in a group it lets nobody in, and does nothing else"
        ]
    );
    assert_eq!(desk.set_aside(), []);
    assert_eq!(desk.owner("key-auth", "k"), None);
    // What is neither of a consumer nor of a route is refused as ever.
    check_faults(
        "consumer_groups: [{id: g, plugins: {key-auth: {kay: k}}}]",
        &["consumer_groups/g: plugins.key-auth: additional properties forbidden, found kay"],
    );
}

// ---- global rules -------------------------------------------------------------------------------------------

#[test]
fn a_plugin_stands_in_one_global_rule_only() {
    let desk = Desk::of(
        r#"
global_rules:
  - {id: 1, plugins: {cors: {}, prometheus: {}}}
  - {id: 2, plugins: {cors: {}, request-id: {}}}
  - {id: 3, plugins: {request-id: {}}}
"#,
    );
    assert_eq!(
        desk.faults(),
        ["global_rules/2: plugins.cors: plugin 'cors' already exists in another global rule"]
    );
    let names: Vec<_> = desk.snapshot().global.mounts().iter().map(|mount| mount.plugin.name()).collect();
    assert_eq!(names, ["request-id", "cors", "prometheus"], "sorted by priority over all rules");
}

// ---- where routes listen ------------------------------------------------------------------------------------

#[test]
fn a_route_that_is_switched_off_is_checked_but_takes_nothing() {
    let desk = Desk::of(&route("status: 0"));
    assert_eq!((desk.faults(), desk.takes("", "/")), (vec![], ""));
    let desk = Desk::of(&route("status: 0, plugins: {cors: {max_age: old}}"));
    assert_eq!(desk.set_aside(), [("routes/1".to_owned(), false)]);
}

#[test]
fn hosts_are_the_routes_own_or_else_its_services() {
    let desk = Desk::of(
        r#"
services: [{id: s, hosts: [a.test, "*.b.test"], upstream: {nodes: {"10.0.0.1:80": 1}}}]
routes:
  - {id: inherits, uri: /, service_id: s}
  - {id: own, uri: /, host: c.test, service_id: s}
"#,
    );
    for (host, expect) in
        [("a.test", "inherits"), ("x.b.test", "inherits"), ("b.test", ""), ("c.test", "own"), ("d.test", "")]
    {
        assert_eq!(desk.takes(host, "/"), expect, "{host}");
    }
}

#[test]
fn a_route_of_several_paths_is_one_route() {
    let desk = Desk::of(&format!("routes: [{{id: 1, uris: [/a, /b/*], upstream: {NODE}}}]"));
    assert_eq!((desk.takes("", "/a"), desk.takes("", "/b/c"), desk.takes("", "/c")), ("1", "1", ""));
    assert_eq!((desk.snapshot().routes.len(), desk.snapshot().upstreams.len()), (1, 1));
}

// ---- names of nodes -----------------------------------------------------------------------------------------

#[test]
fn a_name_becomes_all_its_addresses_and_one_without_any_is_told_and_left_out() {
    let hosts = [("two.test", 8080), ("gone.test", 80), ("empty.test", 80), ("10.0.0.9", 80)];
    let nodes = hosts.map(|(host, port)| format!("{{host: {host}, port: {port}, weight: 1}}")).join(", ");
    let mut desk = Desk::of(&format!("upstreams: [{{id: u, nodes: [{nodes}]}}]"));
    assert_eq!(
        desk.faults(),
        [
            "upstreams/u: nodes: can not resolve gone.test: no such name",
            "upstreams/u: nodes: can not resolve empty.test: the name has no address",
        ]
    );
    let nodes = |desk: &Desk| -> Vec<String> {
        desk.snapshot().upstreams[0].nodes.iter().map(|node| node.address.to_string()).collect()
    };
    assert_eq!(nodes(&desk), ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.9:80"]);
    assert_eq!(&*desk.snapshot().upstreams[0].nodes[0].host, b"two.test:8080");
    let mut names = desk.compiler.names();
    names.sort_unstable();
    assert_eq!(names, ["empty.test", "gone.test", "two.test"]);
    // What is learnt later goes into the next snapshot; a repetition is no news.
    let news = || vec![("gone.test".to_owned(), vec![address("10.0.0.5")])];
    assert!(desk.compiler.learn(news()).is_some());
    assert!(desk.compiler.learn(news()).is_none());
    desk.read(r#"upstreams: [{id: u, nodes: {"gone.test:80": 1}}]"#);
    assert_eq!((nodes(&desk), desk.faults()), (vec!["10.0.0.5:80".to_owned()], vec![]));
    assert_eq!(desk.compiler.names(), ["gone.test"]);
}

#[test]
fn a_name_that_a_plugin_sends_to_is_resolved_as_those_of_nodes_are() {
    let mirror = |host: &str| {
        format!("routes: [{{id: 1, uri: /, plugins: {{proxy-mirror: {{host: 'http://{host}'}}}}}}]")
    };
    let mut desk = Desk::of(&mirror("gone.test"));
    let lack = "routes/1: plugins.proxy-mirror.host: can not resolve gone.test: no such name";
    assert_eq!((desk.faults(), desk.compiler.names()), (vec![lack.to_owned()], vec!["gone.test".to_owned()]));
    assert!(desk.compiler.learn(vec![("gone.test".to_owned(), vec![address("10.0.0.5")])]).is_some());
    desk.read(&mirror("two.test"));
    assert_eq!((desk.faults(), desk.compiler.names()), (vec![], vec!["two.test".to_owned()]));
}

// ---- state that stays ---------------------------------------------------------------------------------------

/// Objects of the model: an upstream's node, or nothing; and the limit of a route, or nothing.
#[derive(Clone, Default)]
struct World {
    upstreams: BTreeMap<u64, u64>,
    limits: BTreeMap<u64, u64>,
    /// Further fields of upstreams, which are no part of what state is kept for.
    retries: u64,
}

impl World {
    fn edit(&mut self, rng: &mut Rng) {
        let objects = if rng.below(2) == 0 { &mut self.upstreams } else { &mut self.limits };
        let id = 1 + rng.below(5);
        if rng.below(3) == 0 {
            objects.remove(&id);
        } else {
            objects.insert(id, 1 + rng.below(3));
        }
        self.retries = rng.below(4);
    }

    fn text(&self) -> String {
        let upstreams = self.upstreams.iter().map(|(id, node)| {
            format!("{{id: {id}, retries: {}, nodes: {{\"10.0.0.{node}:80\": 1}}}}", self.retries)
        });
        let limits = self.limits.iter().map(|(id, count)| {
            format!("{{id: {id}, uri: /{id}, plugins: {{limit-count: {{count: {count}, time_window: 60}}}}}}")
        });
        let list = |items: Vec<String>| items.join(", ");
        format!("upstreams: [{}]\nroutes: [{}]", list(upstreams.collect()), list(limits.collect()))
    }
}

#[test]
fn ids_of_state_stay_with_owner_and_configuration_and_are_never_used_again() {
    let seed = 4711;
    let mut rng = Rng::seeded(seed);
    let mut desk = Desk::new();
    let mut world = World::default();
    let mut before: BTreeMap<(u64, u64), LocalId> = BTreeMap::new();
    let mut limits_before = BTreeMap::new();
    let mut live_before: Set<LocalId> = Set::default();
    let mut ever: Set<LocalId> = Set::default();
    for round in 0..400 {
        for _ in 0..=rng.below(3) {
            world.edit(&mut rng);
        }
        desk.read(&world.text());
        let told = format!("seed {seed}, round {round}:\n{}", world.text());
        assert_eq!(desk.faults(), [""; 0], "{told}");
        let snapshot = desk.snapshot();
        let now: BTreeMap<(u64, u64), LocalId> = world
            .upstreams
            .iter()
            .map(|(id, node)| {
                let is_it = |up: &&Upstream| *up.name == *format!("upstreams/{id}");
                let up = snapshot.upstreams.iter().find(is_it).unwrap_or_else(|| panic!("{told}"));
                ((*id, *node), up.turn)
            })
            .collect();
        for (owner, id) in &now {
            match before.get(owner) {
                Some(earlier) => assert_eq!(earlier, id, "{told}"),
                None => assert!(!ever.contains(id), "{told}"),
            }
            assert!(snapshot.live.contains(id), "{told}");
        }
        // Plugins' ids show in their number only: one for each limit as it is, one for its counters, and one that all share.
        let (limits, shared) = (world.limits.len(), usize::from(!world.limits.is_empty()));
        assert_eq!(snapshot.live.size(), now.len() + 2 * limits + shared, "{told}");
        let same = |one: &BTreeMap<u64, u64>, other: &BTreeMap<u64, u64>| {
            one.iter().filter(|(id, count)| other.get(id) == Some(count)).count()
        };
        let kept = before.keys().filter(|owner| now.contains_key(owner)).count()
            + same(&limits_before, &world.limits)
            + limits_before.keys().filter(|id| world.limits.contains_key(id)).count()
            + usize::from(!limits_before.is_empty() && !world.limits.is_empty());
        let live: Set<LocalId> = snapshot.live.iter().copied().collect();
        assert_eq!(live_before.intersection(&live).count(), kept, "{told}");
        assert!(live.difference(&live_before).all(|id| ever.insert(*id)), "{told}");
        assert!(live_before.difference(&live).all(|id| snapshot.retired.contains(id)), "{told}");
        assert!(snapshot.retired.iter().all(|id| !live.contains(id)), "{told}");
        live_before = live;
        (before, limits_before) = (now, world.limits.clone());
    }
}

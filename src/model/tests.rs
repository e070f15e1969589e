//! Objects as users write them: samples of every kind, each with a refused neighbour.

use serde_json::{Value, json};

use super::upstream::{Algorithm, Scheme};
use super::*;

fn raw(kind: Kind, value: Value) -> Raw {
    Raw { kind, id: "7".parse().unwrap(), value }
}

fn faults(kind: Kind, value: Value) -> Vec<String> {
    typed(&raw(kind, value)).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// The object is taken; with the patch laid over it, it is refused with just this.
fn pair(kind: Kind, taken: &Value, patch: Value, fault: &str) {
    assert_eq!(faults(kind, taken.clone()), [""; 0], "should be taken: {taken}");
    let mut refused = taken.clone();
    for (name, value) in patch.as_object().unwrap() {
        refused[name] = value.clone();
    }
    assert_eq!(faults(kind, refused.clone()), [format!("{}: {fault}", object_name(kind, "7"))], "{refused}");
}

fn route(value: Value) -> Route {
    match typed(&raw(Kind::Route, value)).unwrap() {
        Object::Route(route) => *route,
        other => panic!("{other:?} is no route"),
    }
}

#[test]
fn a_route_takes_every_field_it_has() {
    let route = route(json!({
        "id": 7, "name": "n", "desc": "", "labels": {"version": "v1"}, "create_time": 1, "update_time": 2,
        "uris": ["/a", "/b*"], "hosts": ["a.test", "*.b.test"], "remote_addrs": ["10.0.0.0/8", "::1"],
        "methods": ["GET", "POST"], "priority": -3, "vars": [["arg_a", "==", "1"]],
        "filter_func": "function(vars) return true end", "plugins": {"cors": {}, "x": {"a": [1]}},
        "plugin_config_id": 1, "service_id": "s", "upstream_id": "u",
        "upstream": {"nodes": {"127.0.0.1:80": 1}, "type": "roundrobin"},
        "timeout": {"connect": 1, "send": 0.5, "read": 60}, "enable_websocket": true, "status": 0,
    }));
    assert_eq!(route.id.as_ref().unwrap().as_str(), "7");
    assert_eq!(route.uris().map(|uri| uri.as_str()).collect::<Vec<_>>(), ["/a", "/b*"]);
    assert_eq!(route.hosts().count() + route.remote_addrs().count(), 4);
    assert_eq!((route.priority, route.is_in_use()), (-3, false));
    assert_eq!(route.plugins.unwrap().keys().collect::<Vec<_>>(), ["cors", "x"]);
}

#[test]
fn a_route_that_says_little_is_in_use_with_priority_0() {
    let route = route(json!({"uri": "/", "plugins": {}}));
    assert_eq!((route.priority, route.is_in_use(), route.hosts().count()), (0, true, 0));
    assert!(route.methods.is_none() && route.enable_websocket.is_none() && route.id.is_none());
}

#[test]
fn a_route_keeps_its_rules() {
    let plain = json!({"uri": "/", "host": "a.test", "remote_addr": "::1", "upstream_id": 1});
    let check = |patch: Value, fault: &str| pair(Kind::Route, &plain, patch, fault);
    check(json!({"uris": ["/"]}), "expected exactly one of `uri` and `uris`");
    check(json!({"uri": null}), "expected exactly one of `uri` and `uris`");
    check(json!({"hosts": ["b.test"]}), "expected at most one of `host` and `hosts`");
    check(json!({"remote_addrs": ["::2"]}), "expected at most one of `remote_addr` and `remote_addrs`");
    check(
        json!({"upstream_id": null}),
        "expected at least one of `plugins`, `upstream`, `upstream_id` and `service_id`",
    );
    check(json!({"script": "local x"}), "`script` is not allowed here");
    check(json!({"script_id": 1}), "`script_id` is not allowed here");
    check(json!({"hots": "x"}), "additional properties forbidden, found hots; did you mean \"host\"?");
    check(
        json!({"methods": ["GET", "GETT"]}),
        "methods[1]: expected one of GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS, CONNECT, TRACE or PURGE, \
         got \"GETT\"; did you mean \"GET\"?",
    );
    check(json!({"methods": ["GET", "GET"]}), "methods: expected each item once, got \"GET\" again");
    check(json!({"status": 2}), "status: expected a whole number from 0 to 1, got 2");
    check(
        json!({"priority": "1"}),
        "priority: expected a whole number from -2147483648 to 2147483647, got \"1\"",
    );
    check(json!({"plugins": {"cors": true}}), "plugins.cors: expected an object, got true");
    check(json!({"vars": {}}), "vars: expected a list, got an empty object");
    check(json!({"timeout": {"connect": 1, "send": 1}}), "timeout: read is required");
    check(
        json!({"timeout": {"connect": 1, "send": 1, "read": 0}}),
        "timeout.read: expected a number above 0, got 0",
    );
    check(
        json!({"labels": {"a": "b c"}}),
        "labels.a: expected text of 1 to 256 characters without spaces, got \"b c\"",
    );
    check(
        json!({"filter_func": "return true"}),
        "filter_func: expected a Lua function, starting with `function`, got \"return true\"",
    );
}

#[test]
fn all_faults_of_an_object_are_told_at_once() {
    let told = faults(
        Kind::Route,
        json!({
            "uri": "x", "uris": [], "host": "a b", "nmae": "x",
            "upstream": {"nodes": [{"host": "a", "wieght": 1}], "type": "random", "retries": -1},
        }),
    );
    assert_eq!(
        told,
        [
            "routes/7: expected exactly one of `uri` and `uris`",
            "routes/7: uri: expected a path of at most 4096 characters that starts with / or *, got \"x\"",
            "routes/7: uris: expected a list of at least 1, got an empty list",
            "routes/7: host: expected a host such as example.com or *.example.com, got \"a b\"",
            "routes/7: additional properties forbidden, found nmae; did you mean \"name\"?",
            "routes/7: upstream.nodes[0]: additional properties forbidden, found wieght; did you mean \"weight\"?",
            "routes/7: upstream.nodes[0]: weight is required",
            "routes/7: upstream.type: expected one of roundrobin, chash, ewma, least_conn or none, got \"random\"",
            "routes/7: upstream.retries: expected a whole number from 0 to 4294967295, got -1",
        ]
    );
}

#[test]
fn an_upstream_has_apisix_defaults() {
    let Object::Upstream(upstream) = typed(&raw(Kind::Upstream, json!({"nodes": {"a:80": 1}}))).unwrap()
    else {
        panic!("no upstream")
    };
    assert_eq!(
        (upstream.algorithm, upstream.scheme(), upstream.retries),
        (Algorithm::Roundrobin, Scheme::Http, None)
    );
    let pool = upstream::KeepalivePool::default();
    assert_eq!((pool.size.u32(), pool.idle_timeout.get().as_secs(), pool.requests.u32()), (320, 60, 1000));

    let checked = json!({"nodes": {}, "checks": {"active": {}, "passive": {}}});
    let Object::Upstream(upstream) = typed(&raw(Kind::Upstream, checked)).unwrap() else {
        panic!("no upstream")
    };
    let checks = serde_json::to_value(upstream.checks.unwrap()).unwrap();
    assert_eq!(
        checks["active"],
        json!({
            "type": "http", "timeout": 1, "concurrency": 10, "host": null, "port": null, "http_method": "GET",
            "http_path": "/", "http_req_body": "", "grpc_service": "", "https_verify_certificate": true, "req_headers": null,
            "healthy": {"interval": 1, "http_statuses": [200, 302], "successes": 2},
            "unhealthy": {
                "interval": 1, "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505],
                "http_failures": 5, "tcp_failures": 2, "timeouts": 3,
            },
        })
    );
    assert_eq!(checks["passive"]["healthy"]["successes"], 5);
    assert_eq!(
        checks["passive"]["unhealthy"],
        json!({"http_statuses": [429, 500, 503], "tcp_failures": 2, "timeouts": 7, "http_failures": 5})
    );
}

#[test]
fn an_upstream_keeps_its_rules() {
    let plain = json!({"nodes": {"a:80": 1}});
    let check = |patch: Value, fault: &str| pair(Kind::Upstream, &plain, patch, fault);
    let exactly = "expected exactly one of `nodes` and `service_name` with `discovery_type`";
    check(json!({"nodes": null}), exactly);
    check(json!({"service_name": "a", "discovery_type": "dns"}), exactly);
    check(json!({"nodes": {"a:0": 1}}), "nodes[\"a:0\"]: expected a port from 1 to 65535, got \"a:0\"");
    check(
        json!({"nodes": {"a:80": -1}}),
        "nodes[\"a:80\"]: expected a whole number from 0 to 4294967295, got -1",
    );
    check(json!({"nodes": "a:80"}), "nodes: expected an object or a list, got \"a:80\"");
    check(json!({"type": "chash"}), "missing key");
    check(
        json!({"type": "chash", "key": "sun"}),
        "key: expected a variable such as remote_addr, uri, host or arg_name, got \"sun\"",
    );
    check(
        json!({"type": "chash", "hash_on": "header", "key": "a b"}),
        "key: expected the name of a header, got \"a b\"",
    );
    check(
        json!({"type": "chash", "hash_on": "vars_combinations", "key": "uri"}),
        "key: expected variables such as $request_uri$remote_addr, got \"uri\"",
    );
    check(json!({"pass_host": "rewrite"}), "upstream_host is required when pass_host is rewrite");
    check(json!({"checks": {"passive": {}}}), "checks: active is required");
    check(
        json!({"checks": {"active": {"healthy": {"successes": 0}}}}),
        "checks.active.healthy.successes: expected a whole number from 1 to 254, got 0",
    );
    check(json!({"tls": {"client_cert": "x"}}), "tls: client_key is required when client_cert is given");
    check(
        json!({"tls": {"client_cert": "x", "client_key": "y", "client_cert_id": 1}}),
        "tls: expected at most one of `client_cert` and `client_cert_id`",
    );
    check(
        json!({"keepalive_pool": {"size": 0}}),
        "keepalive_pool.size: expected a whole number from 1 to 1000000, got 0",
    );
    check(json!({"retry_timeout": -1}), "retry_timeout: expected a number of at least 0, got -1");

    let hash = |more: Value| {
        let mut value = json!({"nodes": {}, "type": "chash"});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(faults(Kind::Upstream, value), [""; 0]);
    };
    hash(json!({"key": "arg_a"}));
    hash(json!({"hash_on": "consumer"}));
    hash(json!({"hash_on": "cookie", "key": "sid"}));
    hash(json!({"hash_on": "vars_combinations", "key": "$uri$host"}));
}

#[test]
fn what_upstreams_can_do_beyond_apisix_has_rules_too() {
    let check = |more: Value, fault: &str| pair(Kind::Upstream, &json!({"nodes": {"a:80": 1}}), more, fault);
    check(
        json!({"fallback": {"status": 200, "upstream_id": 1}}),
        "fallback: expected exactly one of `upstream_id` and `status`",
    );
    check(
        json!({"fallback": {"upstream_id": 1, "body": ""}}),
        "fallback: status is required when body is given",
    );
    check(
        json!({"fallback": {"status": 503, "headers": {"Content-Length": "1"}}}),
        "fallback.headers: expected names of headers that do not frame the answer, got \"Content-Length\"",
    );
    check(
        json!({"deadlines": {"from_client": false}}),
        "deadlines: expected one of total, per_try and from_client: true, got none",
    );
    check(json!({"retry_backoff": {"base": 2}}), "retry_backoff.base: expected at most max, got more");
    check(
        json!({"concurrency": {"min": 30}}),
        "concurrency: expected min <= initial <= max, got 30, 20 and 1000",
    );
    check(
        json!({"outliers": {"base_time": 30, "max_time": 20}}),
        "outliers.max_time: expected no less than base_time, got less",
    );
    check(
        json!({"outliers": {"consecutive_5xx": 0, "consecutive_gateway_failures": 0}}),
        "outliers: expected one of consecutive_5xx, consecutive_gateway_failures and success_rate, got none",
    );
    check(
        json!({"sticky": {"cookie": "a b", "key": "0123456789abcdef"}}),
        "sticky.cookie: expected the name of a cookie, got \"a b\"",
    );
    check(
        json!({"sticky": {"cookie": "a", "key": "0123456789"}}),
        "sticky.key: expected at least 16 characters, got fewer",
    );
    check(
        json!({"sticky": {"cookie": "a", "key": "0123456789abcdef", "path": "/a;b"}}),
        "sticky.path: expected a path such as /shop, without spaces and ;, got \"/a;b\"",
    );
    check(
        json!({"sticky": {"cookie": "a", "key": "0123456789abcdef", "same_site": "none"}}),
        "sticky.same_site: expected secure: true beside none, as clients take no such cookie without",
    );
}

#[test]
fn rules_of_an_upstream_hold_inside_routes_and_services() {
    let upstream = json!({"nodes": {"a:80": 1}, "type": "chash"});
    let fault = "upstream: missing key";
    pair(Kind::Route, &json!({"uri": "/", "plugins": {}}), json!({"upstream": upstream}), fault);
    pair(Kind::Service, &json!({}), json!({"upstream": upstream}), fault);
    pair(Kind::StreamRoute, &json!({}), json!({"upstream": upstream}), fault);
}

#[test]
#[allow(clippy::too_many_lines)] // A table: a sample and a neighbour of each kind.
fn the_other_kinds_are_read_too() {
    pair(
        Kind::Consumer,
        &json!({"username": "jack", "group_id": 1, "plugins": {"key-auth": {"key": "k"}}}),
        json!({"username": "a.b"}),
        "username: expected a name of 1 to 256 letters, digits, _ and -, got \"a.b\"",
    );
    pair(
        Kind::ConsumerGroup,
        &json!({"id": 1, "plugins": {}}),
        json!({"plugin": {}}),
        "additional properties forbidden, found plugin; did you mean \"plugins\"?",
    );
    assert_eq!(faults(Kind::ConsumerGroup, json!({"id": 1})), ["consumer_groups/7: plugins is required"]);
    assert_eq!(faults(Kind::PluginConfig, json!({"id": 1})), ["plugin_configs/7: plugins is required"]);
    pair(
        Kind::PluginConfig,
        &json!({"plugins": {}}),
        json!({"plugins": []}),
        "plugins: expected an object, got an empty list",
    );
    pair(
        Kind::GlobalRule,
        &json!({"plugins": {"cors": {}}}),
        json!({"plugins": {"cors": 1}}),
        "plugins.cors: expected an object, got 1",
    );
    pair(
        Kind::Credential,
        &json!({"plugins": {"key-auth": {}}}),
        json!({"plugins": {"key-auth": {}, "jwt-auth": {}}}),
        "plugins: expected an object of at most 1 field, got 2",
    );
    pair(
        Kind::CostDecoration,
        &json!({"field_path": "Query.products.nodes", "mul_arguments": ["first"], "add_value": 0}),
        json!({"field_path": "Query..products"}),
        "field_path: expected a type, with names of fields behind it, such as Query.products, got \"Query..products\"",
    );
    pair(
        Kind::Secret,
        &json!({"id": "vault/1", "uri": "http://v", "prefix": "kv", "token": "t"}),
        json!({"token": 1}),
        "token: expected text that is not empty, got something else, not shown",
    );
    pair(
        Kind::Proto,
        &json!({"content": "syntax = \"proto3\";"}),
        json!({"content": ""}),
        "content: expected text of 1 to 1048576 characters, got \"\"",
    );
    pair(
        Kind::Ssl,
        &json!({"cert": "c", "key": "k", "sni": "a.test", "ssl_protocols": ["TLSv1.3"]}),
        json!({"snis": ["b.test"]}),
        "expected at most one of `sni` and `snis`",
    );
    pair(
        Kind::Ssl,
        &json!({"cert": "c", "key": "k", "sni": "a.test"}),
        json!({"sni": null}),
        "expected exactly one of `sni` and `snis`",
    );
    pair(
        Kind::Ssl,
        &json!({"cert": "c", "key": "k", "type": "client"}),
        json!({"certs": ["x"]}),
        "keys: expected a key for each of 1 certs, got 0",
    );
    pair(
        Kind::StreamRoute,
        &json!({"server_port": 9100, "upstream_id": 1}),
        json!({"server_port": 0}),
        "server_port: expected a whole number from 1 to 65535, got 0",
    );

    let metadata = raw(Kind::PluginMetadata, json!({"id": "http-logger", "log_format": {"host": "$host"}}));
    let Object::PluginMetadata(metadata) = typed(&metadata).unwrap() else { panic!("no metadata") };
    assert_eq!(metadata.fields["log_format"]["host"], "$host");
}

#[test]
fn kinds_have_names_and_schemas() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of_plural(kind.plural()), Some(*kind));
        assert_eq!(kind.schema()["type"], "object", "{kind:?}");
    }
    assert_eq!(Kind::of_plural("route"), None);
    let decoration = object_name(Kind::CostDecoration, "shop/graphql_cost_decorations/1");
    assert_eq!(decoration, "services/shop/graphql_cost_decorations/1");
    assert_eq!(object_name(Kind::Credential, "jack/credentials/1"), "consumers/jack/credentials/1");
    // A field's comment is its description, so it may not be missing.
    for kind in Kind::ALL {
        for (name, field) in kind.schema()["properties"].as_object().unwrap() {
            assert!(field["description"].is_string(), "{kind:?}.{name} has no description");
        }
    }
}

#[test]
fn a_fault_can_be_pointed_at() {
    let value = json!({"uri": "/", "upstream": {"nodes": {"a/b:80": "x"}}});
    let faults = typed(&raw(Kind::Route, value.clone())).unwrap_err();
    assert_eq!(faults[0].pointer(), "/upstream/nodes/a~1b:80");
    assert_eq!(value.pointer(&faults[0].pointer()), Some(&json!("x")));
}

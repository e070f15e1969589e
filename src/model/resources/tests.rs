//! The standalone file: what is read, and every fault of its frame.

use serde_json::json;

use super::*;

fn env(name: &str) -> Option<String> {
    (name == "PORT").then(|| "1980".to_owned())
}

fn faults(text: &str) -> Vec<String> {
    parse(text, Format::Yaml, &env).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

const SAMPLE: &str = r#"
routes:
  - id: 1
    uri: /hello
    upstream:
      nodes:
        "127.0.0.1:${{PORT}}": 1
      type: roundrobin
  - id: by-name
    uris: [/a, /b*]
    service_id: 1
services:
  - id: 1
    upstream_id: 1
upstreams:
  - id: 1
    nodes: [{host: 127.0.0.1, port: "${{PORT}}", weight: 1}]
consumers:
  - username: jack
    plugins: {key-auth: {key: "$env://KEY"}}
  - id: jack/credentials/first
    plugins: {basic-auth: {username: j, password: p}}
consumer_groups:
  - {id: gold, plugins: {}}
plugin_configs:
  - {id: 1, plugins: {response-rewrite: {body: "$host ${arg_a}"}}}
global_rules:
  - {id: 1, plugins: {prometheus: {}}}
plugin_metadata:
  - {id: http-logger, log_format: {host: $host}}
ssls:
  - {id: 1, cert: c, key: k, sni: a.test}
stream_routes:
  - {id: 1, server_port: 9100, upstream_id: 1}
secrets:
  - {id: vault/1, uri: "http://127.0.0.1:8200", prefix: kv, token: t}
protos:
  - {id: 1, content: 'syntax = "proto3";'}
plugins:
  - name: key-auth
  - name: mqtt-proxy
    stream: true
  - cors
routes_conf_version: 3
#END
"#;

#[test]
fn apisix_yaml_is_read_as_it_is() {
    let resources = parse(SAMPLE, Format::Yaml, &env).unwrap();
    let names: Vec<String> = resources.objects.iter().map(Raw::name).collect();
    assert_eq!(
        names,
        [
            "routes/1",
            "routes/by-name",
            "services/1",
            "upstreams/1",
            "consumers/jack",
            "consumers/jack/credentials/first",
            "consumer_groups/gold",
            "plugin_configs/1",
            "global_rules/1",
            "plugin_metadata/http-logger",
            "ssls/1",
            "stream_routes/1",
            "secrets/vault/1",
            "protos/1",
        ]
    );
    assert_eq!(resources.plugins, Some(vec!["key-auth".to_owned(), "cors".to_owned()]));
    assert_eq!(resources.objects[0].value["upstream"]["nodes"], json!({"127.0.0.1:1980": 1}));
    assert_eq!(resources.objects[3].value["nodes"][0]["port"], 1980);
    for raw in &resources.objects {
        let object = crate::model::typed(raw).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert_eq!(object.kind(), raw.kind);
    }
}

#[test]
fn windows_line_ends_a_mark_of_order_and_json_make_no_difference() {
    let expected = parse(SAMPLE, Format::Yaml, &env).unwrap();
    let windows = format!("\u{feff}{}", SAMPLE.replace('\n', "\r\n"));
    assert_eq!(parse(&windows, Format::Yaml, &env).unwrap(), expected);
    let value = crate::model::values::read(SAMPLE, Format::Yaml).unwrap();
    assert_eq!(parse(&value.to_string(), Format::Json, &env).unwrap(), expected);
}

#[test]
fn the_end_marker_is_seen_and_not_asked_for() {
    let check = |text: &str, expected: bool| assert_eq!(ends_with_marker(text), expected, "{text:?}");
    check(SAMPLE, true);
    check("routes: []\r\n#END\r\n", true);
    check("routes: []\n #END  \n\n", true);
    check("routes: []", false);
    check("#END\nroutes: []", false);
    check("#ENDE", false);
    check("", false);
    assert_eq!(faults("routes: []"), [""; 0]);
    assert_eq!(parse("", Format::Yaml, &env).unwrap(), Resources::default());
    assert_eq!(parse("routes:\n#END", Format::Yaml, &env).unwrap(), Resources::default());
}

#[test]
fn every_object_has_an_id() {
    let check = |text: &str, fault: &str| assert_eq!(faults(text), [fault], "{text}");
    check("consumers: [{id: 1}]", "consumers[0]: username is required");
    check(
        "consumers: [{username: a.b}]",
        "consumers[0].username: expected a name of 1 to 256 letters, digits, _ and -, got \"a.b\"",
    );
    check(
        "consumers: [{id: jack/first}]",
        "consumers[0].id: expected USER/credentials/ID, got \"jack/first\"",
    );
    check(
        "consumers: [{id: jack/credentials/a/b}]",
        "consumers[0].id: expected USER/credentials/ID, got \"jack/credentials/a/b\"",
    );
    check("secrets: [{id: 1}]", "secrets[0].id: expected MANAGER/ID, got 1");
    check("secrets: [{id: a/b/c}]", "secrets[0].id: expected MANAGER/ID, got \"a/b/c\"");
    check(
        "routes: [{id: 0}]",
        "routes[0].id: expected an id: 1 to 64 letters, digits, -, _ and ., or a whole number above 0, got 0",
    );
    check("routes: [{id: 1}, {id: '1'}]", "routes[1]: the id 1 is taken by routes[0]");
    check("consumers: [{username: a}, {username: a}]", "consumers[1]: the id a is taken by consumers[0]");
    assert_eq!(faults("routes: [{id: 1}]\nservices: [{id: 1}]"), [""; 0]);
}

#[test]
fn the_frame_of_a_file_is_checked_and_every_fault_told() {
    assert_eq!(
        faults(
            "rotues: []\nservices: {}\nroutes: [7]\nplugins: [1]\ncredentials: []\nupstreams: [{id: 1, nodes: {'${{NO}}:80': 1}}]"
        ),
        [
            "upstreams[0].nodes: the environment variable NO is not set, and no default is given",
            "additional properties forbidden, found rotues; did you mean \"routes\"?",
            "services: expected a list of objects, got an empty object",
            "routes[0]: expected an object, got 7",
            "plugins[0]: expected a name or an object with one, got 1",
            "additional properties forbidden, found credentials",
        ]
    );
    assert_eq!(faults("[]"), ["expected an object of routes, upstreams and so on, got an empty list"]);
    assert_eq!(faults("plugins: cors"), ["plugins: expected a list of names, got \"cors\""]);
    let told = faults("routes:\n  - id: 1\n   uri: /");
    assert!(told.len() == 1 && told[0].starts_with("not YAML: ") && told[0].contains("line 3"), "{told:?}");
}

#[test]
fn where_a_dump_says_when_an_object_changed_is_left_out() {
    let text =
        r#"{"routes": [{"id": "1", "uri": "/", "plugins": {}, "modifiedIndex": 12, "createdIndex": 3}]}"#;
    let resources = parse(text, Format::Json, &env).unwrap();
    assert_eq!(resources.objects[0].value, json!({"id": "1", "uri": "/", "plugins": {}}));
}

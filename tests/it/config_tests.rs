//! `ringway test`: our own configurations pass theirs, and what does not hold is told with file, line, case and field.

use std::fs;
use std::path::Path;

use super::configs::files;
use super::kit::{Certs, ringway, ringway_with};

/// Runs tests that stand in one file; the exit code, and all that was said.
#[track_caller]
fn try_out(tests: &str, options: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.yaml"), tests).unwrap();
    ringway(dir.path(), &[&["test", "t.yaml"], options].concat())
}

/// Objects for most of the tests here.
const OBJECTS: &str = "
objects:
  upstreams:
    - {id: u, nodes: {one.internal:80: 1, 10.0.0.2:80: 1}, retries: 1, timeout: {connect: 1, send: 1, read: 2}}
    - {id: one, nodes: {one.internal:80: 1}, retries: 0, timeout: {connect: 1, send: 1, read: 2}}
  routes:
    - {id: two, uri: /two, upstream_id: u}
    - {id: one, uri: /one/*, upstream_id: one}
    - {id: late, uri: /late, upstream_id: one, plugins: {fault-injection: {delay: {duration: 50}}}}
";

#[track_caller]
fn passes(cases: &str) {
    let (code, said) = try_out(&format!("{OBJECTS}{cases}"), &[]);
    assert_eq!(code, 0, "{said}");
}

/// Asserts that all this is said in the end that is expected.
#[track_caller]
fn ends(code: i32, (found, said): (i32, String), parts: &[&str]) {
    assert_eq!(found, code, "{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not said in:\n{said}");
    }
}

#[test]
fn every_configuration_passes_its_tests_and_they_reach_every_route() {
    let certs = Certs::new();
    let key = certs.key("site", &["-algorithm", "ED25519"]);
    let certificate = certs.by_itself("site", "www.example.com");
    let files = files(".tests.yaml");
    assert!(files.len() >= 4, "{files:?}");
    let paths: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let words = ["test", "--coverage-min", "100"].into_iter().chain(paths.iter().map(String::as_str));
    let words: Vec<&str> = words.collect();
    let env = [("SITE_CERTIFICATE", certificate.as_str()), ("SITE_KEY", key.as_str())];
    let (code, said) = ringway_with(Path::new("."), &words, &env);
    assert_eq!(code, 0, "{said}");
}

#[test]
fn what_nodes_do_and_what_time_does_is_as_the_test_says() {
    passes(
        r#"
time: "2026-03-01T10:00:00Z"
cases:
  - name: the clock stands where it is put
    request: {url: /two}
    expect: {status: 200, headers: {Date: "Sun, 01 Mar 2026 10:00:00 GMT"}}
  - name: and goes on by what is waited for
    steps:
      - {request: {url: /late}, expect: {status: 200}}
      - {wait: 3600, request: {url: /two}, expect: {headers: {Date: "Sun, 01 Mar 2026 11:00:50 GMT"}}}
  - name: a silent node is given up
    nodes: {one.internal:80: {fails: silent}}
    request: {url: /one/a}
    expect: {status: 504, reason: upstream_read_timeout, tries: [one.internal:80], upstream: one}
  - name: one that is late is given up, too
    nodes: {one.internal:80: {delay: 3}}
    request: {url: /one/a}
    expect: {status: 504}
  - name: one that is slow is waited for
    nodes: {one.internal:80: {delay: 1, body: slow}}
    steps:
      - {request: {url: /one/a}, expect: {status: 200, body: slow}}
      - {request: {url: /none}, expect: {status: 404, headers: {Date: {contains: "10:00:01"}}}}
  - name: nodes answer one thing after the other
    nodes: {one.internal:80: [{status: 500}, {fails: refused}, {fails: closed}, {body: {ok: true}}]}
    steps:
      - {request: {url: /one/a}, expect: {status: 500, reason: null}}
      - {request: {url: /one/a}, expect: {status: 502, reason: upstream_connect_failed, tries: [one.internal:80]}}
      - {request: {url: /one/a, method: POST}, expect: {status: 502, tries: [one.internal:80]}}
      - {request: {url: /one/a}, times: 3, expect: {status: 200, body: {json: {ok: true}}}}
  - name: what was refused is tried elsewhere
    nodes: {one.internal:80: {fails: refused}}
    steps:
      - {request: {url: /two}, times: 3, expect: {status: 200, node: 10.0.0.2:80}}
"#,
    );
}

#[test]
fn a_request_is_seen_by_its_node_as_it_was_forwarded() {
    passes(
        r#"
nodes:
  "*": {status: 201, headers: {X-Own: [a, b], Transfer-Encoding: chunked}, body: made}
cases:
  - name: a body, headers and an address of the client's own
    request: {method: PUT, url: "http://h.test:8080/one/a%20b?c=d", body: hello, from: "2001:db8::7", headers: {X-A: [1, 2]}}
    expect:
      status: 201
      headers: {X-Own: "a, b", X-None: null}
      body: {not: {contains: other}}
      node: one.internal:80
      forwarded:
        method: PUT
        uri: /one/a%20b?c=d
        body: hello
        headers: {Host: "h.test:8080", X-A: "1, 2", X-Real-IP: "2001:db8::7", X-Forwarded-Port: 8080, X-None: null}
  - name: no body for HEAD
    request: {method: HEAD, url: /one/a}
    expect: {status: 201, body: null}
"#,
    );
}

#[test]
fn what_is_not_as_expected_is_told_with_its_place_and_in_a_report() {
    let tests = format!(
        "{OBJECTS}{}",
        r#"
cases:
  - name: good
    request: {url: /two}
    expect: {status: 200}
  - name: bad & worse
    steps:
      - request: {url: /two}
        times: 2
        expect: {status: 200}
      - request: {url: /none}
        expect:
          status: 200
          route: two
          headers: {Server: {matches: "^nginx"}}
"#
    );
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.yaml"), &tests).unwrap();
    let line = |text: &str| tests.lines().position(|line| line.contains(text)).unwrap() + 1;
    let (status, route) = (line("          status: 200"), line("          route: two"));
    let found = ringway(dir.path(), &["test", "t.yaml", "--junit", "out.xml"]);
    ends(
        1,
        found,
        &[
            "  pass  good\n",
            "  FAIL  bad & worse\n",
            &format!("t.yaml:{status}:19: steps[1].expect.status: expected 200, found 404\n"),
            &format!("t.yaml:{route}:18: steps[1].expect.route: expected \"two\", found nothing\n"),
            "steps[1].expect.headers.Server: expected a text that fits /^nginx/, found \"ringway\"\n",
            "  routes that no request reached: late, one\n",
            "1 passed, 1 failed, 1 of 3 routes reached",
        ],
    );
    let report = fs::read_to_string(dir.path().join("out.xml")).unwrap();
    for part in [
        "<testsuite name=\"t.yaml\" tests=\"2\" failures=\"1\" errors=\"0\">",
        "name=\"bad &amp; worse\" file=\"t.yaml\" line=\"",
        "<failure message=\"steps[1].expect.status: expected 200, found 404\">",
    ] {
        assert!(report.contains(part), "{part:?} is not in:\n{report}");
    }
    let filtered = ringway(dir.path(), &["test", "t.yaml", "--filter", "good"]);
    ends(0, filtered, &["1 passed, 0 failed, 1 left out"]);
    let few = ringway(dir.path(), &["test", "t.yaml", "--coverage-min", "90", "--quiet"]);
    ends(1, few, &["expected 90 % of the routes to be reached, got 33.3 %"]);
}

#[test]
fn too_few_routes_reached_is_a_failure_though_all_pass() {
    let tests = format!("{OBJECTS}cases: [{{name: a, request: {{url: /two}}}}]");
    ends(1, try_out(&tests, &["--coverage-min", "34"]), &["1 passed, 0 failed"]);
    ends(0, try_out(&tests, &["--coverage-min", "33"]), &["1 of 3 routes reached"]);
}

#[test]
fn a_faulty_file_is_told_with_case_and_field_and_nothing_is_tried() {
    for (tests, parts) in [
        ("cases: [", &["t.yaml:2:1: not YAML"][..]),
        ("cases: []", &["expected resources or objects, got neither", "cases: expected 1 to 1000, got 0"]),
        (
            "objects: {routes: []}\ncases: [{name: a, requst: {url: /}}]",
            &["t.yaml:2:", "cases[0]", "requst", "request"],
        ),
        (
            "objects: {routes: []}\ncases: [{name: a}, {name: a, request: {url: /}, steps: [{wait: 1}]}]",
            &[
                "case \"a\": cases[0]: expected a request or steps, got neither",
                "got both",
                "the name of a case before",
            ],
        ),
        (
            "objects: {routes: []}\ncases:\n  - {name: a, request: {url: 'ftp://a/'}}",
            &["t.yaml:3:", "case \"a\": cases[0].request: url: expected http://HOST/PATH"],
        ),
        (
            "objects: {routes: []}\ncases:\n  - {name: a, request: {url: /}, expect: {status: {a: 1}, plugins: {rewrit: []}}}",
            &["cases[0].expect.status", "cases[0].expect.plugins"],
        ),
        (
            "objects: {routes: []}\nnodes: {unknown.test:80: {}}\ncases: [{name: a, request: {url: /}}]",
            &["nodes[\"unknown.test:80\"]: expected the HOST:PORT of a node that an upstream has, or *"],
        ),
        (
            "objects: {routes: [{id: 1, uri: /, hots: a}]}\ncases: [{name: a, request: {url: /}}]",
            &["t.yaml: routes/1", "hots"],
        ),
        ("resources: none.yaml\ncases: [{name: a, request: {url: /}}]", &["none.yaml: No such file"]),
        (
            "config: none.yaml\nobjects: {routes: []}\ncases: [{name: a, request: {url: /}}]",
            &["none.yaml: No such file"],
        ),
        (
            "objects: {routes: []}\ntime: noon\ncases: [{name: a, request: {url: /}}]",
            &["t.yaml:2:7: time: expected a time such as"],
        ),
    ] {
        ends(2, try_out(tests, &[]), parts);
    }
    let dir = tempfile::tempdir().unwrap();
    ends(2, ringway(dir.path(), &["test", "nowhere.yaml"]), &["nowhere.yaml: No such file"]);
}

#[test]
fn settings_variables_and_several_files_are_taken_from_where_the_tests_are() {
    let dir = tempfile::tempdir().unwrap();
    let tests = dir.path().join("tests");
    fs::create_dir_all(tests.join("conf.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(tests.join(name), text).unwrap();
    write("config.yaml", "server_tokens: true\ntrusted_addresses: [10.0.0.0/8]\n");
    write("conf.d/a.yaml", "routes: [{id: a, uri: /a, upstream_id: u}]");
    write("conf.d/b.yaml", "upstreams: [{id: u, nodes: {\"${{NODE}}\": 1}}]");
    write("more.yaml", "routes: [{id: b, uri: /b, plugins: {mocking: {response_example: \"${{SAYS}}\"}}}]");
    write(
        "t.yaml",
        r#"
config: config.yaml
resources: [conf.d, more.yaml]
env: {NODE: "nodes.internal:8080", SAYS: moin}
cases:
  - name: a trusted proxy is believed
    request: {url: /a, from: 10.1.2.3, headers: {X-Forwarded-For: 192.0.2.7}}
    expect: {node: nodes.internal:8080, headers: {Server: {contains: ringway/}}, forwarded: {headers: {X-Forwarded-For: {contains: 192.0.2.7}}}}
  - name: anybody else is not
    request: {url: /a, from: 192.0.2.9, headers: {X-Forwarded-For: 192.0.2.7}}
    expect: {forwarded: {headers: {X-Forwarded-For: 192.0.2.9}}}
  - name: what the environment says
    request: {url: /b}
    expect: {status: 200, body: {contains: moin}, plugins: {access: [mocking], log: []}}
"#,
    );
    ends(0, ringway(dir.path(), &["test", "tests/t.yaml"]), &["3 passed", "2 of 2 routes reached"]);
}

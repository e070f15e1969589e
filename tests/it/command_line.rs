//! The command line against a running gateway: objects over its control socket, and the process itself.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::kit::{Certs, Client, Etcd, Gateway, Origin, eventually, reply};

on_both_drivers!(
    a_file_is_applied_shown_dumped_and_taken_back,
    what_is_not_in_the_file_goes_and_what_says_the_same_stays_untouched,
    a_diff_tells_objects_and_winners_and_changes_nothing,
    a_faulty_file_changes_nothing_and_its_faults_are_told,
    the_past_is_told_and_gone_back_to,
    a_reload_is_answered_when_it_is_served,
    quit_serves_what_is_open_to_its_end,
    stop_cuts_what_is_open,
);

/// Writes a file into the gateway's folder.
fn file(gateway: &Gateway, name: &str, text: &str) {
    fs::write(gateway.path(name), text).unwrap();
}

/// Runs a verb that must succeed.
#[track_caller]
fn done(gateway: &Gateway, words: &str) -> String {
    let (code, said) = gateway.cli(words);
    assert_eq!(code, 0, "{words}: {said}");
    said
}

/// Runs a verb that must end with this code.
#[track_caller]
fn fails(gateway: &Gateway, words: &str, expected: i32) -> String {
    let (code, said) = gateway.cli(words);
    assert_eq!(code, expected, "{words}: {said}");
    said
}

fn objects(origin: &Origin) -> String {
    format!(
        "upstreams: [{{id: u, nodes: {{'{}': 1}}}}]\n\
         routes: [{{id: 1, uri: /hello, upstream_id: u, plugins: {{key-auth: {{}}}}}}]\n\
         consumers:\n- username: jack\n- id: jack/credentials/c\n  plugins: {{key-auth: {{key: k1}}}}\n",
        origin.node()
    )
}

fn a_file_is_applied_shown_dumped_and_taken_back() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    file(&gateway, "all.yaml", &objects(&origin));
    let said = done(&gateway, "apply -f all.yaml --dry-run");
    assert!(said.contains("+ routes/1\n") && said.contains("would be applied; created: 4"), "{said}");
    gateway.get("/hello").expect_status(404);
    let said = done(&gateway, "apply -f all.yaml");
    assert!(said.contains("applied; created: 4, changed: 0, deleted: 0; revision: 1"), "{said}");
    gateway.request("GET", "/hello", &[("apikey", "k1")], b"").expect(200, "hello");

    let said = done(&gateway, "get routes");
    assert!(said.starts_with("routes/1 ") && said.contains("/hello key-auth"), "{said}");
    assert!(done(&gateway, "get route 1").contains("upstream_id: u"));
    assert!(done(&gateway, "get credentials jack/c").contains("key: '***'"));
    assert!(done(&gateway, "get credentials jack/c --secrets").contains("key: k1"));
    assert!(done(&gateway, "get credentials jack").contains("consumers/jack/credentials/c"));
    let said: Value = serde_json::from_str(&done(&gateway, "get upstreams u --format json")).unwrap();
    assert_eq!(said["value"]["id"], "u");

    // Without secrets it is taken back here, with them by anybody.
    let masked = done(&gateway, "dump");
    assert!(masked.contains("key: '***'") && !masked.contains("k1"), "{masked}");
    done(&gateway, "dump -o dumped.yaml");
    assert_eq!(fs::metadata(gateway.path("dumped.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    let said = done(&gateway, "apply -f dumped.yaml");
    assert!(said.contains("nothing to do; revision: 1"), "{said}");
    let other = Gateway::resources(&done(&gateway, "dump --secrets"), &[]).start();
    other.request("GET", "/hello", &[("apikey", "k1")], b"").expect(200, "hello");
    other.request("GET", "/hello", &[("apikey", "***")], b"").expect_status(401);
}

fn what_is_not_in_the_file_goes_and_what_says_the_same_stays_untouched() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let upstream = json!({"nodes": {origin.node(): 1}});
    admin.put("/routes/same", &json!({"uri": "/same", "upstream": upstream}).to_string());
    admin.put("/routes/old", &json!({"uri": "/old", "upstream": upstream}).to_string());
    admin.put("/routes/new", &json!({"uri": "/was", "upstream": upstream}).to_string());
    let route = |id: &str, uri: &str| format!("{{id: {id}, uri: {uri}, upstream: {upstream}}}");
    let text = format!("routes: [{}, {}]", route("same", "/same"), route("new", "/is"));
    file(&gateway, "all.yaml", &text);
    let said: Value = serde_json::from_str(&done(&gateway, "apply -f all.yaml --format json")).unwrap();
    assert_eq!(
        (&said["created"], &said["changed"], &said["deleted"]),
        (&json!([]), &json!(["routes/new"]), &json!(["routes/old"]))
    );
    gateway.get("/old").expect_status(404);
    gateway.get("/was").expect_status(404);
    gateway.get("/is").expect(200, "hello");
    let held = |id: &str| admin.ask("GET", &format!("/routes/{id}"), &[], "").json();
    assert_eq!((&held("same")["modifiedIndex"], &held("new")["modifiedIndex"]), (&json!(1), &json!(4)));
    assert!(held("new")["value"]["create_time"].is_u64());

    file(&gateway, "none.yaml", "routes: []");
    let said = fails(&gateway, "apply -f none.yaml", 64);
    assert!(said.contains("the gateway has 2") && said.contains("--empty"), "{said}");
    gateway.get("/is").expect(200, "hello");
    done(&gateway, "apply -f none.yaml --empty");
    gateway.get("/is").expect_status(404);
}

fn a_diff_tells_objects_and_winners_and_changes_nothing() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    file(&gateway, "all.yaml", &objects(&origin));
    done(&gateway, "apply -f all.yaml");
    assert_eq!(done(&gateway, "diff -f all.yaml"), "no differences");
    let text = objects(&origin).replace("k1", "k2").replace("{id: u,", "{id: u, retries: 1,").replace(
        "routes: [",
        "routes: [{id: 2, uri: /hel*, upstream_id: u}, {id: 3, uri: /hello, priority: 9, upstream_id: u},",
    );
    file(&gateway, "new.yaml", &text);
    let said = fails(&gateway, "diff -f new.yaml", 2);
    for line in [
        "+ routes/2",
        "+ routes/3",
        "~ upstreams/u",
        "    retries: nothing -> 1",
        "~ consumers/jack/credentials/c",
        "    plugins.key-auth.key: \"***\" -> \"***\"",
        "! GET other.invalid/hello: routes/1 -> routes/3",
        "! GET other.invalid/helx: no route -> routes/2",
        "created: 2, changed: 2, deleted: 0; requests that another route wins: 2",
    ] {
        assert!(said.lines().any(|found| found == line), "{line} is missing in:\n{said}");
    }
    let (code, said) = gateway.cli("diff -f new.yaml --format json");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["winners"][0]["after"]), (2, &json!("routes/3")));
    // It says what the router does.
    gateway.request("GET", "/hello", &[("apikey", "k1")], b"").expect(200, "hello");
    gateway.get("/helx").expect_status(404);
    done(&gateway, "apply -f new.yaml");
    gateway.get("/hello").expect(200, "hello");
    gateway.get("/helx").expect(200, "hello");
    gateway.get("/help").expect(200, "hello");
    assert_eq!(gateway.logged("/help")["route_id"], "2");
    file(&gateway, "bad.yaml", "routes: [{id: 1, uri: /a, priority: high}]");
    assert!(fails(&gateway, "diff -f bad.yaml", 3).contains("routes/1: priority: expected"));
}

fn a_faulty_file_changes_nothing_and_its_faults_are_told() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    file(&gateway, "all.yaml", &objects(&origin));
    done(&gateway, "apply -f all.yaml");
    for (text, code, told) in [
        // What the gateway refuses.
        (
            "routes: [{id: 1, uri: /a, upstream: {nodes: {'127.0.0.1:9': 1}, retries: ten}}]",
            1,
            "routes/1: upstream.retries: expected",
        ),
        ("routes: [{id: 1, uri: /a, upstream_id: gone}]", 1, "routes/1: upstream_id: "),
        ("{routes: [{id: 1, uri: /a}], plugins: [cors]}", 1, "refused: plugins: "),
        // What is seen before it is asked.
        ("rotes: []", 3, "did you mean \"routes\"?"),
        (
            "consumers: [{username: x, plugins: {key-auth: {key: '***'}}}]",
            3,
            "consumers/x: plugins.key-auth.key: ",
        ),
    ] {
        file(&gateway, "bad.yaml", text);
        let said = fails(&gateway, "apply -f bad.yaml", code);
        assert!(said.contains(told), "{text}: {said}");
    }
    fails(&gateway, "apply -f nowhere.yaml", 78);
    gateway.request("GET", "/hello", &[("apikey", "k1")], b"").expect(200, "hello");
}

fn the_past_is_told_and_gone_back_to() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    file(&gateway, "all.yaml", &objects(&origin));
    done(&gateway, "apply -f all.yaml");
    file(&gateway, "none.yaml", "");
    done(&gateway, "apply -f none.yaml --empty");
    let said = done(&gateway, "history");
    let lines: Vec<&str> = said.lines().collect();
    let who = format!("unix:uid={}", fs::metadata(gateway.path("config.yaml")).unwrap().uid());
    assert!(lines[1].starts_with("2 ") && lines[1].contains("- routes/1"), "{said}");
    assert!(
        lines[2].starts_with("1 ") && lines[2].contains("+ routes/1") && lines[2].contains(&who),
        "{said}"
    );
    assert!(done(&gateway, "rollback 1 --dry-run").contains("would be as at revision 1; objects: 4"));
    gateway.get("/hello").expect_status(404);
    let said = done(&gateway, "rollback 1");
    assert!(said.contains("as at revision 1; objects: 4; revision: 3"), "{said}");
    gateway.request("GET", "/hello", &[("apikey", "k1")], b"").expect(200, "hello");
    let said = fails(&gateway, "rollback 77", 1);
    assert!(said.contains("does not reach back to revision 77"), "{said}");
    let audit = fs::read_to_string(gateway.path("state/audit.jsonl")).unwrap();
    assert!(audit.lines().count() == 3 && audit.contains(&format!("\"who\":\"{who}\"")), "{audit}");
}

fn a_reload_is_answered_when_it_is_served() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/old", [&origin]).start();
    let text = |uri: &str| {
        format!("routes: [{{id: 1, uri: {uri}, upstream: {{nodes: {{'{}': 1}}}}}}]", origin.node())
    };
    gateway.write(&text("/new"), &[]);
    let said = done(&gateway, "reload");
    assert!(said.contains("apisix.yaml read again; ") && said.contains("set aside: none"), "{said}");
    gateway.get("/new").expect(200, "hello");
    gateway.write("rotes: []", &[]);
    let said = fails(&gateway, "reload", 1);
    assert!(said.contains("did you mean \"routes\"?") && said.contains("nothing has changed"), "{said}");
    gateway.get("/new").expect(200, "hello");

    // A file holds the objects: they are shown, checked and not changed.
    assert!(done(&gateway, "get routes").contains("/new"));
    file(&gateway, "other.yaml", &text("/other"));
    assert!(done(&gateway, "apply -f other.yaml --dry-run").contains("~ routes/1: uri\n"));
    let said = fails(&gateway, "apply -f other.yaml", 1);
    assert!(said.contains("refused: objects are held in apisix.yaml"), "{said}");
    let managed = Gateway::managed().start();
    assert!(fails(&managed, "reload", 1).contains("nothing to read again"));
}

/// Answers a request when it is let.
fn held() -> (Origin, Sender<()>) {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let origin = Origin::answering(move |seen| {
        let _ = gone.lock().unwrap().recv_timeout(Duration::from_secs(20));
        reply("200 OK", &seen.target)
    });
    (origin, go)
}

fn quit_serves_what_is_open_to_its_end() {
    let (origin, go) = held();
    let mut gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    let said = done(&gateway, "quit");
    assert!(said.contains(&format!("pid {} accepts nothing more", gateway.pid())), "{said}");
    eventually("connections are refused", || std::net::TcpStream::connect(gateway.address()).err());
    go.send(()).unwrap();
    client.raw.answer().expect_status(200);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(!gateway.path("state/control.sock").exists() && !gateway.path("state/control.pid").exists());
}

fn stop_cuts_what_is_open() {
    let (origin, _go) = held();
    let mut gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = gateway.client();
    client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    let said = done(&gateway, "stop --format json");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["pid"], gateway.pid());
    assert_eq!(gateway.wait_exit().code(), Some(143));
    assert!(!gateway.path("state/control.sock").exists());
}

#[test]
fn who_is_not_reached_is_named_with_what_to_do() {
    let mut gateway = Gateway::managed().start();
    let said = fails(&gateway, "get routes --socket nowhere.sock", 69);
    assert!(said.contains("nowhere.sock: No such file") && said.contains("ringway run"), "{said}");
    for words in ["get rutes", "get", "apply", "rollback", "get credentials", "history --limit x"] {
        fails(&gateway, words, 64);
    }
    assert!(fails(&gateway, "get rutes", 64).contains("did you mean \"routes\"?"));
    assert!(fails(&gateway, "get routes 9", 1).contains("routes/9: there is none"));
    done(&gateway, "stop");
    gateway.wait_exit();
    let said = fails(&gateway, "stop", 69);
    assert!(said.contains("state/control.sock") && said.contains("control.pid"), "{said}");
}

#[test]
fn a_socket_of_a_dead_process_is_replaced_and_of_a_living_one_is_not() {
    let mut gateway = Gateway::routing("/*", []).start();
    let socket = gateway.path("state/control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let other = Gateway::routing("/*", []).settings(&format!("control_socket: {}", socket.display()));
    let (code, said) = other.start_and_fail();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("control_socket {}: another gateway", socket.display())), "{said}");
    gateway.kill_and_start_again();
    assert!(done(&gateway, "get routes").contains("routes/1"));
}

#[test]
fn a_process_whose_socket_was_removed_is_reached_by_a_signal() {
    for (verb, code) in [("quit", 0), ("stop", 130)] {
        let (origin, go) = held();
        let mut gateway = Gateway::routing("/*", [&origin]).start();
        let mut client = gateway.client();
        client.raw.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        origin.wait_requests(1);
        fs::remove_file(gateway.path("state/control.sock")).unwrap();
        assert!(done(&gateway, "reload").contains(&format!("sent HUP to pid {}", gateway.pid())));
        done(&gateway, verb);
        if verb == "quit" {
            go.send(()).unwrap();
        }
        assert_eq!(gateway.wait_exit().code(), Some(code), "{verb}");
    }
}

#[test]
fn what_is_for_the_socket_is_not_at_the_port() {
    let mut gateway = Gateway::managed().settings("admin: {key_required: false}").start();
    let admin = gateway.admin();
    let ask = |method: &str, path: &str| Client::connect(admin.address).request(method, path, &[], b"");
    for path in ["/process", "/process/reload", "/process/quit", "/process/stop"] {
        ask("POST", path).expect_status(404);
        ask("GET", path).expect_status(404);
    }
    ask("GET", "/apisix/admin/configs?secrets=true").expect_status(403);
    ask("GET", "/apisix/admin/configs?secrets=false").expect_status(200);
    let said = gateway.on_socket("GET", "/process");
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("\"objects\":\"store\""), "{said}");
    assert!(gateway.on_socket("GET", "/process/stop").starts_with("HTTP/1.1 404"));
    assert!(gateway.is_running());
}

#[test]
fn private_keys_are_told_over_the_socket_when_they_are_asked_for() {
    let gateway = Gateway::managed().start();
    let certs = Certs::new();
    let key = certs.key("own", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let ssl = json!({"cert": certs.by_itself("own", "a.test"), "key": key, "snis": ["a.test"]});
    gateway.admin().put("/ssls/1", &ssl.to_string());
    assert!(done(&gateway, "dump --secrets").contains("BEGIN PRIVATE KEY"));
    let masked = done(&gateway, "dump");
    assert!(masked.contains("key: '***'") && !masked.contains("BEGIN PRIVATE KEY"), "{masked}");
    let whole = gateway.admin().ask("GET", "/configs", &[], "");
    assert!(!whole.text().contains("PRIVATE KEY"), "{}", whole.text());
}

#[test]
fn where_no_port_is_offered_the_socket_still_is() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().settings("admin: {enabled: false}").start();
    file(&gateway, "all.yaml", &objects(&origin));
    done(&gateway, "apply -f all.yaml");
    // It is on disk, as with the port.
    gateway.kill_and_start_again();
    gateway.request("GET", "/hello", &[("apikey", "k1")], b"").expect(200, "hello");
    let off = Gateway::routing("/*", [&origin]).settings("control_socket: 'off'").start();
    assert!(fails(&off, "get routes", 64).contains("control_socket: off"));
    assert!(!off.path("state").exists());
}

#[test]
fn in_front_of_etcd_a_file_is_applied_to_it() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    let gateway = Gateway::managed().settings(&etcd.settings()).start();
    file(&gateway, "all.yaml", &objects(&origin));
    done(&gateway, "apply -f all.yaml");
    gateway.request("GET", "/hello", &[("apikey", "k1")], b"").expect(200, "hello");
    assert!(etcd.value("consumers/jack/credentials/c").contains("k1"));
    assert!(done(&gateway, "apply -f all.yaml").contains("nothing to do"));
    assert!(fails(&gateway, "reload", 1).contains("etcd tells of every change"));
    assert!(gateway.on_socket("GET", "/process").contains("\"objects\":\"etcd\""));
}

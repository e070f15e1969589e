//! Clients that come by Unix sockets: who they are, who believes them, and the files of the sockets.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::kit::{Caller, Certs, Gateway, Origin, Raw, Setup, Signal, eventually};

on_both_drivers!(
    requests_come_in_by_a_socket,
    all_cores_serve_one_socket,
    tls_is_spoken_over_a_socket,
    who_comes_by_a_socket_is_trusted_where_that_is_said,
    rules_for_addresses_know_who_has_none,
    a_load_balancer_says_whose_connection_it_is,
    streams_come_in_by_a_socket,
    the_file_is_there_while_the_gateway_is,
    a_socket_that_is_in_use_is_not_taken,
);

/// A folder for sockets, with the path of one in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.sock");
    (folder, path)
}

/// Listens at the socket, too.
fn listening(setup: Setup, path: &Path) -> Setup {
    setup.settings(&json!({"listen": [format!("unix:{}", path.display())]}).to_string())
}

fn ask(raw: &mut Raw, path: &str, more: &str) -> crate::kit::Answer {
    raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")).answer()
}

fn requests_come_in_by_a_socket() {
    let (_folder, path) = place();
    let origin = Origin::echoing();
    let gateway = listening(Gateway::routing("/*", [&origin]), &path).start();
    let mut raw = Raw::connect_at(&path);
    let body = "x".repeat(3 << 20);
    for at in ["/one", "/two"] {
        let head = format!("POST {at} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        raw.send(head).send(&body).answer().expect(200, &body);
        let seen = origin.saw(at);
        assert_eq!(seen.header("x-real-ip"), Some("unix:"));
        assert_eq!(seen.header("x-forwarded-for"), Some("unix:"));
        assert_eq!(seen.header("x-forwarded-port"), Some("80"));
        assert_eq!(gateway.logged(at)["client_ip"], "unix:");
    }
    gateway.get("/three").expect(200, "");
    gateway.wait_said(&["http on unix:", "gateway.sock"]);
}

fn all_cores_serve_one_socket() {
    let (_folder, path) = place();
    let origin = Origin::naming();
    let _gateway = listening(Gateway::routing("/*", [&origin]), &path).cores(2).start();
    let mut clients: Vec<Raw> = (0..64).map(|_| Raw::connect_at(&path)).collect();
    for round in 0..3 {
        for (at, raw) in clients.iter_mut().enumerate() {
            let uri = format!("/{round}/{at}");
            ask(raw, &uri, "").expect(200, &format!("GET {uri}"));
        }
    }
    drop(clients);
    assert_eq!(origin.requests(), 192);
}

fn tls_is_spoken_over_a_socket() {
    let ((_folder, path), certs) = (place(), Certs::new());
    certs.authority("ca");
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test");
    let origin = Origin::naming();
    let _gateway = Gateway::routing("/*", [&origin])
        .settings(&json!({"ssl": {"listen": [format!("unix:{}", path.display())]}}).to_string())
        .objects(&json!({"ssls": [{"id": "1", "sni": "a.test", "cert": cert, "key": key}]}).to_string())
        .start();
    let mut raw = Caller::new(&certs, "ca", None).call_over(Raw::connect_at(&path), "a.test");
    ask(&mut raw, "/", "").expect(200, "GET /");
    assert_eq!(origin.only().header("x-forwarded-port"), Some("443"));
}

fn who_comes_by_a_socket_is_trusted_where_that_is_said() {
    let (_folder, path) = place();
    let origin = Origin::naming();
    let forged = "X-Forwarded-For: 192.0.2.9\r\n";
    let gateway = listening(Gateway::routing("/*", [&origin]), &path).start();
    ask(&mut Raw::connect_at(&path), "/no", forged).expect_status(200);
    assert_eq!(origin.saw("/no").header("x-real-ip"), Some("unix:"));
    drop(gateway);
    let _gateway =
        listening(Gateway::routing("/*", [&origin]), &path).settings("trusted_addresses: ['unix:']").start();
    ask(&mut Raw::connect_at(&path), "/yes", forged).expect_status(200);
    let seen = origin.saw("/yes");
    assert_eq!(seen.header("x-real-ip"), Some("192.0.2.9"));
    assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.9, unix:"));
    // Nobody is believed to have come by a socket, not even by those who are trusted.
    ask(&mut Raw::connect_at(&path), "/forged", "X-Forwarded-For: 192.0.2.9, ::\r\n").expect_status(200);
    assert_eq!(
        origin.saw("/forged").header("x-real-ip"),
        Some("unix:"),
        "what is unreadable counts for nothing"
    );
}

fn rules_for_addresses_know_who_has_none() {
    let (_folder, path) = place();
    let origin = Origin::naming();
    let objects = r#"
        routes:
          - {id: only, uri: /only, plugins: {ip-restriction: {whitelist: ["unix:"]}}, upstream: {nodes: {ORIGIN: 1}}}
          - {id: others, uri: /others, plugins: {ip-restriction: {blacklist: ["unix:"]}}, upstream: {nodes: {ORIGIN: 1}}}
          - {id: every, uri: /every, plugins: {ip-restriction: {whitelist: ["0.0.0.0/0"]}}, upstream: {nodes: {ORIGIN: 1}}}
          - {id: match, uri: /match, vars: [[remote_addr, ipmatch, ["unix:"]]], upstream: {nodes: {ORIGIN: 1}}}
          - {id: equal, uri: /equal, vars: [[remote_addr, ==, "unix:"]], upstream: {nodes: {ORIGIN: 1}}}
          - {id: from, uri: /from, remote_addrs: ["unix:"], upstream: {nodes: {ORIGIN: 1}}}
    "#;
    let gateway = listening(Gateway::resources(objects, &[("ORIGIN", &origin)]), &path).start();
    for (uri, by_socket, by_port) in [
        ("/only", 200, 403),
        ("/others", 403, 200),
        ("/every", 403, 200),
        ("/match", 200, 404),
        ("/equal", 200, 404),
        ("/from", 200, 404),
    ] {
        assert_eq!(ask(&mut Raw::connect_at(&path), uri, "").status, by_socket, "{uri} by the socket");
        assert_eq!(gateway.get(uri).status, by_port, "{uri} by the port");
    }
}

fn a_load_balancer_says_whose_connection_it_is() {
    let (_folder, path) = place();
    let origin = Origin::naming();
    let proxied = |from: &str| {
        let settings =
            json!({"proxy_protocol": {"listen": format!("unix:{}", path.display()), "from": [from]}});
        Gateway::routing("/*", [&origin]).settings(&settings.to_string()).start()
    };
    let header = "PROXY TCP4 192.0.2.7 10.0.0.1 54321 443\r\n";
    let gateway = proxied("unix:");
    ask(Raw::connect_at(&path).send(header), "/told", "").expect(200, "GET /told");
    assert_eq!(origin.saw("/told").header("x-real-ip"), Some("192.0.2.7"));
    drop(gateway);
    let gateway = proxied("127.0.0.1");
    Raw::connect_at(&path).send(header).expect_closed();
    gateway.wait_said(&["closed a connection of unix:: expected a load balancer of proxy_protocol.from"]);
}

fn streams_come_in_by_a_socket() {
    let (_folder, path) = place();
    let node = super::streams::named("node");
    let settings = json!({"stream_proxy": {"tcp": [{"unix": path, "mode": "0666"}]}});
    let gateway =
        Gateway::resources("stream_routes: [{id: s, upstream: {nodes: {NODE: 1}}}]", &[("NODE", &node)])
            .settings(&settings.to_string())
            .start();
    let mut raw = Raw::connect_at(&path);
    raw.send("hello");
    super::streams::expect_bytes(&mut raw, b"nodehello");
    drop(raw);
    assert_eq!(gateway.logged("\"route_id\":\"s\"")["client_ip"], "unix:");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
}

fn the_file_is_there_while_the_gateway_is() {
    let (_folder, path) = place();
    let origin = Origin::naming();
    let mut gateway = listening(Gateway::routing("/*", [&origin]), &path).start();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    gateway.kill_and_start_again();
    ask(&mut Raw::connect_at(&path), "/", "").expect(200, "GET /");
    gateway.signal(Signal::Term);
    assert!(gateway.wait_exit().success());
    eventually("the file is gone", || (!path.exists()).then_some(()));
}

fn a_socket_that_is_in_use_is_not_taken() {
    let (_folder, path) = place();
    let origin = Origin::naming();
    let other = UnixListener::bind(&path).unwrap();
    let (code, said) = listening(Gateway::routing("/*", [&origin]), &path).start_and_fail();
    let expected = format!("can not listen on unix:{}: another process listens there", path.display());
    assert!(code != 0 && said.contains(&expected), "{code}: {said}");
    drop(other);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let (code, said) = listening(Gateway::routing("/*", [&origin]), &path).start_and_fail();
    assert!(code != 0 && said.contains("a file is there that is no socket"), "{code}: {said}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn a_path_that_is_none_is_told_of() {
    for (place, problem) in [
        (
            json!("unix:run/a.sock"),
            "listen: expected an address with port such as 0.0.0.0:9080, or unix: and an absolute path of at most 107 bytes",
        ),
        (
            json!(format!("unix:/{}", "a".repeat(107))),
            "listen: expected an address with port such as 0.0.0.0:9080, or unix: and an absolute path of at most 107 bytes",
        ),
        (json!({"unix": "a.sock"}), "listen.unix: expected an absolute path of at most 107 bytes"),
        (
            json!({"unix": "/run/a.sock", "mode": "rw"}),
            "listen.mode: expected a mode such as \"0660\", got \"rw\"",
        ),
    ] {
        let origin = Origin::naming();
        let settings = json!({ "listen": place }).to_string();
        let (code, said) = Gateway::routing("/*", [&origin]).settings(&settings).start_and_fail();
        assert!(code != 0 && said.contains(problem), "{place}: {code}: {said}");
    }
}

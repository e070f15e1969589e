//! Nodes at Unix sockets: requests, TLS, gRPC, streams and checks.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::kit::{Certs, Conn, Front, Gateway, Origin, Raw, as_node, eventually, reply};

on_both_drivers!(
    requests_go_to_a_node_at_a_socket,
    a_connection_to_a_socket_is_used_again,
    a_node_is_told_localhost_where_it_is_told_its_own_name,
    a_socket_that_nobody_listens_on_is_passed_over,
    nginx_answers_over_tls_at_a_socket,
    a_node_at_a_socket_is_verified_as_localhost,
    streams_go_to_a_socket,
    a_node_at_a_socket_is_checked,
);

/// A folder for sockets, with the paths of two.
fn places() -> (tempfile::TempDir, [PathBuf; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["one.sock", "two.sock"].map(|name| folder.path().join(name));
    (folder, paths)
}

fn node(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn to(paths: &[&PathBuf], more: Value) -> crate::kit::Setup {
    let nodes: serde_json::Map<String, Value> = paths.iter().map(|path| (node(path), json!(1))).collect();
    let mut upstream = json!({ "nodes": nodes });
    for (name, value) in more.as_object().into_iter().flatten() {
        upstream[name.as_str()] = value.clone();
    }
    let route = json!({"id": "a", "uri": "/*", "plugins": {"prometheus": {}}, "upstream": upstream});
    Gateway::resources(&json!({ "routes": [route] }).to_string(), &[])
}

fn requests_go_to_a_node_at_a_socket() {
    let (_folder, [path, _]) = places();
    let origin = Origin::naming_at(&path);
    let gateway = to(&[&path], json!({})).start();
    gateway.get("/one").expect(200, "GET /one");
    assert_eq!(origin.saw("/one").header("x-real-ip"), Some("127.0.0.1"));
    let log = gateway.logged("/one");
    assert_eq!(log["upstream_addr"], node(&path));
    let body = "x".repeat(3 << 20);
    gateway.post("/two", body.as_bytes()).expect(200, "POST /two");
    assert_eq!(origin.saw("/two").body.len(), body.len());
    let label = format!("node=\"{}\"", node(&path));
    eventually("the node is in the metrics", || gateway.metrics().contains(&label).then_some(()));
}

fn a_connection_to_a_socket_is_used_again() {
    let (_folder, paths) = places();
    let origins = [0, 1].map(|at| Origin::naming_at(&paths[at]));
    let gateway = to(&[&paths[0], &paths[1]], json!({})).start();
    let mut client = gateway.client();
    for at in 0..20 {
        client.get(&format!("/{at}")).expect_status(200);
    }
    for origin in &origins {
        assert_eq!((origin.requests(), origin.connections()), (10, 1));
    }
}

fn a_node_is_told_localhost_where_it_is_told_its_own_name() {
    let (_folder, [path, _]) = places();
    let origin = Origin::naming_at(&path);
    let gateway = to(&[&path], json!({"pass_host": "node"})).start();
    gateway.get("/").expect_status(200);
    assert_eq!(origin.only().header("host"), Some("localhost"));
}

fn a_socket_that_nobody_listens_on_is_passed_over() {
    let (_folder, [path, other]) = places();
    let gateway = to(&[&path], json!({})).start();
    gateway.get("/none").expect_status(502);
    assert_eq!(gateway.reason("/none"), "upstream_connect_failed");
    drop(gateway);
    // A file that nobody listens on any more.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let origin = Origin::naming_at(&other);
    let gateway = to(&[&path, &other], json!({})).start();
    for at in 0..4 {
        gateway.get(&format!("/{at}")).expect(200, &format!("GET /{at}"));
    }
    assert_eq!(origin.requests(), 4);
}

fn nginx_answers_over_tls_at_a_socket() {
    let ((_folder, [path, _]), certs, origin) = (places(), Certs::new(), Origin::naming());
    certs.authority("ca");
    certs.issued("ca", "server", "DNS:localhost");
    let _nginx = Front::start_at(node(&path), &origin.address().to_string(), &certs);
    let gateway = to(&[&path], json!({"scheme": "https", "pass_host": "node"}))
        .settings(&json!({"ssl": {"trusted_certificate": certs.path("ca.crt")}}).to_string())
        .start();
    gateway.get("/by-nginx").expect(200, "GET /by-nginx");
    assert_eq!(origin.requests(), 1);
}

fn a_node_at_a_socket_is_verified_as_localhost() {
    let ((_folder, [path, _]), certs) = (places(), Certs::new());
    certs.authority("ca");
    certs.issued("ca", "node", "DNS:localhost");
    let answer =
        |conn: &mut Conn| while conn.request().is_some_and(|_| conn.send(&reply("200 OK", "yes"))) {};
    let origin = Origin::serving_at(&path, as_node(&certs, "node", None), answer);
    let with = |host: &str| {
        to(&[&path], json!({"scheme": "https", "pass_host": "rewrite", "upstream_host": host}))
            .settings(&json!({"ssl": {"trusted_certificate": certs.path("ca.crt")}}).to_string())
            .start()
    };
    with("localhost").get("/").expect(200, "yes");
    with("other.test").get("/").expect_status(502);
    assert_eq!(origin.requests(), 1);
}

fn streams_go_to_a_socket() {
    let (_folder, [path, _]) = places();
    let _node = Origin::serving_at(
        &path,
        |wire| wire,
        |conn| while conn.wire().some().is_ok_and(|piece| !piece.is_empty() && conn.send(&piece)) {},
    );
    let nodes: serde_json::Map<String, Value> = [(node(&path), json!(1))].into_iter().collect();
    let objects = json!({"stream_routes": [{"id": "s", "upstream": {"nodes": nodes}}]}).to_string();
    let gateway = super::streams::passing(&objects, &[]).start();
    let mut raw = Raw::connect(gateway.stream_address("tcp"));
    raw.send("there and back");
    super::streams::expect_bytes(&mut raw, b"there and back");
    drop(raw);
    assert_eq!(gateway.logged("\"route_id\":\"s\"")["upstream_addr"], node(&path));
}

fn a_node_at_a_socket_is_checked() {
    let (_folder, [path, other]) = places();
    let (origin, backup) = (Origin::naming_at(&path), Origin::naming_at(&other));
    let checks = json!({"active": {
        "http_path": "/up", "timeout": 1,
        "healthy": {"interval": 0.05, "successes": 1}, "unhealthy": {"interval": 0.05, "tcp_failures": 1},
    }});
    let gateway = to(&[&path, &other], json!({ "checks": checks })).start();
    let statuses = || -> Vec<(String, String)> {
        let told: Value = gateway.control("GET", "/v1/healthcheck/routes/a").json();
        let nodes = told["nodes"].as_array().cloned().unwrap_or_default();
        let text = |node: &Value, field: &str| node[field].as_str().unwrap_or_default().to_owned();
        nodes.iter().map(|node| (text(node, "ip"), text(node, "status"))).collect()
    };
    let are = |one: &str, two: &str| {
        let expected = [(node(&path), one.to_owned()), (node(&other), two.to_owned())];
        eventually(&format!("{expected:?}"), || (statuses() == expected).then_some(()));
    };
    are("healthy", "healthy");
    origin.wait_requests(1);
    assert_eq!(
        (origin.seen()[0].target.as_str(), origin.seen()[0].header("host")),
        ("/up", Some("localhost"))
    );
    drop(origin);
    are("unhealthy", "healthy");
    let before = backup.seen().iter().filter(|seen| seen.target != "/up").count();
    for _ in 0..6 {
        gateway.get("/asked").expect_status(200);
    }
    let after = backup.seen().iter().filter(|seen| seen.target != "/up").count();
    assert_eq!(after - before, 6);
    let label = format!("ip=\"{}\",port=\"0\"}} 0", node(&path));
    assert!(gateway.metrics().contains(&label), "{}", gateway.metrics());
}

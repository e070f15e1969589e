//! Idle connections to nodes are the process's: there are no more than are allowed, and one core's serves another.

use std::cell::Cell;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::kit::{
    Certs, Conn, Gateway, Origin, Raw, Setup, as_node, connect_from, eventually, ports_of_cores, reply,
    within,
};

on_both_drivers!(
    an_idle_connection_of_one_core_serves_another,
    an_idle_connection_over_tls_serves_another_core,
    all_cores_together_keep_as_many_as_they_may,
);

const CORES: usize = 2;
/// On a machine busy with other tests.
const LONG: Duration = Duration::from_secs(30);

/// Says its answers to `/together` when all of them have been asked for, and parts after `/last`.
fn serve(conn: &mut Conn, together: &Barrier) {
    while let Some(seen) = conn.request() {
        if seen.target == "/together" {
            together.wait();
        }
        let is_last = seen.target == "/last";
        let status = if is_last { "200 OK\r\nConnection: close" } else { "200 OK" };
        if !conn.send(&reply(status, &seen.target)) || is_last {
            return;
        }
    }
}

fn ask(gateway: &Gateway, port: u16, path: &str) {
    let stream = eventually("the port is free again", || connect_from(port, gateway.address()).ok());
    Raw::over(stream).send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).answer().expect(200, path);
}

/// So many connections of each core, by requests at once from these ports.
fn open(gateway: &Gateway, ports: &[u16]) {
    thread::scope(|scope| {
        for port in ports {
            scope.spawn(|| ask(gateway, *port, "/together"));
        }
    });
}

fn borrowed(gateway: &Gateway) -> f64 {
    gateway.metric("ringway_upstream_borrows_total{core=\"1\"}").expect("it is told for each core")
}

/// The first core has connections that it does not need; the second needs one.
fn lends(setup: Setup, origin: &Origin) {
    let gateway = setup.cores(CORES).start();
    let ports = ports_of_cores(&gateway, CORES, 2);
    // What was lent when somebody last looked: a letter that comes too late brings the next request its connection.
    let known = Cell::new(0.0);
    within(LONG, "a connection is lent, and no other opened", || {
        open(&gateway, &ports[0]);
        eventually("the first core finds that it needs fewer", || {
            (gateway.metric("ringway_upstream_spare{core=\"0\"}")? > 0.0).then_some(())
        });
        let before = (borrowed(&gateway), origin.connections());
        ask(&gateway, ports[1][0], "/last");
        // On a busy machine a letter may come too late.
        let (lent, opened) = (borrowed(&gateway) - before.0, origin.connections() - before.1);
        let late = before.0 - known.replace(before.0 + lent);
        assert!(lent + late + opened as f64 >= 1.0);
        (lent == 1.0 && opened == 0).then_some(())
    });
    ask(&gateway, ports[1][0], "/last");
}

fn an_idle_connection_of_one_core_serves_another() {
    let together = Arc::new(Barrier::new(2));
    let origin = Origin::serving(move |conn| serve(conn, &together));
    lends(Gateway::routing("/*", [&origin]), &origin);
}

fn an_idle_connection_over_tls_serves_another_core() {
    let certs = Certs::new();
    certs.authority("ca");
    certs.issued("ca", "node", "DNS:node.test");
    let together = Arc::new(Barrier::new(2));
    let origin = Origin::serving_over(as_node(&certs, "node", None), move |conn| serve(conn, &together));
    let setup = Gateway::routing("/*", [&origin])
        .settings(&json!({"ssl": {"trusted_certificate": certs.path("ca.crt")}}).to_string())
        .with("{scheme: https, pass_host: rewrite, upstream_host: node.test}");
    lends(setup, &origin);
}

fn all_cores_together_keep_as_many_as_they_may() {
    const EACH: usize = 4;
    let together = Arc::new(Barrier::new(CORES * EACH));
    let origin = Origin::serving(move |conn| serve(conn, &together));
    let gateway = Gateway::routing("/*", [&origin]).with("keepalive_pool: {size: 3}").cores(CORES).start();
    let ports = ports_of_cores(&gateway, CORES, EACH).concat();
    for _ in 0..3 {
        open(&gateway, &ports);
        // Each of them had a connection of its own, and all but three are closed.
        eventually("three are left", || (origin.connections() - origin.ended() == 3).then_some(()));
    }
}

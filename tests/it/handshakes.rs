//! Handshakes that come all at once: who is there already is served on, those who wait are told or turned away within bounds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::json;

use super::kit::{Caller, Certs, Gateway, Origin, PATIENCE, Setup, eventually};

on_both_drivers!(
    requests_are_answered_while_hundreds_of_handshakes_come,
    who_finds_the_line_full_is_turned_away,
    who_waits_for_too_long_is_cut_off,
    long_keys_of_rsa_sign_beside_the_core_and_all_others_on_it,
);

/// A kind of key with which handshakes take so long that what happens beside them can be counted: milliseconds each.
const LONG: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"];
const SHORT: [&str; 4] = ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn serving(certs: &Certs, origin: &Origin) -> Setup {
    serving_with(certs, origin, &LONG)
}

fn serving_with(certs: &Certs, origin: &Origin, kind: &[&str]) -> Setup {
    certs.authority("ca");
    certs.key("a", kind);
    let (cert, key) = certs.certified("ca", "a", "DNS:a.test", "");
    Gateway::routing("/*", [origin])
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&json!({"ssls": [{"id": "a", "snis": ["a.test"], "cert": cert, "key": key}]}).to_string())
}

/// So many connections that have said hello while the gateway stood still.
fn flood(gateway: &Gateway, certs: &Certs, count: usize) -> Vec<TcpStream> {
    let config = Caller::new(certs, "ca", None).config;
    let to: SocketAddr = gateway.secure_address();
    let mut streams: Vec<TcpStream> = (0..count).map(|_| TcpStream::connect(to).unwrap()).collect();
    eventually("all are accepted", || {
        let open = gateway.metric("ringway_connections{core=\"0\",state=\"active\"")?;
        (open as usize >= count).then_some(())
    });
    gateway.pause();
    for stream in &mut streams {
        let name = ServerName::try_from("a.test").unwrap();
        let mut session = ClientConnection::new(Arc::clone(&config), name).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        stream.write_all(&hello).unwrap();
    }
    streams
}

/// How many of them are answered; the others were closed.
fn answered(streams: Vec<TcpStream>) -> usize {
    let is_answered = |mut stream: TcpStream| stream.read(&mut [0; 1]).is_ok_and(|count| count == 1);
    streams.into_iter().map(is_answered).filter(|is| *is).count()
}

#[track_caller]
fn expect_nobody_waits(gateway: &Gateway) {
    eventually("nobody waits", || {
        (gateway.metric("ringway_tls_handshakes_waiting") == Some(0.0)).then_some(())
    });
}

fn requests_are_answered_while_hundreds_of_handshakes_come() {
    const COUNT: usize = 200;
    let (certs, origin) = (Certs::new(), Origin::replying("hello"));
    // Answered by the gateway, so that nothing but its core is waited for.
    let gateway = serving(&certs, &origin)
        .route("plugins: {fault-injection: {abort: {http_status: 200, body: hello}}}")
        .settings("limits: {keepalive_requests: 10000000}")
        .start();
    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    let streams = flood(&gateway, &certs, COUNT);
    let is_over = AtomicBool::new(false);
    let requests = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut requests = 0;
            while !is_over.load(Ordering::Relaxed) {
                client.get("/").expect(200, "hello");
                requests += 1;
            }
            requests
        });
        gateway.go_on();
        assert_eq!(answered(streams), COUNT);
        is_over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    // All at once, they would take the core for as long as they take.
    assert!(requests >= 20, "{requests} requests beside {COUNT} handshakes");
    let delayed = gateway.metric("ringway_tls_handshakes_delayed_total").unwrap();
    assert!(delayed > COUNT as f64 / 4.0, "{delayed} waited");
    expect_nobody_waits(&gateway);
    assert_eq!(gateway.metric("ringway_tls_handshakes_shed_total"), Some(0.0));
}

fn who_finds_the_line_full_is_turned_away() {
    const COUNT: usize = 100;
    let (certs, origin) = (Certs::new(), Origin::replying("hello"));
    let gateway = serving(&certs, &origin).settings("limits: {handshakes_waiting_max: 8}").start();
    let streams = flood(&gateway, &certs, COUNT);
    gateway.go_on();
    let answered = answered(streams);
    assert!((1..COUNT).contains(&answered), "{answered}");
    eventually("those turned away are counted", || {
        let refused = gateway.metric("ringway_tls_handshakes_shed_total")?;
        (refused as usize == COUNT - answered).then_some(())
    });
    expect_nobody_waits(&gateway);
    // Once there is room again, everybody is welcome.
    let another = flood(&gateway, &certs, 1);
    gateway.go_on();
    assert_eq!(self::answered(another), 1);
}

fn who_waits_for_too_long_is_cut_off() {
    const COUNT: usize = 100;
    let (certs, origin) = (Certs::new(), Origin::replying("hello"));
    let gateway = serving(&certs, &origin).settings("limits: {handshake_timeout: 0.05}").start();
    let streams = flood(&gateway, &certs, COUNT);
    gateway.go_on();
    let answered = answered(streams);
    assert!((1..COUNT).contains(&answered), "{answered}");
    eventually("those cut off are counted", || {
        let errors = gateway.metric("ringway_tls_handshake_errors_total")?;
        (errors as usize >= COUNT - answered).then_some(())
    });
    expect_nobody_waits(&gateway);
}

fn long_keys_of_rsa_sign_beside_the_core_and_all_others_on_it() {
    for (kind, signs_beside) in [(&LONG, true), (&SHORT, false), (&P256, false)] {
        let (certs, origin) = (Certs::new(), Origin::replying("hello"));
        let gateway = serving_with(&certs, &origin, kind).start();
        Caller::new(&certs, "ca", None)
            .client(gateway.secure_address(), "a.test")
            .get("/")
            .expect(200, "hello");
        let steps = gateway.metric("ringway_tls_handshakes_aside_total").unwrap();
        assert_eq!(steps > 0.0, signs_beside, "{kind:?}: {steps} steps");
        assert_eq!(gateway.metric("ringway_tls_handshakes_total"), Some(1.0));
    }
}

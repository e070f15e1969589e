//! More clients than there is time for: who is served, who is turned away, and for whom nothing is done.

use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::json;

use crate::kit::{Caller, Certs, Gateway, Origin, Raw, eventually};

on_both_drivers!(
    who_has_left_before_its_turn_costs_no_handshake,
    a_line_that_is_full_turns_away_some_and_serves_all_others,
    once_a_line_is_late_who_comes_last_is_served_first,
);

/// Clients that may stand in line for a handshake (docs/tls.md).
const LINE_MAX: usize = 512;

/// A gateway whose handshakes take a millisecond or more, and who calls it.
fn dear() -> (Caller, Origin, Gateway) {
    let (certs, origin) = (Certs::new(), Origin::naming());
    certs.authority("ca");
    certs.key("dear", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]);
    let (cert, key) = certs.certified("ca", "dear", "DNS:a.test", "");
    let ssl = json!({"id": "dear", "snis": ["a.test"], "cert": cert, "key": key});
    let gateway = Gateway::routing("/*", [&origin])
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&json!({"ssls": [ssl]}).to_string())
        .start();
    (Caller::new(&certs, "ca", None), origin, gateway)
}

/// So many clients, each of which says hello when it is asked for: what takes them time is done before the first of them does.
fn greeting(caller: &Caller, to: SocketAddr, clients: usize) -> impl Iterator<Item = Raw> + use<> {
    let prepare = |_| {
        let (mut raw, mut hello) = (caller.call(to, "a.test"), Vec::new());
        raw.wire.tls_mut().write_tls(&mut hello).unwrap();
        (raw, hello)
    };
    let prepared: Vec<_> = (0..clients).map(prepare).collect();
    let greet = |(raw, hello): (Raw, Vec<u8>)| {
        (&**raw.wire.stream()).write_all(&hello).unwrap();
        raw
    };
    prepared.into_iter().map(greet)
}

/// Whether a client that has said hello is served.
fn is_served(mut raw: Raw) -> bool {
    if raw.wire.shake().is_err() {
        return false;
    }
    raw.send("GET /in HTTP/1.1\r\nHost: a.test\r\n\r\n").answer().expect(200, "GET /in");
    true
}

/// Whether anything has come to a client that waits.
fn is_answered(raw: &Raw) -> bool {
    let stream = raw.wire.stream();
    stream.set_nonblocking(true).unwrap();
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    seen.is_ok_and(|count| count > 0)
}

#[track_caller]
fn count(gateway: &Gateway, what: &str) -> usize {
    gateway.metric(&format!("ringway_tls_{what}_total{{")).expect("a counter") as usize
}

fn who_has_left_before_its_turn_costs_no_handshake() {
    let (caller, _origin, gateway) = dear();
    let (left, stayed) = (400, 20);
    for raw in greeting(&caller, gateway.secure_address(), left) {
        raw.wire.break_off();
    }
    let waiting: Vec<_> = greeting(&caller, gateway.secure_address(), stayed).collect();
    assert_eq!(waiting.into_iter().map(is_served).filter(|is_served| *is_served).count(), stayed);
    eventually("all of them are gone", || {
        let gone = count(&gateway, "handshake_errors") + count(&gateway, "handshakes_shed");
        (gone + count(&gateway, "handshakes") >= left + stayed).then_some(())
    });
    // A few may have had their turn before they left.
    let made = count(&gateway, "handshakes");
    assert!(made <= stayed + left / 10, "{made} handshakes for {stayed} clients");
}

fn a_line_that_is_full_turns_away_some_and_serves_all_others() {
    let (caller, _origin, gateway) = dear();
    let clients = LINE_MAX + 200;
    let waiting: Vec<_> = greeting(&caller, gateway.secure_address(), clients).collect();
    let served = waiting.into_iter().map(is_served).filter(|is_served| *is_served).count();
    assert!((LINE_MAX..clients).contains(&served), "{served} of {clients}");
    assert_eq!(count(&gateway, "handshakes_shed"), clients - served);
    assert_eq!((count(&gateway, "handshakes"), count(&gateway, "handshake_errors")), (served, 0));
}

fn once_a_line_is_late_who_comes_last_is_served_first() {
    let (caller, _origin, gateway) = dear();
    let early: Vec<_> = greeting(&caller, gateway.secure_address(), LINE_MAX - 50).collect();
    let answered = || early.iter().filter(|raw| is_answered(raw)).count();
    // Each takes a millisecond at least, so by then those behind them have stood there for longer than a tenth of a second.
    let before = eventually("a hundred were let in", || Some(answered()).filter(|let_in| *let_in >= 100));
    assert!(greeting(&caller, gateway.secure_address(), 1).all(is_served));
    let after = answered();
    assert!(after < early.len() - 100, "{before} were let in before it came, {after} when it was served");
    assert!(early.into_iter().all(is_served), "nobody waits for ever");
}

//! What connections cost in memory, as the system counts it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::kit::{Caller, Certs, Client, Gateway, Origin, Raw, within};

on_both_drivers!(
    an_idle_connection_costs_at_most_what_is_promised,
    an_idle_connection_over_tls_costs_at_most_what_is_promised,
    readers_that_stop_cost_a_bounded_amount,
);

/// Connections of the slope; the kernel's own memory for them is not the process's.
const IDLE: usize = 4000;
/// Connections opened at once.
const BATCH: usize = 500;
/// The promise in docs/performance.md, and what is allowed where futures are larger for lack of optimisation; a held
/// buffer would be 16 KiB.
const BYTES_PER_IDLE: usize = 1024;
const BYTES_PER_IDLE_UNOPTIMISED: usize = 4096;

/// The same over TLS.
const BYTES_PER_SECURE: usize = 6 * 1024;
const BYTES_PER_SECURE_UNOPTIMISED: usize = 10 * 1024;

/// Goes by what is tested: the binary built with these tests is as optimised as they are, one that is named must keep
/// the promise.
fn of(optimised: usize, unoptimised: usize) -> usize {
    let is_named = std::env::var_os("RINGWAY_TEST_BINARY").is_some();
    if cfg!(debug_assertions) && !is_named { unoptimised } else { optimised }
}

fn an_idle_connection_costs_at_most_what_is_promised() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {keepalive_timeout: 300}")
        // What is held is measured, not what the allocator keeps for the next burst.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .start();

    let promised = of(BYTES_PER_IDLE, BYTES_PER_IDLE_UNOPTIMISED);
    expect_idle_cost(&gateway, promised, || gateway.client());
}

fn an_idle_connection_over_tls_costs_at_most_what_is_promised() {
    let (origin, certs) = (Origin::replying("hello"), Certs::new());
    certs.authority("ca");
    let (cert, key) = certs.issued("ca", "here", "DNS:a.test");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {keepalive_timeout: 300}")
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&json!({"ssls": [{"id": "1", "sni": "a.test", "cert": cert, "key": key}]}).to_string())
        .env("MIMALLOC_PURGE_DELAY", "0")
        .start();
    let caller = Caller::new(&certs, "ca", None);
    let promised = of(BYTES_PER_SECURE, BYTES_PER_SECURE_UNOPTIMISED);
    expect_idle_cost(&gateway, promised, || caller.client(gateway.secure_address(), "a.test"));
}

/// Opens many connections, each of which asks once, and looks at what each costs while it rests.
#[track_caller]
fn expect_idle_cost(gateway: &Gateway, promised: usize, connect: impl Fn() -> Client) {
    let open = |count: usize| -> Vec<Client> {
        (0..count)
            .map(|_| {
                let mut client = connect();
                client.get("/").expect(200, "hello");
                client
            })
            .collect()
    };
    // What is paid once (tables, the allocator's first pages) is paid before the slope begins. Connections come in
    // batches: holes that one leaves in the allocator's pages as it comes to rest are filled by the next.
    let mut clients = open(BATCH);
    let before = at_rest(gateway);
    let mut after = before;
    for _ in 0..IDLE / BATCH {
        clients.extend(open(BATCH));
        after = at_rest(gateway);
    }
    let each = after.saturating_sub(before) / IDLE;
    eprintln!("{each} bytes an idle connection");
    assert!(each <= promised, "{each} bytes an idle connection, at most {promised} are promised");
    // And all of them still work.
    for client in clients.iter_mut().step_by(97) {
        client.get("/").expect(200, "hello");
    }
}

/// Resident bytes once connections have given back what they only need while busy, a second after their last
/// request: as soon as a little more than that went by without a change to speak of.
fn at_rest(gateway: &Gateway) -> usize {
    let (mut last, mut since) = (gateway.resident(), Instant::now());
    within(Duration::from_secs(12), "memory comes to rest", || {
        let now = gateway.resident();
        if now.abs_diff(last) > 64 * 1024 {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(1200)).then_some(now)
    })
}

fn readers_that_stop_cost_a_bounded_amount() {
    const READERS: usize = 100;
    let origin = Origin::with_body_of(50_000_000);
    let gateway = Gateway::routing("/*", [&origin]).start();
    gateway.get("/").expect_status(200);
    let before = gateway.resident();

    let mut readers: Vec<Raw> = (0..READERS).map(|_| gateway.raw()).collect();
    for reader in &mut readers {
        reader.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for reader in &mut readers {
        assert_eq!(reader.try_head().unwrap().status, 200);
    }
    origin.wait_requests(READERS + 1);
    let grown = gateway.resident().saturating_sub(before);
    // Two buffers of 64 KiB each, and some.
    assert!(grown < READERS * 256 * 1024, "{grown} bytes for {READERS} readers that stopped");
    drop(readers);
    gateway.get("/").expect_status(200);
}

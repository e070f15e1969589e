//! What connections cost in memory, as the system counts it.

use std::time::{Duration, Instant};

use super::kit::{Client, Gateway, Origin, Raw, within};

on_both_drivers!(an_idle_connection_costs_at_most_what_is_promised, readers_that_stop_cost_a_bounded_amount);

/// Connections of the slope; the kernel's own memory for them is not the process's.
const IDLE: usize = 4000;
/// Connections opened at once.
const BATCH: usize = 500;
/// The promise in docs/performance.md, and what is allowed where futures are larger for lack of optimisation; a held
/// buffer would be 16 KiB.
const BYTES_PER_IDLE: usize = 1024;
const BYTES_PER_IDLE_UNOPTIMISED: usize = 4096;

/// Goes by what is tested: the binary built with these tests is as optimised as they are, one that is named must keep
/// the promise.
fn bytes_per_idle() -> usize {
    let is_named = std::env::var_os("RINGWAY_TEST_BINARY").is_some();
    if cfg!(debug_assertions) && !is_named { BYTES_PER_IDLE_UNOPTIMISED } else { BYTES_PER_IDLE }
}

fn an_idle_connection_costs_at_most_what_is_promised() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {keepalive_timeout: 300}")
        // What is held is measured, not what the allocator keeps for the next burst.
        .env("MIMALLOC_PURGE_DELAY", "0")
        .start();

    let open = |count: usize| -> Vec<Client> {
        (0..count)
            .map(|_| {
                let mut client = gateway.client();
                client.get("/").expect(200, "hello");
                client
            })
            .collect()
    };
    // What is paid once (tables, the allocator's first pages) is paid before the slope begins. Connections come in
    // batches: holes that one leaves in the allocator's pages as it comes to rest are filled by the next.
    let mut clients = open(BATCH);
    let before = at_rest(&gateway);
    let mut after = before;
    for _ in 0..IDLE / BATCH {
        clients.extend(open(BATCH));
        after = at_rest(&gateway);
    }
    let each = after.saturating_sub(before) / IDLE;
    eprintln!("{each} bytes an idle connection");
    let promised = bytes_per_idle();
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

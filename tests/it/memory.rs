//! What connections cost in memory, as the system counts it.

use std::time::Duration;

use super::kit::{Client, Gateway, Origin, Raw, within};

on_both_drivers!(an_idle_connection_costs_at_most_a_kibibyte, readers_that_stop_cost_a_bounded_amount);

/// Connections of the slope; the kernel's own memory for them is not the process's.
const IDLE: usize = 4000;
/// The promise in docs/performance.md.
const BYTES_PER_IDLE: usize = 1024;

fn an_idle_connection_costs_at_most_a_kibibyte() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {keepalive_timeout: 300}").start();

    let open = |count: usize| -> Vec<Client> {
        (0..count)
            .map(|_| {
                let mut client = gateway.client();
                client.get("/").expect(200, "hello");
                client
            })
            .collect()
    };
    // What is paid once (buffers, tables, the allocator's first pages) is paid before the slope begins.
    let mut clients = open(1000);
    let mut resting = usize::MAX;
    within(Duration::from_secs(10), "memory comes to rest", || {
        let now = gateway.resident();
        std::thread::sleep(Duration::from_millis(300));
        let rests = now.abs_diff(resting) < 16 * 1024;
        resting = now;
        rests.then_some(())
    });
    clients.extend(open(IDLE));
    let allowed = resting + IDLE * BYTES_PER_IDLE;
    let mut last = 0;
    let settled = (0..100).any(|_| {
        last = gateway.resident();
        std::thread::sleep(Duration::from_millis(50));
        last <= allowed
    });
    let each = last.saturating_sub(resting) / IDLE;
    assert!(
        settled,
        "{each} bytes an idle connection, {BYTES_PER_IDLE} are promised ({resting} before, {last} after)"
    );
    // And all of them still work.
    for client in clients.iter_mut().step_by(97) {
        client.get("/").expect(200, "hello");
    }
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

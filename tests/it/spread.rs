//! Connections over cores: where the kernel's choice is uneven, the core that has more to do leaves new ones to another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::kit::{Gateway, Origin, Raw, connect_from, connections, ports_of_cores, within};

on_both_drivers!(a_busy_core_leaves_new_connections_to_an_idle_one_and_they_are_served_there);

const CORES: usize = 2;
/// Clients that keep the first core busy, and then those that come to it.
const BUSY: usize = 4;
const LATER: usize = 4;
/// On a machine busy with other tests.
const LONG: Duration = Duration::from_secs(30);

/// Ends the clients, also where the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn a_busy_core_leaves_new_connections_to_an_idle_one_and_they_are_served_there() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/hello", [&origin])
        .settings("{limits: {keepalive_requests: 1000000000}, access_log: {enabled: false}}")
        .cores(CORES)
        .start();
    let ports = ports_of_cores(&gateway, CORES, BUSY + LATER).swap_remove(0);
    let (busy, later) = ports.split_at(BUSY);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = End(&is_over);
        for port in busy {
            let stream = connect_from(*port, gateway.address()).expect("the port is free");
            scope.spawn(|| {
                // Answered by the gateway itself, so that nobody else takes part in the work.
                let mut raw = Raw::over(stream);
                while !is_over.load(Ordering::Relaxed) {
                    raw.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
                    raw.answers(20);
                }
            });
        }
        let mut turns = later.iter().cycle();
        let client = within(LONG, "a connection is left to the other core", || {
            let port = turns.next()?;
            let mut raw = Raw::over(connect_from(*port, gateway.address()).ok()?);
            raw.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").answer().expect(200, "hello");
            let handed = gateway.metric("ringway_connections_handed_over_total{core=\"0\"}")?;
            (handed > 0.0).then_some(raw)
        });
        let spread = connections(&gateway, CORES);
        assert_eq!(spread, [BUSY as f64, 1.0]);
        drop(client);
    });
}

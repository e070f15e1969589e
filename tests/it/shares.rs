//! What share of the requests each node gets: by its weight, on one core and on two, and less once it is slow.
//!
//! In process, balancers are tested with 100,000 picks for each algorithm (`src/balance/shares.rs`); here fewer real
//! requests show that cores choose by the same numbers. Shares by `ewma` are not asked for here: no two origins on a busy
//! machine are equally quick.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, Raw, eventually, reply};

on_both_drivers!(
    turns_are_shared_by_weight_on_one_core_and_on_two,
    requests_that_stay_are_shared_by_weight_on_one_core_and_on_two,
    a_node_that_becomes_slow_loses_its_requests_within_a_second,
    a_new_node_comes_to_its_share_by_and_by,
);

const WEIGHTS: [u32; 3] = [5, 3, 2];
/// Of 10,000 requests, 1 % is ten times what four connections that each core counts alone can make. In its long form
/// `RINGWAY_SHARED_REQUESTS` says how many.
const REQUESTS: usize = 10_000;
const CLIENTS: usize = 4;
const AT_ONCE: usize = 50;

fn weighted(algorithm: &str, origins: &[Origin; 3], cores: usize) -> Gateway {
    let nodes = origins.iter().zip(WEIGHTS).map(|(origin, weight)| format!("'{}': {weight}", origin.node()));
    let nodes: Vec<String> = nodes.collect();
    let nodes = nodes.join(", ");
    Gateway::resources(
        &format!("routes: [{{id: '1', uri: /*, upstream: {{type: {algorithm}, nodes: {{{nodes}}}}}}}]"),
        &[],
    )
    .settings("{access_log: {enabled: false}, limits: {keepalive_requests: 1000000000}}")
    .cores(cores)
    .start()
}

/// Whether each of the origins has what its weight says of these requests, within 1 % of all.
fn expect_shares(counts: [usize; 3], what: &str) {
    let all: usize = counts.iter().sum();
    let weights: u32 = WEIGHTS.iter().sum();
    for (count, weight) in counts.iter().zip(WEIGHTS) {
        let off = *count as f64 / all as f64 - f64::from(weight) / f64::from(weights);
        assert!(off.abs() <= 0.01, "{what}: {counts:?} by {WEIGHTS:?}");
    }
}

fn turns_are_shared_by_weight_on_one_core_and_on_two() {
    let long = std::env::var("RINGWAY_SHARED_REQUESTS").ok().and_then(|count| count.parse().ok());
    let requests: usize = long.unwrap_or(REQUESTS);
    for cores in [1, 2] {
        let origins = [(); 3].map(|()| Origin::replying("a"));
        let gateway = weighted("roundrobin", &origins, cores);
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let mut raw = gateway.raw();
                scope.spawn(move || {
                    for _ in 0..requests / CLIENTS / AT_ONCE {
                        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(AT_ONCE)).answers(AT_ONCE);
                    }
                });
            }
        });
        let counts = origins.each_ref().map(Origin::requests);
        assert_eq!(counts.iter().sum::<usize>(), requests);
        expect_shares(counts, &format!("{cores} core(s)"));
    }
}

fn requests_that_stay_are_shared_by_weight_on_one_core_and_on_two() {
    // Each is a connection on both sides, and a thread here.
    const STAY: usize = 200;
    for cores in [1, 2] {
        let origins = [(); 3].map(|()| Origin::that_stalls());
        let gateway = weighted("least_conn", &origins, cores);
        let hanging: Vec<Raw> = (0..STAY)
            .map(|_| {
                let mut raw = gateway.raw();
                raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                raw
            })
            .collect();
        let counts = eventually("all are at their nodes", || {
            let counts = origins.each_ref().map(Origin::requests);
            (counts.iter().sum::<usize>() == STAY).then_some(counts)
        });
        expect_shares(counts, &format!("{cores} core(s)"));
        drop(hanging);
    }
}

/// Answers at once until it is told to be slow, then after a tenth of a second.
fn slow_when(is_slow: &Arc<AtomicBool>) -> Origin {
    let is_slow = Arc::clone(is_slow);
    Origin::answering(move |_| {
        if is_slow.load(Ordering::Relaxed) {
            // This is the origin's work, not a wait of the test.
            thread::sleep(Duration::from_millis(100));
        }
        reply("200 OK", "a")
    })
}

fn a_node_that_becomes_slow_loses_its_requests_within_a_second() {
    for algorithm in ["least_conn", "ewma"] {
        let is_slow = Arc::new(AtomicBool::new(false));
        let origins = [Origin::replying("a"), slow_when(&is_slow)];
        let nodes = origins.each_ref().map(|origin| format!("'{}': 1", origin.node())).join(", ");
        let gateway = Gateway::resources(
            &format!("routes: [{{id: '1', uri: /*, upstream: {{type: {algorithm}, nodes: {{{nodes}}}}}}}]"),
            &[],
        )
        .settings("{access_log: {enabled: false}, limits: {keepalive_requests: 1000000000}}")
        .cores(2)
        .start();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 * CLIENTS {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    while !is_over.load(Ordering::Relaxed) {
                        client.get("/").expect_status(200);
                    }
                });
            }
            let counts = || origins.each_ref().map(Origin::requests);
            eventually("both have their share", || counts().iter().all(|count| *count > 100).then_some(()));
            let since = Instant::now();
            is_slow.store(true, Ordering::Relaxed);
            eventually("a second has gone by", || (since.elapsed() >= Duration::from_secs(1)).then_some(()));
            let then = counts();
            eventually("the quick one serves on", || (counts()[0] >= then[0] + 300).then_some(()));
            let now = counts();
            is_over.store(true, Ordering::Relaxed);
            let (quick, slow) = (now[0] - then[0], now[1] - then[1]);
            assert!(slow * 10 <= quick, "{algorithm}: {slow} beside {quick}");
        });
    }
}

fn a_new_node_comes_to_its_share_by_and_by() {
    const WINDOW: Duration = Duration::from_secs(3);
    let [old, new] = [(); 2].map(|()| Origin::replying("a"));
    let text = |nodes: &str| {
        let window = WINDOW.as_secs();
        format!(
            "routes:
  - {{id: '1', uri: /*, upstream: {{nodes: {{{nodes}}}, slow_start: {{window: {window}, min_weight_percent: 1}}}}}}
  - {{id: '2', uri: /mark, plugins: {{mocking: {{response_example: '{nodes}'}}}}}}"
        )
    };
    let names = [("OLD", &old), ("NEW", &new)];
    let gateway = Gateway::resources(&text("OLD: 1"), &names)
        .settings("{access_log: {enabled: false}, limits: {keepalive_requests: 1000000000}}")
        .start();
    let (mut client, since) = (gateway.client(), Instant::now());
    eventually("the first node is warm", || (since.elapsed() > WINDOW).then_some(()));
    client.get("/").expect_status(200);
    let both = "OLD: 1, NEW: 1";
    let since = Instant::now();
    gateway.reload_until(&text(both), &names, |gateway| gateway.get("/mark").text().contains(&new.node()));
    // How many of a hundred requests went to it.
    let mut hundred = || {
        let before = new.requests();
        for _ in 0..100 {
            client.get("/").expect_status(200);
        }
        new.requests() - before
    };
    let first = hundred();
    // As much as it has grown by now, and what the dice do.
    let grown = (since.elapsed().as_secs_f64() / WINDOW.as_secs_f64()).min(1.0);
    assert!(first as f64 <= 100.0 * grown / (1.0 + grown) + 15.0, "{first} when {grown} is over");
    eventually("it has its whole share", || (hundred() == 50).then_some(()));
    assert!(since.elapsed() >= WINDOW / 2, "{:?}", since.elapsed());
}

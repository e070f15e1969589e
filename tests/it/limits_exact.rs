//! `limit` in a running gateway: what is admitted is what was promised, on one core and two, wherever connections are; who
//! waits, and who is only told of.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, Raw, connect_from, connections, eventually, ports_of_cores};

on_both_drivers!(
    a_request_waits_for_room_and_no_more_than_may,
    a_limit_in_the_shadow_is_logged_and_counted,
    a_request_costs_what_its_answer_says,
);

/// Tokens a second, and kept: a second's, so that a machine that is busy elsewhere for so long loses none.
const RATE: f64 = 500.0;
const BURST: f64 = 500.0;
/// Clients, each on a connection of its own, and how much more than the rate they ask for together.
const CLIENTS: usize = 8;
const OFFERED: f64 = 2.0;
/// Seconds that they ask; more with `RINGWAY_LIMIT_SECONDS`.
const SECONDS: f64 = 3.0;

#[test]
fn one_core_admits_its_rate_and_burst() {
    holds_a_rate(1, &[CLIENTS]);
}

#[test]
fn two_cores_admit_one_rate_and_burst() {
    holds_a_rate(2, &[CLIENTS / 2, CLIENTS / 2]);
}

#[test]
fn two_cores_admit_one_rate_and_burst_with_all_connections_on_one() {
    holds_a_rate(2, &[CLIENTS, 0]);
}

fn seconds() -> f64 {
    std::env::var("RINGWAY_LIMIT_SECONDS").map_or(SECONDS, |text| text.parse().expect("a number of seconds"))
}

/// Offers twice the rate, so many connections on each core; what the gateway's own log says of it.
fn holds_a_rate(cores: usize, placed: &[usize]) {
    let origin = Origin::replying("hello");
    let plugin = format!("limit: {{limits: [{{name: a, rate: {{count: {RATE}, burst: {BURST}}}}}]}}");
    let gateway = Gateway::routing("/*", [&origin])
        .route(&format!("plugins: {{{plugin}}}"))
        .settings("{access_log: {format: '$msec $status'}, limits: {keepalive_requests: 1000000000}}")
        .cores(cores)
        .start();
    let ports = if cores == 1 { vec![] } else { ports_of_cores(&gateway, cores, CLIENTS) };
    let clients: Vec<Raw> = match cores {
        1 => (0..CLIENTS).map(|_| gateway.raw()).collect(),
        _ => {
            let chosen = placed.iter().zip(&ports).flat_map(|(count, ports)| &ports[..*count]);
            chosen.map(|port| Raw::over(connect_from(*port, gateway.address()).unwrap())).collect()
        }
    };
    eventually("all are connected", || {
        let wanted: Vec<f64> = placed.iter().map(|count| *count as f64).collect();
        (connections(&gateway, cores) == wanted).then_some(())
    });
    let each = (RATE * OFFERED * seconds()) as u32 / CLIENTS as u32;
    let apart = Duration::from_secs_f64(CLIENTS as f64 / (RATE * OFFERED));
    let start = Instant::now();
    thread::scope(|scope| {
        for (number, mut raw) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                for turn in 0..each {
                    // Who is late makes up for it.
                    let due = start + apart * turn + apart * number as u32 / CLIENTS as u32;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    raw.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").answer();
                }
            });
        }
    });
    let offered = each as usize * CLIENTS;
    let log = eventually("all is logged", || {
        let log = gateway.access_log();
        (log.lines().count() == offered).then_some(log)
    });
    let mut lines: Vec<(u64, bool)> = log.lines().map(line).collect();
    lines.sort_unstable();
    let admitted: Vec<u64> = lines.iter().filter(|(_, admitted)| *admitted).map(|(at, _)| *at).collect();
    let time = (lines[lines.len() - 1].0 - lines[0].0) as f64 / 1000.0;
    // Where the machine is busy with other things requests come unevenly, and what nobody asks for in time is lost.
    let (promised, wanted) = (RATE * time + BURST, model(&lines));
    let share = admitted.len() as f64 / promised.min(wanted);
    eprintln!(
        "{cores} cores, {placed:?}: {} of {offered} in {time:.3} s, {promised:.0} promised, {wanted} asked for in time, {share:.4}",
        admitted.len()
    );
    // A millisecond at either end, and one request of each core between its reading and its judgement.
    assert!(admitted.len() as f64 <= promised + 2.0, "{} in {time} s", admitted.len());
    assert!((0.98..=1.02).contains(&share), "{share}: {} in {time} s", admitted.len());
    let most = (0..admitted.len())
        .map(|at| admitted[at..].partition_point(|other| *other < admitted[at] + 1000))
        .max();
    assert!(most.unwrap() as f64 <= RATE + BURST + 2.0, "{most:?} in a second");
}

/// What a bucket that counts in fractions would have admitted of these.
fn model(lines: &[(u64, bool)]) -> f64 {
    let (mut level, mut before, mut admitted) = (BURST, lines[0].0, 0.0);
    for (at, _) in lines {
        level = BURST.min(level + (at - before) as f64 / 1000.0 * RATE);
        before = *at;
        if level >= 1.0 {
            level -= 1.0;
            admitted += 1.0;
        }
    }
    admitted
}

/// When a request was received, in milliseconds, and whether it was admitted.
fn line(line: &str) -> (u64, bool) {
    let (at, status) = line.split_once(' ').unwrap();
    assert!(["200", "429"].contains(&status), "{line}");
    (at.replace('.', "").parse().unwrap(), status == "200")
}

#[test]
fn a_window_admits_exactly_its_count_ten_times_of_ten() {
    const COUNT: usize = 1000;
    const TURN: usize = 25;
    let origin = Origin::replying("hello");
    let limits = format!(
        "limits: [{{name: a, key: http_x_turn, windows: [{{count: {COUNT}, seconds: 86400}}]}}, \
         {{name: b, key: http_x_turn, windows: [{{count: {}, per: month}}]}}]",
        COUNT + 1
    );
    let plugins = format!("plugins: {{limit: {{{limits}}}}}");
    let gateway = Gateway::routing("/*", [&origin]).route(&plugins).cores(2).start();
    for turn in 0..10 {
        let counts = Mutex::new([0_usize; 2]);
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let mut raw = gateway.raw();
                    for _ in 0..8 {
                        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Turn: {turn}\r\n\r\n").repeat(TURN));
                        for answer in raw.answers(TURN) {
                            counts.lock().unwrap()[usize::from(answer.status == 429)] += 1;
                        }
                    }
                });
            }
        });
        assert_eq!(counts.into_inner().unwrap(), [COUNT, 6 * 8 * TURN - COUNT], "turn {turn}");
    }
    assert_eq!(origin.requests(), 10 * COUNT);
}

fn a_request_waits_for_room_and_no_more_than_may() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(
            "plugins: {limit: {limits: [{name: a, rate: {count: 10, burst: 1}}], wait: {for: 30, at_most: 2}}}",
        )
        .start();
    let mut client = gateway.client();
    let start = Instant::now();
    for _ in 0..4 {
        client.get("/").expect(200, "hello");
    }
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
    let never = gateway.request("GET", "/", &[], b"");
    never.expect(200, "hello");
    assert!(gateway.metric("ringway_limit_waits_total").unwrap() > 0.0);

    // Longer than anybody waits: told at once.
    let slow = Gateway::routing("/*", [&origin])
        .route(
            "plugins: {limit: {limits: [{name: a, rate: {count: 1, per: hour, burst: 1}}], wait: {for: 20}}}",
        )
        .start();
    slow.get("/").expect(200, "hello");
    let refused = slow.get("/");
    let retry: u64 = refused.expect_status(429).header("retry-after").unwrap().parse().unwrap();
    assert!((3000..=3600).contains(&retry), "{retry}");

    // More than may wait: told at once. The window ends long after, so both that wait are still there.
    let few = Gateway::routing("/*", [&origin])
        .cores(2)
        .route(
            "plugins: {limit: {limits: [{name: a, windows: [{count: 1, seconds: 20}]}], wait: {for: 60, at_most: 2}}}",
        )
        .start();
    few.get("/").expect(200, "hello");
    let waiting: Vec<Raw> = (0..2)
        .map(|_| {
            let mut raw = few.raw();
            raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            raw
        })
        .collect();
    eventually("two wait", || {
        let waits = few.metrics();
        let of_core = waits.lines().filter(|line| line.starts_with("ringway_limit_waits_total"));
        let sum: f64 = of_core.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (sum > 1.5).then_some(())
    });
    few.get("/").expect_status(429);
    drop(waiting);
}

fn a_limit_in_the_shadow_is_logged_and_counted() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .cores(2)
        .route(
            "plugins: {limit: {mode: shadow, limits: [{name: new, windows: [{count: 3, seconds: 86400}]}]}, \
             response-rewrite: {headers: {set: {X-Would: $would_reject}}}}",
        )
        .start();
    let would: Vec<Option<String>> = (0..5)
        .map(|number| {
            let answer = gateway.get(&format!("/{number}"));
            answer.expect(200, "hello");
            assert_eq!(answer.header("ratelimit"), None);
            answer.header("x-would").filter(|text| !text.is_empty()).map(str::to_owned)
        })
        .collect();
    assert_eq!(would, [None, None, None, Some("new".to_owned()), Some("new".to_owned())]);
    assert_eq!(gateway.logged("/4")["would_reject"], "new");
    assert_eq!(gateway.logged("/2").get("would_reject"), None);
    for (result, expect) in [("admitted", 3.0), ("would_reject", 2.0)] {
        let series =
            format!("apisix_limit_requests_total{{plugin=\"limit\",limit=\"new\",result=\"{result}\"}}");
        let count = eventually("the series is there", || gateway.metric(&series));
        assert!((count - expect).abs() < 0.5, "{result}: {count}");
    }
}

fn a_request_costs_what_its_answer_says() {
    let origin = Origin::answering(|_| "HTTP/1.1 200 OK\r\nX-Cost: 7\r\nContent-Length: 2\r\n\r\nok");
    for settle in ["$upstream_http_x_cost", "$sent_http_x_cost"] {
        let limits = "limits: [{name: a, key: remote_addr, windows: [{count: 100, per: day}]}]";
        let gateway = Gateway::routing("/*", [&origin])
            .route(&format!("plugins: {{limit: {{{limits}, cost: 10, settle: {settle}}}}}"))
            .start();
        gateway.get("/").expect(200, "ok");
        let left = || {
            let told = gateway.control("GET", "/v1/limits?key=127.0.0.1&route=1").json();
            told["list"][0]["remaining"].as_u64()
        };
        eventually(&format!("7 are taken by {settle}"), || (left() == Some(93)).then_some(()));
    }
}

//! Plugins that limit: how many pass, on one core and on two, who waits, and that what is taken comes back.

use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, PATIENCE, eventually, reply};

on_both_drivers!(
    a_request_that_comes_early_waits_for_its_turn,
    turns_are_taken_exactly_once_over_all_cores,
    a_window_admits_its_count_and_not_one_more_over_all_cores,
    no_stretch_of_time_has_more_than_a_log_admits,
    a_seat_is_kept_until_the_request_is_over_and_across_a_reload,
    a_seat_comes_back_when_the_client_is_gone,
    a_seat_comes_back_when_the_upstream_fails,
    a_request_beyond_conn_waits_a_while,
    a_workflow_limits_requests_at_once_by_rule,
);

#[cfg(feature = "test-plugins")]
on_both_drivers!(a_seat_comes_back_when_a_plugin_panics,);

/// A door that is shut until it is opened.
#[derive(Clone, Default)]
pub(super) struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn wait(&self) {
        let (open, bell) = &*self.0;
        drop(bell.wait_timeout_while(open.lock().unwrap(), PATIENCE * 2, |open| !*open));
    }

    pub(super) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }
}

/// An origin whose `/hold…` waits for the door.
pub(super) fn holding() -> (Origin, Door) {
    let door = Door::default();
    let held = door.clone();
    let origin = Origin::answering(move |seen| {
        if seen.target.starts_with("/hold") {
            held.wait();
        }
        reply("200 OK", "done")
    });
    (origin, door)
}

/// The statuses of so many requests on connections of their own, from several threads.
fn statuses(gateway: &Gateway, threads: usize, each: usize) -> Vec<u16> {
    thread::scope(|scope| {
        let work: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.client();
                    (0..each).map(|_| client.get("/").status).collect::<Vec<_>>()
                })
            })
            .collect();
        work.into_iter().flat_map(|one| one.join().unwrap()).collect()
    })
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|one| **one == status).count()
}

/// A counter, over all cores.
pub(super) fn counted(gateway: &Gateway, name: &str) -> f64 {
    let lines = gateway.metrics();
    let of_core = lines.lines().filter(|line| line.starts_with(name));
    of_core.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn a_request_that_comes_early_waits_for_its_turn() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {limit-req: {rate: 10, burst: 20, key: remote_addr}}")
        .start();
    let mut client = gateway.client();
    let start = Instant::now();
    for _ in 0..5 {
        client.get("/").expect(200, "hello");
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(390), "five turns of 100 ms took {took:?}");
    assert!(counted(&gateway, "ringway_limit_waits_total") > 2.5);
    assert!(counted(&gateway, "ringway_limit_refusals_total") < 0.5);
}

fn turns_are_taken_exactly_once_over_all_cores() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .cores(2)
        .route("plugins: {limit-req: {rate: 0.001, burst: 99, key: remote_addr, nodelay: true, rejected_code: 429}}")
        .start();
    let all = statuses(&gateway, 6, 50);
    assert_eq!((count(&all, 200), count(&all, 429)), (100, 200));
    assert_eq!(origin.requests(), 100);
    let refused = gateway.get("/");
    let retry: u64 = refused.expect_status(429).header("retry-after").unwrap().parse().unwrap();
    assert!((900..=1000).contains(&retry), "{retry}");
    assert!((counted(&gateway, "ringway_limit_refusals_total") - 201.0).abs() < 0.5);
}

fn a_window_admits_its_count_and_not_one_more_over_all_cores() {
    let origin = Origin::replying("hello");
    for window in ["fixed", "sliding"] {
        let plugin = format!(
            "limit-count: {{count: 1000, time_window: 86400, window_type: {window}, rejected_code: 429}}"
        );
        let gateway =
            Gateway::routing("/*", [&origin]).cores(2).route(&format!("plugins: {{{plugin}}}")).start();
        let all = statuses(&gateway, 6, 250);
        assert_eq!((count(&all, 200), count(&all, 429)), (1000, 500), "{window}");
    }
}

fn no_stretch_of_time_has_more_than_a_log_admits() {
    const COUNT: usize = 5;
    const WINDOW: Duration = Duration::from_secs(2);
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .cores(2)
        .route("plugins: {limit-count: {count: 5, time_window: 2, window_type: log, rejected_code: 429}}")
        .start();
    // Three windows of several clients that never stop asking; when each that passed was asked, and when it was told.
    let (until, passed) = (Instant::now() + WINDOW * 3, Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.client();
                for request in 1.. {
                    if Instant::now() > until {
                        return;
                    }
                    // A connection carries so many requests only.
                    if request % 500 == 0 {
                        client = gateway.client();
                    }
                    let asked = Instant::now();
                    let answer = client.get("/");
                    if answer.status == 200 {
                        passed.lock().unwrap().push((asked, Instant::now()));
                    } else {
                        let again: f64 =
                            answer.expect_status(429).header("retry-after").unwrap().parse().unwrap();
                        assert!((1.0..=2.0).contains(&again), "{again}");
                    }
                }
            });
        }
    });
    let (mut asked, mut told): (Vec<_>, Vec<_>) = passed.into_inner().unwrap().into_iter().unzip();
    assert!((COUNT * 2..=COUNT * 4).contains(&asked.len()), "{asked:?}");
    // Each was decided between asked and told, and not in the order of asking: so the decision that is the n-th in time was no
    // earlier than the n-th to be asked, and no later than the n-th to be told.
    asked.sort_unstable();
    told.sort_unstable();
    for (first, next) in asked.iter().zip(&told[COUNT..]) {
        assert!(*next - *first >= WINDOW, "{first:?} and {next:?}");
    }
    let mut answer = gateway.get("/");
    if answer.status == 200 {
        answer = gateway.get("/");
    }
    assert_eq!(answer.header("x-ratelimit-limit"), Some("5"));
}

const ONE: &str =
    "limit-conn: {conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr, rejected_code: 429}";

/// A route of its own, and whatever else.
fn objects(uri: &str, plugins: &str, more: &str) -> String {
    format!(
        "routes: [{{id: 1, uri: {uri}, plugins: {{{plugins}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}{more}]"
    )
}

fn a_seat_is_kept_until_the_request_is_over_and_across_a_reload() {
    let (origin, door) = holding();
    let gateway = Gateway::resources(&objects("/*", ONE, ""), &[("ORIGIN", &origin)]).start();
    let mut first = gateway.raw();
    first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.get("/").expect_status(429);
    // The configuration changes in between, the plugin's does not.
    let more = ", {id: 2, uri: /other, upstream: {nodes: {ORIGIN: 1}}}";
    gateway.reload_until(&objects("/*", ONE, more), &[("ORIGIN", &origin)], |gateway| {
        gateway.get("/other").status == 200
    });
    gateway.get("/").expect_status(429);
    door.open();
    first.answer().expect(200, "done");
    eventually("the seat is free", || (gateway.get("/").status == 200).then_some(()));
    // One after the other there is always a seat.
    let mut client = gateway.client();
    for _ in 0..50 {
        client.get("/").expect(200, "done");
    }
}

fn a_seat_comes_back_when_the_client_is_gone() {
    let (origin, door) = holding();
    let gateway = Gateway::routing("/*", [&origin]).route(&format!("plugins: {{{ONE}}}")).start();
    let mut first = gateway.raw();
    first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.get("/").expect_status(429);
    // A client that merely says no more may still be waiting; one that resets is gone.
    first.wire.reset();
    eventually("the seat is free", || (gateway.get("/").status == 200).then_some(()));
    door.open();
}

fn a_seat_comes_back_when_the_upstream_fails() {
    let broken = Origin::that_closes_at_once();
    let gateway = Gateway::routing("/*", [&broken]).route(&format!("plugins: {{{ONE}}}")).start();
    let mut client = gateway.client();
    for _ in 0..20 {
        client.get("/").expect_status(502);
    }
}

#[cfg(feature = "test-plugins")]
fn a_seat_comes_back_when_a_plugin_panics() {
    let origin = Origin::replying("fine");
    let objects = format!(
        "services: [{{id: 1, plugins: {{{ONE}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}]
routes:
  - {{id: access, uri: /access, service_id: 1, plugins: {{crash: {{}}}}}}
  - {{id: filter, uri: /filter, service_id: 1, plugins: {{crash: {{phase: header_filter}}}}}}
  - {{id: fine, uri: /fine, service_id: 1}}"
    );
    let gateway = Gateway::resources(&objects, &[("ORIGIN", &origin)]).that_may_panic().start();
    for path in ["/access", "/filter"] {
        for _ in 0..10 {
            let mut raw = gateway.raw();
            raw.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            raw.expect_closed();
        }
    }
    eventually("every panic is counted", || {
        (gateway.metric("ringway_panics_total") == Some(20.0)).then_some(())
    });
    gateway.get("/fine").expect(200, "fine");
}

fn a_request_beyond_conn_waits_a_while() {
    let (origin, door) = holding();
    let plugin = "limit-conn: {conn: 1, burst: 1, default_conn_delay: 0.4, only_use_default_delay: true, \
                  key: remote_addr, rejected_code: 429}";
    let gateway = Gateway::routing("/*", [&origin]).route(&format!("plugins: {{{plugin}}}")).start();
    let mut first = gateway.raw();
    first.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    let start = Instant::now();
    let mut second = gateway.raw();
    second.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    second.answer().expect(200, "done");
    assert!(start.elapsed() >= Duration::from_millis(390), "{:?}", start.elapsed());
    door.open();
    first.answer().expect(200, "done");
    assert!((counted(&gateway, "ringway_limit_waits_total") - 1.0).abs() < 0.5);
}

fn a_workflow_limits_requests_at_once_by_rule() {
    let (origin, door) = holding();
    let gateway = Gateway::routing("/*", [&origin])
        .route(
            "plugins:
               workflow:
                 rules:
                   - case: [[arg_plan, '==', free]]
                     actions: [[limit-conn, {conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr}]]",
        )
        .start();
    let mut first = gateway.raw();
    first.send("GET /hold?plan=free HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateway.get("/?plan=free").expect_status(503);
    gateway.get("/?plan=paid").expect(200, "done");
    door.open();
    first.answer().expect(200, "done");
    eventually("the seat is free", || (gateway.get("/?plan=free").status == 200).then_some(()));
}

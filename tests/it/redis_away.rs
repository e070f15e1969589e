//! `without_redis: local`: while a Redis gives no answer, each gateway decides by a count of its own, and no longer.

use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, Redis, eventually};

on_both_drivers!(
    without_redis_each_gateway_admits_its_own_limit_and_no_more,
    without_redis_each_gateway_seats_as_many_as_its_own_limit,
    what_was_written_of_a_missing_redis_is_what_becomes_of_requests,
    however_many_plugins_ask_a_request_waits_for_one_timeout,
    one_at_a_time_waits_for_a_redis_that_hangs_until_it_answers_again,
    a_redis_that_was_not_asked_for_a_seat_is_given_none_back,
);

/// So soon Redis is asked again once it answers.
const RECOVERY: Duration = Duration::from_secs(2);

fn gateway(origin: &Origin, plugin: &str) -> Gateway {
    let objects =
        format!("routes:\n  - {{id: r, uri: /*, plugins: {{{plugin}}}, upstream: {{nodes: {{ORIGIN: 1}}}}}}");
    Gateway::resources(&objects, &[("ORIGIN", origin)]).cores(2).start()
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    let lines = gateway.metrics();
    let of_core = lines.lines().filter(|line| line.starts_with(name));
    of_core.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The statuses of so many requests, one after the other.
fn statuses(gateway: &Gateway, times: usize) -> Vec<u16> {
    (0..times).map(|_| gateway.get("/").status).collect()
}

fn without_redis_each_gateway_admits_its_own_limit_and_no_more() {
    let origin = Origin::replying("hello");
    for (plugin, at_all, counted) in [
        ("limit-count: {count: 3, time_window: 60, ", 3, "plugin-limit-count:*"),
        ("limit-count: {count: 3, time_window: 3600, window_type: sliding, ", 3, "plugin-limit-count:*"),
        (
            "limit-count: {rules: [{count: 3, time_window: 60, key: $remote_addr}], ",
            3,
            "plugin-limit-count:*",
        ),
        ("limit-count: {count: 3, time_window: 60, sync_interval: 0.1, ", 3, "plugin-limit-count:*"),
        ("limit-req: {rate: 0.001, burst: 2, nodelay: true, key: remote_addr, ", 3, "limit_req:*"),
    ] {
        let mut redis = Redis::start();
        let plugin = format!(
            "{plugin}rejected_code: 429, without_redis: local, redis_timeout: 300, {}}}",
            redis.fields()
        );
        let gateways = [gateway(&origin, &plugin), gateway(&origin, &plugin)];
        let together: Vec<u16> = gateways.iter().flat_map(|gateway| statuses(gateway, 3)).collect();
        let admitted = together.iter().filter(|status| **status == 200).count();
        assert_eq!((admitted, together.len()), (at_all, 6), "{plugin}: with Redis they share {together:?}");
        assert!(metric(&gateways[0], "ringway_limit_local_total") < 0.5, "{plugin}");
        redis.stop();
        for gateway in &gateways {
            // What a core has heard of a spent window it believes for an interval.
            let mut left = Vec::new();
            eventually("it counts here", || {
                let answer = gateway.get("/");
                if answer.status == 200 {
                    left.push(answer.header("x-ratelimit-remaining").map(str::to_owned));
                }
                (left.len() == 3).then_some(())
            });
            if plugin.contains("limit-count: {count") {
                assert_eq!(left, ["2", "1", "0"].map(|left| Some(left.to_owned())), "{plugin}");
            }
            // A core that still believes what it has heard refuses without a count of its own.
            eventually("refusals are by a count of its own", || {
                assert_eq!(statuses(gateway, 3), [429, 429, 429], "{plugin}");
                (metric(gateway, "ringway_limit_local_total") > 4.5).then_some(())
            });
        }
        redis.start_again();
        let begun = Instant::now();
        eventually("Redis counts again", || {
            let status = gateways[0].get("/").status;
            (status == 200 && !redis.say(&["KEYS", counted]).is_empty()).then_some(())
        });
        assert!(begun.elapsed() < RECOVERY * 4, "{plugin}: {:?}", begun.elapsed());
    }
}

fn without_redis_each_gateway_seats_as_many_as_its_own_limit() {
    let (origin, mut redis) = (Origin::replying("hello"), Redis::start());
    let plugin = format!(
        "limit-conn: {{conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr, rejected_code: 429, \
         without_redis: local, redis_timeout: 300, {}}}",
        redis.fields()
    );
    let gateways = [gateway(&origin, &plugin), gateway(&origin, &plugin)];
    for gateway in &gateways {
        // They share the one seat, which is free a moment after it was used.
        eventually("it seats", || (gateway.get("/").status == 200).then_some(()));
    }
    redis.stop();
    for gateway in &gateways {
        // One sits while its body is not there yet.
        let mut sitting = gateway.raw();
        origin.forget();
        sitting.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
        origin.wait_requests(1);
        gateway.get("/").expect_status(429);
        sitting.send("llo");
        sitting.answer_to("POST").expect(200, "hello");
        eventually("the seat is free", || (gateway.get("/").status == 200).then_some(()));
        assert!(metric(gateway, "ringway_limit_local_total") > 2.5);
    }
    redis.start_again();
    let before = metric(&gateways[0], "ringway_limit_local_total");
    let begun = Instant::now();
    eventually("Redis seats again", || {
        let before = metric(&gateways[0], "ringway_limit_local_total");
        let is_seated = gateways[0].get("/").status == 200;
        (is_seated && metric(&gateways[0], "ringway_limit_local_total") < before + 0.5).then_some(())
    });
    assert!(begun.elapsed() < RECOVERY * 4, "{:?}, {before}", begun.elapsed());
}

fn what_was_written_of_a_missing_redis_is_what_becomes_of_requests() {
    let (origin, mut redis) = (Origin::replying("hello"), Redis::start());
    redis.stop();
    for (written, expected) in [
        ("", 500),
        ("without_redis: fail, ", 500),
        ("without_redis: pass, ", 200),
        ("allow_degradation: true, ", 200),
        // A count that does not come to a number is another matter.
        ("allow_degradation: true, without_redis: fail, ", 500),
    ] {
        for plugin in [
            "limit-count: {count: 1, time_window: 60, ",
            "limit-req: {rate: 0.001, burst: 0, key: remote_addr, ",
            "limit-conn: {conn: 1, burst: 0, default_conn_delay: 0.1, key: remote_addr, ",
        ] {
            let plugin = format!("{plugin}{written}{}}}", redis.fields());
            assert_eq!(statuses(&gateway(&origin, &plugin), 2), [expected, expected], "{plugin}");
        }
    }
}

/// A route with three limits that pass when there is no answer, each with a line of its own to Redis or all with one.
fn three_limits(redis: &Redis, have_own_lines: bool) -> String {
    let fields = |number: u64| {
        let idle = if have_own_lines { 10_000 + number } else { 10_000 };
        format!(
            "{}, redis_timeout: 1000, redis_keepalive_timeout: {idle}, without_redis: pass",
            redis.fields()
        )
    };
    format!(
        "limit-count: {{count: 1000, time_window: 60, {}}}, \
         limit-req: {{rate: 1000, burst: 1000, nodelay: true, key: remote_addr, {}}}, \
         limit-conn: {{conn: 1000, burst: 0, default_conn_delay: 0.1, key: remote_addr, {}}}",
        fields(1),
        fields(2),
        fields(3)
    )
}

fn however_many_plugins_ask_a_request_waits_for_one_timeout() {
    for have_own_lines in [false, true] {
        let (origin, redis) = (Origin::replying("hello"), Redis::start());
        let gateway = gateway(&origin, &three_limits(&redis, have_own_lines));
        let mut client = gateway.client();
        client.get("/").expect(200, "hello");
        redis.pause();
        let begun = Instant::now();
        client.get("/").expect(200, "hello");
        let took = begun.elapsed();
        eprintln!("own lines: {have_own_lines}, three limits of 1 s each took {took:?}");
        assert!(took >= Duration::from_millis(900) && took < Duration::from_millis(1900), "{took:?}");
        redis.go_on();
    }
}

fn one_at_a_time_waits_for_a_redis_that_hangs_until_it_answers_again() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    let gateway = gateway(&origin, &three_limits(&redis, false));
    // One connection, so one core.
    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    redis.pause();
    client.get("/").expect(200, "hello");
    let begun = Instant::now();
    let mut waited = 0;
    for _ in 0..200 {
        let begun = Instant::now();
        client.get("/").expect(200, "hello");
        waited += usize::from(begun.elapsed() > Duration::from_millis(900));
    }
    // Those that come while it rests, and beside the one that tries, do not wait.
    let tries = begun.elapsed().as_millis() / 1000 + 1;
    assert!(waited <= tries as usize && waited < 20, "{waited} in {:?}", begun.elapsed());
    redis.go_on();
    let begun = Instant::now();
    eventually("it is asked again", || {
        let before = metric(&gateway, "ringway_redis_failures_total");
        client.get("/").expect(200, "hello");
        (metric(&gateway, "ringway_redis_failures_total") < before + 0.5).then_some(())
    });
    eprintln!("it is asked again after {:?}", begun.elapsed());
    assert!(begun.elapsed() < RECOVERY * 4, "{:?}", begun.elapsed());
}

fn a_redis_that_was_not_asked_for_a_seat_is_given_none_back() {
    let (origin, redis) = (Origin::replying("hello"), Redis::start());
    let plugin = format!(
        "limit-conn: {{conn: 100, burst: 0, default_conn_delay: 0.1, key: remote_addr, without_redis: pass, \
         redis_timeout: 500, {}}}",
        redis.fields()
    );
    let gateway = gateway(&origin, &plugin);
    let mut client = gateway.client();
    client.get("/").expect(200, "hello");
    redis.pause();
    for _ in 0..300 {
        client.get("/").expect(200, "hello");
    }
    // Each request fails once; what is given back is tried again and again, and fails as often.
    let failures = metric(&gateway, "ringway_redis_failures_total");
    assert!((300.0..450.0).contains(&failures), "{failures}");
    redis.go_on();
}

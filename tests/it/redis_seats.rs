//! Seats that gateways share through a Redis: never more than there are, and every one comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::kit::{Gateway, Origin, Redis, eventually, reply};
use super::limiting::{counted, holding};

on_both_drivers!(
    gateways_share_seats,
    there_are_never_more_than_conn_at_once,
    a_seat_comes_back_when_client_or_gateway_is_gone,
    a_seat_comes_back_though_redis_did_not_hear_of_it_at_first,
    a_request_beyond_conn_waits_wherever_the_others_are,
);

fn gateway(origin: &Origin, redis: &Redis, fields: &str) -> Gateway {
    let plugin = format!(
        "limit-conn: {{default_conn_delay: 0.1, key: remote_addr, rejected_code: 429, {fields}, {}}}",
        redis.fields()
    );
    Gateway::routing("/*", [origin]).cores(2).route(&format!("plugins: {{{plugin}}}")).start()
}

/// How many sit, over all keys.
fn sitting(redis: &Redis) -> usize {
    let keys = redis.say(&["KEYS", "limit_conn:*"]);
    keys.lines().map(|key| redis.say(&["ZCOUNT", key, "0", "+inf"]).parse::<usize>().unwrap()).sum()
}

fn gateways_share_seats() {
    let ((origin, door), redis) = (holding(), Redis::start());
    let gateways = [(); 2].map(|()| gateway(&origin, &redis, "conn: 2, burst: 0"));
    let mut held = [gateways[0].raw(), gateways[1].raw()];
    for raw in &mut held {
        raw.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    origin.wait_requests(2);
    for gateway in &gateways {
        gateway.get("/").expect_status(429);
    }
    assert_eq!(sitting(&redis), 2);
    let key = redis.say(&["KEYS", "limit_conn:routes/1:*:127.0.0.1"]);
    let left: u64 = redis.say(&["TTL", &key]).parse().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
    let told = gateways[0].control("GET", "/v1/limits?key=127.0.0.1").json();
    assert_eq!(told["total"], 0, "who sits in a Redis is not known here: {told}");
    door.open();
    for raw in &mut held {
        raw.answer().expect(200, "done");
    }
    eventually("all seats came back", || (sitting(&redis) == 0).then_some(()));
    gateways[1].get("/").expect(200, "done");
}

fn there_are_never_more_than_conn_at_once() {
    let redis = Redis::start();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = (Arc::clone(&now), Arc::clone(&most));
    let origin = Origin::answering(move |_| {
        let here = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
        seen.1.fetch_max(here, Ordering::SeqCst);
        thread::yield_now();
        seen.0.fetch_sub(1, Ordering::SeqCst);
        reply("200 OK", "done")
    });
    let gateways = [(); 2].map(|()| gateway(&origin, &redis, "conn: 3, burst: 0"));
    let statuses: Vec<u16> = thread::scope(|scope| {
        let work: Vec<_> = gateways
            .iter()
            .flat_map(|gateway| [gateway; 4])
            .map(|gateway| {
                scope.spawn(move || {
                    let mut client = gateway.client();
                    let mut asked = Vec::new();
                    while asked.iter().filter(|status| **status == 200).count() < 20 {
                        assert!(asked.len() < 20_000, "a client is let in again and again");
                        asked.push(client.get("/").status);
                    }
                    asked
                })
            })
            .collect();
        work.into_iter().flat_map(|one| one.join().unwrap()).collect()
    });
    let of = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!(of(200) + of(429), statuses.len(), "{statuses:?}");
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?}");
    assert_eq!(of(200), 8 * 20);
    eventually("all seats came back", || (sitting(&redis) == 0).then_some(()));
}

fn a_seat_comes_back_when_client_or_gateway_is_gone() {
    let ((origin, door), redis) = (holding(), Redis::start());
    let lasting = gateway(&origin, &redis, "conn: 1, burst: 0");
    let mut raw = lasting.raw();
    raw.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    // A client that is reset is noticed within a second.
    raw.wire.reset();
    eventually("the seat came back", || (sitting(&redis) == 0).then_some(()));
    let mut gateways = [(); 2].map(|()| gateway(&origin, &redis, "conn: 1, burst: 0, key_ttl: 1"));
    let mut raw = gateways[0].raw();
    raw.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(2);
    gateways[0].cut_power();
    eventually("a seat that nobody can give back is free", || {
        (gateways[1].get("/").status == 200).then_some(())
    });
    door.open();
}

fn a_seat_comes_back_though_redis_did_not_hear_of_it_at_first() {
    let ((origin, door), redis) = (holding(), Redis::start());
    let gateway = gateway(&origin, &redis, "conn: 2, burst: 0, redis_timeout: 200");
    let mut held = gateway.raw();
    held.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    redis.pause();
    // Whether they have seats nobody knows: their questions are on their way.
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| gateway.get("/").expect(500, "{\"error_msg\":\"failed to limit conn\"}\n").status);
        }
    });
    door.open();
    held.answer().expect(200, "done");
    redis.go_on();
    eventually("all seats came back", || (sitting(&redis) == 0).then_some(()));
    for _ in 0..20 {
        eventually("a seat is free", || (gateway.get("/").status == 200).then_some(()));
    }
    eventually("all seats came back", || (sitting(&redis) == 0).then_some(()));
    assert!(counted(&gateway, "ringway_redis_returns_lost_total") < 0.5);
}

fn a_request_beyond_conn_waits_wherever_the_others_are() {
    let ((origin, door), redis) = (holding(), Redis::start());
    let fields = "conn: 1, burst: 1, only_use_default_delay: true";
    let gateways = [(); 2].map(|()| gateway(&origin, &redis, fields));
    let mut held = gateways[0].raw();
    held.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_requests(1);
    gateways[1].get("/second").expect(200, "done");
    let took = gateways[1].logged("/second")["dur_ms"].as_f64().unwrap();
    assert!(Duration::from_secs_f64(took / 1000.0) >= Duration::from_millis(99), "{took}");
    door.open();
    held.answer().expect(200, "done");
}

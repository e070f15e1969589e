//! What a Redis that fails does to requests: no more than was said, for as long as it fails.
//!
//! Times are those the gateway itself has measured, from its access log. The promise is `redis_timeout` and 10 ms. What was
//! measured is printed, with how many of a core's timers came later than that: where none did, the machine was quiet enough
//! for the promise to be asserted, with some room; where some did, only that nobody waits without end.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::kit::{Gateway, Origin, Redis, eventually, within};

on_both_drivers!(
    a_redis_that_is_killed_costs_no_more_than_its_time,
    a_redis_that_sleeps_costs_no_more_than_its_time,
    a_redis_that_is_replaced_costs_no_more_than_its_time,
);

/// How long Redis may take.
const TIMEOUT: Duration = Duration::from_millis(200);
/// Room beyond that, on a machine that is quiet, and on one that is busy with other tests.
const QUIET: Duration = Duration::from_millis(100);
const BUSY: Duration = Duration::from_secs(20);
/// So soon everything is as before once Redis is.
const RECOVERY: Duration = Duration::from_secs(2);

const LIMITS: [(&str, &str); 4] = [
    ("count", "limit-count: {count: 1000000, time_window: 3600"),
    ("lease", "limit-count: {count: 1000000, time_window: 3600, sync_interval: 0.1"),
    ("turn", "limit-req: {rate: 100000, burst: 100000, nodelay: true, key: remote_addr"),
    ("seat", "limit-conn: {conn: 10000, burst: 0, default_conn_delay: 0.1, key: remote_addr"),
];

/// A gateway with each limit on a route that is strict, and on one that is not.
fn gateway(origin: &Origin, redis: &Redis) -> Gateway {
    let mut routes = "routes:".to_owned();
    for (name, limit) in LIMITS {
        for (kind, more) in [("strict", ""), ("lenient", ", allow_degradation: true")] {
            routes += &format!(
                "\n  - {{id: {name}-{kind}, uri: /{name}/{kind}/*, upstream: {{nodes: {{ORIGIN: 1}}}}, \
                 plugins: {{{limit}{more}, redis_timeout: {}, {}}}}}}}",
                TIMEOUT.as_millis(),
                redis.fields()
            );
        }
    }
    Gateway::resources(&routes, &[("ORIGIN", origin)]).cores(2).start()
}

/// Asks each limit so often, for as long as `fails` says; what strict ones answered.
fn ask_all(gateway: &Gateway, mark: &str, times: usize, fails: &(dyn Fn() -> bool + Sync)) -> Vec<u16> {
    thread::scope(|scope| {
        let work: Vec<_> = LIMITS
            .iter()
            .flat_map(|(name, _)| ["strict", "lenient"].map(|kind| format!("/{name}/{kind}/{mark}")))
            .map(|path| {
                scope.spawn(move || {
                    let mut client = gateway.client();
                    let asked = (0..times).take_while(|_| fails()).map(|_| client.get(&path).status);
                    (path.contains("strict"), asked.collect::<Vec<_>>())
                })
            })
            .collect();
        let mut strict = Vec::new();
        for (is_strict, statuses) in work.into_iter().map(|one| one.join().unwrap()) {
            if is_strict {
                strict.extend(statuses);
            } else {
                assert!(statuses.iter().all(|status| *status == 200), "{mark}: {statuses:?}");
            }
        }
        strict
    })
}

/// The longest that a request took whose path mentions this.
fn longest(gateway: &Gateway, mark: &str) -> Duration {
    let log = gateway.access_log();
    let took = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["path"].as_str()?.ends_with(mark).then(|| line["dur_ms"].as_f64())?
    };
    let longest = log.lines().filter_map(took).fold(0.0, f64::max);
    Duration::from_secs_f64(longest / 1000.0)
}

/// How many timers of the gateway's cores came more than 10 ms late, so far.
fn late(gateway: &Gateway) -> u64 {
    let text = gateway.metrics();
    let sum = |name: &str, part: &str| {
        let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(part));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>()
    };
    let all = sum("ringway_loop_lag_seconds_count", "");
    all.saturating_sub(sum("ringway_loop_lag_seconds_bucket", "le=\"0.01\""))
}

/// That Redis is back is had by every limit, soon.
fn expect_recovery(gateway: &Gateway, what: &str) {
    let (start, before) = (Instant::now(), late(gateway));
    for (name, _) in LIMITS {
        let path = format!("/{name}/strict/again");
        within(BUSY, &format!("{name} is asked again"), || (gateway.get(&path).status == 200).then_some(()));
    }
    let (took, late) = (start.elapsed(), late(gateway).saturating_sub(before));
    eprintln!("{what}: all limits work {took:?} after it is over, {late} timers were late");
    assert!(late > 0 || took < RECOVERY, "{what}: {took:?}");
}

fn expect_bounded(gateway: &Gateway, (what, before): (&str, u64), statuses: &[u16]) {
    let (took, late) = (longest(gateway, what), late(gateway).saturating_sub(before));
    assert!(
        gateway.metrics().contains("ringway_loop_lag_seconds_bucket{core=\"0\",le=\"0.01\"}"),
        "timers are counted"
    );
    let count = statuses.len();
    eprintln!(
        "{what}: the longest of {count} strict requests and as many others took {took:?}, {late} timers were late"
    );
    let room = if late == 0 { QUIET } else { BUSY };
    assert!(took < TIMEOUT + room, "{what}: {took:?}, {late} timers were late");
    assert!(statuses.iter().all(|status| [200, 500].contains(status)), "{what}: {statuses:?}");
}

fn warm(gateway: &Gateway) {
    for (name, _) in LIMITS {
        let path = format!("/{name}/strict/warm");
        eventually("Redis is asked", || (gateway.get(&path).status == 200).then_some(()));
    }
}

fn a_redis_that_is_killed_costs_no_more_than_its_time() {
    let (origin, mut redis) = (Origin::replying("hello"), Redis::start());
    let gateway = gateway(&origin, &redis);
    warm(&gateway);
    redis.stop();
    let before = late(&gateway);
    let statuses = ask_all(&gateway, "killed", 20, &|| true);
    expect_bounded(&gateway, ("killed", before), &statuses);
    assert!(statuses.contains(&500), "{statuses:?}");
    redis.start_again();
    expect_recovery(&gateway, "killed");
}

fn a_redis_that_sleeps_costs_no_more_than_its_time() {
    let (origin, redis) = (Origin::replying("hello"), Redis::that_may_sleep());
    let gateway = gateway(&origin, &redis);
    warm(&gateway);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            redis.say(&["DEBUG", "SLEEP", "1.2"]);
            is_over.store(true, Ordering::SeqCst);
        });
        let before = late(&gateway);
        eventually("it sleeps", || (gateway.get("/turn/strict/asleep").status == 500).then_some(()));
        let statuses = ask_all(&gateway, "asleep", 20, &|| !is_over.load(Ordering::SeqCst));
        expect_bounded(&gateway, ("asleep", before), &statuses);
    });
    expect_recovery(&gateway, "asleep");
}

/// Somebody on the port of a Redis who is none.
struct Impostor {
    over: Arc<AtomicBool>,
    work: Option<JoinHandle<()>>,
}

impl Impostor {
    /// One that says this to whatever it is told.
    fn on(port: u16, says: &'static [u8]) -> Self {
        let listener = eventually("the port is free", || TcpListener::bind(("127.0.0.1", port)).ok());
        listener.set_nonblocking(true).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let work = thread::spawn(move || {
            let mut held = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                let Ok((mut stream, _)) = listener.accept() else {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(says);
                held.push(stream);
            }
        });
        Self { over, work: Some(work) }
    }

    fn leave(mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.work.take().unwrap().join().unwrap();
    }
}

fn a_redis_that_is_replaced_costs_no_more_than_its_time() {
    let (origin, mut redis) = (Origin::replying("hello"), Redis::start());
    let gateway = gateway(&origin, &redis);
    warm(&gateway);
    // One that speaks another protocol, one that says too little, and one that says nothing.
    let kinds: [(&str, &[u8]); 3] =
        [("garbage", b"HTTP/1.1 400 Bad Request\r\n\r\n"), ("half", b"*3\r\n:1\r\n"), ("silence", b"")];
    redis.stop();
    for (mark, says) in kinds {
        let impostor = Impostor::on(redis.port(), says);
        let before = late(&gateway);
        let statuses = ask_all(&gateway, mark, 3, &|| true);
        impostor.leave();
        expect_bounded(&gateway, (mark, before), &statuses);
        assert!(statuses.contains(&500), "{mark}: {statuses:?}");
    }
    redis.start_again();
    expect_recovery(&gateway, "replaced");
}

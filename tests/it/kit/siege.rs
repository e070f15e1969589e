//! A gateway under attack: how much memory it takes meanwhile, and how long somebody else waits who only wants to be served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::PATIENCE;
use super::gateway::Gateway;
use super::http2::Http2;
use super::origin::{Conn, Origin, reply};

/// Bytes that an attacking connection may cost, and what is allowed where futures are larger for lack of optimisation.
pub(crate) const BYTES_PER_ATTACKER: usize = 256 * 1024;
const BYTES_UNOPTIMISED: usize = 2 * BYTES_PER_ATTACKER;
/// How long one victim in a hundred may wait, beside others who use the machine.
const SLOW: Duration = Duration::from_millis(100);
const SLOW_UNOPTIMISED: Duration = Duration::from_secs(2);
/// Connections before the first attack: what is paid once is paid by then.
const WARMING: usize = 50;

/// What the victim asks at least, and how long it rests between two requests.
const REQUESTS: usize = 20;
const REST: Duration = Duration::from_millis(2);

/// Body of `/large`.
pub(crate) const LARGE: usize = 300_000;

/// Goes by what is tested: the binary built with these tests is as optimised as they are, one that is named must keep
/// the promise.
pub(crate) fn of<T>(optimised: T, unoptimised: T) -> T {
    let is_named = std::env::var_os("RINGWAY_TEST_BINARY").is_some();
    if cfg!(debug_assertions) && !is_named { unoptimised } else { optimised }
}

/// An origin with a large body, one that never comes, one that nobody takes, and a small one.
pub(crate) fn origin() -> Origin {
    let large = reply("200 OK", &"x".repeat(LARGE));
    let small = reply("200 OK", "hello");
    Origin::serving(move |conn: &mut Conn| {
        while let Some(head) = conn.head() {
            if head.target == "/deaf" {
                return conn.hold();
            }
            let Some(seen) = conn.body(head) else { return };
            if seen.target == "/hang" {
                conn.wait_for_the_end();
                return;
            }
            if !conn.send(if seen.target == "/large" { &large } else { &small }) {
                return;
            }
        }
    })
}

/// What is measured while an attack goes on.
pub(crate) struct Siege<'a> {
    gateway: &'a Gateway,
    before: usize,
    counted: BTreeMap<String, f64>,
    over: Arc<AtomicBool>,
    /// How long each request took, and the most memory that was seen.
    victim: JoinHandle<(Vec<Duration>, usize)>,
}

impl<'a> Siege<'a> {
    /// Begins to measure.
    pub(crate) fn begin(gateway: &'a Gateway) -> Self {
        let mut warming: Vec<Http2> = (0..WARMING).map(|_| Http2::to(gateway)).collect();
        for client in &mut warming {
            client.get("/victim").expect(200, "hello");
        }
        drop(warming);
        let over = Arc::new(AtomicBool::new(false));
        let (address, pid, is_over) = (gateway.address(), gateway.pid(), Arc::clone(&over));
        let before = gateway.resident();
        let victim = thread::spawn(move || suffer(address, pid, &is_over));
        Self { gateway, before, counted: counts(gateway), over, victim }
    }

    /// Waits until metrics that begin so went up by so much in all.
    pub(crate) fn counted(&self, begins: &[&str], count: usize) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !self.has_counted(begins, count) {
            if Instant::now() > deadline {
                return Err(format!("not in {begins:?}"));
            }
            thread::park_timeout(REST);
        }
        Ok(())
    }

    fn has_counted(&self, begins: &[&str], count: usize) -> bool {
        let now = counts(self.gateway);
        let named = |all: &BTreeMap<String, f64>| -> f64 {
            all.iter()
                .filter(|(name, _)| begins.iter().any(|begin| name.starts_with(begin)))
                .map(|(_, count)| count)
                .sum()
        };
        named(&now) - named(&self.counted) >= count as f64
    }

    /// Ends, with the verdict: the victim was served, in time, and so many attackers cost no more than they may.
    pub(crate) fn end(self, what: &str, attackers: usize) -> Result<(), String> {
        self.end_within(of(BYTES_PER_ATTACKER, BYTES_UNOPTIMISED), what, attackers)
    }

    /// The same where each may cost so many bytes.
    pub(crate) fn end_within(self, bytes: usize, what: &str, attackers: usize) -> Result<(), String> {
        self.over.store(true, Ordering::SeqCst);
        let (mut waits, most) = self.victim.join().expect("every request of the victim is answered");
        waits.sort_unstable();
        let slow = waits[waits.len() * 99 / 100];
        let each = most.saturating_sub(self.before) / attackers;
        eprintln!("{what}: {each} bytes an attacker; {} requests beside, 99 % within {slow:?}", waits.len());
        if each > bytes {
            return Err(format!("{each} bytes an attacker"));
        }
        if slow > of(SLOW, SLOW_UNOPTIMISED) {
            return Err(format!("one victim in a hundred waits {slow:?}"));
        }
        Ok(())
    }
}

/// Asks one thing after the other until it is over, and looks at the memory of the process.
fn suffer(address: SocketAddr, pid: u32, is_over: &AtomicBool) -> (Vec<Duration>, usize) {
    let mut client = Http2::connect(address);
    let (mut waits, mut most) = (Vec::new(), 0);
    loop {
        let begun = Instant::now();
        client.get("/victim").expect(200, "hello");
        waits.push(begun.elapsed());
        most = most.max(super::gateway::resident_of(pid));
        if is_over.load(Ordering::SeqCst) && waits.len() >= REQUESTS {
            return (waits, most);
        }
        thread::park_timeout(REST);
    }
}

/// All of the metrics.
fn counts(gateway: &Gateway) -> BTreeMap<String, f64> {
    let text = gateway.metrics();
    let line = |line: &str| {
        let (name, count) = line.rsplit_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).collect()
}

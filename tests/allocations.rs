//! A warm core serves proxied requests without asking the heap for anything, and a route and a key that is counted are
//! small (docs/performance.md, "Budgets").
//!
//! The allocator of this binary counts, per thread, so that origin, client and the control thread's part do not
//! matter. When a count is not zero, the test prints where the first allocations were made.
// The test waits for a core, and is none.
#![allow(unsafe_code, clippy::disallowed_methods, clippy::print_stdout)]

mod inprocess;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use inprocess::{House, ask, origin};
use ringway::base::clock::Moment;
use ringway::base::window::Fixed;
use ringway::link::handover::Spoken;
use ringway::link::ledger::{Ledger, Name, Purse};
use ringway::model::Settings;
use ringway::model::resources::{self, Format, Resources};
use ringway::runtime::Limits;
use ringway::runtime::driver::Wanted;
use ringway::snapshot::{Compiler, at_once};

/// Requests before counting begins, and those counted.
const WARM_UP: usize = 200;
const COUNTED: usize = 1000;
/// Connections the requests go round on.
const CONNECTIONS: usize = 4;
/// Places of allocation that are told.
const TRACES: usize = 12;

struct Counting;

thread_local! {
    /// Whether allocations of this thread count. Constant and without a drop, so reading it allocates nothing.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    /// Bytes that this thread has taken and not given back.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn hold(bytes: isize) {
    HELD.set(HELD.get().wrapping_add(bytes));
}

/// Allocations of watched threads, while `COUNT` is set.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static COUNT: AtomicBool = AtomicBool::new(false);
static PLACES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One core is watched at a time.
static TURN: Mutex<()> = Mutex::new(());

fn note() {
    if !COUNT.load(Ordering::Relaxed) || !WATCHED.get() {
        return;
    }
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    // What telling the place allocates does not count.
    WATCHED.set(false);
    let mut places = PLACES.lock().expect("no panic while it is held");
    if places.len() < TRACES {
        let place = place_of(&Backtrace::force_capture().to_string());
        if !places.contains(&place) {
            places.push(place);
        }
    }
    drop(places);
    WATCHED.set(true);
}

/// The frames of ours and of the loop, innermost first.
fn place_of(trace: &str) -> String {
    let frames = trace.lines().filter(|line| line.contains("src/") && !line.contains("/rustc/"));
    frames.filter(|line| !line.contains("tests/")).take(5).map(str::trim).collect::<Vec<_>>().join("\n    ")
}

// SAFETY: every call is passed on as it came to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        hold(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        hold(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        hold(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sends requests in turn on all connections.
fn send(house: &House, streams: &mut [TcpStream], request: &[u8], count: usize) -> usize {
    let mut answer = Vec::new();
    let mut batches = 0;
    for at in 0..count {
        let stream = at % streams.len();
        let status = ask(&mut streams[stream], request, &mut answer);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        batches += house.take_reports();
    }
    batches
}

/// How many allocations a thousand such requests make, once warm, and where.
fn count(wanted: Wanted, plugins: &str, request: &str) -> (u64, String) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let node = origin();
    let plugins = plugins.replace("NODE", &format!("\"{node}\""));
    let objects = format!(
        "routes: [{{id: 1, uri: /*, plugins: {{{plugins}}}, upstream: {{nodes: {{\"{node}\": 1}}, \
         keepalive_pool: {{requests: 1000000}}}}}}]\n\
         consumers: [{{username: jack, plugins: {{key-auth: {{key: secret}}}}}}]",
    );
    let house = House::open(wanted, Limits::default(), &objects, || WATCHED.set(true));
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| house.connect()).collect();
    // Until two log buffers go round: one is written while the other is away.
    let mut batches = send(&house, &mut streams, request.as_bytes(), WARM_UP);
    while batches < 2 {
        batches += send(&house, &mut streams, request.as_bytes(), WARM_UP);
    }
    ALLOCATIONS.store(0, Ordering::SeqCst);
    PLACES.lock().expect("no panic while it is held").clear();
    COUNT.store(true, Ordering::SeqCst);
    send(&house, &mut streams, request.as_bytes(), COUNTED);
    COUNT.store(false, Ordering::SeqCst);
    let places = PLACES.lock().expect("no panic while it is held").join("\n  ");
    (ALLOCATIONS.load(Ordering::SeqCst), places)
}

/// How many allocations a thousand exchanges make that are passed on as they are, once connections stand, and where.
fn count_passed_on(wanted: Wanted) -> (u64, String) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let objects = format!("stream_routes: [{{id: 1, upstream: {{nodes: {{\"{}\": 1}}}}}}]", origin());
    let spoken = Spoken { is_stream: true, ..Spoken::default() };
    let house = House::open_to(spoken, wanted, Limits::default(), &objects, || WATCHED.set(true));
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| house.connect()).collect();
    send(&house, &mut streams, GET.as_bytes(), WARM_UP);
    ALLOCATIONS.store(0, Ordering::SeqCst);
    PLACES.lock().expect("no panic while it is held").clear();
    COUNT.store(true, Ordering::SeqCst);
    send(&house, &mut streams, GET.as_bytes(), COUNTED);
    COUNT.store(false, Ordering::SeqCst);
    let places = PLACES.lock().expect("no panic while it is held").join("\n  ");
    (ALLOCATIONS.load(Ordering::SeqCst), places)
}

#[test]
fn what_is_passed_on_as_it_is_costs_no_allocation() {
    let drivers = std::env::var("RINGWAY_TEST_DRIVERS").unwrap_or_else(|_| "io_uring,epoll".to_owned());
    for (name, wanted) in [("io_uring", Wanted::IoUring), ("epoll", Wanted::Epoll)] {
        if drivers.contains(name) {
            let (count, places) = count_passed_on(wanted);
            assert_eq!(count, 0, "{name}: {COUNTED} exchanges made {count} allocations; places:\n  {places}");
        }
    }
}

/// Asserts that the request, once warm, costs no allocation.
fn check(wanted: Wanted, plugins: &str, request: &str) {
    let (count, places) = count(wanted, plugins, request);
    assert_eq!(count, 0, "{COUNTED} requests made {count} allocations; places:\n  {places}");
}

const GET: &str = "GET /a/b?c=d HTTP/1.1\r\nHost: example.test\r\nUser-Agent: test\r\nAccept: */*\r\n\
                   X-Own: 1\r\napikey: secret\r\n\r\n";
const POST: &str = "POST /form HTTP/1.1\r\nHost: example.test\r\nContent-Type: text/plain\r\n\
                    Content-Length: 11\r\napikey: secret\r\n\r\nhello world";
const WITH_ESCAPES: &str =
    "GET /%C3%A4/%22 HTTP/1.1\r\nHost: example.test\r\nUser-Agent: a \"test\"\r\napikey: secret\r\n\r\n";
const GUARDED: &str = "key-auth: {}, limit-count: {count: 1000000, time_window: 3600, key: consumer_name}, \
                       prometheus: {}";

const REWRITTEN: &str = "cors: {}, request-id: {}, ip-restriction: {whitelist: [127.0.0.1]}, \
                         proxy-rewrite: {uri: /x, headers: {set: {X-To: up}}}, \
                         response-rewrite: {headers: {set: {X-From: down}}}";

const SPLIT: &str = "traffic-split: {rules: [{match: [{vars: [[http_x_own, '==', '2']]}]}, \
                     {match: [{vars: [[http_x_own, '==', '1']]}], weighted_upstreams: [{weight: 2}, \
                     {upstream: {nodes: {NODE: 1}, keepalive_pool: {requests: 1000000}}}]}]}";

const FENCED: &str = "client-control: {max_body_size: 1000}, uri-blocker: {block_rules: ['root.exe', '^/admin']}, \
                      fault-injection: {abort: {http_status: 503, vars: [[[arg_fail, '==', '1']]]}}, key-auth: {}, \
                      ua-restriction: {denylist: ['bad-bot/[0-9]+']}, consumer-restriction: {whitelist: [jack]}, \
                      referer-restriction: {whitelist: ['*.example.test']}, echo: {before_body: '<', after_body: '>'}";
const FROM_A_PAGE: &str = "POST /form?a=b HTTP/1.1\r\nHost: example.test\r\nUser-Agent: test\r\n\
                           Referer: http://www.example.test/form\r\nContent-Length: 11\r\napikey: secret\r\n\r\n\
                           hello world";

const STEERED: &str = "real-ip: {source: http_x_client}, api-breaker: {break_response_code: 503}, \
                       traffic-label: {rules: [{actions: [{set_headers: {X-Group: a}}, {weight: 2}]}]}, \
                       limit-count: {count: 1000000, time_window: 60}, \
                       workflow: {rules: [{case: [[http_x_client, '==', '10.1.2.3']], \
                       actions: [[limit-count, {count: 1000000, time_window: 60}]]}]}";
const FROM_A_PROXY: &str = "GET / HTTP/1.1\r\nHost: example.test\r\nX-Client: 10.1.2.3\r\n\r\n";

const LIMITED: &str = "limit-conn: {conn: 100, burst: 0, default_conn_delay: 1, key: http_x_own}, \
                       limit-req: {rate: 1000000, burst: 1000, key: '$remote_addr $http_x_own', \
                       key_type: var_combination, nodelay: true}, \
                       limit-count: {rules: [{count: '${http_x_none ?? 1000000}', time_window: 3600, key: $http_x_own}], \
                       window_type: sliding}";

const NAMED: &str = "limit: {cost: '${http_x_none ?? 2}', settle: $http_x_own, limits: [\
                     {name: org, key: http_x_own, windows: [{count: 4000000000, per: minute}, {count: 4000000000, per: month}]}, \
                     {name: all, key_type: constant, rate: {count: 1000000000, burst: 1000000}, concurrency: 5}, \
                     {name: new, mode: shadow, windows: [{count: 1, per: day}]}]}";

macro_rules! on_both_drivers {
    ($($name:ident($plugins:expr, $request:expr);)*) => {
        $(mod $name {
            use super::*;

            #[test]
            fn io_uring() {
                let wanted = std::env::var("RINGWAY_TEST_DRIVERS").unwrap_or_else(|_| "io_uring,epoll".to_owned());
                if wanted.contains("io_uring") {
                    check(Wanted::IoUring, $plugins, $request);
                }
            }

            #[test]
            fn epoll() {
                check(Wanted::Epoll, $plugins, $request);
            }
        })*
    };
}

on_both_drivers! {
    a_plain_request_allocates_nothing("", GET);
    a_guarded_counted_and_logged_request_allocates_nothing(GUARDED, GET);
    a_request_whose_record_needs_escapes_allocates_nothing(GUARDED, WITH_ESCAPES);
    a_small_body_allocates_nothing("", POST);
    a_guarded_counted_and_logged_body_allocates_nothing(GUARDED, POST);
    a_request_rewritten_both_ways_allocates_nothing(REWRITTEN, GET);
    a_split_request_allocates_nothing(SPLIT, GET);
    a_request_that_passes_all_fences_allocates_nothing(FENCED, FROM_A_PAGE);
    a_steered_request_allocates_nothing(STEERED, FROM_A_PROXY);
    a_request_that_every_limit_admits_allocates_nothing(LIMITED, GET);
    a_request_that_is_counted_by_name_and_settled_allocates_nothing(NAMED, GET);
}

/// So that zero means none rather than none seen: a plugin that is known to allocate.
#[test]
fn a_plugin_that_allocates_is_caught_and_named() {
    let (count, places) = count(Wanted::Epoll, "proxy-rewrite: {regex_uri: ['^/a/(.*)', '/x/$1']}", GET);
    assert!(count >= COUNTED as u64, "{count}");
    assert!(places.contains("regex_uri.rs"), "{places}");
}

/// Routes of the slope.
const ROUTES: usize = 10_000;
/// What a route may cost, compiled and as it is kept for the next change.
const BYTES_PER_ROUTE: usize = 2048;

/// So many routes of a usual shape, on a hundred shared upstreams.
fn routes(count: usize) -> Resources {
    let mut text = String::from("upstreams:\n");
    for number in 0..100 {
        text += &format!("  - {{id: u{number}, nodes: {{'127.0.0.1:{}': 1}}}}\n", 2000 + number);
    }
    text += "routes:\n";
    for number in 0..count {
        text += &format!(
            "  - {{id: r{number}, uri: /api/v1/resource-{number}/*, host: shop-{}.example.com, methods: [GET, POST], upstream_id: u{}}}\n",
            number % 1000,
            number % 100
        );
    }
    resources::parse(&text, Format::Yaml, &|_| None).expect("a file of objects")
}

/// What a compiler and its snapshot hold of so many routes.
fn held_by(count: usize) -> usize {
    let objects = routes(count);
    let before = HELD.get();
    let mut compiler = Compiler::new(&Settings::default(), at_once(|_| Err("no names here".to_owned())));
    let outcome = compiler.compile(&objects);
    assert_eq!((outcome.faults.len(), outcome.snapshot.routes.len()), (0, count));
    let held = HELD.get() - before;
    drop((compiler, outcome, objects));
    held as usize
}

#[test]
fn a_route_costs_no_more_memory_than_is_promised() {
    // What is paid once is in both.
    let each = (held_by(ROUTES + 1) - held_by(1)) / ROUTES;
    println!("{each} bytes a route");
    assert!(each <= BYTES_PER_ROUTE, "{each} bytes a route, at most {BYTES_PER_ROUTE} are promised");
}

/// What a million keys that are counted may take in the whole process, and any number of keys of many, each.
const BYTES_PER_KEY: usize = 64;
/// What is there for a few keys: tables of chunks.
const LEDGER_BYTES_MAX: usize = 128 * 1024;

/// Bytes that a ledger and one core's purse hold of so many keys, each counted in a window.
fn held_by_keys(keys: u64) -> usize {
    let window = Duration::from_secs(60);
    let fixed = Fixed::new(100, window);
    let before = HELD.get();
    let ledger = Arc::new(Ledger::new());
    let purse = Purse::new(&ledger);
    for key in 0..keys {
        let key_bytes = format!("routes/1\nclient-{key}").into_bytes();
        let name = Name { bytes: &key_bytes, limit: 9 };
        let spent =
            purse.with(Moment::ZERO, name, |account| account.spend_fixed(&fixed, window, Moment::ZERO, 1));
        assert_eq!((spent.admitted, spent.remaining), (true, 99), "key {key} has an account of its own");
    }
    assert_eq!((ledger.accounts() as u64, ledger.crowded()), (keys, 0));
    let held = HELD.get() - before;
    drop((purse, ledger));
    assert_eq!(HELD.get(), before, "all of it comes back");
    held as usize
}

/// `RINGWAY_LIMIT_KEYS` asks for another number: a million in the long form.
#[test]
fn a_key_that_is_counted_costs_no_more_memory_than_is_promised() {
    let wanted = std::env::var("RINGWAY_LIMIT_KEYS").ok().and_then(|keys| keys.parse().ok());
    let keys: u64 = wanted.unwrap_or(300_000);
    // What hashes are seeded with is made once in a process.
    drop(Ledger::new());
    let none = held_by_keys(0);
    let held = held_by_keys(keys);
    println!("{held} bytes for {keys} keys, {} each; {none} bytes for none", held / keys as usize);
    assert!(none <= LEDGER_BYTES_MAX, "{none} bytes for no key, at most {LEDGER_BYTES_MAX} are promised");
    let most = BYTES_PER_KEY * keys as usize;
    assert!(held <= most, "{held} bytes for {keys} keys, at most {most} are promised");
}

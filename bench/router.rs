//! Finding a route: what one costs must not grow with how many there are.

mod kit;

use std::process::ExitCode;

use kit::{Case, Scale, Work};
use ringway::router::{Mode, Pattern, Query, Router};

/// Requests that a case goes round; the iterations are a multiple of it.
const QUERIES: usize = 500;

/// Puts in so many entries, each with its path and, if not empty, its host.
fn build(mode: Mode, count: usize, entry: fn(usize) -> (String, String)) -> Router<u64> {
    let mut router = Router::new(mode);
    for number in 0..count {
        let (path, host) = entry(number);
        let hosts: &[&str] = if host.is_empty() { &[] } else { &[&host] };
        let pattern = Pattern { path: &path, hosts, ..Pattern::default() };
        router.insert(&pattern, number as u64, number as u64).expect("the pattern is valid");
    }
    router.settle();
    router
}

/// Asks for the entries `asked`, each by the path and host that it is to be found under.
fn ask(
    router: Router<u64>,
    asked: impl Iterator<Item = usize>,
    query: fn(usize) -> (String, String),
) -> Work {
    let mut queries: Vec<(u64, String, String)> = Vec::new();
    for number in asked {
        let (path, host) = query(number);
        queries.push((number as u64, path, host));
    }
    let find = move |path: &str, host: &str| {
        let host = host.as_bytes();
        let query = Query { path: path.as_bytes(), host, raw_host: host, method_bit: 1 };
        router.find(&query, |_, _| true).map_or(u64::MAX, |found| *found.value)
    };
    for (number, path, host) in &queries {
        assert_eq!(find(path, host), *number, "{host} {path}");
    }
    let mut at = 0;
    Box::new(move || {
        let (_, path, host) = &queries[at];
        at = if at + 1 == queries.len() { 0 } else { at + 1 };
        find(path, host)
    })
}

/// Numbers from all over `count`.
fn spread(count: usize) -> impl Iterator<Item = usize> {
    (0..QUERIES).map(move |at| at * count / QUERIES)
}

fn exact(number: usize) -> (String, String) {
    (format!("/api/v1/resource-{number:06}"), String::new())
}

fn exact_among(
    scale: Scale,
    tiny: usize,
    full: usize,
    asked: fn(usize) -> Box<dyn Iterator<Item = usize>>,
) -> Work {
    let count = scale.pick(tiny, full);
    ask(build(Mode::HostUri, count, exact), asked(count), exact)
}

fn prefixes(scale: Scale) -> Work {
    let count = scale.pick(10, 10_000);
    let router = build(Mode::HostUri, count, |number| (format!("/tenant-{number:05}/*"), String::new()));
    ask(router, spread(count), |number| (format!("/tenant-{number:05}/orders/42"), String::new()))
}

fn hosts(scale: Scale) -> Work {
    let count = scale.pick(10, 10_000);
    let router =
        build(Mode::HostUri, count, |number| ("/*".to_owned(), format!("shop-{number:05}.example.com")));
    ask(router, spread(count), |number| ("/orders/42".to_owned(), format!("shop-{number:05}.example.com")))
}

fn parameters(scale: Scale) -> Work {
    let count = scale.pick(10, 10_000);
    let path = |number| (format!("/:tenant/resource-{number:05}/:id"), String::new());
    let router = build(Mode::UriWithParameter, count, path);
    ask(router, spread(count), |number| (format!("/acme/resource-{number:05}/42"), String::new()))
}

fn main() -> ExitCode {
    let one = |scale| exact_among(scale, 1, 1, |_| Box::new(std::iter::once(0)));
    let ten_thousand = |scale| exact_among(scale, 10, 10_000, |count| Box::new(spread(count)));
    let first = |scale| exact_among(scale, 20, 100_000, |count| Box::new(0..count.min(QUERIES)));
    let last =
        |scale| exact_among(scale, 20, 100_000, |count| Box::new(count.saturating_sub(QUERIES)..count));
    kit::run(&[
        Case { name: "1-route", iterations: 5000, make: one },
        Case { name: "10k-routes", iterations: 5000, make: ten_thousand },
        Case { name: "100k-routes-first", iterations: 5000, make: first },
        Case { name: "100k-routes-last", iterations: 5000, make: last },
        Case { name: "10k-prefixes", iterations: 5000, make: prefixes },
        Case { name: "10k-hosts", iterations: 5000, make: hosts },
        Case { name: "10k-parameters", iterations: 5000, make: parameters },
    ])
}

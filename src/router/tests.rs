//! Precedence as tables, and the router against a list that is scanned.

use super::*;
use crate::base::rng::Rng;

const GET: u32 = 1;
const POST: u32 = 2;

fn query<'a>(path: &'a str, host: &'a str) -> Query<'a> {
    Query { path: path.as_bytes(), host: host.as_bytes(), raw_host: host.as_bytes(), method_bit: GET }
}

/// Entries as `(path, hosts, priority)`; their values are their places.
fn router(mode: Mode, entries: &[(&str, &[&str], i64)]) -> Router<usize> {
    let mut router = Router::new(mode);
    for (place, (path, hosts, priority)) in entries.iter().enumerate() {
        let pattern = Pattern { path, hosts, priority: *priority, methods: 0 };
        router.insert(&pattern, place as u64, place).expect("the sample is a pattern");
    }
    router.settle();
    router
}

/// The order in which the entries are tried.
fn order(mode: Mode, entries: &[(&str, &[&str], i64)], path: &str, host: &str) -> Vec<usize> {
    let router = router(mode, entries);
    let mut tried = Vec::new();
    let found = router.find(&query(path, host), |place, _| {
        tried.push(*place);
        false
    });
    assert!(found.is_none());
    tried
}

fn text(path: &str, range: Range<usize>) -> &str {
    path.get(range).unwrap_or("outside")
}

#[test]
fn an_exact_path_comes_before_any_prefix_whatever_the_priorities() {
    let entries = [("/a*", &[][..], 100), ("/a", &[], -5), ("/*", &[], 1000)];
    for mode in [Mode::HostUri, Mode::Uri, Mode::UriWithParameter] {
        assert_eq!(order(mode, &entries, "/a", "h"), [1, 0, 2], "{mode:?}");
    }
}

#[test]
fn a_longer_prefix_comes_before_a_shorter_whatever_the_priorities() {
    let entries = [("/*", &[][..], 9), ("/api/*", &[], 0), ("/api/v1*", &[], -1), ("/apx*", &[], 99)];
    assert_eq!(order(Mode::Uri, &entries, "/api/v1", "h"), [2, 1, 0]);
    assert_eq!(order(Mode::Uri, &entries, "/api/", "h"), [1, 0]);
    assert_eq!(order(Mode::Uri, &entries, "/api", "h"), [0]);
    assert_eq!(order(Mode::Uri, &entries, "x", "h"), [] as [usize; 0]);
}

#[test]
fn on_one_path_priority_then_the_longer_pattern_then_who_came_first_decides() {
    let entries = [
        ("/:a", &[][..], 0),
        ("/:aa", &[], 0),
        ("/:b", &[], 0),
        ("/:c", &[], 1),
        ("/:d", &[], i64::MIN),
        ("/:e", &[], i64::MAX),
    ];
    assert_eq!(order(Mode::UriWithParameter, &entries, "/x", "h"), [5, 3, 1, 0, 2, 4]);
    let entries = [("/a", &[][..], 0), ("/a", &[], 2), ("/a", &[], 2), ("/a", &[], 1)];
    assert_eq!(order(Mode::HostUri, &entries, "/a", "h"), [1, 2, 3, 0]);
}

#[test]
fn the_host_decides_before_the_path_in_the_default_mode_only() {
    let entries = [
        ("/a", &[][..], 9),
        ("/*", &["*.com"], 0),
        ("/*", &["*.x.com"], 0),
        ("/*", &["a.x.com"], 0),
        ("/a", &["a.x.com"], -9),
        ("/a", &["b.x.com"], 99),
    ];
    assert_eq!(order(Mode::HostUri, &entries, "/a", "a.x.com"), [4, 3, 2, 1, 0]);
    assert_eq!(order(Mode::Uri, &entries, "/a", "a.x.com"), [0, 4, 1, 2, 3]);
    assert_eq!(order(Mode::HostUri, &entries, "/a", "z.com"), [1, 0]);
    assert_eq!(order(Mode::HostUri, &entries, "/b", "nobody"), [] as [usize; 0]);
    assert_eq!(order(Mode::HostUri, &entries, "/a", ""), [0]);
}

#[test]
fn a_match_tells_what_it_took() {
    let entries = [("/u/:id/*rest", &["*.X.com"][..], 0), ("/:id/:id", &[], 0), ("/p*", &[], 0)];
    let router = router(Mode::UriWithParameter, &entries);
    let path = "/u/7/a/b";
    let found = router.find(&query(path, "a.x.com"), |_, _| true).expect("it matches");
    assert_eq!((*found.value, found.pattern, found.host), (0, "/u/:id/*rest", Some("*.x.com")));
    let params: Vec<_> = found.params().map(|(name, range)| (name, text(path, range))).collect();
    assert_eq!(params, [("id", "7"), ("rest", "a/b")]);
    assert_eq!(found.param("nothing"), None);
    let twice = router.find(&query("/1/2", "h"), |_, _| true).expect("it matches");
    assert_eq!(twice.param("id").map(|range| text("/1/2", range)), Some("2"));
    let plain = router.find(&query("/prefix", "h"), |_, _| true).expect("it matches");
    assert_eq!((plain.pattern, plain.host, plain.params().count()), ("/p*", None, 0));
}

#[test]
fn a_colon_is_literal_unless_the_mode_has_parameters() {
    let entries = [("/user/:id", &[][..], 0)];
    for (mode, path, finds) in [
        (Mode::HostUri, "/user/7", false),
        (Mode::Uri, "/user/7", false),
        (Mode::UriWithParameter, "/user/7", true),
        (Mode::HostUri, "/user/:id", true),
    ] {
        let router = router(mode, &entries);
        assert_eq!(router.find(&query(path, "h"), |_, _| true).is_some(), finds, "{mode:?} {path}");
    }
}

#[test]
fn a_method_that_no_entry_admits_is_told_from_a_path_that_none_has() {
    let mut router = Router::new(Mode::HostUri);
    for (path, methods) in [("/a", GET), ("/a", POST), ("/any", 0)] {
        router.insert(&Pattern { path, methods, ..Pattern::default() }, 0, path).expect("a pattern");
    }
    router.settle();
    let asking = |path, method_bit| Query { method_bit, ..query(path, "h") };
    assert!(router.find(&asking("/a", POST), |_, _| true).is_some());
    assert!(router.find(&asking("/a", 4), |_, _| true).is_none());
    assert_eq!(router.methods_of(&asking("/a", 4), |_, _| true), GET | POST);
    assert_eq!(router.methods_of(&asking("/a", 4), |_, found| found.methods == GET), GET);
    assert_eq!(router.methods_of(&asking("/b", 4), |_, _| true), 0);
    assert!(router.find(&asking("/any", 1 << 31), |_, _| true).is_some());
}

#[test]
fn any_number_of_hosts_gives_the_same_answers() {
    for mode in [Mode::HostUri, Mode::Uri] {
        for count in [1, 99, 101, 10_000] {
            let mut router = Router::new(mode);
            for number in 0..count {
                let (host, wild) = (format!("h{number}.test"), format!("*.w{number}.test"));
                let hosts = [host.as_str(), wild.as_str()];
                router
                    .insert(&Pattern { path: "/a", hosts: &hosts, ..Pattern::default() }, 0, number)
                    .expect("fits");
                // On a path of their own, so that the index over exact hosts is used where hosts only filter.
                router
                    .insert(&Pattern { path: "/b", hosts: &hosts[..1], ..Pattern::default() }, 0, number)
                    .expect("fits");
            }
            router.settle();
            let find = |path: &str, host: &str| {
                router.find(&query(path, host), |_, _| true).map(|found| *found.value)
            };
            assert_eq!(find("/a", "h0.test"), Some(0), "{mode:?} {count}");
            let last = count - 1;
            assert_eq!(find("/a", &format!("h{last}.test")), Some(last), "{mode:?} {count}");
            assert_eq!(find("/b", &format!("h{last}.test")), Some(last), "{mode:?} {count}");
            assert_eq!(find("/a", &format!("x.y.w{last}.test")), Some(last), "{mode:?} {count}");
            assert_eq!(find("/a", &format!("w{last}.test")), None, "{mode:?} {count}");
            assert_eq!(find("/b", &format!("h{count}.test")), None, "{mode:?} {count}");
            assert_eq!(router.len(), 2 * count);
        }
    }
}

#[test]
fn a_long_list_under_one_prefix_is_divided_by_what_its_entries_want() {
    let paths: Vec<String> = (0..5000).map(|number| format!("/:tenant/kind-{number}/:id")).collect();
    let mut router = Router::new(Mode::UriWithParameter);
    for (place, path) in paths.iter().enumerate() {
        router.insert(&Pattern { path, ..Pattern::default() }, 0, place).expect("a pattern");
    }
    router
        .insert(&Pattern { path: "/:a/:b/:c", priority: -1, ..Pattern::default() }, 0, 5000)
        .expect("a pattern");
    router.settle();
    let tried = |path: &str| {
        let mut tried = Vec::new();
        router
            .anywhere
            .each(&query(path, "h"), &mut |entry| -> ControlFlow<()> {
                tried.push(entry.value);
                ControlFlow::Continue(())
            })
            .is_continue()
            .then_some(tried)
    };
    assert_eq!(tried("/x/kind-4321/7"), Some(vec![4321, 5000]));
    assert_eq!(tried("/x/other/7"), Some(vec![5000]));
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let router = Router::<()>::default();
    assert!(router.is_empty());
    assert!(router.find(&query("/", "h"), |_, _| true).is_none());
}

#[test]
fn cores_may_share_it() {
    fn shared<T: Send + Sync>() {}
    shared::<Router<u32>>();
}

// ---- the model: a list, scanned ---------------------------------------------------------------

struct Listed {
    path: String,
    hosts: Vec<String>,
    methods: u32,
    priority: i64,
}

impl Listed {
    fn with<R>(&self, act: impl FnOnce(&Pattern<'_>) -> R) -> R {
        let hosts: Vec<&str> = self.hosts.iter().map(String::as_str).collect();
        let Self { path, methods, priority, .. } = self;
        act(&Pattern { path, hosts: &hosts, methods: *methods, priority: *priority })
    }
}

/// Whether the path fits, trying every way; written after the definition, not after the router.
fn path_fits(pattern: &[u8], path: &[u8], with_params: bool, begins_segment: bool) -> bool {
    let segment_end = |text: &[u8]| text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
    match pattern.first() {
        None => path.is_empty(),
        Some(b'*') if !with_params || !begins_segment => true,
        Some(b'*') => {
            let behind = &pattern[segment_end(pattern)..];
            (0..=path.len()).any(|taken| path_fits(behind, &path[taken..], true, false))
        }
        Some(b':') if with_params && begins_segment => {
            let (behind, taken) = (&pattern[segment_end(pattern)..], segment_end(path));
            taken > 0 && path_fits(behind, &path[taken..], true, false)
        }
        Some(byte) => {
            path.first() == Some(byte) && path_fits(&pattern[1..], &path[1..], with_params, *byte == b'/')
        }
    }
}

/// How much the host pattern says of the host; `None` when it does not match.
fn host_fits(pattern: &str, host: &str, raw_host: &str) -> Option<(u8, usize)> {
    let has_port = pattern.contains(':');
    let host = if has_port { raw_host } else { host };
    match pattern.strip_prefix('*') {
        None => (pattern == host).then_some((2 + u8::from(has_port), 0)),
        Some(ending) => host.ends_with(ending).then_some((u8::from(has_port), ending.len())),
    }
}

/// The length of the literal beginning; `None` for an exact path.
fn prefix_bytes(pattern: &str, with_params: bool) -> Option<usize> {
    let star = pattern.find('*');
    let colon = pattern.find("/:").filter(|_| with_params).map(|slash| slash + 1);
    star.into_iter().chain(colon).min()
}

/// The places of all entries that match, as the definition orders them.
fn scan(mode: Mode, list: &[Listed], asked: &Query<'_>, host: &str, raw_host: &str) -> Vec<usize> {
    let with_params = mode == Mode::UriWithParameter;
    let mut found = Vec::new();
    for (place, entry) in list.iter().enumerate() {
        if entry.methods != 0 && entry.methods & asked.method_bit == 0
            || !path_fits(entry.path.as_bytes(), asked.path, with_params, true)
        {
            continue;
        }
        let prefix = prefix_bytes(&entry.path, with_params);
        let rank = (prefix.is_none(), prefix, entry.priority, entry.path.len(), Reverse(place));
        let fits = entry.hosts.iter().filter_map(|pattern| host_fits(pattern, host, raw_host));
        if mode == Mode::HostUri && !entry.hosts.is_empty() {
            found.extend(fits.map(|weight| (Some(weight), rank)));
        } else if entry.hosts.is_empty() || fits.count() > 0 {
            found.push((None, rank));
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.dedup();
    found.into_iter().map(|(_, rank)| rank.4.0).collect()
}

fn pick<'a>(rng: &mut Rng, words: &[&'a str]) -> &'a str {
    words[rng.below(words.len() as u64) as usize]
}

fn random_list(rng: &mut Rng, mode: Mode) -> Vec<Listed> {
    let with_params = mode == Mode::UriWithParameter;
    let hosts = ["a.com", "b.a.com", "*.a.com", "*.com", "*", "*a.com", "c.b.a.com", "a.com:80", "*.com:80"];
    (0..5 + rng.below(75))
        .map(|_| {
            let mut path = String::new();
            for _ in 0..=rng.below(4) {
                let words = if with_params {
                    &["a", "b", "ab", ":x", ":yy", "a:b"][..]
                } else {
                    &["a", "b", "ab", ":x"]
                };
                path += "/";
                path += pick(rng, words);
            }
            path += match rng.below(5) {
                0 => "*",
                1 => "/*",
                2 if with_params => pick(rng, &["/*rest", "/*rest/b", "/*rest/:z/a"]),
                3 => "/",
                _ => "",
            };
            // Where a star ends a parameter's name it is part of it, for both; the model's prefix would differ.
            if path.ends_with("x*") || path.ends_with("yy*") {
                path.pop();
            }
            let mut own: Vec<String> = (0..rng.below(3)).map(|_| pick(rng, &hosts).to_owned()).collect();
            own.sort_unstable();
            own.dedup();
            Listed { path, hosts: own, methods: rng.below(4) as u32, priority: rng.below(3) as i64 - 1 }
        })
        .collect()
}

#[test]
fn the_router_agrees_with_a_list_that_is_scanned_while_entries_come_and_go() {
    let seed = 0x0417_e57a;
    let mut rng = Rng::seeded(seed);
    for round in 0..1_200 {
        let mode = [Mode::HostUri, Mode::Uri, Mode::UriWithParameter][round % 3];
        let list = random_list(&mut rng, mode);
        let mut router = Router::new(mode);
        for (place, entry) in list.iter().enumerate() {
            entry
                .with(|pattern| router.insert(pattern, place as u64, place))
                .expect("the model makes patterns");
        }
        router.settle();
        let told = format!("seed {seed:#x} round {round} {mode:?}");
        compare(&mut rng, mode, &list, &|_| true, &router, &told);
        // The copy loses some; the original must not notice.
        let mut fewer = router.clone();
        let stays = |place: usize| place % 3 != round % 4;
        for (place, entry) in list.iter().enumerate().filter(|(place, _)| !stays(*place)) {
            entry.with(|pattern| fewer.remove(pattern, &place));
        }
        fewer.settle();
        compare(&mut rng, mode, &list, &stays, &fewer, &format!("{told}, some gone"));
        compare(&mut rng, mode, &list, &|_| true, &router, &format!("{told}, the original"));
        assert_eq!(fewer.len(), (0..list.len()).filter(|place| stays(*place)).count(), "{told}");
    }
}

/// Asks both, a number of times.
fn compare(
    rng: &mut Rng,
    mode: Mode,
    list: &[Listed],
    stays: &dyn Fn(usize) -> bool,
    router: &Router<usize>,
    told: &str,
) {
    for _ in 0..30 {
        let mut path = String::new();
        for _ in 0..=rng.below(5) {
            path += "/";
            path += pick(rng, &["a", "b", "ab", "c", "", ":x", "a:b"]);
        }
        let host = pick(rng, &["a.com", "b.a.com", "c.b.a.com", "xa.com", "a.org", "com", ""]);
        let raw_host = format!("{host}{}", pick(rng, &["", ":80", ":81"]));
        let method_bit = GET << rng.below(3);
        let asked = Query { raw_host: raw_host.as_bytes(), method_bit, ..query(&path, host) };
        let mut found = Vec::new();
        router.find(&asked, |place, _| {
            found.push(*place);
            false
        });
        let mut expected = scan(mode, list, &asked, host, &raw_host);
        expected.retain(|place| stays(*place));
        let routes: Vec<_> = expected
            .iter()
            .chain(&found)
            .map(|place| (place, &list[*place].path, &list[*place].hosts))
            .collect();
        assert_eq!(found, expected, "{told}: {path} at {raw_host}: {routes:?}");
    }
}

//! What `explain` says of a request against what becomes of it: random routes, random requests, each explained and then
//! really sent. `RINGWAY_EXPLAIN_REQUESTS=10000` asks more often, `RINGWAY_EXPLAIN_SEED` again what failed.

use serde_json::{Map, Value, json};

use super::kit::{Gateway, Origin, reply};

on_both_drivers!(a_request_goes_where_its_explanation_says);

/// Requests without a word from the environment, and those of one configuration.
const REQUESTS: usize = 300;
const REQUESTS_A_ROUND: usize = 100;
const ROUTERS: [&str; 3] = ["radixtree_host_uri", "radixtree_uri", "radixtree_uri_with_parameter"];

/// Numbers that look random, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    /// Once in so many times.
    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

const HOSTS: [&str; 6] = ["a.test", "b.a.test", "*.a.test", "*.test", "a.test:81", "*"];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "OPTIONS"];
const PATHS: [&str; 14] = [
    "/a",
    "/a/b",
    "/a/b/c",
    "/b",
    "/b/a",
    "/",
    "/a*",
    "/a/*",
    "/a/b*",
    "/b/*",
    "/*",
    "/:one",
    "/:one/b/*rest",
    "/a/:two",
];

/// Conditions, each of which some request fulfils.
fn condition(dice: &mut Dice) -> Value {
    let leaves = [
        json!(["arg_v", "==", "1"]),
        json!(["arg_v", "in", ["2", "3"]]),
        json!(["arg_v", ">", 1]),
        json!(["http_x_kind", "~~", "^k[0-9]"]),
        json!(["http_x_kind", "!", "==", "k1"]),
        json!(["remote_addr", "ipmatch", "10.0.0.0/8"]),
        json!(["cookie_c", "==", "1"]),
        json!(["host", "~=", "a.test"]),
        json!(["uri_param_one", "==", "a"]),
    ];
    if dice.one_in(4) {
        let word = *dice.of(&["AND", "OR", "!AND", "!OR"]);
        return json!([word, dice.of(&leaves), dice.of(&leaves)]);
    }
    dice.of(&leaves).clone()
}

/// Plugins that decide without chance and without counting.
fn plugins(dice: &mut Dice, id: &str) -> Value {
    let mut plugins = Map::new();
    plugins.insert("response-rewrite".to_owned(), json!({"headers": {"set": {"X-Route": id}}}));
    if dice.one_in(4) {
        plugins.insert("key-auth".to_owned(), json!({}));
    }
    if dice.one_in(5) {
        let mut config = json!({"blacklist": ["10.0.0.0/8"]});
        if dice.one_in(2) {
            config["_meta"] = json!({"filter": [condition(dice)]});
        }
        plugins.insert("ip-restriction".to_owned(), config);
    }
    if dice.one_in(5) {
        plugins.insert(
            "proxy-rewrite".to_owned(),
            json!({"regex_uri": ["^/a/(.*)", "/to/$1"], "method": "PUT"}),
        );
    }
    if dice.one_in(8) {
        let mut config = json!({"uri": "/elsewhere$uri", "ret_code": 302});
        config["_meta"] = json!({"disable": dice.one_in(2)});
        plugins.insert("redirect".to_owned(), config);
    }
    Value::Object(plugins)
}

fn route(dice: &mut Dice, id: &str, origin: &Origin) -> Value {
    let mut route = json!({"id": id, "priority": dice.below(4) as i64 - 1, "plugins": plugins(dice, id)});
    let fields = route.as_object_mut().unwrap();
    let mut field = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    if dice.one_in(3) {
        let (one, other) = (*dice.of(&PATHS), *dice.of(&PATHS));
        field("uris", if one == other { json!([one]) } else { json!([one, other]) });
    } else {
        field("uri", json!(dice.of(&PATHS)));
    }
    match dice.below(4) {
        0 => {}
        1 => field("service_id", json!("s")),
        2 => field("host", json!(dice.of(&HOSTS))),
        _ => field("hosts", json!([HOSTS[dice.below(3)], HOSTS[3 + dice.below(3)]])),
    }
    if dice.one_in(3) {
        field("methods", json!([METHODS[dice.below(2)], METHODS[2 + dice.below(3)]]));
    }
    if dice.one_in(4) {
        field("remote_addr", json!(dice.of(&["127.0.0.0/8", "10.0.0.0/8", "10.1.1.1"])));
    }
    if dice.one_in(3) {
        let conditions: Vec<Value> = (0..=dice.below(2)).map(|_| condition(dice)).collect();
        field("vars", json!(conditions));
    }
    if dice.one_in(12) {
        field("status", json!(0));
    }
    match dice.below(30) {
        // Nothing to send to, nobody there, and something it refers to that is missing.
        0 => {}
        1 => field("upstream_id", json!("gone")),
        2 => {
            field("plugin_config_id", json!("gone"));
            field("upstream_id", json!("u"));
        }
        3 => field("upstream", json!({"nodes": {origin.node(): 1}, "pass_host": "node"})),
        4 => field("upstream", json!({"nodes": []})),
        _ => field("upstream_id", json!("u")),
    }
    route
}

fn objects(dice: &mut Dice, origin: &Origin) -> String {
    let routes: Vec<Value> = (0..40).map(|at| route(dice, &format!("r{at}"), origin)).collect();
    let blocker =
        json!({"uri-blocker": {"block_rules": ["blocked"], "_meta": {"filter": [["arg_v", "~=", "3"]]}}});
    json!({
        "upstreams": [{"id": "u", "nodes": {origin.node(): 1}}],
        "services": [{"id": "s", "hosts": ["a.test", "*.b.test"], "upstream_id": "u", "plugins": {"cors": {}}}],
        "consumers": [
            {"username": "jack", "plugins": {"key-auth": {"key": "jacks"}}},
            {"username": "jill", "plugins": {
                "key-auth": {"key": "jills"},
                "ip-restriction": {"whitelist": ["127.0.0.1"]},
                "proxy-rewrite": {"headers": {"set": {"X-Jill": "1"}}},
            }},
        ],
        "global_rules": [{"id": "g", "plugins": blocker}],
        "routes": routes,
    })
    .to_string()
}

/// A request: method, target, headers.
type Request = (&'static str, String, Vec<(&'static str, String)>);

fn request(dice: &mut Dice) -> Request {
    let segments = ["a", "b", "c", "blocked", "%61", ".", "..", "", "a%20b", "%2F", "%zz", "A"];
    let usual = if dice.one_in(6) { segments.len() } else { 4 };
    let mut target = String::new();
    for _ in 0..=dice.below(3) {
        target.push('/');
        target.push_str(segments[dice.below(usual)]);
    }
    if dice.one_in(2) {
        target.push_str(&format!("?v={}", dice.below(4)));
    }
    let hosts =
        ["a.test", "b.a.test", "A.test:81", "x.b.test", "c.test", "other.invalid", "bad host", "a.test."];
    let usual = if dice.one_in(10) { hosts.len() } else { 6 };
    let mut headers = vec![("Host", hosts[dice.below(usual)].to_owned())];
    if dice.one_in(3) {
        headers.push(("X-Kind", format!("k{}", dice.below(3))));
    }
    if dice.one_in(3) {
        headers.push(("X-Forwarded-For", (*dice.of(&["10.1.1.1", "10.2.2.2", "192.0.2.1"])).to_owned()));
    }
    if dice.one_in(2) {
        headers.push(("apikey", (*dice.of(&["jacks", "jills", "nobodys"])).to_owned()));
    }
    if dice.one_in(4) {
        headers.push(("Cookie", format!("c={}", dice.below(2))));
    }
    (*dice.of(&METHODS), target, headers)
}

/// The question about a request.
fn question((method, target, headers): &Request) -> String {
    let escape = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut query = format!("/v1/explain?method={method}&uri={}", escape(target));
    for (name, value) in headers {
        query.push_str(&format!("&header={}", escape(&format!("{name}: {value}"))));
    }
    query
}

/// Status, route and, where a node answered, what it got: as the explanation has them, and as they were. Whether a node
/// answered; or the difference.
fn compare(gateway: &Gateway, asked: &Request) -> Result<bool, String> {
    let told = gateway.control("GET", &question(asked));
    told.expect_status(200);
    let told = told.json();
    let outcome = &told["outcome"];
    let expected = match outcome["kind"].as_str() {
        Some("forwarded") => {
            let word = |name: &str| outcome[name].as_str().unwrap_or_default().to_owned();
            (200, format!("{} {} {}", word("method"), word("target"), word("host")))
        }
        _ => (outcome["status"].as_u64().unwrap_or(0), String::new()),
    };
    let (method, target, headers) = asked;
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = gateway.request(method, target, &headers, b"");
    let from_node = answer.header("x-node").is_some();
    let got = (u64::from(answer.status), if from_node { answer.text() } else { String::new() });
    let (route, by) = (told["route"]["id"].as_str(), answer.header("x-route"));
    if expected == got && route == by {
        return Ok(from_node);
    }
    Err(format!("explained {expected:?} by {route:?}, was {got:?} by {by:?}\n{told:#}"))
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn a_request_goes_where_its_explanation_says() {
    let count = number_from("RINGWAY_EXPLAIN_REQUESTS").map_or(REQUESTS, |count| count as usize);
    let now = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let first = number_from("RINGWAY_EXPLAIN_SEED").unwrap_or_else(now);
    eprintln!("RINGWAY_EXPLAIN_SEED={first}");
    let origin = Origin::answering(|seen| {
        let host = seen.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        let host = host.map_or("", |(_, value)| value.as_str());
        let body = format!("{} {} {host}", seen.method, seen.target);
        reply("200 OK\r\nX-Node: 1", &body)
    });
    let mut at_nodes = 0;
    for round in 0..count.div_ceil(REQUESTS_A_ROUND) {
        let mut dice = Dice((first ^ (round as u64) << 32) | 1);
        let router = ROUTERS[round % ROUTERS.len()];
        let gateway = Gateway::resources(&objects(&mut dice, &origin), &[])
            .settings(&format!("{{router: {{http: {router}}}, trusted_addresses: [127.0.0.1]}}"))
            .start();
        for number in 0..REQUESTS_A_ROUND.min(count - round * REQUESTS_A_ROUND) {
            let asked = request(&mut dice);
            let came_through = compare(&gateway, &asked).unwrap_or_else(|difference| {
                panic!(
                    "RINGWAY_EXPLAIN_SEED={first}, round {round} ({router}), request {number}: {asked:?}\n{difference}"
                )
            });
            at_nodes += usize::from(came_through);
        }
        origin.forget();
    }
    // Of what is mostly refused, little is compared.
    assert!(at_nodes > count / 20, "RINGWAY_EXPLAIN_SEED={first}: {at_nodes} of {count} came to a node");
    eprintln!("{at_nodes} of {count} came to a node");
}

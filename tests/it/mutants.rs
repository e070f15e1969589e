//! Good objects with something wrong in them, through the Admin API and through the file: refused with the place and the
//! reason, or taken where they happen to be right; nothing panics, and traffic does not notice.

use serde_json::{Value, json};

use super::kit::{Certs, Gateway, Origin};

on_both_drivers!(
    five_hundred_mutants_are_refused_with_their_faults_or_taken,
    five_hundred_mutants_of_a_file_are_set_aside_with_their_faults_or_taken,
);

const MUTANTS: usize = 500;

/// Numbers that look random, from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// A good object of each kind, rich in fields. None of them touches what the traffic of a test goes through.
fn good(certs: &Certs) -> Vec<(&'static str, Value)> {
    let key = certs.key("k", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let cert = certs.by_itself("k", "example.com");
    let nodes = json!([{"host": "127.0.0.1", "port": 9, "weight": 1, "priority": 0}]);
    let upstream = json!({
        "name": "u", "desc": "d", "type": "roundrobin", "nodes": nodes, "retries": 1, "retry_timeout": 2.5,
        "timeout": {"connect": 1, "send": 2, "read": 3}, "scheme": "http", "pass_host": "node",
        "keepalive_pool": {"size": 8, "idle_timeout": 60, "requests": 100}, "labels": {"a": "b"},
    });
    let plugins = json!({
        "limit-count": {"count": 5, "time_window": 60, "key": "remote_addr", "rejected_code": 429},
        "proxy-rewrite": {"headers": {"set": {"X-A": "b"}}, "regex_uri": ["^/a/(.*)", "/b/$1"]},
        "cors": {"allow_origins": "https://a.example", "max_age": 5},
        "response-rewrite": {"status_code": 200, "vars": [["arg_x", "==", "1"]]},
        "ip-restriction": {"whitelist": ["10.0.0.0/8", "::1"]},
    });
    vec![
        (
            "routes",
            json!({
                "name": "r", "uris": ["/mutant/*", "/mutant"], "hosts": ["*.example.com", "a.example.org"],
                "methods": ["GET", "POST"], "priority": 3, "remote_addrs": ["127.0.0.0/8"], "status": 1,
                "vars": [["arg_a", "==", "b"], ["OR", ["http_x", "~~", "^a+$"], ["arg_n", ">", 5]]],
                "timeout": {"connect": 1, "send": 1, "read": 1}, "enable_websocket": true,
                "plugins": plugins, "upstream": upstream, "labels": {"team": "a"},
            }),
        ),
        (
            "services",
            json!({"name": "s", "hosts": ["mutant.example"], "upstream": upstream, "plugins": plugins}),
        ),
        ("upstreams", upstream),
        ("consumers", json!({"username": "mutant", "plugins": {"key-auth": {"key": "k-of-mutant"}}})),
        ("consumer_groups", json!({"plugins": plugins, "desc": "g"})),
        ("plugin_configs", json!({"plugins": plugins, "labels": {"a": "b"}})),
        ("global_rules", json!({"plugins": {"response-rewrite": {"headers": {"set": {"X-Rule": "1"}}}}})),
        ("ssls", json!({"cert": cert, "key": key, "snis": ["example.com", "*.example.com"], "status": 1})),
        ("protos", json!({"content": "syntax = \"proto3\"; package a; message M { string x = 1; }"})),
    ]
}

/// Something that is seldom right where it is put.
fn oddity(dice: &mut Dice) -> Value {
    let deep = (0..60).fold(json!(1), |inner, _| json!([inner]));
    let odd = [
        Value::Null,
        json!(""),
        json!("text"),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!(true),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"a": {"b": [1]}}),
        deep,
        json!("x".repeat(70_000)),
        json!("\u{0}\r\n"),
        json!("$env://RINGWAY_NOT_SET"),
        json!("$secret://vault/none/a/b"),
        json!("*"),
        json!("(((("),
        json!("${{X}}"),
        json!("/../%zz"),
        json!("300.300.0.1/99"),
        json!([null, 1, "a"]),
    ];
    dice.of(&odd).clone()
}

/// Changes one thing somewhere below.
fn mutate(value: &mut Value, dice: &mut Dice) {
    let deeper = dice.below(3) > 0;
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let at = dice.below(fields.len());
            let name = fields.keys().nth(at).expect("there are so many").clone();
            match dice.below(4) {
                0 if !deeper => drop(fields.remove(&name)),
                1 if !deeper => {
                    let inner = fields.remove(&name).expect("it is there");
                    fields.insert(format!("{name}{}", dice.of(&["s", "_", "\u{0}", " "])), inner);
                }
                _ if deeper => mutate(&mut fields[&name], dice),
                _ => fields[&name] = oddity(dice),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = dice.below(items.len());
            match dice.below(4) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items[at] = oddity(dice),
                _ => mutate(&mut items[at], dice),
            }
        }
        other => *other = oddity(dice),
    }
}

fn five_hundred_mutants_are_refused_with_their_faults_or_taken() {
    let (origin, certs) = (Origin::replying("hello"), Certs::new());
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/routes/traffic", &json!({"uri": "/", "upstream": {"nodes": {origin.node(): 1}}}).to_string());
    let good = good(&certs);
    for (kind, object) in &good {
        let path = if *kind == "consumers" { "/consumers".to_owned() } else { format!("/{kind}/good") };
        admin.put(&path, &object.to_string());
    }

    let seed = 20_011;
    let mut dice = Dice(seed);
    let mut traffic = gateway.client();
    let mut refused = 0;
    for number in 0..MUTANTS {
        let (kind, object) = &good[number % good.len()];
        let mut mutant = object.clone();
        (0..=dice.below(2)).for_each(|_| mutate(&mut mutant, &mut dice));
        let mut body = mutant.to_string();
        if dice.below(10) == 0 {
            // Not even JSON, mostly.
            let cut = (0..=dice.below(body.len())).rev().find(|at| body.is_char_boundary(*at));
            body.truncate(cut.expect("the beginning is one"));
        }
        let path = if *kind == "consumers" { "/consumers".to_owned() } else { format!("/{kind}/mutant") };
        let case = || format!("seed {seed}, mutant {number}, {kind}: {body:.600}");
        let accept: &[_] = if number % 2 == 0 { &[("Accept", "application/problem+json")] } else { &[] };
        let answer = admin.ask("PUT", &path, accept, &body);
        match answer.status {
            200 | 201 => {}
            400 => {
                refused += 1;
                let told = answer.json();
                let reason = if accept.is_empty() { &told["error_msg"] } else { &told["detail"] };
                assert!(reason.as_str().is_some_and(|text| text.len() > 8), "{told}; {}", case());
            }
            status => panic!("{status} {}; {}", answer.text(), case()),
        }
        traffic.get("/").expect(200, "hello");
    }
    assert!((MUTANTS / 2..MUTANTS).contains(&refused), "seed {seed}: {refused} of {MUTANTS} were refused");
    assert_eq!(gateway.metric("ringway_panics_total"), Some(0.0));
}

fn five_hundred_mutants_of_a_file_are_set_aside_with_their_faults_or_taken() {
    let (origin, certs) = (Origin::replying("hello"), Certs::new());
    let route = json!({"id": "traffic", "uri": "/", "upstream": {"nodes": {origin.node(): 1}}});
    let gateway = Gateway::routing("/", [&origin]).start();
    let good = good(&certs);

    let seed = 7_919;
    let mut dice = Dice(seed);
    let mut traffic = gateway.client();
    let mut refused = 0;
    for number in 0..MUTANTS {
        let (kind, object) = &good[number % good.len()];
        let mut mutant = object.clone();
        if *kind != "consumers" {
            mutant["id"] = json!("mutant");
        }
        (0..=dice.below(2)).for_each(|_| mutate(&mut mutant, &mut dice));
        let mut file = json!({"routes": [route]});
        match &mut file[*kind] {
            Value::Array(list) => list.push(mutant),
            empty => *empty = json!([mutant]),
        }
        let mut text = file.to_string();
        if dice.below(10) == 0 {
            let cut = (0..=dice.below(text.len())).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(cut.expect("the beginning is one"));
        }
        let case = || format!("seed {seed}, mutant {number}, {kind}: {text:.600}");
        std::fs::write(gateway.path("apisix.yaml"), format!("{text}\n#END\n")).unwrap();
        let told = gateway.on_socket("POST", "/process/reload");
        let (head, body) = told.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{told:?}; {}", case()));
        let body: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {told}; {}", case()));
        if head.starts_with("HTTP/1.1 200") {
            let set_aside = body["set_aside"].as_array().expect("a list");
            refused += usize::from(!set_aside.is_empty());
            for name in set_aside {
                let listed = gateway.control("GET", "/v1/quarantine").text();
                let name = name.as_str().expect("a name").rsplit_once('/').expect("KIND/ID").1.to_owned();
                assert!(listed.contains(&name) && listed.contains("reason"), "{listed}; {}", case());
            }
        } else {
            assert!(head.starts_with("HTTP/1.1 400"), "{told}; {}", case());
            refused += 1;
            let reason = body["error_msg"].as_str().unwrap_or_default();
            assert!(reason.contains("apisix.yaml") && reason.len() > 60, "{told}; {}", case());
        }
        traffic.get("/").expect(200, "hello");
    }
    assert!((MUTANTS / 2..MUTANTS).contains(&refused), "seed {seed}: {refused} of {MUTANTS} were refused");
    assert_eq!(gateway.metric("ringway_panics_total"), Some(0.0));
}

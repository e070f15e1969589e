//! Names of nodes against a name server that changes its mind, lies, fails and falls silent.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::kit::{Gateway, NameServer, Origin, Says, Setup, eventually, within};

/// Lifetimes end after a second at least, and failures are met again after up to a few.
const LONG: Duration = Duration::from_secs(30);

fn at(ttl: u32, last: &[u8]) -> Says {
    Says::At(ttl, last.iter().map(|last| IpAddr::from([127, 0, 0, *last])).collect())
}

/// A route to a name at the port of the origins, asked of these servers.
fn named(name: &str, origin: &Origin, servers: &[&NameServer]) -> Setup {
    let port = origin.address().port();
    let servers: Vec<_> = servers.iter().map(|server| format!("'{}'", server.server())).collect();
    Gateway::resources(
        &format!("routes: [{{id: '1', uri: /*, upstream: {{nodes: {{'{name}:{port}': 1}}}}}}]"),
        &[],
    )
    .settings(&format!("dns: {{servers: [{}], hosts: /nowhere, resolv_conf: /nowhere}}", servers.join(", ")))
}

fn service(settings: &str, name: &str) -> Setup {
    Gateway::resources(
        &format!("routes: [{{id: '1', uri: /*, upstream: {{discovery_type: dns, service_name: '{name}'}}}}]"),
        &[],
    )
    .settings("dns: {hosts: /nowhere, resolv_conf: /nowhere}")
    .settings(&format!("discovery: {{dns: {settings}}}"))
}

/// Waits until these answer, all of them and no others.
fn wait_answers(gateway: &Gateway, expected: &[&str]) {
    within(LONG, &format!("{expected:?} answer"), || {
        let mut bodies: Vec<String> = (0..12).map(|_| gateway.get("/").expect_status(200).text()).collect();
        bodies.sort_unstable();
        bodies.dedup();
        (bodies == expected).then_some(())
    });
}

fn failures(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("ringway_dns_failures_total{{reason=\"{reason}\"}}")).unwrap_or(0.0)
}

/// Waits until names have failed so once more.
fn wait_failure(gateway: &Gateway, reason: &str) {
    let before = failures(gateway, reason);
    within(LONG, &format!("a name fails by {reason}"), || (failures(gateway, reason) > before).then_some(()));
}

#[test]
fn a_new_address_is_used_when_the_last_answer_has_run_out_and_no_sooner() {
    let [one, _two] = Origin::neighbours();
    let server = NameServer::start();
    server.says("web.test", at(1, &[1]));
    server.says("still.test", at(600, &[1]));
    let port = one.address().port();
    let gateway = named("web.test", &one, &[&server])
        .objects(&format!("upstreams: [{{id: still, nodes: {{'still.test:{port}': 1}}}}]"))
        .start();
    gateway.get("/").expect(200, "1");
    server.says("web.test", at(1, &[2]));
    server.says("still.test", at(600, &[2]));
    wait_answers(&gateway, &["2"]);
    server.says("web.test", at(1, &[1, 2]));
    wait_answers(&gateway, &["1", "2"]);
    assert_eq!(server.asked("still.test"), 1, "what counts on is not asked for again");
    assert!(gateway.metric("ringway_dns_answers_total").is_some_and(|count| count >= 3.0));
}

#[test]
fn whatever_name_servers_do_no_request_fails_and_the_log_stays_short() {
    let [one, two] = Origin::neighbours();
    let server = NameServer::start();
    server.says("web.test", at(1, &[1]));
    let gateway = named("web.test", &one, &[&server])
        .settings("{access_log: {enabled: false}, limits: {keepalive_requests: 1000000000}}")
        .cores(2)
        .start();
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = gateway.client();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get("/");
                    if answer.status != 200 {
                        is_over.store(true, Ordering::Relaxed);
                        panic!("{} {}", answer.status, answer.text());
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let misbehaviours = [
            (Says::Unknown, "nxdomain"),
            (Says::Fails, "server_failure"),
            (Says::Empty, "no_record"),
            (Says::Silence, "timeout"),
            (Says::Nonsense, "timeout"),
        ];
        for (misbehaviour, reason) in misbehaviours {
            server.says("web.test", misbehaviour);
            wait_failure(&gateway, reason);
            // It flaps: good again, and at another address.
            server.says("web.test", at(1, &[2]));
            within(LONG, "the other address is used", || {
                let before = two.requests();
                thread::yield_now();
                (two.requests() > before && gateway.get("/").text() == "2").then_some(())
            });
            server.says("web.test", at(1, &[1]));
            within(LONG, "the first address is used", || (gateway.get("/").text() == "1").then_some(()));
            assert!(!is_over.load(Ordering::Relaxed), "a request failed while it said {reason}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(served.load(Ordering::Relaxed) > 1000);
    let said = gateway.said();
    let lines = said.lines().filter(|line| line.contains("name web.test")).count();
    assert!((10..=30).contains(&lines), "{lines} lines:\n{said}");
    assert!(said.contains("its last addresses stay"), "{said}");
}

#[test]
fn what_does_not_fit_into_a_datagram_comes_over_tcp() {
    let [one, _two] = Origin::neighbours();
    let server = NameServer::start();
    server.says("web.test", Says::Cut(60, [1, 2].map(|last| IpAddr::from([127, 0, 0, last])).to_vec()));
    let gateway = named("web.test", &one, &[&server]).start();
    wait_answers(&gateway, &["1", "2"]);
    assert_eq!((server.asked("web.test"), server.over_tcp()), (1, 1));
}

#[test]
fn other_names_are_followed_and_addresses_of_ipv6_come_second() {
    let [one, _two] = Origin::neighbours();
    let server = NameServer::start();
    server.says("web.test", Says::Is(60, "host.test"));
    server.says("host.test", at(60, &[2]));
    server.says("six.test", Says::At(60, vec!["::1".parse().unwrap()]));
    let port = one.address().port();
    let gateway = named("web.test", &one, &[&server])
        .objects(&format!("routes: [{{id: '2', uri: /six, upstream: {{nodes: {{'six.test:{port}': 1}}}}}}]"))
        .start();
    gateway.get("/").expect(200, "2");
    // Nobody listens there; that it was resolved is what counts.
    gateway.get("/six").expect_status(502);
    assert_eq!(server.asked("six.test"), 2);
}

#[test]
fn another_server_is_asked_when_the_first_fails_or_is_silent() {
    let [one, _two] = Origin::neighbours();
    let (first, second) = (NameServer::start(), NameServer::start());
    for (says, name) in [(Says::Fails, "failing.test"), (Says::Silence, "silent.test")] {
        first.says(name, says);
        second.says(name, at(60, &[2]));
        let gateway = named(name, &one, &[&first, &second]).start();
        gateway.get("/").expect(200, "2");
        assert_eq!((first.asked(name), second.asked(name)), (1, 1), "{name}");
    }
}

#[test]
fn the_systems_files_say_which_servers_and_domains_and_hosts_there_are() {
    let [one, _two] = Origin::neighbours();
    let server = NameServer::start();
    server.says("web.inside.test", at(60, &[2]));
    let folder = tempfile::tempdir().unwrap();
    let (hosts, conf) = (folder.path().join("hosts"), folder.path().join("resolv.conf"));
    std::fs::write(&hosts, "127.0.0.1 local.test\n").unwrap();
    std::fs::write(&conf, "nameserver 192.0.2.1\nsearch outside.test inside.test\n").unwrap();
    let port = one.address().port();
    // The keys are APISIX's.
    let gateway = Gateway::resources(
        &format!(
            "routes:
  - {{id: '1', uri: /web, upstream: {{nodes: {{'web:{port}': 1}}}}}}
  - {{id: '2', uri: /local, upstream: {{nodes: {{'local.test:{port}': 1}}}}}}
  - {{id: '3', uri: /literal, upstream: {{nodes: {{'127.0.0.2:{port}': 1}}}}}}"
        ),
        &[],
    )
    .settings(&format!("apisix: {{dns_resolver: ['{}'], dns_resolver_valid: 30}}", server.server()))
    .settings(&format!("dns: {{hosts: {}, resolv_conf: {}}}", hosts.display(), conf.display()))
    .start();
    gateway.get("/web").expect(200, "2");
    gateway.get("/local").expect(200, "1");
    gateway.get("/literal").expect(200, "2");
    assert_eq!((server.asked("web.outside.test"), server.asked("web.inside.test")), (1, 1));
    assert_eq!((server.asked("local.test"), server.asked("web")), (0, 0));
}

#[test]
fn the_settings_lifetime_comes_before_the_answers() {
    let [one, _two] = Origin::neighbours();
    let server = NameServer::start();
    server.says("web.test", at(3600, &[1]));
    let gateway = named("web.test", &one, &[&server]).settings("dns: {valid: 1}").start();
    gateway.get("/").expect(200, "1");
    server.says("web.test", at(3600, &[2]));
    wait_answers(&gateway, &["2"]);
}

#[test]
fn a_silent_name_server_holds_up_neither_a_start_nor_a_change() {
    let [one, _two] = Origin::neighbours();
    let server = NameServer::start();
    for name in ["web.test", "new.test", "other.test"] {
        server.says(name, Says::Silence);
    }
    let port = one.address().port();
    let node = |name: &str| format!(r#"{{"uri": "/*", "upstream": {{"nodes": {{"{name}:{port}": 1}}}}}}"#);
    let gateway = Gateway::managed()
        .settings(&format!(
            "dns: {{servers: ['{}'], hosts: /nowhere, resolv_conf: /nowhere}}",
            server.server()
        ))
        .start();
    let admin = gateway.admin();
    // A name that is never answered costs the bound once; all of an object's names together cost it once.
    let since = Instant::now();
    let body = format!(
        r#"{{"uri": "/*", "upstream": {{"nodes": {{"new.test:{port}": 1, "other.test:{port}": 1}}}}}}"#
    );
    let answer = admin.ask("PUT", "/routes/1", &[], &body);
    let took = since.elapsed();
    answer.expect_status(201);
    assert!(answer.values("x-config-warning").len() == 2, "{}", answer.text());
    assert!((Duration::from_millis(900)..Duration::from_millis(1900)).contains(&took), "{took:?}");
    gateway.get("/").expect_status(503);
    // Once it has failed, nobody waits for it.
    wait_failure(&gateway, "timeout");
    let since = Instant::now();
    admin.ask("PUT", "/routes/2", &[], &node("new.test")).expect_status(201);
    assert!(since.elapsed() < Duration::from_millis(900), "{:?}", since.elapsed());
    // And when it is answered at last, it is in force without anybody's doing.
    server.says("new.test", at(60, &[2]));
    within(LONG, "the name is in force", || (gateway.get("/").status == 200).then_some(()));
    gateway.get("/").expect(200, "2");
}

#[test]
fn a_services_records_say_ports_weights_and_priorities() {
    let [one, two, three] = Origin::neighbours();
    let server = NameServer::start();
    let port = one.address().port();
    for (last, name) in [(1, "one.test"), (2, "two.test"), (3, "three.test")] {
        server.says(name, at(1, &[last]));
    }
    let hosts = |hosts: &[(u16, u16, &'static str)]| {
        Says::Hosts(
            1,
            hosts.iter().map(|(priority, weight, name)| (*priority, *weight, port, *name)).collect(),
        )
    };
    server.says("web.test", hosts(&[(1, 3, "one.test"), (1, 0, "two.test"), (2, 1, "three.test")]));
    let gateway = service(&format!("{{servers: ['{}']}}", server.server()), "web.test").start();
    (0..40).for_each(|_| {
        gateway.get("/").expect_status(200);
    });
    // A weight of 0 is the least there is; the second priority has its turn when the first has nobody.
    assert_eq!((one.requests(), two.requests(), three.requests()), (30, 10, 0));

    server.says("web.test", hosts(&[(2, 1, "three.test")]));
    wait_answers(&gateway, &["3"]);
    let dump: Value = gateway.control("GET", "/v1/discovery/dns/dump").json();
    assert_eq!(dump["services"]["web.test"][0]["port"], port, "{dump}");
    // Neither a service that is gone nor a host that is takes a node away.
    server.says("three.test", Says::Unknown);
    wait_failure(&gateway, "nxdomain");
    server.says("web.test", Says::Fails);
    wait_failure(&gateway, "server_failure");
    gateway.get("/").expect(200, "3");
    gateway.wait_said(&["dns web.test", "SERVFAIL", "the last nodes stay"]);
    server.says("web.test", hosts(&[(1, 1, "one.test")]));
    wait_answers(&gateway, &["1"]);
}

#[test]
fn a_service_without_such_records_has_its_addresses_at_the_port_of_its_name() {
    let [one, _two] = Origin::neighbours();
    let server = NameServer::start();
    server.says("web.test", at(60, &[1, 2]));
    let name = format!("web.test:{}", one.address().port());
    let gateway = service(&format!("{{servers: ['{}'], order: [A]}}", server.server()), &name).start();
    wait_answers(&gateway, &["1", "2"]);
    assert_eq!(server.asked("web.test"), 1);
    eventually("it is told", || gateway.control("GET", "/v1/discovery/dns/dump").text().find("127.0.0.2"));
}

//! Users of a directory: a real slapd says who they are.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::kit::{Answer, Certs, Directory, Gateway, Origin};

on_both_drivers!(
    a_consumer_is_whoever_the_directory_knows,
    a_name_is_nothing_but_a_name,
    a_directory_that_is_away_lets_nobody_in_until_it_is_back,
    a_directory_is_spoken_to_over_tls_and_verified,
    what_is_no_directory_lets_nobody_in,
    a_silent_directory_costs_so_many_connections_and_so_much_time,
);

const USERS: [(&str, &str); 4] =
    [("jack", "pw: 1"), ("jill", "pw-2"), ("comma\\,user", "pw-3"), ("nobody-here", "pw-4")];
const UNKNOWN: &str = "{\"message\":\"Invalid user authorization\"}\n";
const AWAY: &str = "{\"message\":\"The directory does not answer\"}\n";

fn certs() -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    certs.authority("other");
    certs.here("ca", "ldap");
    certs
}

/// A gateway whose consumers are jack, jill and whoever has a comma.
fn gateway(origin: &Origin, at: &str, more: &str, settings: &str) -> Gateway {
    let consumers = [("jack", "jack"), ("jill", "jill"), ("comma", "comma\\,user")].map(|(name, cn)| {
        json!({"username": name, "plugins": {"ldap-auth": {"user_dn": format!("cn={cn},ou=users,dc=example,dc=org")}}})
    });
    let plugin = format!("ldap-auth: {{base_dn: 'ou=users,dc=example,dc=org', ldap_uri: '{at}'{more}}}");
    Gateway::routing("/*", [origin])
        .route(&format!("plugins: {{{plugin}}}"))
        .objects(&json!({"consumers": consumers}).to_string())
        .settings(settings)
        .cores(1)
        .start()
}

fn ask(gateway: &Gateway, credentials: &str) -> Answer {
    let line = format!("Basic {}", STANDARD.encode(credentials));
    gateway.request("GET", "/", &[("Authorization", &line)], b"")
}

fn a_consumer_is_whoever_the_directory_knows() {
    let (origin, certs) = (Origin::replying("hello"), certs());
    let directory = Directory::start(&certs, &USERS);
    let at = format!("127.0.0.1:{}", directory.port);
    let gateway_of = |more| gateway(&origin, &at, more, "{}");
    let gateway = gateway_of("");
    for (credentials, name) in [("jack:pw: 1", "jack"), ("jill:pw-2", "jill"), ("comma,user:pw-3", "comma")] {
        ask(&gateway, credentials).expect(200, "hello");
        let seen = origin.only();
        origin.forget();
        assert_eq!(seen.header("x-consumer-username"), Some(name));
        assert!(seen.header("authorization").is_some());
    }
    // A password of somebody else, nobody's, and none: the directory would bind that, as nobody.
    for wrong in ["jack:pw-2", "jack:pw", "jack:", "joe:pw-2", "jill:pw-2 ", ":pw-2"] {
        let answer = ask(&gateway, wrong);
        answer.expect(401, UNKNOWN);
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"ldap\""), "{wrong}");
    }
    // The directory knows them, and no consumer is them.
    ask(&gateway, "nobody-here:pw-4").expect(401, UNKNOWN);
    gateway.get("/").expect(401, "{\"message\":\"Missing authorization in request\"}\n");
    assert!(origin.seen().is_empty());
    assert_eq!(gateway.metric("ringway_ldap_failures_total"), Some(0.0));

    let hiding = gateway_of(", hide_credentials: true, realm: staff");
    ask(&hiding, "jill:pw-2").expect(200, "hello");
    assert_eq!(origin.only().header("authorization"), None);
    assert_eq!(hiding.get("/").header("www-authenticate"), Some("Basic realm=\"staff\""));
}

fn a_name_is_nothing_but_a_name() {
    let (origin, certs) = (Origin::replying("hello"), certs());
    let directory = Directory::start(&certs, &USERS);
    let gateway = gateway(&origin, &format!("127.0.0.1:{}", directory.port), "", "{}");
    for name in
        ["jill,ou=users", "jack+cn=jill", "x,cn=jill", "*", "JILL", " jill", "jill\0", "#6a696c6c", "\\6aill"]
    {
        ask(&gateway, &format!("{name}:pw-2")).expect(401, UNKNOWN);
    }
    ask(&gateway, &format!("{}:pw-2", "a".repeat(1000))).expect(401, UNKNOWN);
    ask(&gateway, "jill:pw-2").expect(200, "hello");
}

fn a_directory_that_is_away_lets_nobody_in_until_it_is_back() {
    let (origin, certs) = (Origin::replying("hello"), certs());
    let mut directory = Directory::start(&certs, &USERS);
    let gateway = gateway(&origin, &format!("127.0.0.1:{}", directory.port), "", "{}");
    for _ in 0..3 {
        ask(&gateway, "jack:pw: 1").expect(200, "hello");
    }
    directory.stop();
    for credentials in ["jack:pw: 1", "jack:wrong"] {
        let answer = ask(&gateway, credentials);
        answer.expect(503, AWAY);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    gateway.wait_said(&["directory 127.0.0.1:", "can not connect"]);
    assert_eq!(gateway.metric("ringway_ldap_failures_total"), Some(2.0));
    // An empty password is refused without it.
    ask(&gateway, "jack:").expect(401, UNKNOWN);
    directory.start_again();
    ask(&gateway, "jack:pw: 1").expect(200, "hello");
    gateway.wait_said(&["it answers again"]);
    // A connection that ended while nobody used it is made anew, and nobody notices.
    directory.stop();
    directory.start_again();
    ask(&gateway, "jill:pw-2").expect(200, "hello");
    assert_eq!(gateway.metric("ringway_ldap_failures_total"), Some(2.0));
}

fn a_directory_is_spoken_to_over_tls_and_verified() {
    let (origin, certs) = (Origin::replying("hello"), certs());
    let directory = Directory::start(&certs, &USERS);
    let with = |ca: &str, more: &str| {
        let settings = json!({"ssl": {"trusted_certificate": certs.path(&format!("{ca}.crt"))}}).to_string();
        gateway(&origin, &format!("127.0.0.1:{}", directory.secure_port), more, &settings)
    };
    let verified = with("ca", ", use_tls: true, tls_verify: true");
    for _ in 0..3 {
        ask(&verified, "jack:pw: 1").expect(200, "hello");
    }
    ask(&verified, "jack:pw").expect(401, UNKNOWN);
    let strange = with("other", ", use_tls: true, tls_verify: true");
    ask(&strange, "jack:pw: 1").expect(503, AWAY);
    strange.wait_said(&["directory 127.0.0.1:", "no TLS: ", "invalid peer certificate"]);
    ask(&with("other", ", use_tls: true"), "jack:pw: 1").expect(200, "hello");
    // In clear to a port that speaks TLS.
    ask(&with("ca", ""), "jack:pw: 1").expect(503, AWAY);
}

fn what_is_no_directory_lets_nobody_in() {
    let origin = Origin::replying("hello");
    let success = [0x30, 12, 2, 1, 1, 0x61, 7, 0x0a, 1, 0, 4, 0, 4, 0];
    let changed = |at: usize, byte: u8| {
        let mut answer = success.to_vec();
        answer[at] = byte;
        answer
    };
    let cases = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "not LDAP"),
        ([&success[..], &success[..]].concat(), "not LDAP"),
        (changed(4, 2), "not LDAP"),
        (changed(9, 51), "the result code 51"),
        (changed(5, 0x78), "not LDAP"),
        (vec![0x30, 12, 2, 1, 0, 0x78, 7, 0x0a, 1, 52, 4, 0, 4, 0], "the connection broke"),
        (success[..9].to_vec(), "the connection broke"),
        (Vec::new(), "the connection broke"),
    ];
    for (said, told) in cases {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let gateway = gateway(&origin, &at, "", "{}");
        let asked = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut bind = [0; 1024];
            let count = peer.read(&mut bind).unwrap();
            peer.write_all(&said).unwrap();
            bind[..count].to_vec()
        });
        ask(&gateway, "jack:pw: 1").expect(503, AWAY);
        gateway.wait_said(&["directory 127.0.0.1:", told]);
        let bind = asked.join().unwrap();
        let has = |text: &[u8]| bind.windows(text.len()).any(|found| found == text);
        assert!(has(b"cn=jack,ou=users,dc=example,dc=org") && has(b"pw: 1"), "{bind:?}");
    }
    assert!(origin.seen().is_empty());
}

/// Binds of a core that may be under way.
const BINDS_MAX: usize = 128;

fn a_silent_directory_costs_so_many_connections_and_so_much_time() {
    let origin = Origin::replying("hello");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let gateway = gateway(&origin, &at, ", timeout: 3000", "{}");
    let line = format!("Authorization: Basic {}", STANDARD.encode("jack:pw: 1"));
    let mut clients = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..BINDS_MAX {
        let mut raw = gateway.raw();
        raw.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"));
        clients.push(raw);
        peers.push(listener.accept().unwrap().0);
    }
    // One more is not waited for, and who asks for nobody is answered in between.
    ask(&gateway, "jack:pw: 1").expect(503, AWAY);
    gateway.wait_said(&["128 binds are under way already"]);
    ask(&gateway, "jack:").expect(401, UNKNOWN);
    for raw in &mut clients {
        raw.answer().expect(503, AWAY);
    }
    assert_eq!(gateway.metric("ringway_ldap_failures_total"), Some(BINDS_MAX as f64 + 1.0));
    // All of them are closed, and there is room again.
    for mut peer in peers {
        let mut bind = Vec::new();
        peer.read_to_end(&mut bind).unwrap();
        assert!(!bind.is_empty());
    }
    drop(listener);
    ask(&gateway, "jack:pw: 1").expect(503, AWAY);
}

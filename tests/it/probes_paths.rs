//! One path, one meaning: however it is written, what was protected stays protected, and what the rules saw is
//! what the origin gets.

use std::time::{Duration, Instant};

use super::kit::{Bed, Gateway, Origin};

on_both_drivers!(
    no_spelling_of_a_protected_path_gets_past_its_rules,
    paths_with_two_meanings_are_refused,
    a_rewritten_path_can_not_climb_out,
    an_absolute_target_agrees_with_its_host,
    a_host_is_one_name_said_once,
    a_host_is_matched_however_it_is_written,
    queries_reach_the_origin_as_the_rules_saw_them,
    expressions_take_linear_time,
    a_spelling_that_means_the_same_takes_the_same_route,
);

/// `/public/*` is open, `/admin` and all below needs a key. Two origins, so that it shows who was asked.
fn guarded() -> (Gateway, Origin, Origin) {
    let (public, admin) = (Origin::naming(), Origin::replying("secret"));
    let gateway = Gateway::resources(
        "
        routes:
          - {id: p, uri: /public/*, upstream: {type: roundrobin, nodes: {PUBLIC: 1}}}
          - {id: a, uris: [/admin, /admin/*], plugins: {key-auth: {}}, upstream: {type: roundrobin, nodes: {ADMIN: 1}}}
        consumers: [{username: jack, plugins: {key-auth: {key: k}}}]
        ",
        &[("PUBLIC", &public), ("ADMIN", &admin)],
    )
    .start();
    (gateway, public, admin)
}

/// Spellings that mean or nearly mean `/admin`, and what each may get: 401 where it does mean it, 400 where it can
/// be read in two ways, 404 or the open origin where it is another path altogether.
const SPELLINGS: &[(&str, &[u16])] = &[
    ("/admin", &[401]),
    ("/admin?", &[401]),
    ("/admin/", &[401]),
    ("/public/../admin", &[400, 401]),
    ("/public/..%2fadmin", &[400]),
    ("/public/..%2Fadmin", &[400]),
    ("/public/%2e%2e/admin", &[400, 401]),
    ("/public/%2E%2e%2fadmin", &[400]),
    ("/public/.%2e/admin", &[400, 401]),
    ("/public/a/../../admin", &[400, 401]),
    ("/public/..;/admin", &[200, 400, 404]),
    ("/public/..//admin", &[400, 401]),
    ("//admin", &[400, 401]),
    ("///admin", &[400, 401]),
    ("/./admin", &[400, 401]),
    ("/%61dmin", &[400, 401]),
    ("/%2561dmin", &[400, 404]),
    ("/admin%2f", &[400]),
    ("/admin%2fx", &[400]),
    ("/admin/.", &[400, 401]),
    ("/admin//x", &[400, 401]),
    ("/admin/./x", &[400, 401]),
    ("/admin/x/..", &[400, 401]),
    ("/ADMIN", &[404]),
    ("/admin%00", &[400]),
    ("/admin%0a", &[400]),
    ("/admin%0d%0aX:y", &[400]),
    ("/public\\..\\admin", &[400]),
    ("/public/..\\admin", &[400]),
    ("/public/%5c../admin", &[400]),
    ("/public/%252e%252e/admin", &[200, 400]),
    ("/admin#x", &[400]),
    ("/public/#/../../admin", &[400]),
    ("/%u0061dmin", &[400]),
    ("/%c0%afadmin", &[400]),
    ("/public/%c0%ae%c0%ae/admin", &[400]),
    ("/%", &[400]),
    ("/%6", &[400]),
    ("/%zz", &[400]),
    ("/admin;a=b", &[400, 401, 404]),
    ("/../admin", &[400, 401]),
    ("/..", &[400, 404]),
    ("/public/../../admin", &[400, 401]),
];

fn no_spelling_of_a_protected_path_gets_past_its_rules() {
    let (gateway, public, admin) = guarded();
    gateway.request("GET", "/admin", &[("apikey", "k")], b"").expect(200, "secret");
    gateway.request("GET", "/admin/x", &[("apikey", "k")], b"").expect(200, "secret");
    admin.forget();

    let mut wrong = Vec::new();
    for (target, statuses) in SPELLINGS {
        let answer = gateway.say(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        if !statuses.contains(&answer.status) {
            wrong.push(format!(
                "{target}: expected one of {statuses:?}, got {} {}",
                answer.status,
                answer.text()
            ));
        }
        if admin.requests() > 0 {
            wrong.push(format!("{target}: reached the protected origin"));
            admin.forget();
        }
        for seen in public.seen() {
            if seen.target.contains("/../")
                || seen.target.ends_with("/..")
                || !seen.target.starts_with("/public/")
            {
                wrong.push(format!("{target}: the open origin was asked for {}", seen.target));
            }
        }
        public.forget();
    }
    assert!(wrong.is_empty(), "{} spellings:\n  - {}", wrong.len(), wrong.join("\n  - "));
}

fn paths_with_two_meanings_are_refused() {
    let mut bed = Bed::new();
    for target in [
        "/a%2fb", "/a%5cb", "/a%00b", "/a\\b", "/a%0ab", "/a%7fb", "/a%1fb", "/a#b", "/%c0%80", "/a%",
        "/a%2", "/a%g0",
    ] {
        bed.refused(target, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), &[400]);
    }
    for target in ["/a%20b", "/a;b", "/a%25b", "/a:b@c", "/%E2%82%AC", "/a?b=%2f%00%5c", "/a?#", "/a?b\\c"] {
        bed.either(target, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), &[400], move |seen| {
            if seen.target == target { Ok(()) } else { Err(format!("expected {target}")) }
        });
    }
    bed.verdict();
}

fn a_rewritten_path_can_not_climb_out() {
    let (origin, admin) = (Origin::naming(), Origin::replying("secret"));
    let gateway = Gateway::resources(
        r#"
        routes:
          - id: s
            uri: /public*
            plugins: {proxy-rewrite: {regex_uri: ["^/public(.*)", "$1"]}}
            upstream: {type: roundrobin, nodes: {ORIGIN: 1}}
          - {id: a, uri: /admin, plugins: {key-auth: {}}, upstream: {type: roundrobin, nodes: {ADMIN: 1}}}
        "#,
        &[("ORIGIN", &origin), ("ADMIN", &admin)],
    )
    .start();

    gateway.get("/public/fine").expect(200, "GET /fine");
    origin.forget();
    for target in ["/public../admin", "/public/../admin", "/public%2e%2e/admin", "/public..", "/publicadmin"]
    {
        let answer = gateway.say(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        for seen in origin.seen() {
            let sane = seen.target.starts_with('/') && !seen.target.contains("..");
            assert!(sane, "{target}: the origin was asked for {} ({})", seen.target, answer.status);
        }
        origin.forget();
    }
    assert_eq!(admin.requests(), 0);
}

fn an_absolute_target_agrees_with_its_host() {
    let mut bed = Bed::new();
    for head in [
        "GET http://evil/ HTTP/1.1\r\nHost: good\r\n",
        "GET http://good:80@evil/ HTTP/1.1\r\nHost: good\r\n",
        "GET http://good@evil/ HTTP/1.1\r\nHost: evil\r\n",
        "GET http:/// HTTP/1.1\r\nHost: good\r\n",
        "GET http://good:99999/ HTTP/1.1\r\nHost: good:99999\r\n",
        "GET ftp://good/ HTTP/1.1\r\nHost: good\r\n",
        "GET good:80 HTTP/1.1\r\nHost: good:80\r\n",
        "GET http:good HTTP/1.1\r\nHost: good\r\n",
        "GET http://good/a/%2fb HTTP/1.1\r\nHost: good\r\n",
    ] {
        bed.refused(head, format!("{head}\r\n"), &[400]);
    }
    bed.either("https here", "GET https://good/x HTTP/1.1\r\nHost: good\r\n\r\n", &[400, 421], |seen| {
        if seen.target == "/x" { Ok(()) } else { Err("expected /x".to_owned()) }
    });
    for head in
        ["GET http://good/x?y HTTP/1.1\r\nHost: good\r\n", "GET HTTP://GOOD/x?y HTTP/1.1\r\nHost: good\r\n"]
    {
        bed.served(head, format!("{head}\r\n"), |seen| {
            let host = seen.header("host").unwrap_or_default().to_ascii_lowercase();
            if seen.target == "/x?y" && host == "good" {
                Ok(())
            } else {
                Err("expected /x?y at good".to_owned())
            }
        });
    }
    bed.served("without a path", "GET http://good HTTP/1.1\r\nHost: good\r\n\r\n", |seen| {
        if seen.target == "/" { Ok(()) } else { Err("expected /".to_owned()) }
    });
    bed.verdict();
}

fn a_host_is_one_name_said_once() {
    let mut bed = Bed::new();
    bed.refused("none", "GET / HTTP/1.1\r\nX: y\r\n\r\n", &[400]);
    bed.refused("twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]);
    bed.refused("two", "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", &[400]);
    for host in [
        "a, b", "a/b", "a@b", "a b", "a:99999", "a:-1", "a:x", "a:80:80", "[::1", "::1", "[::1]x", "[g::1]",
        "a\0b", "a?b", "a#b", "a\\b", "<a>", "a%00b", "http://a", "a..b", ".a",
    ] {
        bed.refused(host, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), &[400]);
    }
    // An empty one is legal where there is no authority; we need one.
    bed.refused("empty", "GET / HTTP/1.1\r\nHost: \r\n\r\n", &[400]);
    for host in [
        "a",
        "A.Example",
        "a.example.",
        "a:80",
        "1.2.3.4",
        "1.2.3.4:80",
        "[::1]",
        "[::1]:80",
        "xn--bcher-kva.example",
    ] {
        bed.served(host, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), move |seen| {
            let got = seen.header("host").unwrap_or_default();
            let same = got.trim_end_matches('.').eq_ignore_ascii_case(host.trim_end_matches('.'));
            if same { Ok(()) } else { Err(format!("went on as {got}")) }
        });
    }
    // HTTP/1.0 may go without.
    bed.either("none in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", &[400], |_| Ok(()));
    bed.verdict();
}

fn a_host_is_matched_however_it_is_written() {
    for others in [0, 98, 100, 3000] {
        let origin = Origin::replying("hello");
        let mut hosts: Vec<String> = (0..others).map(|at| format!("h{at}.example.com")).collect();
        hosts.push("Mixed.Example.com".to_owned());
        let gateway =
            Gateway::routing("/*", [&origin]).route(&serde_json::json!({"hosts": hosts}).to_string()).start();
        for host in ["mixed.example.com", "MIXED.EXAMPLE.COM", "Mixed.example.com.", "mixed.Example.com:8080"]
        {
            let answer = gateway.request("GET", "/", &[("Host", host)], b"");
            assert_eq!(answer.status, 200, "{host} among {others}");
        }
        gateway.request("GET", "/", &[("Host", "mixed.example.org")], b"").expect_status(404);
    }
}

fn queries_reach_the_origin_as_the_rules_saw_them() {
    let (one, rest) = (Origin::naming(), Origin::naming());
    let gateway = Gateway::resources(
        r#"
        routes:
          - id: one
            uri: /q
            priority: 1
            vars: [[arg_role, "==", admin]]
            plugins: {key-auth: {}}
            upstream: {type: roundrobin, nodes: {ONE: 1}}
          - {id: rest, uri: /q, upstream: {type: roundrobin, nodes: {REST: 1}}}
        "#,
        &[("ONE", &one), ("REST", &rest)],
    )
    .start();

    for target in ["/q?role=admin", "/q?role=%61dmin", "/q?a=1&role=admin", "/q?role=admin&role=user"] {
        gateway.get(target).expect_status(401);
    }
    for target in
        ["/q?ROLE=admin", "/q?roles=admin", "/q?role=user", "/q", "/q?role", "/q?xrole=admin&y=&=&&"]
    {
        gateway.get(target).expect(200, &format!("GET {target}"));
    }
    assert_eq!(one.requests(), 0);
}

fn expressions_take_linear_time() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::resources(
        r#"
        routes:
          - {id: r, uri: /*, priority: 1, vars: [[uri, "~~", "^/(a+)+$"]], upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
          - {id: w, uri: /*, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
        "#,
        &[("ORIGIN", &origin)],
    )
    .start();

    let path = format!("/{}b", "a".repeat(7000));
    let start = Instant::now();
    for _ in 0..20 {
        gateway.get(&path).expect(200, "hello");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

fn a_spelling_that_means_the_same_takes_the_same_route() {
    let (gateway, public, _admin) = guarded();
    for target in [
        "/public/x",
        "/%70ublic/x",
        "//public/x",
        "/./public/x",
        "/public/./x",
        "/public//x",
        "/public/y/../x",
    ] {
        let answer = gateway.say(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        answer.expect_status(200);
        let seen = public.only();
        // Routed by one spelling, sent on by that spelling: no second reading downstream can differ.
        assert_eq!(seen.target, "/public/x", "{target}");
        public.forget();
    }
}

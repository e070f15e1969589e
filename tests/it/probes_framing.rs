//! Where does a message end? Every odd answer to that question is a way to smuggle a request past the rules, so
//! every one is refused, and what is accepted reaches the origin with exactly one answer.
//!
//! Rows are judged by what the client got, by what the origin saw, and by a plain request that follows.

use super::kit::{Bed, Gateway, Origin, Raw, Seen, anything, bytes, get, has_body, post};

on_both_drivers!(
    two_framings_at_once_are_refused,
    a_length_is_plain_digits_and_comes_once,
    the_only_transfer_coding_is_chunked,
    what_may_stand_once_stands_once,
    names_are_tokens_followed_by_their_colon,
    folded_and_broken_lines_are_refused,
    names_with_an_underscore_do_not_reach_the_origin_as_another,
    lines_end_with_both_characters,
    request_lines_have_three_words_and_two_spaces,
    versions_are_those_we_speak,
    a_body_nobody_expected_is_still_a_body,
    expectations_other_than_100_are_417,
    a_body_that_nobody_reads_is_not_a_request,
    connection_names_do_not_strip_what_we_add,
    a_head_may_come_in_any_pieces,
    a_bad_request_ends_a_pipeline,
    odd_methods_are_refused,
);

fn two_framings_at_once_are_refused() {
    let mut bed = Bed::new();
    let lines = [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
    ];
    for lines in lines {
        bed.refused(lines, post(lines, "0\r\n\r\nG"), &[400]);
    }
    bed.refused("with 0", post("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), &[400]);
    bed.verdict();
}

fn a_length_is_plain_digits_and_comes_once() {
    let mut bed = Bed::new();
    bed.served("5", post("Content-Length: 5", "hello"), has_body("hello"));
    bed.served("05", post("Content-Length: 05", "hello"), has_body("hello"));
    bed.served("spaces around", post("Content-Length: \t 5 \t", "hello"), has_body("hello"));
    for lines in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\ncontent-length: 5",
    ] {
        bed.refused(lines, post(lines, "hello"), &[400]);
    }
    for value in [
        "5, 5",
        "5, 6",
        "5,",
        "",
        " ",
        "+5",
        "-0",
        "-5",
        "0x5",
        "5_0",
        "5e0",
        "5.0",
        "5 5",
        "\"5\"",
        "five",
        "00000000000000000005",
        "18446744073709551615",
        "18446744073709551617",
        "99999999999999999999999999",
        "\u{d9}\u{a5}",
        "5\u{0}",
        "5\u{b}",
        "\u{c}5",
    ] {
        bed.refused(value, post(&format!("Content-Length: {value}"), "hello"), &[400]);
    }
    bed.verdict();
}

fn the_only_transfer_coding_is_chunked() {
    let mut bed = Bed::new();
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    for value in ["chunked", "chunKed", " chunked ", "CHUNKED"] {
        bed.served(value, post(&format!("Transfer-Encoding: {value}"), chunks), has_body("hello"));
    }
    for value in [
        "xchunked",
        "chunked, identity",
        "identity",
        "chunked, chunked",
        ",chunked",
        "chunked,",
        "\"chunked\"",
        "chunked;q=1",
        "chunk",
        "\u{b}chunked",
        "\u{c}chunked",
        "\u{0}chunked",
        "chunked\u{0}",
        "chunked\u{a0}",
        "",
        "gzip, chunked",
        "gzip",
        "chunked gzip",
    ] {
        bed.refused(value, post(&format!("Transfer-Encoding: {value}"), chunks), &[400, 501]);
    }
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\n identity",
    ] {
        bed.refused(lines, post(lines, chunks), &[400, 501]);
    }
    let old = format!("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    bed.refused("in HTTP/1.0", old, &[400]);
    bed.verdict();
}

fn what_may_stand_once_stands_once() {
    let mut bed = Bed::new();
    let with = |lines: &str| post(&format!("{lines}\r\nContent-Length: 5"), "hello");
    bed.served("one of each", with("Authorization: a\r\nContent-Type: text/plain"), has_body("hello"));
    bed.served("lists in lines", with("Accept: a\r\nAccept: a\r\nX-Own: 1\r\nX-Own: 2"), has_body("hello"));
    for lines in [
        "Authorization: Basic YTph\r\nauthorization: Basic YjpiCg==",
        "Authorization: same\r\nX-Between: 1\r\nAuthorization: same",
        "Content-Type: text/plain\r\nContent-Type: application/json",
        "content-type: text/plain\r\nCONTENT-TYPE:",
    ] {
        bed.refused(lines, with(lines), &[400]);
    }
    bed.verdict();
}

fn names_are_tokens_followed_by_their_colon() {
    let mut bed = Bed::new();
    for (name, value, body) in
        [("Content-Length", "5", "hello"), ("Transfer-Encoding", "chunked", "0\r\n\r\n")]
    {
        for line in [
            format!("{name} : {value}"),
            format!("{name}\t: {value}"),
            format!("{name}\u{0}: {value}"),
            format!("{name}\u{85}: {value}"),
            format!("{name}\u{a0}: {value}"),
            format!("\u{ff}{name}: {value}"),
            format!("{}: {value}", name.replace('-', " ")),
            format!("{}: {value}", name.replace('-', "\\")),
            format!("{}: {value}", name.replace('-', "(")),
            format!("{}: {value}", name.replace('-', "\"")),
            format!("{}: {value}", name.replace('-', "\u{7f}")),
            format!("{name}\r: {value}"),
            format!("\n{name}: {value}"),
        ] {
            bed.refused(&line, post(&line, body), &[400]);
        }
        // A percent sign is legal in a name, and such a name is nobody's.
        let line = format!("{}: {value}", name.replace('-', "-%45"));
        bed.either(&line, get(&line), &[400], anything);
    }
    for line in [":v", ": v", "no colon", "=", "\u{0}: v", "a\u{0}b: v", "Host", "X-\u{e9}: v"] {
        bed.refused(line, get(line), &[400]);
    }
    bed.verdict();
}

fn folded_and_broken_lines_are_refused() {
    let mut bed = Bed::new();
    for (name, value) in [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] {
        for lines in [
            format!("Foo: bar\r\n {name}: {value}"),
            format!("Foo: bar\r\n\t{name}: {value}"),
            format!("Foo: bar\r{name}: {value}"),
            format!("Foo: bar\n{name}: {value}"),
            format!("{name}:\r\n {value}"),
            format!("{name}: {value}\r\n\t"),
        ] {
            bed.refused(&lines, post(&lines, "hello"), &[400]);
        }
        let first = format!("POST /probe HTTP/1.1\r\n {name}: {value}\r\nHost: a\r\n\r\nhello");
        bed.refused("a space before the first header", first, &[400]);
    }
    for value in ["a\u{0}b", "a\u{1}b", "a\rb", "a\u{7f}b", "\u{8}"] {
        bed.refused(value, get(&format!("X-Odd: {value}")), &[400]);
    }
    for value in ["a\tb", "caf\u{e9}", "\u{fe}\u{ff}", ""] {
        bed.served(value, get(&format!("X-Odd: {value}")), move |seen| {
            let got = seen.header("x-odd");
            if got == Some(value) { Ok(()) } else { Err(format!("expected {value:?}, got {got:?}")) }
        });
    }
    bed.verdict();
}

fn names_with_an_underscore_do_not_reach_the_origin_as_another() {
    let mut bed = Bed::new();
    for line in [
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "X_Forwarded_For: 6.6.6.6",
        "X_Consumer_Username: root",
    ] {
        bed.either(line, get(line), &[400], |seen| {
            let passed: Vec<&String> =
                seen.headers.iter().map(|(name, _)| name).filter(|name| name.contains('_')).collect();
            if passed.is_empty() { Ok(()) } else { Err(format!("{passed:?} went on")) }
        });
    }
    bed.verdict();
}

fn lines_end_with_both_characters() {
    let mut bed = Bed::new();
    for head in [
        "GET /probe HTTP/1.1\nHost: a\r\n\r\n",
        "GET /probe HTTP/1.1\r\nHost: a\n\r\n",
        "GET /probe HTTP/1.1\r\nHost: a\r\n\n",
        "GET /probe HTTP/1.1\nHost: a\n\n",
        "GET /probe HTTP/1.1\rHost: a\r\n\r\n",
        "GET /probe HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET /probe HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "\r\n\r\nGET /probe HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET /probe HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET /probe HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET /probe HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /probe HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET /probe HTTP/1.1\r\n\tHost: a\r\n\r\n",
        "GET /probe HTTP/1.1\r\n \r\nHost: a\r\n\r\n",
    ] {
        bed.refused(head, head, &[400]);
    }
    let one = "\r\nGET /probe HTTP/1.1\r\nHost: a\r\n\r\n";
    bed.either(one, one, &[400], anything);
    bed.verdict();
}

fn request_lines_have_three_words_and_two_spaces() {
    let mut bed = Bed::new();
    for line in [
        "GET  /probe HTTP/1.1",
        "GET /probe  HTTP/1.1",
        "GET\t/probe HTTP/1.1",
        "GET /probe\tHTTP/1.1",
        "GET /probe HTTP/1.1 ",
        "GET /a b HTTP/1.1",
        "GET\u{0}/ HTTP/1.1",
        "GET /\u{0} HTTP/1.1",
        "GET /\u{1} HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET",
        "GET ",
        "/probe HTTP/1.1",
        "GET probe HTTP/1.1",
        "GET * HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET /probe HTTP/1.1\u{b}",
        "\u{0}",
    ] {
        bed.refused(line, bytes(&format!("{line}\r\nHost: a\r\n\r\n")), &[400, 501]);
    }
    bed.either("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", &[400, 404, 405, 501], anything);
    bed.verdict();
}

fn versions_are_those_we_speak() {
    let mut bed = Bed::new();
    for version in [
        "http/1.1",
        "Http/1.1",
        "HTTP/01.1",
        "HTTP/1.01",
        "HTTP/1.",
        "HTTP/1",
        "HTTP/2.0",
        "HTTP/9.9",
        "HTTP/0.9",
        "HTTP/1.1x",
        "HTTPS/1.1",
        "ICY/1.1",
        "HTTP /1.1",
        "HTTP/-1.1",
    ] {
        bed.refused(version, format!("GET /probe {version}\r\nHost: a\r\n\r\n"), &[400, 505]);
    }
    bed.refused("none", "GET /probe\r\n\r\n", &[400, 505]);
    bed.refused("none, with a header", "GET /probe\r\nHost: a\r\n\r\n", &[400, 505]);
    bed.either("1.2", "GET /probe HTTP/1.2\r\nHost: a\r\n\r\n", &[400, 505], |seen| {
        if seen.version == "HTTP/1.1" { Ok(()) } else { Err(format!("went on as {}", seen.version)) }
    });
    bed.verdict();
}

fn a_body_nobody_expected_is_still_a_body() {
    let mut bed = Bed::new();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for method in ["GET", "HEAD", "OPTIONS", "DELETE"] {
        let lengths = format!(
            "{method} /probe HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        );
        bed.judge(method, lengths.as_bytes(), |bed| {
            let mut raw = bed.gateway.raw();
            raw.send(&lengths);
            let answer = raw.try_answer(method)?;
            if answer.open {
                bed.canary(&mut raw)?;
            }
            not_smuggled(bed)
        });
    }
    bed.judge("length 0 and more", b"", |bed| {
        let mut raw = bed.gateway.raw();
        raw.send(post("Content-Length: 0", "GET /canary-y HTTP/1.1\r\nHost: a\r\n\r\n"));
        let texts = [raw.try_answer("GET")?.text(), raw.try_answer("GET")?.text()];
        if texts == ["POST /probe", "GET /canary-y"] { Ok(()) } else { Err(format!("got {texts:?}")) }
    });
    bed.verdict();
}

fn not_smuggled(bed: &Bed) -> Result<(), String> {
    let smuggled = bed.origin.seen().iter().any(|seen| seen.target == "/smuggled");
    if smuggled { Err("the body was taken for a request".to_owned()) } else { Ok(()) }
}

fn expectations_other_than_100_are_417() {
    let mut bed = Bed::new();
    for value in ["x 100-continue", "100-continue, x", "200-ok", "100-continu", "\"100-continue\"", ""] {
        bed.refused(value, post(&format!("Expect: {value}\r\nContent-Length: 5"), "hello"), &[400, 417]);
    }
    bed.served("100-Continue", post("Expect: 100-Continue\r\nContent-Length: 5", "hello"), has_body("hello"));
    bed.verdict();
}

fn a_body_that_nobody_reads_is_not_a_request() {
    let origin = Origin::naming();
    let gateway = Gateway::resources(
        "
        routes:
          - {id: k, uri: /auth, plugins: {key-auth: {}}, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
          - {id: r, uri: /moved, plugins: {redirect: {uri: /elsewhere, ret_code: 302}}}
          - {id: i, uri: /forbidden, plugins: {ip-restriction: {blacklist: ['127.0.0.1']}}}
          - {id: c, uri: '/canary-*', upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
          - {id: s, uri: /smuggled, upstream: {type: roundrobin, nodes: {ORIGIN: 1}}}
        ",
        &[("ORIGIN", &origin)],
    )
    .start();
    let mut bed = Bed::of(gateway, origin);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (path, status) in [("/auth", 401), ("/moved", 302), ("/forbidden", 403), ("/none", 404)] {
        // Small: read and dropped. Large: the connection ends, after the answer was seen.
        for size in [smuggled.len(), 60_000, 3_000_000] {
            let body = smuggled.repeat(size / smuggled.len());
            for framing in
                [format!("Content-Length: {}", body.len()), "Transfer-Encoding: chunked".to_owned()]
            {
                let sent = match framing.as_str() {
                    "Transfer-Encoding: chunked" => format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
                    _ => body.clone(),
                };
                let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
                bed.judge(&format!("{path} with {size} bytes, {framing}"), head.as_bytes(), |bed| {
                    let mut raw = bed.gateway.raw();
                    raw.send(&head).send(&sent);
                    let answer = raw.try_answer("POST")?;
                    if answer.status != status || !answer.whole {
                        return Err(format!("expected {status}, got {}", answer.status));
                    }
                    if answer.open {
                        bed.canary(&mut raw)?;
                    }
                    bed.canary(&mut bed.gateway.raw())?;
                    not_smuggled(bed)
                });
            }
        }
    }
    bed.verdict();
}

fn connection_names_do_not_strip_what_we_add() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {key-auth: {}}")
        .objects("consumers: [{username: jack, plugins: {key-auth: {key: secret}}}]")
        .start();

    let names =
        "X-Consumer-Username, X-Forwarded-For, X-Real-IP, X-Forwarded-Proto, Host, Content-Length, apikey";
    let head = format!(
        "POST /probe HTTP/1.1\r\nHost: a\r\napikey: secret\r\nConnection: close, {names}\r\nContent-Length: 5\r\n\r\nhello"
    );
    gateway.say(head).expect(200, "POST /probe");
    let seen = origin.only();
    assert_eq!(seen.header("x-consumer-username"), Some("jack"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-real-ip"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("host"), Some("a"));
    assert_eq!((seen.framings(), seen.body.as_slice()), (1, &b"hello"[..]));
}

fn a_head_may_come_in_any_pieces() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let request = "POST /probe?q=1 HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello";
    let mut raw = gateway.raw();
    let expect = |raw: &mut Raw| {
        raw.answer().expect(200, "POST /probe?q=1");
    };
    for at in 0..=request.len() {
        raw.send_each([&request[..at], &request[at..]]);
        expect(&mut raw);
    }
    for size in [1, 2, 3, 7] {
        raw.send_each(request.as_bytes().chunks(size));
        expect(&mut raw);
    }
    let all = origin.seen();
    let plain = |seen: &Seen| (seen.headers.clone(), seen.body.clone());
    assert!(all.iter().all(|seen| plain(seen) == plain(&all[0])), "pieces made a difference");
    assert_eq!(all.len(), request.len() + 5);
}

fn a_bad_request_ends_a_pipeline() {
    let origin = Origin::naming();
    let gateway = Gateway::routing("/*", [&origin]).start();

    let mut bytes = String::new();
    for at in 0..1000 {
        let bad = if at == 500 { "Content-Length: x\r\n" } else { "" };
        bytes.push_str(&format!("GET /{at} HTTP/1.1\r\nHost: a\r\n{bad}\r\n"));
    }
    let mut raw = gateway.raw();
    raw.send(bytes);
    for (at, answer) in raw.answers(500).into_iter().enumerate() {
        answer.expect(200, &format!("GET /{at}"));
    }
    raw.answer().expect_status(400);
    raw.expect_closed();
    gateway.get("/last").expect(200, "GET /last");
    assert_eq!(origin.requests(), 501);
}

fn odd_methods_are_refused() {
    let mut bed = Bed::new();
    for method in ["G=\":<>(e),[T];?\"", "GE T", "G\u{0}ET", "G\u{e9}T", "GET:", "(GET)"] {
        bed.refused(method, bytes(&format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")), &[400, 501]);
    }
    let long = "A".repeat(200);
    for method in [long.as_str(), "get", "Get", "TRACE", "TRACK", "CONNECT"] {
        bed.refused(method, format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"), &[400, 405, 501]);
    }
    bed.refused(
        "64 KiB",
        format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(65_536)),
        &[400, 414, 431, 501],
    );
    bed.refused("CONNECT to elsewhere", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", &[400, 405, 501]);
    bed.refused("HTTP/2 that begins otherwise", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", &[400, 405, 501, 505]);
    bed.verdict();
}

//! Clients that speak HTTP/2: served as any other, and held to its rules.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::json;

use crate::kit::http2::{H2Answer, Http2, MOMENT, ask, asks_websocket, get, post, send, whole};
use crate::kit::{Caller, Certs, Conn, Gateway, Origin, Raw, Signal, reply};

on_both_drivers!(
    a_request_is_served_as_one_of_http_1,
    it_is_agreed_on_over_tls_where_both_want_it,
    many_streams_are_served_at_once,
    bodies_flow_both_ways_at_the_pace_of_the_slower,
    trailers_and_answers_without_length_come_through,
    plugins_answer_streams,
    a_websocket_passes_bytes_both_ways,
    a_page_is_not_taken_for_a_websocket,
    a_stream_given_up_is_given_up_behind,
    what_may_stand_once_stands_once,
    an_answer_cut_short_resets_its_stream_and_no_other,
    a_stop_lets_streams_end_and_takes_no_more,
    a_connection_without_streams_is_told_to_go,
    so_many_requests_and_the_connection_is_told_to_go,
    where_it_is_off_nobody_speaks_it,
    an_interim_answer_comes_before_the_final_one,
);

fn a_request_is_served_as_one_of_http_1() {
    let origin = Origin::replying("hello");
    let log = r#"{format: '$server_protocol|$request_line|$status'}"#;
    let gateway = Gateway::routing("/*", [&origin]).settings(&format!("access_log: {log}")).start();
    let mut client = Http2::to(&gateway);
    let request = Request::get("http://a.test:81/x/../z?q=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("x-own", "v")
        .body(())
        .unwrap();
    let answer = client.ask(request, b"").unwrap();
    answer.expect(200, "hello");
    assert_eq!(answer.header("content-length"), Some("5"));
    assert!(answer.header("connection").is_none() && answer.header("date").is_some());
    let seen = origin.only();
    assert_eq!(seen.target, "/z?q=1");
    assert_eq!(seen.header("host"), Some("a.test:81"));
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    assert_eq!(seen.header("x-own"), Some("v"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test:81"));
    assert_eq!(gateway.logged_text("GET").trim(), "HTTP/2.0|GET /x/../z?q=1 HTTP/2.0|200");

    let head = Request::head("http://a.test/head").body(()).unwrap();
    let answer = client.ask(head, b"").unwrap();
    answer.expect(200, "");
    assert_eq!(answer.header("content-length"), Some("5"));
    assert_eq!(gateway.metric("ringway_http2_streams_total"), Some(2.0));
}

fn it_is_agreed_on_over_tls_where_both_want_it() {
    let (certs, origin) = (Certs::new(), Origin::replying("hello"));
    certs.authority("ca");
    let (cert, key) = certs.issued("ca", "a", "DNS:a.test");
    let ssl = json!({"ssls": [{"id": "a", "snis": ["a.test"], "cert": cert, "key": key}]});
    let gateway = Gateway::routing("/*", [&origin])
        .settings("ssl: {listen: ['127.0.0.1:0']}")
        .objects(&ssl.to_string())
        .start();
    let caller = Caller::new(&certs, "ca", None);
    let mut client = Http2::over_tls(&caller, gateway.secure_address(), "a.test");
    for at in 0..3 {
        let request = Request::get(format!("https://a.test/{at}")).body(()).unwrap();
        client.ask(request, b"").unwrap().expect(200, "hello");
    }
    assert_eq!(origin.seen()[0].header("x-forwarded-proto"), Some("https"));
    // Who wants nothing else gets HTTP/1.1.
    let mut old = caller.client(gateway.secure_address(), "a.test");
    old.request("GET", "/", &[("Host", "a.test")], b"").expect(200, "hello");
    // One host's connection does not lead to another.
    let other = Request::get("https://b.test/").body(()).unwrap();
    assert_eq!(client.ask(other, b"").map(|answer| answer.status).unwrap(), 200, "no mTLS, no matter");
}

fn many_streams_are_served_at_once() {
    let origin = Origin::answering(|seen| reply("200 OK", &seen.target));
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    client.get("/how-many-there-may-be-is-known-now");
    let answers: Vec<H2Answer> = client.run(async |sender| {
        let asking: Vec<_> = (0..300)
            .map(|at| {
                let sender = sender.clone();
                tokio::spawn(
                    async move { ask(sender, get(&format!("/{at}")), Vec::new(), None).await.unwrap() },
                )
            })
            .collect();
        let mut answers = Vec::new();
        for asked in asking {
            answers.push(asked.await.unwrap());
        }
        answers
    });
    for (at, answer) in answers.iter().enumerate() {
        answer.expect(200, &format!("/{at}"));
    }
    assert_eq!(gateway.metric("ringway_http2_connections"), Some(1.0));
}

fn bodies_flow_both_ways_at_the_pace_of_the_slower() {
    let origin = Origin::echoing();
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    for declared in [true, false] {
        let mut request = post("/echo");
        if declared {
            request.headers_mut().insert("content-length", body.len().into());
        }
        let answer = client.ask(request, &body).unwrap();
        assert!(answer.status == 200 && answer.body == body, "{declared}: {} bytes", answer.body.len());
    }
    // A client that reads slowly holds nobody else up.
    client.run(async |sender| {
        let (slow, mut stream) =
            sender.clone().ready().await.unwrap().send_request(post("/slow"), false).unwrap();
        let sent = Bytes::from(body.clone());
        let sending = tokio::spawn(async move { send(&mut stream, sent, true).await });
        let slow = slow.await.unwrap();
        ask(sender, get("/quick"), Vec::new(), None).await.unwrap().expect(200, "");
        assert_eq!(whole(slow).await.unwrap().body.len(), body.len());
        sending.await.unwrap();
    });
}

fn trailers_and_answers_without_length_come_through() {
    let origin = Origin::answering(|seen| match &*seen.target {
        "/chunks" => {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\
                      X-Sum: 5\r\n\r\n"
        }
        "/none" => "HTTP/1.1 204 No Content\r\n\r\n",
        _ => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    });
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    let answer = client.get("/chunks");
    answer.expect(200, "abcde");
    assert_eq!(answer.trailer("x-sum"), Some("5"));
    client.get("/none").expect(204, "");
    client.get("/empty").expect(200, "");
    // Those of a request go on, too.
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "3".parse().unwrap());
    client.run(async |sender| ask(sender, post("/up"), b"abc".to_vec(), Some(trailers)).await.unwrap());
    let seen = origin.saw("/up");
    assert_eq!(String::from_utf8_lossy(&seen.body), "abc");
    assert!(
        String::from_utf8_lossy(&seen.raw).contains("x-sum: 3"),
        "{}",
        String::from_utf8_lossy(&seen.raw)
    );
}

fn plugins_answer_streams() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route("plugins: {key-auth: {}, limit-count: {count: 2, time_window: 60, rejected_code: 429}}")
        .objects("consumers: [{username: jack, plugins: {key-auth: {key: secret}}}]")
        .start();
    let mut client = Http2::to(&gateway);
    assert_eq!(client.get("/").status, 401);
    let asked = || Request::get("http://a.test/").header("apikey", "secret").body(()).unwrap();
    client.ask(asked(), b"").unwrap().expect(200, "hello");
    // A body nobody reads does not end the connection.
    let answer = client.ask(post("/denied"), &vec![b'x'; 500_000]).unwrap();
    assert_eq!(answer.status, 401);
    client.ask(asked(), b"").unwrap().expect(200, "hello");
    let limited = client.ask(asked(), b"").unwrap();
    assert_eq!((limited.status, limited.header("x-ratelimit-remaining")), (429, Some("0")));
}

const AGREE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn a_page_is_not_taken_for_a_websocket() {
    let origin = Origin::replying("a page");
    for allowed in [true, false] {
        let gateway =
            Gateway::routing("/*", [&origin]).route(&format!("enable_websocket: {allowed}")).start();
        let mut client = Http2::to(&gateway);
        client.get("/before-settings-are-known").expect(200, "a page");
        client.run(async |sender| {
            let sender = sender.ready().await.unwrap();
            let request = asks_websocket("/ws");
            let (answer, _stream) = sender.clone().send_request(request, false).unwrap();
            assert_eq!(answer.await.unwrap().status(), 501, "enable_websocket: {allowed}");
        });
    }
}

fn a_websocket_passes_bytes_both_ways() {
    let origin = Origin::serving(|conn: &mut Conn| {
        if conn.request().is_some() && conn.send(AGREE) {
            while let Ok(piece) = conn.wire().some() {
                if piece.is_empty() || !conn.send(&piece.to_ascii_uppercase()) {
                    return;
                }
            }
        }
    });
    let gateway = Gateway::routing("/*", [&origin]).route("enable_websocket: true").start();
    let mut client = Http2::to(&gateway);
    client.get("/before-settings-are-known");
    client.run(async |sender| {
        let sender = sender.ready().await.unwrap();
        assert!(sender.is_extended_connect_protocol_enabled());
        let request = asks_websocket("/ws");
        let (answer, mut stream) = sender.clone().send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().get("sec-websocket-accept").is_none());
        let mut down = answer.into_body();
        for word in ["one", "two"] {
            send(&mut stream, Bytes::from_static(word.as_bytes()), false).await;
            let mut said = Vec::new();
            while said.len() < word.len() {
                said.extend_from_slice(&down.data().await.unwrap().unwrap());
            }
            assert_eq!(String::from_utf8_lossy(&said), word.to_uppercase());
        }
        send(&mut stream, Bytes::new(), true).await;
        while let Some(rest) = down.data().await {
            assert!(rest.unwrap().is_empty(), "one side's end is the other's");
        }
        // Any other protocol is nobody's.
        let mut other = Request::connect("http://a.test/ws").body(()).unwrap();
        other.extensions_mut().insert(h2::ext::Protocol::from_static("chat"));
        let (answer, _stream) = sender.clone().send_request(other, false).unwrap();
        assert_eq!(answer.await.unwrap_err().reason(), Some(h2::Reason::PROTOCOL_ERROR));
    });
    let seen = origin.saw("/ws");
    assert_eq!(
        (seen.header("upgrade"), seen.header("sec-websocket-version")),
        (Some("websocket"), Some("13"))
    );
    assert_eq!(seen.header("sec-websocket-key").map(str::len), Some(24));
}

fn a_stream_given_up_is_given_up_behind() {
    let origin = Origin::serving(|conn: &mut Conn| {
        if let Some(seen) = conn.request() {
            if seen.target == "/hang" {
                conn.wait_for_the_end();
            } else {
                conn.send(&reply("200 OK", "hello"));
            }
        }
    });
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    client.run(async |sender| {
        let (answer, stream) = sender.ready().await.unwrap().send_request(get("/hang"), true).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop((answer, stream));
        tokio::time::sleep(MOMENT).await;
    });
    origin.wait_ended(1);
    client.get("/next").expect(200, "hello");
    assert_eq!(gateway.metric("ringway_http2_connections"), Some(1.0));
}

fn what_may_stand_once_stands_once() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    for (name, word) in
        [("authorization", "authorization_repeated"), ("content-type", "content_type_repeated")]
    {
        let mut request = get(&format!("/{name}"));
        for value in ["one", "other"] {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        assert_eq!(client.ask(request, b"").unwrap().status, 400, "{name}");
        assert_eq!(gateway.reason(word), word);
    }
    client.get("/next").expect(200, "hello");
    assert_eq!(origin.requests(), 1, "nobody saw the others");
}

fn an_answer_cut_short_resets_its_stream_and_no_other() {
    let origin = Origin::serving(|conn: &mut Conn| {
        if let Some(seen) = conn.request() {
            match &*seen.target {
                "/length" => conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),
                "/chunks" => conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
                _ => conn.send(&reply("200 OK", "hello")),
            };
        }
    });
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    for path in ["/length", "/chunks"] {
        let error = client.ask(get(path), b"").expect_err("cut short");
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{path}: {error}");
    }
    client.get("/whole").expect(200, "hello");
}

fn a_stop_lets_streams_end_and_takes_no_more() {
    let (said, hear) = std::sync::mpsc::channel::<()>();
    let hear = std::sync::Mutex::new(hear);
    let origin = Origin::serving(move |conn: &mut Conn| {
        while let Some(seen) = conn.request() {
            if seen.target == "/slow" {
                hear.lock().unwrap().recv().unwrap();
            }
            conn.send(&reply("200 OK", "hello"));
        }
    });
    let mut gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    let mut idle = Http2::to(&gateway);
    idle.get("/").expect(200, "hello");
    let answer = client.run(async |sender| {
        let asked = tokio::spawn(ask(sender.clone(), get("/slow"), Vec::new(), None));
        while !origin.seen().iter().any(|seen| seen.target == "/slow") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        gateway.signal(Signal::Term);
        // No more streams are taken, once the client was told.
        while sender.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        said.send(()).unwrap();
        asked.await.unwrap().unwrap()
    });
    answer.expect(200, "hello");
    client.ended().expect("an end in peace");
    idle.ended().expect("an end in peace");
    assert!(gateway.wait_exit().success());
}

fn a_connection_without_streams_is_told_to_go() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .settings("limits: {keepalive_timeout: 0.5, head_timeout: 0.5}")
        .start();
    let mut client = Http2::to(&gateway);
    client.get("/").expect(200, "hello");
    client.ended().expect("GOAWAY, and an end in peace");
    // Nor may anybody be silent from the start.
    let mut silent = Http2::to(&gateway);
    silent.ended().expect("GOAWAY, and an end in peace");
    let mut mute = Raw::connect(gateway.address());
    mute.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let (said, _) = mute.rest();
    assert!(!said.is_empty(), "settings, and an end");
}

fn so_many_requests_and_the_connection_is_told_to_go() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("limits: {keepalive_requests: 3}").start();
    let mut client = Http2::to(&gateway);
    for _ in 0..3 {
        client.get("/").expect(200, "hello");
    }
    client.ended().expect("GOAWAY, and an end in peace");
}

fn where_it_is_off_nobody_speaks_it() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin]).settings("http2: {enabled: false}").start();
    let answer = gateway.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(answer.status >= 400, "{}", answer.status);
    assert_eq!(origin.requests(), 0);
}

fn an_interim_answer_comes_before_the_final_one() {
    let origin = Origin::answering(
        |_| "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    );
    let gateway = Gateway::routing("/*", [&origin]).start();
    let mut client = Http2::to(&gateway);
    client.run(async |sender| {
        let (mut answer, _) = sender.ready().await.unwrap().send_request(get("/"), true).unwrap();
        let hint = std::future::poll_fn(|cx| answer.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!((hint.status().as_u16(), hint.headers()["link"].as_bytes()), (103, &b"</a.css>"[..]));
        whole(answer.await.unwrap()).await.unwrap().expect(200, "hello");
    });
}

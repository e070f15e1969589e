//! Nodes that speak HTTP/2, and gRPC through the gateway: streams of all kinds, trailers, and its own way to say what is wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request, Response};
use serde_json::json;

use crate::kit::http2::{Http2, Http2Origin, ask, get, post, send, whole};
use crate::kit::{Caller, Certs, Gateway, Refusing, Setup, eventually};

on_both_drivers!(
    a_call_comes_through_with_its_trailers,
    both_sides_stream_at_once,
    calls_share_connections_to_a_node,
    a_node_that_goes_costs_no_call,
    a_refused_stream_is_sent_to_another_node,
    a_call_that_is_given_up_is_given_up_behind,
    calls_that_are_given_up_leave_those_beside_them_alone,
    small_messages_wait_for_who_is_slow,
    what_the_gateway_says_to_a_call_is_of_grpc,
    a_call_that_is_cut_short_is_told_why_in_trailers,
    a_node_over_tls_is_verified,
    clients_of_http_1_reach_nodes_of_http_2,
    large_bodies_pass_both_ways,
    a_connection_that_says_nothing_more_is_left,
    nodes_are_asked_by_checks_of_grpc,
    checks_of_grpc_go_over_tls,
);

/// A gateway before nodes that speak HTTP/2.
fn before(nodes: &[&Http2Origin], more: &str) -> Setup {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{}\": 1", node.address())).collect();
    let nodes = nodes.join(", ");
    Gateway::resources(
        &format!("routes: [{{id: a, uri: /*, upstream: {{scheme: grpc, nodes: {{{nodes}}}{more}}}}}]"),
        &[],
    )
}

type Respond = h2::server::SendResponse<Bytes>;

async fn take(body: &mut RecvStream) -> Option<Bytes> {
    let data = body.data().await?.ok()?;
    body.flow_control().release_capacity(data.len()).ok()?;
    Some(data)
}

/// Sends back what comes, as it comes, with a status at the end.
async fn echo(request: Request<RecvStream>, mut respond: Respond, _: usize) {
    let (parts, mut body) = request.into_parts();
    let answer = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-authority", parts.uri.authority().map_or("", |authority| authority.as_str()))
        .header("x-path", parts.uri.path())
        .header("x-te", parts.headers.get("te").map_or("none", |te| te.to_str().unwrap()))
        .body(())
        .unwrap();
    let mut stream = respond.send_response(answer, false).unwrap();
    while let Some(data) = take(&mut body).await {
        send(&mut stream, data, false).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "fine".parse().unwrap());
    let _ = stream.send_trailers(trailers);
}

/// A call of gRPC.
fn call(path: &str) -> Request<()> {
    let mut request = post(path);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request
}

fn a_call_comes_through_with_its_trailers() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&[&origin], "").start();
    let mut client = Http2::to(&gateway);
    let answer = client.ask(call("/a.B/C"), b"\0\0\0\0\x03abc").unwrap();
    answer.expect(200, "\0\0\0\0\x03abc");
    assert_eq!((answer.header("x-authority"), answer.header("x-path")), (Some("a.test"), Some("/a.B/C")));
    assert_eq!(answer.header("x-te"), Some("trailers"));
    assert_eq!((answer.trailer("grpc-status"), answer.trailer("grpc-message")), (Some("0"), Some("fine")));
    let empty = client.ask(call("/a.B/Empty"), b"").unwrap();
    empty.expect(200, "");
    assert_eq!(empty.trailer("grpc-status"), Some("0"));
    // A status alone: headers that end the stream.
    let refusing = Http2Origin::serving(|_, mut respond: Respond, _| async move {
        let answer = Response::builder().header("grpc-status", "5").body(()).unwrap();
        respond.send_response(answer, true).unwrap();
    });
    let gateway = before(&[&refusing], "").start();
    let answer = Http2::to(&gateway).ask(call("/a.B/C"), b"\0\0\0\0\0").unwrap();
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("5")));
}

fn both_sides_stream_at_once() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&[&origin], "").start();
    Http2::to(&gateway).run(async |sender| {
        let (answer, mut stream) =
            sender.ready().await.unwrap().send_request(call("/a.B/Chat"), false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200, "headers come before the first message");
        let mut down = answer.into_body();
        for at in 0..20 {
            let word = Bytes::from(format!("message {at}"));
            send(&mut stream, word.clone(), false).await;
            assert_eq!(take(&mut down).await, Some(word));
        }
        send(&mut stream, Bytes::new(), true).await;
        assert!(take(&mut down).await.is_none());
        assert_eq!(down.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

fn calls_share_connections_to_a_node() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&[&origin], "").cores(1).start();
    let mut client = Http2::to(&gateway);
    client.run(async |sender| {
        let asking: Vec<_> = (0..90)
            .map(|at| tokio::spawn(ask(sender.clone(), call("/a.B/C"), format!("{at}").into_bytes(), None)))
            .collect();
        for (at, asked) in asking.into_iter().enumerate() {
            asked.await.unwrap().unwrap().expect(200, &at.to_string());
        }
    });
    assert_eq!(origin.accepted(), 1, "streams of one connection");
    assert_eq!(gateway.metric("ringway_upstream_connects_total"), Some(1.0));
}

fn a_node_that_goes_costs_no_call() {
    // Every connection is told to go by its third call.
    let origin = Http2Origin::serving(echo);
    let gateway = before(&[&origin], ", retries: 2").cores(1).start();
    let mut client = Http2::to(&gateway);
    for at in 0..12 {
        let path = if at % 3 == 2 { "/last" } else { "/a.B/C" };
        client.ask(call(path), b"abc").unwrap().expect(200, "abc");
    }
    assert!(origin.accepted() >= 4, "{}", origin.accepted());
}

fn a_refused_stream_is_sent_to_another_node() {
    let refusing = Http2Origin::serving(|_, mut respond: Respond, _| async move {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    });
    let origin = Http2Origin::serving(echo);
    let gateway = before(&[&refusing, &origin], ", retries: 1").cores(1).start();
    let mut client = Http2::to(&gateway);
    for _ in 0..4 {
        // Not idempotent, and sent again all the same: nobody has looked at it.
        client.ask(call("/a.B/C"), b"").unwrap().expect(200, "");
    }
}

fn a_call_that_is_given_up_is_given_up_behind() {
    let (said, hear) = std::sync::mpsc::channel();
    let origin = Http2Origin::serving(move |request: Request<RecvStream>, mut respond: Respond, _| {
        let said = said.clone();
        async move {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            drop(request);
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            said.send(reason.map_err(|error| error.to_string())).unwrap();
        }
    });
    let gateway = before(&[&origin], "").start();
    Http2::to(&gateway).run(async |sender| {
        let (answer, stream) = sender.ready().await.unwrap().send_request(call("/a.B/C"), false).unwrap();
        let answer = answer.await.unwrap();
        drop((answer, stream));
        tokio::time::sleep(crate::kit::http2::MOMENT).await;
    });
    let reason = hear.recv_timeout(crate::kit::PATIENCE).expect("it is told");
    assert!(reason.is_ok(), "{reason:?}");
}

fn calls_that_are_given_up_leave_those_beside_them_alone() {
    // Streams without end, so that something is always under way when they are given up.
    let origin =
        Http2Origin::serving(|request: Request<RecvStream>, mut respond: Respond, count| async move {
            if request.uri().path() != "/endless" {
                return echo(request, respond, count).await;
            }
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            loop {
                stream.reserve_capacity(100);
                match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(_)) if stream.send_data(Bytes::from_static(&[b'x'; 100]), false).is_ok() => {}
                    _ => return,
                }
            }
        });
    let gateway = before(&[&origin], "").cores(1).start();
    Http2::to(&gateway).run(async |sender| {
        for at in 0..60 {
            let (answer, stream) =
                sender.clone().ready().await.unwrap().send_request(call("/endless"), true).unwrap();
            let mut body = answer.await.unwrap().into_body();
            assert!(take(&mut body).await.is_some());
            drop((body, stream));
            let text = at.to_string();
            let beside = ask(sender.clone(), call("/a.B/C"), text.clone().into_bytes(), None).await.unwrap();
            beside.expect(200, &text);
            assert_eq!(beside.trailer("grpc-status"), Some("0"));
        }
    });
    // Sixteen on each.
    assert!(origin.accepted() <= 5, "{} connections", origin.accepted());
}

fn small_messages_wait_for_who_is_slow() {
    const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";
    // Nearly a window full of them: more frames than the crate that speaks HTTP/2 would keep by itself.
    const MESSAGES: usize = 5000;
    let all_said = Arc::new(tokio::sync::Notify::new());
    let heard = Arc::clone(&all_said);
    let origin = Http2Origin::serving(move |request: Request<RecvStream>, mut respond: Respond, count| {
        let heard = Arc::clone(&heard);
        async move {
            match request.uri().path() {
                "/down" => {
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    for _ in 0..MESSAGES {
                        send(&mut stream, Bytes::from_static(MESSAGE), false).await;
                    }
                    let _ = stream.send_data(Bytes::new(), true);
                }
                "/up" => {
                    // Nothing is taken until all is said.
                    heard.notified().await;
                    let (mut body, mut bytes) = (request.into_body(), 0);
                    while let Some(data) = take(&mut body).await {
                        bytes += data.len();
                    }
                    let answer = Response::builder().header("x-bytes", bytes).body(()).unwrap();
                    respond.send_response(answer, true).unwrap();
                }
                _ => echo(request, respond, count).await,
            }
        }
    });
    let gateway = before(&[&origin], "").cores(1).start();
    Http2::to(&gateway).run(async |sender| {
        let (slow, _) = sender.clone().ready().await.unwrap().send_request(call("/down"), true).unwrap();
        let slow = slow.await.unwrap();
        let (answer, mut stream) =
            sender.clone().ready().await.unwrap().send_request(call("/up"), false).unwrap();
        for _ in 0..MESSAGES {
            send(&mut stream, Bytes::from_static(MESSAGE), false).await;
        }
        send(&mut stream, Bytes::new(), true).await;
        // Behind all of them.
        ask(sender.clone(), call("/a.B/C"), b"abc".to_vec(), None).await.unwrap().expect(200, "abc");
        all_said.notify_one();
        let answer = answer.await.unwrap();
        assert_eq!(answer.headers()["x-bytes"], (MESSAGES * MESSAGE.len()).to_string());
        assert_eq!(whole(slow).await.unwrap().body.len(), MESSAGES * MESSAGE.len());
    });
    assert_eq!(origin.accepted(), 1);
}

fn what_the_gateway_says_to_a_call_is_of_grpc() {
    let refusing = Refusing::new();
    let closed = refusing.address();
    let gateway = Gateway::resources(
        &format!(
            "routes:\n\
             - {{id: a, uri: /down, upstream: {{scheme: grpc, nodes: {{\"{closed}\": 1}}}}}}\n\
             - {{id: b, uri: /key, plugins: {{key-auth: {{}}}}, upstream: {{scheme: grpc, nodes: {{\"{closed}\": 1}}}}}}\n\
             - {{id: c, uri: /limit, plugins: {{limit-count: {{count: 1, time_window: 60, rejected_code: 429}}}}, upstream: {{scheme: grpc, nodes: {{\"{closed}\": 1}}}}}}"
        ),
        &[],
    )
    .start();
    let mut client = Http2::to(&gateway);
    client.ask(call("/limit"), b"x").unwrap();
    for (path, code) in [("/none", "12"), ("/down", "14"), ("/key", "16"), ("/limit", "8")] {
        let answer = client.ask(call(path), b"x").unwrap();
        assert_eq!((answer.status, answer.header("grpc-status")), (200, Some(code)), "{path}");
        assert!(answer.header("grpc-message").is_some_and(|message| !message.is_empty()), "{path}");
        // Who does not speak gRPC is told as ever.
        assert!(client.get(path).status >= 400, "{path}");
    }
}

/// Says a message, and then what its path asks for: nothing more, or that the stream is over before its end.
async fn say_one(request: Request<RecvStream>, mut respond: Respond, _: usize) {
    let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(answer, false).unwrap();
    send(&mut stream, Bytes::from_static(b"\0\0\0\0\x03abc"), false).await;
    if request.uri().path() == "/reset" {
        // Behind what was said: a reset overtakes what still waits.
        tokio::time::sleep(crate::kit::http2::MOMENT).await;
        stream.send_reset(h2::Reason::INTERNAL_ERROR);
    }
    let _ = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
}

fn a_call_that_is_cut_short_is_told_why_in_trailers() {
    let origin = Http2Origin::serving(say_one);
    let patience = "timeout: {connect: 5, send: 5, read: 0.3}";
    let gateway = before(&[&origin], &format!(", {patience}")).cores(1).start();
    let mut client = Http2::to(&gateway);
    let told = |client: &mut Http2, path: &str| {
        let answer = client.ask(call(path), b"").unwrap_or_else(|error| panic!("{path}: {error}"));
        answer.expect(200, "\0\0\0\0\x03abc");
        assert!(answer.trailer("grpc-message").is_some_and(|message| !message.is_empty()), "{path}");
        answer.trailer("grpc-status").unwrap_or("none").to_owned()
    };
    assert_eq!(told(&mut client, "/reset"), "14");
    assert_eq!(gateway.reason("/reset"), "upstream_closed");
    assert_eq!(told(&mut client, "/silent"), "4");
    assert_eq!(gateway.reason("/silent"), "upstream_read_timeout");
    // Who does not speak gRPC could take what came for whole.
    let error = client.ask(post("/reset"), b"").expect_err("cut short");
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{error}");
    // The connection to the node breaks.
    let gateway = before(&[&origin], "").cores(1).start();
    Http2::to(&gateway).run(async |sender| {
        let (answer, _) = sender.ready().await.unwrap().send_request(call("/break"), true).unwrap();
        let mut body = answer.await.unwrap().into_body();
        assert!(take(&mut body).await.is_some());
        drop(origin);
        assert!(take(&mut body).await.is_none(), "an end in good order");
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "14");
    });
    assert_eq!(gateway.reason("/break"), "upstream_closed");
}

fn a_node_over_tls_is_verified() {
    let certs = Certs::new();
    certs.authority("ca");
    certs.issued("ca", "node", "DNS:a.test");
    let config = crate::kit::server_config(&certs, "node");
    let origin = Http2Origin::serving_over(Some(config), echo);
    let start = |settings: &str, tls: &str| {
        Gateway::resources(
            &format!(
                "routes: [{{id: a, uri: /*, upstream: {{scheme: grpcs{tls}, nodes: {{\"{}\": 1}}}}}}]",
                origin.address()
            ),
            &[],
        )
        .settings(settings)
        .start()
    };
    let trusting = format!("ssl: {{listen: [], trusted_certificate: [{}]}}", json!(certs.path("ca.crt")));
    let gateway = start(&trusting, "");
    Http2::to(&gateway).ask(call("/a.B/C"), b"abc").unwrap().expect(200, "abc");
    let gateway = start("ssl: {listen: []}", "");
    let answer = Http2::to(&gateway).ask(call("/a.B/C"), b"abc").unwrap();
    assert_eq!(answer.header("grpc-status"), Some("14"), "nobody vouches for it");
    let gateway = start("ssl: {listen: []}", ", tls: {verify: false}");
    Http2::to(&gateway).ask(call("/a.B/C"), b"abc").unwrap().expect(200, "abc");
    let _ = Caller::new(&certs, "ca", None);
}

fn clients_of_http_1_reach_nodes_of_http_2() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&[&origin], "").start();
    let mut client = gateway.client();
    for at in 0..3 {
        let answer = client.request("POST", "/x", &[("TE", "trailers")], format!("body {at}").as_bytes());
        answer.expect(200, &format!("body {at}"));
        assert_eq!(
            answer.trailers.iter().find(|(name, _)| name == "grpc-status").map(|(_, value)| &**value),
            Some("0")
        );
    }
    client.get("/quoted?a=%22\"<>").expect(200, "");
    let head = client.request("HEAD", "/x", &[], b"");
    assert_eq!(head.status, 200);
}

fn large_bodies_pass_both_ways() {
    let origin = Http2Origin::serving(echo);
    let gateway = before(&[&origin], "").start();
    let body: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
    let answer = Http2::to(&gateway).ask(call("/a.B/C"), &body).unwrap();
    assert!(answer.body == body, "{} bytes", answer.body.len());
    // Slow on one stream, quick on another.
    Http2::to(&gateway).run(async |sender| {
        let (slow, mut stream) =
            sender.clone().ready().await.unwrap().send_request(call("/slow"), false).unwrap();
        let sent = Bytes::from(body.clone());
        let sending = tokio::spawn(async move { send(&mut stream, sent, true).await });
        let slow = slow.await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        ask(sender, get("/quick"), Vec::new(), None).await.unwrap().expect(200, "");
        assert_eq!(whole(slow).await.unwrap().body.len(), body.len());
        sending.await.unwrap();
    });
}

fn a_connection_that_says_nothing_more_is_left() {
    // Each connection answers once, and is silent from then on.
    let origin = Http2Origin::serving(|request, respond, count| async move {
        if count > 1 {
            std::future::pending::<()>().await;
        }
        echo(request, respond, count).await;
    });
    let gateway =
        before(&[&origin], ", retries: 0, timeout: {connect: 5, send: 5, read: 0.3}").cores(1).start();
    let mut client = Http2::to(&gateway);
    for _ in 0..3 {
        client.get("/answered").expect(200, "");
        assert_eq!(client.get("/not").status, 504);
    }
    assert_eq!(origin.accepted(), 3, "nobody else waits for one that is silent");
}

/// An origin whose health is what `status` says (a status of the protocol; 0 is an error, 255 silence), which answers other
/// calls with its name.
fn checked(name: &'static str, status: &Arc<AtomicU8>, tls: Option<rustls::ServerConfig>) -> Http2Origin {
    let status = Arc::clone(status);
    Http2Origin::serving_over(tls, move |request: Request<RecvStream>, mut respond: Respond, _| {
        let status = status.load(Ordering::SeqCst);
        async move {
            let is_check = request.uri().path() == "/grpc.health.v1.Health/Check";
            let mut body = request.into_body();
            let mut asked = Vec::new();
            while let Some(data) = take(&mut body).await {
                asked.extend_from_slice(&data);
            }
            let mut answer = Response::builder().header("content-type", "application/grpc");
            if is_check {
                assert_eq!(asked, b"\0\0\0\0\x05\x0a\x03a.B");
                match status {
                    0 => answer = answer.header("grpc-status", "12"),
                    255 => std::future::pending().await,
                    _ => {}
                }
            }
            let only_status = is_check && status == 0;
            let mut stream = respond.send_response(answer.body(()).unwrap(), only_status).unwrap();
            if only_status {
                return;
            }
            let said = if is_check { [0, 0, 0, 0, 2, 8, status].to_vec() } else { name.into() };
            send(&mut stream, said.into(), false).await;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let _ = stream.send_trailers(trailers);
        }
    })
}

const CHECKS: &str = ", checks: {active: {type: grpc, grpc_service: a.B, timeout: 0.5, healthy: {interval: 0.05, successes: 1},
    unhealthy: {interval: 0.05, http_failures: 1, tcp_failures: 1, timeouts: 1}}}";

fn wait_for_health(gateway: &Gateway, expected: &[&str]) {
    eventually(&format!("nodes are {expected:?}"), || {
        let told = gateway.control("GET", "/v1/healthcheck/routes/a").json();
        assert!(told["type"].as_str().unwrap().starts_with("grpc"), "{told}");
        let nodes = told["nodes"].as_array().unwrap().iter();
        let mut found: Vec<&str> = nodes.map(|node| node["status"].as_str().unwrap()).collect();
        found.sort_unstable();
        (found == expected).then_some(())
    });
}

fn nodes_are_asked_by_checks_of_grpc() {
    let statuses = [Arc::new(AtomicU8::new(1)), Arc::new(AtomicU8::new(1))];
    let (a, b) = (checked("a", &statuses[0], None), checked("b", &statuses[1], None));
    let gateway = before(&[&a, &b], CHECKS).cores(1).start();
    let mut client = Http2::to(&gateway);
    // Not served, unknown, refused, silent: each is left, and found again.
    for status in [2, 3, 0, 255] {
        statuses[1].store(status, Ordering::SeqCst);
        wait_for_health(&gateway, &["healthy", "unhealthy"]);
        for _ in 0..4 {
            client.ask(call("/a.B/C"), b"").unwrap().expect(200, "a");
        }
        statuses[1].store(1, Ordering::SeqCst);
        wait_for_health(&gateway, &["healthy", "healthy"]);
    }
}

fn checks_of_grpc_go_over_tls() {
    let certs = Certs::new();
    certs.authority("ca");
    certs.issued("ca", "node", "DNS:a.test");
    let status = Arc::new(AtomicU8::new(1));
    let config = || Some(crate::kit::server_config(&certs, "node"));
    let (a, b) = (checked("a", &status, config()), checked("b", &status, config()));
    let trusting = format!("ssl: {{listen: [], trusted_certificate: [{}]}}", json!(certs.path("ca.crt")));
    let over_tls = |more: &str| CHECKS.replace("type: grpc", &format!("type: grpcs{more}"));
    for (more, health) in [
        (", host: a.test", "healthy"),
        (", host: b.test", "unhealthy"),
        (", https_verify_certificate: false", "healthy"),
    ] {
        let gateway = before(&[&a, &b], &over_tls(more)).settings(&trusting).start();
        wait_for_health(&gateway, &[health, health]);
    }
}

//! Calls of gRPC by clients that speak HTTP and JSON, through `grpc-transcode`, to a node that speaks nothing but gRPC.

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};

use crate::kit::http2::{Http2, Http2Origin, post, send};
use crate::kit::{Gateway, Refusing, Setup};

on_both_drivers!(
    json_a_form_and_a_query_become_a_call,
    a_status_becomes_one_of_http,
    what_is_no_message_is_refused,
    a_large_message_passes_and_a_larger_one_does_not,
    an_error_of_ours_is_one_of_http,
    definitions_are_checked_where_they_are_written,
    another_version_of_a_proto_is_in_force_at_once,
);

const DEFINITIONS: &str = r#"
    syntax = "proto3";
    package greeter;
    import "google/protobuf/timestamp.proto";
    service Greeter { rpc Greet (Name) returns (Greeting); }
    message Name { string name = 1; repeated string more = 2; int32 code = 3; google.protobuf.Timestamp at = 4; }
    message Greeting { string text = 1; repeated string lines = 2; int64 count = 3; }
    message Detail { string why = 1; }
"#;

type Respond = h2::server::SendResponse<Bytes>;

/// The fields of a message whose lengths are below 128, as `(number, bytes)`; numbers as text.
fn fields(mut message: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut fields = Vec::new();
    while let [key, rest @ ..] = message {
        let length = match key & 7 {
            2 => usize::from(rest[0]),
            _ => 0,
        };
        let value = if key & 7 == 2 { rest[1..=length].to_vec() } else { rest[0].to_string().into_bytes() };
        fields.push((key >> 3, value));
        message = &rest[1 + length..];
    }
    fields
}

/// Greets whoever is named, with a line for each of the others; ends with the code that is asked for.
async fn greet(request: Request<RecvStream>, mut respond: Respond, _: usize) {
    let (parts, mut body) = request.into_parts();
    assert_eq!(
        (parts.method.as_str(), &parts.headers["content-type"]),
        ("POST", &"application/grpc".parse().unwrap())
    );
    assert_eq!(
        (parts.uri.path(), &parts.headers["te"]),
        ("/greeter.Greeter/Greet", &"trailers".parse().unwrap())
    );
    let mut frame = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        frame.extend_from_slice(&data);
    }
    assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - 5);
    let answer = Response::builder().header("content-type", "application/grpc");
    let mut stream = respond.send_response(answer.body(()).unwrap(), false).unwrap();
    let mut trailers = HeaderMap::new();
    if frame.len() > 1000 {
        // A long name comes back as it is, for its field is the greeting's.
        send(&mut stream, frame.into(), false).await;
        trailers.insert("grpc-status", "0".parse().unwrap());
        let _ = stream.send_trailers(trailers);
        return;
    }
    let (mut code, mut message) = ("0".to_owned(), Vec::new());
    for (number, value) in fields(&frame[5..]) {
        match number {
            1 => {
                let text = [b"Hello ", &value[..]].concat();
                message.extend_from_slice(&[0x0a, text.len() as u8]);
                message.extend_from_slice(&text);
            }
            2 => {
                message.extend_from_slice(&[0x12, value.len() as u8]);
                message.extend_from_slice(&value);
            }
            3 => code = String::from_utf8(value).unwrap(),
            _ => {}
        }
    }
    if code == "0" {
        let frame = [&[0, 0, 0, 0, message.len() as u8], &message[..]].concat();
        send(&mut stream, frame.into(), false).await;
    } else {
        trailers.insert("grpc-message", "no%20way".parse().unwrap());
        // A google.rpc.Status: code 5, "no way", one detail of a message with a text in it.
        trailers.insert("grpc-status-details-bin", "CAUSBm5vIHdheRoJCgFBEgQKAmlk".parse().unwrap());
    }
    trailers.insert("grpc-status", code.parse().unwrap());
    let _ = stream.send_trailers(trailers);
}

fn before(node: &dyn std::fmt::Display, more: &str) -> Setup {
    let protos = json!([{"id": "greeter", "content": DEFINITIONS}]);
    Gateway::resources(
        &format!(
            "protos: {protos}\n\
             routes: [{{id: a, uri: /greet, plugins: {{grpc-transcode: {{proto_id: greeter, service: greeter.Greeter, method: Greet{more}}}}},\
                        upstream: {{scheme: grpc, nodes: {{\"{node}\": 1}}}}}}]"
        ),
        &[],
    )
}

fn json_a_form_and_a_query_become_a_call() {
    let origin = Http2Origin::serving(greet);
    let gateway = before(&origin.address(), "").start();
    let mut client = gateway.client();
    let json = [("Content-Type", "application/json")];
    let at = r#"{"name": "you", "more": ["a", "b"], "at": {"seconds": 1}, "unknown": 1}"#;
    let answer = client.request("POST", "/greet", &json, at.as_bytes());
    answer.expect(200, r#"{"text":"Hello you","lines":["a","b"],"count":0}"#);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    client.request("PUT", "/greet", &json, b"{}").expect(200, r#"{"text":"","lines":[],"count":0}"#);
    client
        .get("/greet?name=you%21&more=a&more=b")
        .expect(200, r#"{"text":"Hello you!","lines":["a","b"],"count":0}"#);
    client.post("/greet", b"name=x+y").expect(200, r#"{"text":"Hello x y","lines":[],"count":0}"#);
    // In chunks, and over HTTP/2.
    let mut raw = gateway.raw();
    raw.send("POST /greet HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    raw.send("3\r\n{\"n\r\n").send("a\r\name\": \"x\"}\r\n0\r\n\r\n");
    raw.answer().expect(200, r#"{"text":"Hello x","lines":[],"count":0}"#);
    let mut request = post("/greet");
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let answer = Http2::to(&gateway).ask(request, br#"{"name": "h2"}"#).unwrap();
    answer.expect(200, r#"{"text":"Hello h2","lines":[],"count":0}"#);
    assert!(answer.trailers.is_empty());
}

fn a_status_becomes_one_of_http() {
    let origin = Http2Origin::serving(greet);
    let plain = before(&origin.address(), "").start();
    for (code, status) in [(5, 404), (7, 403), (14, 503), (99, 599)] {
        let answer = plain.get(&format!("/greet?code={code}"));
        answer.expect(status, "");
        assert_eq!(answer.header("grpc-status"), Some(code.to_string().as_str()));
        assert_eq!(answer.header("grpc-message"), Some("no%20way"));
    }
    let shown =
        before(&origin.address(), ", show_status_in_body: true, status_detail_type: greeter.Detail").start();
    shown
        .get("/greet?code=5")
        .expect(404, r#"{"error":{"code":5,"message":"no way","details":[{"why":"id"}]}}"#);
}

fn what_is_no_message_is_refused() {
    let origin = Http2Origin::serving(greet);
    let gateway = before(&origin.address(), "").start();
    let mut client = gateway.client();
    let json = [("Content-Type", "application/json")];
    for (body, why) in
        [("{", "no JSON"), ("[]", "an object"), (r#"{"name": {}}"#, "name"), (r#"{"code": "x"}"#, "code")]
    {
        let answer = client.request("POST", "/greet", &json, body.as_bytes());
        answer.expect_status(400);
        assert!(answer.json()["error_msg"].as_str().unwrap().contains(why), "{}", answer.text());
    }
    client.get("/greet?code=x").expect_status(400);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    client.request("POST", "/greet", &json, deep.as_bytes()).expect_status(400);
    assert_eq!(origin.accepted(), 0, "nobody was asked");
    // A method that nobody defined.
    let text = format!(
        "protos: {}\nroutes: [{{id: a, uri: /*, plugins: {{grpc-transcode: {{proto_id: greeter, service: greeter.Greeter, method: None}}}}, upstream: {{scheme: grpc, nodes: {{\"{}\": 1}}}}}}]",
        json!([{"id": "greeter", "content": DEFINITIONS}]),
        origin.address()
    );
    let gateway = Gateway::resources(&text, &[]).start();
    gateway.get("/").expect(503, "{\"error_msg\":\"the service has no such method\"}\n");
}

fn a_large_message_passes_and_a_larger_one_does_not() {
    let origin = Http2Origin::serving(greet);
    let gateway = before(&origin.address(), "").start();
    let json = [("Content-Type", "application/json")];
    let named = |length: usize| json!({"name": "n".repeat(length)}).to_string();
    let answer = gateway.request("POST", "/greet", &json, named(3_000_000).as_bytes());
    answer.expect_status(200);
    assert_eq!(answer.json()["text"].as_str().map(str::len), Some(3_000_000));
    gateway.request("POST", "/greet", &json, named(4_200_000).as_bytes()).expect_status(413);
}

fn an_error_of_ours_is_one_of_http() {
    let refusing = Refusing::new();
    let closed = refusing.address();
    let gateway = before(&closed, "").start();
    gateway.get("/greet?name=x").expect(502, "{\"error_msg\":\"502 Bad Gateway\"}\n");
    let answer = Http2::to(&gateway).get("/greet?name=x");
    answer.expect(502, "{\"error_msg\":\"502 Bad Gateway\"}\n");
    assert!(answer.header("grpc-status").is_none(), "the client has not asked by gRPC");
}

fn definitions_are_checked_where_they_are_written() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    for (content, why) in [
        ("message A {", "invalid content"),
        ("syntax = \"proto3\"; import \"a.proto\";", "a.proto"),
        ("AAAA", "descriptor set"),
    ] {
        let answer = admin.ask("PUT", "/protos/1", &[], &json!({"content": content}).to_string());
        answer.expect_status(400);
        assert!(answer.text().contains(why), "{}", answer.text());
    }
    let transcode = json!({"proto_id": "1", "service": "greeter.Greeter", "method": "Greet"});
    let route = json!({"uri": "/greet", "plugins": {"grpc-transcode": transcode}, "upstream": {"scheme": "grpc", "nodes": {}}}).to_string();
    let answer = admin.ask("PUT", "/routes/1", &[], &route);
    answer.expect_status(400);
    assert!(
        answer.text().contains("failed to fetch proto info by proto id [1], response code: 404"),
        "{}",
        answer.text()
    );
    admin.put("/protos/1", &json!({"content": DEFINITIONS}).to_string());
    admin.put("/routes/1", &route);
    let answer = admin.ask("DELETE", "/protos/1", &[], "");
    answer.expect_status(400);
    assert!(
        answer.text().contains("can not delete this proto, route [1] is still using it now"),
        "{}",
        answer.text()
    );
    admin.ask("DELETE", "/routes/1", &[], "").expect_status(200);
    admin.ask("DELETE", "/protos/1", &[], "").expect_status(200);
}

fn another_version_of_a_proto_is_in_force_at_once() {
    let origin = Http2Origin::serving(greet);
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let put = |content: &str| admin.put("/protos/1", &json!({"content": content}).to_string());
    put(DEFINITIONS);
    let transcode = json!({"proto_id": 1, "service": "greeter.Greeter", "method": "Greet"});
    let upstream = json!({"scheme": "grpc", "nodes": {origin.address().to_string(): 1}});
    let route: Value =
        json!({"uri": "/greet", "plugins": {"grpc-transcode": transcode}, "upstream": upstream});
    admin.put("/routes/1", &route.to_string());
    gateway.get("/greet?name=x").expect(200, r#"{"text":"Hello x","lines":[],"count":0}"#);
    put(&DEFINITIONS.replace("string name", "string who").replace("string text", "string said"));
    gateway.get("/greet?who=x").expect(200, r#"{"said":"Hello x","lines":[],"count":0}"#);
    // Without its definitions a call is none.
    assert_eq!(admin.ask("DELETE", "/protos/1?force=true", &[], "").status, 200);
    gateway.get("/greet?who=x").expect_status(503);
    put(DEFINITIONS);
    gateway.get("/greet?name=x").expect(200, r#"{"text":"Hello x","lines":[],"count":0}"#);
}

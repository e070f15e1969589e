//! `grpc-transcode` on the bench.

use super::*;
use crate::plugin::testing::{Answer, Bench, Desk, Request, agree};
use crate::proto::protobuf::definitions::compile;

const DEFINITIONS: &str = r#"
    syntax = "proto3";
    package t;
    service S {
        rpc Echo (All) returns (All);
        rpc Chat (stream All) returns (All);
    }
    enum Colour { NONE = 0; RED = 5; }
    message Inner { string name = 1; int32 age = 2; Inner more = 3; }
    message All {
        int32 a_int32 = 1; int64 a_int64 = 2; uint64 a_uint64 = 3; sint32 a_sint32 = 4; fixed64 a_fixed64 = 5;
        sfixed32 a_sfixed32 = 6; double a_double = 7; float a_float = 8; bool a_bool = 9; string a_string = 10;
        bytes a_bytes = 11; Colour a_colour = 12; Inner inner = 13; repeated int32 ints = 14; repeated string texts = 15;
        repeated Inner inners = 16; map<string, int32> counts = 17; map<int32, Inner> people = 18;
        oneof which { string left = 19; int32 right = 20; }
        optional bool maybe = 21; uint32 a_uint32 = 22; sint64 a_sint64 = 23; repeated Colour colours = 24;
        repeated All alls = 25;
    }
"#;

fn bench(more: &str) -> Bench<GrpcTranscode> {
    let types = Arc::new(compile(DEFINITIONS).unwrap());
    let config = format!(r#"{{"proto_id": 1, "service": "t.S", "method": "Echo"{more}}}"#);
    Desk::new().proto("1", types).compile("routes/1", &config).unwrap()
}

fn json(body: &str) -> Request {
    Request::new(Method::Post, "/echo").header("Content-Type", "application/json").body(body)
}

/// The frame that a request becomes, or why it becomes none.
fn framed(bench: &Bench<GrpcTranscode>, request: Request) -> Result<Vec<u8>, String> {
    let outcome = bench.request(request);
    match (&outcome.reply, &outcome.ex.request.body) {
        (Some(reply), _) => Err(format!("{} {}", reply.status, String::from_utf8_lossy(reply.body()).trim())),
        (None, Body::Held(frame)) => Ok(frame.clone()),
        (None, _) => panic!("held"),
    }
}

/// An answer of this frame.
fn answered(bench: &Bench<GrpcTranscode>, headers: &[(&str, &str)], frame: &[u8], trailers: &str) -> Answer {
    let request = json("{}").with(|ex| ex.response.trailers = trailers.as_bytes().to_vec());
    let headers = [&[("Content-Type", "application/grpc")], headers].concat();
    bench.request(request).passes().response(200, &headers, frame)
}

/// What a request says when its message comes back.
fn echoed(more: &str, request: Request) -> String {
    let bench = bench(more);
    let frame = framed(&bench, request).unwrap_or_else(|why| panic!("{why}"));
    let answer = answered(&bench, &[], &frame, "grpc-status:0\r\n");
    assert_eq!((answer.status(), answer.header("Content-Type").as_str()), (200, "application/json"));
    serde_json::from_slice::<Value>(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()));
    answer.text()
}

/// The same without what a message lacks.
fn told(body: &str) -> String {
    echoed(r#", "pb_option": ["no_default_values"]"#, json(body))
}

#[test]
fn every_kind_of_value_comes_back() {
    for body in [
        r#"{"a_int32":-2147483648,"a_int64":-9223372036854775808,"a_uint64":18446744073709551615,"a_sint32":-1}"#,
        r#"{"a_fixed64":1,"a_sfixed32":-7,"a_double":1.5e+300,"a_float":0.1,"a_bool":true}"#,
        r#"{"a_string":"h\u0007é\"","a_bytes":"raw","a_colour":"RED"}"#,
        r#"{"inner":{"name":"a","more":{"age":3}},"ints":[1,0,-1],"texts":["","x"],"inners":[{},{"age":1}]}"#,
        r#"{"counts":{"a":1,"b":0},"people":{"-1":{"name":"x"},"7":{}}}"#,
        r#"{"right":0,"maybe":false}"#,
        r#"{"left":""}"#,
        r#"{"a_uint32":4294967295,"a_sint64":-5,"colours":["NONE","RED",9]}"#,
        "{}",
    ] {
        assert_eq!(told(body), body);
    }
    // What can not be lacking is left out where it is zero, what is unknown always.
    assert_eq!(told(r#"{"a_int32":0,"a_string":"","a_bool":false,"ints":[],"unknown":{"x":1},"inner":null}"#), "{}");
    // Other ways to say the same.
    assert_eq!(told(r##"{"aInt32":"12","a_int64":"#-0x10","a_uint64":2.0,"a_colour":5,"a_string":7}"##), r#"{"a_int32":12,"a_int64":-16,"a_uint64":2,"a_string":"7","a_colour":"RED"}"#);
    assert_eq!(told(r#"{"a_double":"NaN","a_float":"-inf"}"#), r#"{"a_double":"NaN","a_float":"-Infinity"}"#);
}

#[test]
fn what_does_not_fit_is_told_with_the_way_to_it() {
    let bench = bench("");
    for (body, why) in [
        ("[]", "expected an object, got a list"),
        ("{", "the body is no JSON"),
        (r#"{"a_int32":2147483648}"#, "a_int32: expected a whole number of the field's width, got a number"),
        (r#"{"a_uint32":-1}"#, "a_uint32"),
        (r#"{"a_int64":1.5}"#, "a_int64"),
        (r#"{"a_int64":1e40}"#, "a_int64"),
        (r#"{"a_int32":"+-1"}"#, "a_int32"),
        (r#"{"a_bool":"true"}"#, "a_bool: expected true or false, got a text"),
        (r#"{"a_string":["a"]}"#, "a_string: expected a text, got a list"),
        (r#"{"a_colour":"BLUE"}"#, "a_colour: expected a name or number of the enum, got a text"),
        (r#"{"inner":{"more":{"age":"x"}}}"#, "inner: more: age"),
        (r#"{"ints":1}"#, "ints: expected a list, got a number"),
        (r#"{"ints":[null]}"#, "ints"),
        (r#"{"counts":[]}"#, "counts: expected an object"),
        (r#"{"people":{"x":{}}}"#, "people"),
        (r#"{"people":{"1":1}}"#, "people: 1: expected an object"),
    ] {
        let refused = framed(&bench, json(body)).unwrap_err();
        assert!(refused.starts_with("400 ") && refused.contains(why), "{body}: {refused}");
    }
    let deep = format!(r#"{{"inner":{}{{}}{}"#, r#"{"more":"#.repeat(110), "}".repeat(111));
    assert!(framed(&bench, json(&deep)).unwrap_err().contains("objects in each other"));
}

#[test]
fn forms_and_queries_are_read_where_there_is_no_json() {
    let query = Request::get("/echo?a_int32=7&texts=a&ints=1&ints=2&a_bool=true&a_string=x+y%21&a_colour=RED");
    let no_defaults = r#", "pb_option": ["no_default_values"]"#;
    let all = r#"{"a_int32":7,"a_bool":true,"a_string":"x y!","a_colour":"RED","ints":[1,2],"texts":["a"]}"#;
    assert_eq!(echoed(no_defaults, query), all);
    let form = Request::new(Method::Post, "/echo?a_int32=9").body("a_int32=8");
    assert_eq!(echoed(no_defaults, form), r#"{"a_int32":8}"#);
    let empty = Request::new(Method::Put, "/echo").header("Content-Type", "application/json; charset=utf-8");
    assert_eq!(echoed(no_defaults, empty), "{}");
    assert!(framed(&bench(""), Request::get("/echo?a_int32=x")).is_err());
}

#[test]
fn options_say_how_messages_are_written() {
    let said = r#"{"a_int64":-3000000000,"a_uint64":4294967295,"a_colour":"RED","a_bytes":"a?"}"#;
    let with = |option: &str| {
        echoed(&format!(r#", "pb_option": ["no_default_values", "{option}"]"#), json(said))
    };
    let plain = r#"{"a_int64":-3000000000,"a_uint64":4294967295,"a_bytes":"a?","a_colour":"RED"}"#;
    assert_eq!(with("int64_as_number"), plain);
    assert_eq!(with("int64_as_string"), plain.replace("-3000000000", "\"#-3000000000\""));
    assert_eq!(with("int64_as_hexstring"), plain.replace("-3000000000", "\"#-0xB2D05E00\""));
    assert_eq!(with("enum_as_value"), plain.replace("\"RED\"", "5"));
    assert_eq!(with("disable_hooks"), plain);
    let in_base64 = echoed(r#", "pb_option": ["no_default_values", "bytes_as_base64"]"#, json(r#"{"a_bytes":"/w=="}"#));
    assert_eq!(in_base64, r#"{"a_bytes":"/w=="}"#);
    // What has no presence is told as zero, unless that is not wished.
    let zeros: Value = serde_json::from_str(&echoed("", json("{}"))).unwrap();
    assert_eq!((&zeros["a_colour"], &zeros["a_string"], &zeros["ints"], &zeros["counts"]), (&"NONE".into(), &"".into(), &Value::Array(vec![]), &serde_json::json!({})));
    for absent in ["inner", "left", "right", "maybe"] {
        assert!(zeros.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn a_request_becomes_a_call() {
    let bench = bench(r#", "deadline": 500"#);
    let request = json(r#"{"a_int32":1}"#).header("Content-Encoding", "identity").header("grpc-accept-encoding", "gzip");
    let outcome = bench.request(request).passes();
    assert_eq!(outcome.target(), "/t.S/Echo");
    assert_eq!(outcome.forwarded("content-type"), ["application/grpc"]);
    assert_eq!((outcome.forwarded("te"), outcome.forwarded("grpc-timeout")), (vec!["trailers".to_owned()], vec!["500m".to_owned()]));
    assert!(outcome.forwarded("content-encoding").is_empty() && outcome.forwarded("grpc-accept-encoding").is_empty());
    assert_eq!(outcome.ex.request.forward.method, Some(Method::Post));
    let Body::Held(frame) = &outcome.ex.request.body else { panic!("held") };
    assert_eq!(frame, b"\0\0\0\0\x02\x08\x01");
}

#[test]
fn a_status_becomes_one_of_http() {
    let plain = bench("");
    for (code, status) in [("1", 499), ("5", 404), ("14", 503), ("16", 401), ("99", 599), ("x", 599)] {
        // In the head, or in trailers.
        let answer = answered(&plain, &[("grpc-status", code), ("grpc-message", "no")], b"", "");
        assert_eq!((answer.status(), answer.text().as_str()), (status, ""), "{code}");
        let answer = answered(&plain, &[], b"", &format!("grpc-status:{code}\r\ngrpc-message:no\r\n"));
        assert_eq!((answer.status(), answer.header("grpc-message").as_str()), (status, "no"), "{code}");
    }
    let shown = bench(r#", "show_status_in_body": true"#);
    let answer = answered(&shown, &[], b"", "grpc-status:14\r\ngrpc-message:out%20of%22\r\n");
    assert_eq!((answer.status(), answer.text().as_str()), (503, r#"{"error":{"code":14,"message":"out of\""}}"#));
    // google.rpc.Status: code 14, message "no", and one detail: Inner with name "a" and age 7.
    let mut status = b"\x08\x0e\x12\x02no\x1a".to_vec();
    let any = [&b"\x0a\x03t/I\x12\x05\x0a\x01a\x10\x07"[..]].concat();
    status.push(any.len() as u8);
    status.extend_from_slice(&any);
    let told = [("grpc-status", "14"), ("grpc-status-details-bin", &STANDARD_NO_PAD.encode(&status))];
    assert_eq!(answered(&shown, &told, b"", "").text(), r#"{"error":{"code":14,"message":"no","details":[{"type_url":"t/I","value":"\n\u0001a\u0010\u0007"}]}}"#);
    let typed = bench(r#", "show_status_in_body": true, "status_detail_type": "t.Inner""#);
    assert_eq!(answered(&typed, &told, b"", "").text(), r#"{"error":{"code":14,"message":"no","details":[{"name":"a","age":7}]}}"#);
    let unknown = bench(r#", "show_status_in_body": true, "status_detail_type": "t.None""#);
    let answer = answered(&unknown, &told, b"", "");
    assert_eq!((answer.status(), answer.text().as_str()), (503, "failed to call pb.decode to decode details in grpc-status-details-bin"));
    let broken = [("grpc-status", "14"), ("grpc-status-details-bin", "!")];
    assert_eq!(answered(&shown, &broken, b"", "").text(), "grpc-status-details-bin is not base64 format");
}

#[test]
fn an_answer_that_is_no_message_is_an_error() {
    let bench = bench("");
    for frame in [
        &b""[..],
        b"\0\0\0\0",
        b"\0\0\0\0\x05\x08\x01",
        b"\x01\0\0\0\x02\x08\x01",
        b"\0\0\0\0\x02\x08\x01\0\0\0\0\x02\x08\x01",
        b"\0\0\0\0\x01\x08",
        b"\0\0\0\0\x02\x0a\x00",
        b"\0\0\0\0\x05\x6d1234",
    ] {
        let answer = answered(&bench, &[], frame, "grpc-status:0\r\n");
        assert_eq!((answer.status(), answer.text().as_str()), (502, "failed to decode response data by protobuf"), "{frame:?}");
    }
    // A status is missing.
    assert_eq!(answered(&bench, &[], b"\0\0\0\0\0", "").status(), 500);
    // What is not of gRPC passes as it is.
    let other = bench.request(json("{}")).response(403, &[("Content-Type", "text/html")], b"<p>");
    assert_eq!((other.status(), other.text().as_str()), (403, "<p>"));
}

#[test]
fn messages_in_pieces_are_one_and_what_they_become_is_bounded() {
    let bench = bench(r#", "pb_option": ["no_default_values"]"#);
    let frame = |message: &[u8]| {
        let mut frame = vec![0];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message);
        frame
    };
    let split = answered(&bench, &[], &frame(b"\x6a\x03\x0a\x01a\x6a\x02\x10\x07\x08\x01\x08\x02"), "grpc-status:0\r\n");
    assert_eq!(split.text(), r#"{"a_int32":2,"inner":{"name":"a","age":7}}"#);
    // Fields of many, packed and not.
    let many = answered(&bench, &[], &frame(b"\x70\x01\x72\x02\x02\x03"), "grpc-status:0\r\n");
    assert_eq!(many.text(), r#"{"ints":[1,2,3]}"#);
    // Deeper than anybody means it.
    let mut deep = Vec::new();
    for _ in 0..120 {
        let mut outer = vec![0x1a];
        protobuf::write_varint(&mut outer, deep.len() as u64);
        outer.extend_from_slice(&deep);
        deep = outer;
    }
    let mut message = vec![0x6a];
    protobuf::write_varint(&mut message, deep.len() as u64);
    message.extend_from_slice(&deep);
    assert_eq!(answered(&bench, &[], &frame(&message), "grpc-status:0\r\n").status(), 502);
    // Three bytes each of which becomes a hundred.
    let wordy = self::bench("");
    let alls = b"\xca\x01\x00".repeat(1_200_000);
    assert_eq!(answered(&wordy, &[], &frame(&alls), "grpc-status:0\r\n").status(), 502);
}

/// What JSON is made of.
const SIGNS: &[u8] = b"{}[]\":,0-9eE.atn\\ ";

#[test]
fn no_answer_and_no_request_is_too_much() {
    let bench = bench(r#", "show_status_in_body": true, "status_detail_type": "t.All""#);
    let all = r#"{"a_int64":-5,"a_double":1.5,"a_string":"x","inner":{"more":{"age":3}},"ints":[1,2],"people":{"1":{}},"left":"y"}"#;
    let frame = framed(&bench, json(all)).unwrap();
    for seed in 0..3000 {
        let mut rng = crate::base::rng::Rng::seeded(seed);
        let mut bytes = frame.clone();
        let mut text = all.as_bytes().to_vec();
        for _ in 0..=rng.below(4) {
            let at = PREFIX_BYTES + rng.below((bytes.len() - PREFIX_BYTES) as u64) as usize;
            bytes[at] = rng.below(256) as u8;
            let at = rng.below(text.len() as u64) as usize;
            text[at] = SIGNS[rng.below(SIGNS.len() as u64) as usize];
        }
        let answer = answered(&bench, &[], &bytes, "grpc-status:0\r\n");
        if answer.status() == 200 {
            serde_json::from_slice::<Value>(&answer.body).unwrap_or_else(|error| panic!("seed {seed}: {error}: {}", answer.text()));
        }
        let details = STANDARD.encode(&bytes[PREFIX_BYTES..]);
        answered(&bench, &[("grpc-status", "3"), ("grpc-status-details-bin", &details)], b"", "");
        let _ = framed(&bench, json(&String::from_utf8_lossy(&text)));
    }
}

#[test]
fn what_can_not_be_called_is_told_when_it_is() {
    let types = Arc::new(compile(DEFINITIONS).unwrap());
    for (config, why) in [
        (r#"{"proto_id": "2", "service": "t.S", "method": "Echo"}"#, "not there"),
        (r#"{"proto_id": "1", "service": "t.S", "method": "None"}"#, "no such method"),
        (r#"{"proto_id": "1", "service": "t.None", "method": "Echo"}"#, "no such method"),
        (r#"{"proto_id": "1", "service": "t.S", "method": "Chat"}"#, "streams"),
    ] {
        let bench: Bench<GrpcTranscode> =
            Desk::new().proto("1", Arc::clone(&types)).compile("routes/1", config).unwrap();
        let refused = framed(&bench, json("{}")).unwrap_err();
        assert!(refused.starts_with("503 ") && refused.contains(why), "{refused}");
    }
}

#[test]
fn schema_and_compile_agree() {
    agree::<GrpcTranscode>(
        &[
            r#"{"proto_id": "1", "service": "a.B", "method": "C"}"#,
            r#"{"proto_id": 1, "service": "a.B", "method": "C", "deadline": 5, "pb_option": ["enum_as_value"], "show_status_in_body": true, "status_detail_type": "a.D"}"#,
        ],
        &[
            (r#"{"service": "a.B", "method": "C"}"#, "proto_id"),
            (r#"{"proto_id": "1", "service": "a.B"}"#, "method"),
            (r#"{"proto_id": "1", "service": "a.B", "method": "C", "pb_option": []}"#, "pb_option"),
            (r#"{"proto_id": "1", "service": "a.B", "method": "C", "pb_option": ["none"]}"#, "pb_option"),
            (r#"{"proto_id": "1", "service": "a.B", "method": "C", "deadline": -1}"#, "deadline"),
        ],
    );
}

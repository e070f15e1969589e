//! Header lines are added, replaced and removed, and written in the order they were.

use super::head::{FieldName, HeaderId, HeaderList, HeaderSet, Omit, Span};

fn list(head: &str) -> HeaderList {
    let mut list = HeaderList::new();
    let mut at = 0;
    for line in head.split_inclusive("\r\n") {
        let colon = line.find(": ").expect("a sample line has a colon");
        let name = Span::new(at, at + colon);
        let value = Span::new(at + colon + 2, at + line.len() - 2);
        list.push_received(name, value, HeaderId::of(&line.as_bytes()[..colon]), true);
        at += line.len();
    }
    list.hold_received(head.as_bytes().to_vec());
    list
}

fn written(list: &HeaderList, without: &[HeaderId]) -> String {
    let mut out = Vec::new();
    list.write(&mut out, &Omit { always: HeaderSet::of(without), ..Omit::default() });
    String::from_utf8(out).expect("sample headers are ASCII")
}

#[test]
fn untouched_headers_are_written_as_received() {
    let head = "Host: a\r\nX-One: 1\r\nX-Two: 2\r\n";
    assert_eq!(written(&list(head), &[]), head);
    assert_eq!(written(&list(head), &[HeaderId::Host]), "X-One: 1\r\nX-Two: 2\r\n");
}

#[test]
fn set_replaces_all_lines_at_the_place_of_the_first() {
    let mut headers = list("A: 1\r\nHost: a\r\nA: 2\r\nB: 3\r\n");
    headers.set("a", b"9");
    assert_eq!(written(&headers, &[]), "a: 9\r\nHost: a\r\nB: 3\r\n");
    headers.add("A", b"10");
    assert_eq!(headers.all("a").collect::<Vec<_>>(), [b"9".as_slice(), b"10"]);
    assert!(headers.remove("A"));
    assert!(!headers.remove("A"));
    assert_eq!(written(&headers, &[]), "Host: a\r\nB: 3\r\n");
}

#[test]
fn lines_keep_their_order_wherever_they_lie() {
    let mut headers = list("A: 1\r\nHost: a\r\nB: 2\r\n");
    headers.add("X", b"first");
    headers.add("Y", b"second");
    headers.add("Z", b"third");
    headers.set("host", b"ours");
    headers.remove("y");
    let all = "A: 1\r\nhost: ours\r\nB: 2\r\nX: first\r\nZ: third\r\n";
    assert_eq!(written(&headers, &[]), all);
    headers.put(&FieldName::new("X-RateLimit-Limit"), b"0");
    headers.put(&FieldName::new("x-ratelimit-limit"), b"18446744073709551615");
    let limit = "x-ratelimit-limit: 18446744073709551615\r\n";
    assert_eq!(written(&headers, &[]), format!("{all}{limit}"));
}

#[test]
fn what_was_received_can_be_left_out_without_what_was_added() {
    let mut headers = list("X-Real-IP: 6.6.6.6\r\nX-Drop: 1\r\nX-Keep: 2\r\n");
    headers.add_id(HeaderId::XRealIp, b"127.0.0.1");
    headers.add("X-Drop", b"ours");
    let mut out = Vec::new();
    let omit = Omit {
        received: HeaderSet::of(&[HeaderId::XRealIp]),
        named: Some(&|_, name| name.eq_ignore_ascii_case(b"x-drop")),
        ..Omit::default()
    };
    headers.write(&mut out, &omit);
    assert_eq!(out, b"X-Keep: 2\r\nx-real-ip: 127.0.0.1\r\nX-Drop: ours\r\n");
    assert!(headers.was_added(HeaderId::XRealIp) && !headers.was_added(HeaderId::Host));
}

#[test]
fn a_value_can_not_end_its_line() {
    let mut headers = HeaderList::new();
    headers.set("x", b"a\r\nEvil: 1\0");
    assert_eq!(written(&headers, &[]), "x: a  Evil: 1 \r\n");
}

#[test]
fn adding_without_bound_is_noticed() {
    let mut headers = HeaderList::new();
    for _ in 0..70 {
        headers.add("x", &[b'a'; 1024]);
    }
    assert!(headers.overflowed());
    assert!(headers.len() < 70);
}

#[test]
fn presence_follows_every_change() {
    let mut headers = list("Connection: close\r\n");
    assert!(headers.has(HeaderId::Connection));
    headers.remove_id(HeaderId::Connection);
    assert!(!headers.has(HeaderId::Connection));
    headers.set_id(HeaderId::Connection, b"x");
    assert_eq!(headers.get_id(HeaderId::Connection), Some(b"x".as_slice()));
}

#[test]
fn a_name_is_repeated_while_several_lines_have_it() {
    let mut headers = list("Host: a\r\nX: 1\r\nX: 2\r\nhost: a\r\n");
    assert!(headers.is_repeated(HeaderId::Host) && !headers.is_repeated(HeaderId::Other));
    assert!(!headers.repeats_any(HeaderSet::of(&[HeaderId::Other, HeaderId::Cookie])));
    headers.set_id(HeaderId::Host, b"b");
    assert!(!headers.is_repeated(HeaderId::Host));
    headers.add_id(HeaderId::Host, b"c");
    assert!(headers.repeats_any(HeaderSet::of(&[HeaderId::Cookie, HeaderId::Host])));
    headers.remove_id(HeaderId::Host);
    headers.add_id(HeaderId::Host, b"d");
    assert!(!headers.is_repeated(HeaderId::Host));
}

//! Where a body ends, and what else a head says about its connection. The only place that decides it.
//!
//! Two statements about a length, or one in doubt, are refused rather than weighed: whoever stands before or
//! behind us may weigh otherwise, and the difference is a smuggled request (RFC 9112 6.3, 11.2).

use crate::base::text::{comma_list, is_token, parse_u64};
use crate::proto::h1::HeadFault;
use crate::proto::head::{HeaderId, HeaderList, HeaderSet, Method, RequestLine, StatusLine, Version};

/// Lines of a request that whoever forwards it writes anew: framing, authority, hop-by-hop.
pub const WRITTEN_ANEW: HeaderSet = HeaderSet::of(&[
    HeaderId::Connection,
    HeaderId::ContentLength,
    HeaderId::Expect,
    HeaderId::Host,
    HeaderId::Http2Settings,
    HeaderId::KeepAlive,
    HeaderId::ProxyAuthorization,
    HeaderId::ProxyConnection,
    HeaderId::Te,
    HeaderId::Trailer,
    HeaderId::TransferEncoding,
    HeaderId::Upgrade,
]);

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes; zero when a length of zero is stated.
    Length(u64),
    /// Chunks, see [`super::chunked`].
    Chunked,
    /// Everything until the connection ends. Of responses only.
    UntilClose,
}

/// The body of a request. Refuses a head that has not the one `Host` its version wants, too: what the host
/// means is for [`crate::proto::uri::authority`].
pub fn of_request(line: &RequestLine, headers: &HeaderList) -> Result<Framing, HeadFault> {
    if headers.is_repeated(HeaderId::Host) {
        return Err(HeadFault::HostRepeated);
    }
    if !headers.has(HeaderId::Host) && line.version == Version::Http11 {
        return Err(HeadFault::HostMissing);
    }
    Ok(stated(line.version, headers)?.unwrap_or(Framing::None))
}

/// The body of a response to a request of `method`. What is stated is checked even where no body follows,
/// since it is forwarded.
pub fn of_response(method: Method, status: &StatusLine, headers: &HeaderList) -> Result<Framing, HeadFault> {
    let stated = stated(status.version, headers)?;
    let without_body = method == Method::Head || matches!(status.status, 100..=199 | 204 | 304);
    let tunnel = method == Method::Connect && matches!(status.status, 200..=299);
    if without_body || tunnel { Ok(Framing::None) } else { Ok(stated.unwrap_or(Framing::UntilClose)) }
}

/// What `Content-Length` and `Transfer-Encoding` say; `None` when neither is there.
fn stated(version: Version, headers: &HeaderList) -> Result<Option<Framing>, HeadFault> {
    const FRAMING: HeaderSet = HeaderSet::of(&[HeaderId::ContentLength, HeaderId::TransferEncoding]);
    if !headers.has_any(FRAMING) {
        return Ok(None);
    }
    match (headers.has(HeaderId::ContentLength), headers.has(HeaderId::TransferEncoding)) {
        (true, true) => Err(HeadFault::LengthConflict),
        (_, true) => transfer_encoding(version, headers).map(Some),
        (_, false) => content_length(headers).map(Some),
    }
}

fn content_length(headers: &HeaderList) -> Result<Framing, HeadFault> {
    let mut values = headers.all_id(HeaderId::ContentLength);
    let value = values.next().unwrap_or(b"");
    // Equal ones could be folded into one (RFC 9110 8.6), but nobody honest sends them.
    if values.next().is_some() {
        return Err(HeadFault::LengthRepeated);
    }
    // 20 digits may still fit 64 bits with zeros in front; no one counts so.
    match parse_u64(value) {
        Some(length) if value.len() < 20 && i64::try_from(length).is_ok() => Ok(Framing::Length(length)),
        _ => Err(HeadFault::LengthInvalid),
    }
}

fn transfer_encoding(version: Version, headers: &HeaderList) -> Result<Framing, HeadFault> {
    if version == Version::Http10 {
        return Err(HeadFault::TransferEncodingTooNew);
    }
    let mut values = headers.all_id(HeaderId::TransferEncoding);
    if let (Some(value), None) = (values.next(), values.next())
        && value.eq_ignore_ascii_case(b"chunked")
    {
        return Ok(Framing::Chunked);
    }
    let mut foreign = false;
    for coding in headers.all_id(HeaderId::TransferEncoding).flat_map(comma_list) {
        if !is_token(coding) {
            return Err(HeadFault::TransferEncodingInvalid);
        }
        foreign |= !coding.eq_ignore_ascii_case(b"chunked");
    }
    Err(if foreign { HeadFault::TransferEncodingUnknown } else { HeadFault::TransferEncodingInvalid })
}

/// The names that `Connection` lists, as written.
pub fn connection_names(headers: &HeaderList) -> impl Iterator<Item = &[u8]> {
    headers.all_id(HeaderId::Connection).flat_map(comma_list)
}

/// Whether `Connection` lists the name, in any case.
pub fn connection_lists(headers: &HeaderList, name: &[u8]) -> bool {
    headers.all_id(HeaderId::Connection).any(|value| match memchr::memchr(b',', value) {
        // Nearly always it is one name.
        None => value.eq_ignore_ascii_case(name),
        Some(_) => comma_list(value).any(|listed| listed.eq_ignore_ascii_case(name)),
    })
}

/// Whether whoever sent this head wants the connection to go on (RFC 9112 9.3). Of a response, also ask
/// whether its body is [`Framing::UntilClose`].
pub fn keeps_alive(version: Version, headers: &HeaderList) -> bool {
    match version {
        Version::Http11 => !connection_lists(headers, b"close"),
        Version::Http10 => connection_lists(headers, b"keep-alive") && !connection_lists(headers, b"close"),
    }
}

/// Whether the client waits for `100 (Continue)` before its body. HTTP/1.0 knows no such thing: do not send
/// it then, whatever this says (RFC 9110 10.1.1).
pub fn expects_continue(headers: &HeaderList) -> Result<bool, HeadFault> {
    for value in headers.all_id(HeaderId::Expect) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(HeadFault::ExpectationUnknown);
        }
    }
    Ok(headers.has(HeaderId::Expect))
}

/// A protocol that a head asks, or agrees, to change to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    WebSocket,
    /// Anything else, or several at once: not ours to follow (`h2c` would slip past every check here).
    Other,
}

/// The upgrade in a head: `Upgrade`, and `Connection` listing it. One without the other is none.
pub fn upgrade(headers: &HeaderList) -> Option<Upgrade> {
    if !headers.has(HeaderId::Upgrade) || !connection_lists(headers, b"upgrade") {
        return None;
    }
    let mut values = headers.all_id(HeaderId::Upgrade);
    match (values.next(), values.next()) {
        (Some(value), None) if value.eq_ignore_ascii_case(b"websocket") => Some(Upgrade::WebSocket),
        _ => Some(Upgrade::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lines: &[(&str, &str)]) -> HeaderList {
        let mut headers = HeaderList::new();
        for (name, value) in lines {
            headers.add(name, value.as_bytes());
        }
        headers
    }

    fn request(version: Version, lines: &[(&str, &str)]) -> Result<Framing, HeadFault> {
        let mut headers = list(lines);
        headers.set("Host", b"a");
        of_request(&RequestLine { method: Method::Post, version, ..RequestLine::default() }, &headers)
    }

    fn length(value: &str) -> Result<Framing, HeadFault> {
        request(Version::Http11, &[("Content-Length", value)])
    }

    fn coding(value: &str) -> Result<Framing, HeadFault> {
        request(Version::Http11, &[("Transfer-Encoding", value)])
    }

    #[test]
    fn a_length_is_one_plain_number() {
        assert_eq!(request(Version::Http11, &[]), Ok(Framing::None));
        assert_eq!(length("0"), Ok(Framing::Length(0)));
        assert_eq!(length("5"), Ok(Framing::Length(5)));
        assert_eq!(length("05"), Ok(Framing::Length(5)));
        assert_eq!(length("9223372036854775807"), Ok(Framing::Length(i64::MAX as u64)));
        let refused = [
            "",
            " ",
            "+5",
            "-0",
            "-1",
            "0x5",
            "5_0",
            "5e0",
            "5.0",
            "5, 5",
            "5, 6",
            "5,",
            "5 5",
            "5;",
            "٥",
            "9223372036854775808",
            "18446744073709551617",
            "00000000000000000005",
        ];
        for value in refused {
            assert_eq!(length(value), Err(HeadFault::LengthInvalid), "{value:?}");
        }
    }

    #[test]
    fn two_lengths_are_refused_even_when_they_agree() {
        for second in ["5", "6"] {
            let lines = [("Content-Length", "5"), ("content-length", second)];
            assert_eq!(request(Version::Http11, &lines), Err(HeadFault::LengthRepeated));
        }
        let lines = [("Content-Length", "6"), ("Transfer-Encoding", "chunked")];
        assert_eq!(request(Version::Http11, &lines), Err(HeadFault::LengthConflict));
        assert_eq!(request(Version::Http10, &lines), Err(HeadFault::LengthConflict));
    }

    #[test]
    fn only_chunked_alone_is_a_coding() {
        assert_eq!(coding("chunked"), Ok(Framing::Chunked));
        assert_eq!(coding("chunKed"), Ok(Framing::Chunked));
        for value in ["xchunked", "chunk", "identity", "chunked, identity", "gzip, chunked", "gzip"] {
            assert_eq!(coding(value), Err(HeadFault::TransferEncodingUnknown), "{value:?}");
            assert_eq!(HeadFault::TransferEncodingUnknown.status(), 501);
        }
        for value in [
            "",
            ",",
            ",chunked",
            "chunked,",
            "chunked, chunked",
            "\"chunked\"",
            "chunked;q=1",
            "\x0bchunked",
            "\x0cchunked",
            "chunked\x00",
            "chunked chunked",
        ] {
            assert_eq!(coding(value), Err(HeadFault::TransferEncodingInvalid), "{value:?}");
        }
        let twice = [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")];
        assert_eq!(request(Version::Http11, &twice), Err(HeadFault::TransferEncodingInvalid));
        let old = [("Transfer-Encoding", "chunked")];
        assert_eq!(request(Version::Http10, &old), Err(HeadFault::TransferEncodingTooNew));
    }

    #[test]
    fn there_is_one_host() {
        let check = |version, lines: &[(&str, &str)], expect| {
            let line = RequestLine { version, ..RequestLine::default() };
            assert_eq!(of_request(&line, &list(lines)), expect);
        };
        check(Version::Http11, &[("host", "a")], Ok(Framing::None));
        check(Version::Http11, &[], Err(HeadFault::HostMissing));
        check(Version::Http10, &[], Ok(Framing::None));
        for version in [Version::Http10, Version::Http11] {
            check(version, &[("Host", "a"), ("Host", "a")], Err(HeadFault::HostRepeated));
            check(version, &[("Host", "a"), ("Host", "b")], Err(HeadFault::HostRepeated));
        }
    }

    #[test]
    fn the_body_of_a_response_depends_on_what_was_asked() {
        let check = |method, status, lines: &[(&str, &str)], expect| {
            let line = StatusLine { status, ..StatusLine::default() };
            assert_eq!(of_response(method, &line, &list(lines)), expect, "{method:?} {status} {lines:?}");
        };
        let (long, chunked) = (&[("Content-Length", "5")][..], &[("Transfer-Encoding", "chunked")][..]);
        check(Method::Get, 200, long, Ok(Framing::Length(5)));
        check(Method::Get, 200, chunked, Ok(Framing::Chunked));
        check(Method::Get, 200, &[], Ok(Framing::UntilClose));
        check(Method::Head, 200, long, Ok(Framing::None));
        check(Method::Head, 200, chunked, Ok(Framing::None));
        for status in [100, 101, 103, 204, 304] {
            check(Method::Get, status, long, Ok(Framing::None));
        }
        check(Method::Get, 205, &[], Ok(Framing::UntilClose));
        check(Method::Connect, 200, long, Ok(Framing::None));
        check(Method::Connect, 400, long, Ok(Framing::Length(5)));
        for method in [Method::Get, Method::Head] {
            check(method, 200, &[long, chunked].concat(), Err(HeadFault::LengthConflict));
            check(method, 200, &[long, long].concat(), Err(HeadFault::LengthRepeated));
            check(method, 200, &[("Content-Length", "+5")], Err(HeadFault::LengthInvalid));
            check(method, 200, &[("Transfer-Encoding", "x")], Err(HeadFault::TransferEncodingUnknown));
        }
    }

    #[test]
    fn connections_live_on_by_version_and_word() {
        let check = |version, value: &str, expect| {
            assert_eq!(
                keeps_alive(version, &list(&[("Connection", value)])),
                expect,
                "{version:?} {value:?}"
            );
        };
        assert!(keeps_alive(Version::Http11, &list(&[])));
        assert!(!keeps_alive(Version::Http10, &list(&[])));
        check(Version::Http11, "x, Close", false);
        check(Version::Http11, "closed", true);
        check(Version::Http11, "keep-alive", true);
        check(Version::Http10, "Keep-Alive", true);
        check(Version::Http10, "keep-alive, close", false);
        assert!(!keeps_alive(Version::Http11, &list(&[("Connection", "x"), ("Connection", "close")])));
    }

    #[test]
    fn names_listed_in_connection_are_found_in_every_line() {
        let headers = list(&[("Connection", "close,, X-A "), ("connection", "te")]);
        assert_eq!(connection_names(&headers).collect::<Vec<_>>(), [b"close".as_slice(), b"X-A", b"te"]);
        assert!(connection_lists(&headers, b"x-a") && connection_lists(&headers, b"TE"));
        assert!(!connection_lists(&headers, b"x") && !connection_lists(&headers, b""));
    }

    #[test]
    fn nothing_but_continue_is_expected() {
        let check = |value: &str, expect| {
            assert_eq!(expects_continue(&list(&[("Expect", value)])), expect, "{value:?}");
        };
        assert_eq!(expects_continue(&list(&[])), Ok(false));
        check("100-continue", Ok(true));
        check("100-Continue", Ok(true));
        for refused in ["x 100-continue", "100-continue, x", "100", "", "y"] {
            check(refused, Err(HeadFault::ExpectationUnknown));
        }
        assert_eq!(HeadFault::ExpectationUnknown.status(), 417);
    }

    #[test]
    fn an_upgrade_takes_both_headers() {
        let check = |lines: &[(&str, &str)], expect| assert_eq!(upgrade(&list(lines)), expect, "{lines:?}");
        check(&[("Connection", "keep-alive, Upgrade"), ("Upgrade", "WebSocket")], Some(Upgrade::WebSocket));
        check(&[("Upgrade", "websocket")], None);
        check(&[("Connection", "upgrade")], None);
        for other in ["h2c", "websocket, h2c", "websocket/13", ""] {
            check(&[("Connection", "upgrade"), ("Upgrade", other)], Some(Upgrade::Other));
        }
        let two = [("Connection", "upgrade"), ("Upgrade", "websocket"), ("Upgrade", "h2c")];
        check(&two, Some(Upgrade::Other));
    }
}

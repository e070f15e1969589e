//! Targets, paths and hosts: each accepted form beside its refused neighbours.

use super::*;
use crate::base::rng::Rng;

const PLAIN: UriOptions =
    UriOptions { merge_slashes: true, keep_encoded_slash: false, delete_tail_slash: false, servlet: false };

/// Both forms, as text in which bytes beyond ASCII stand as `\xNN`.
fn forms(path: &[u8], options: &UriOptions) -> Result<(String, String), UriFault> {
    let (mut decoded, mut wire) = (b"left over".to_vec(), b"left over".to_vec());
    normalise(path, options, &mut decoded, &mut wire)?;
    Ok((text(&decoded), text(&wire)))
}

fn text(bytes: &[u8]) -> String {
    let shown =
        |byte: &u8| if byte.is_ascii() { char::from(*byte).to_string() } else { format!("\\x{byte:02x}") };
    bytes.iter().map(shown).collect()
}

fn check(path: &str, options: UriOptions, decoded: &str, wire: &str) {
    assert_eq!(forms(path.as_bytes(), &options), Ok((decoded.to_owned(), wire.to_owned())), "{path:?}");
}

fn refused(path: &str, options: UriOptions, fault: UriFault) {
    assert_eq!(forms(path.as_bytes(), &options), Err(fault), "{path:?}");
}

#[test]
fn a_path_in_normal_form_stays_as_it_is() {
    for path in
        ["/", "/a", "/a/", "/a.b/c..d/e.", "/a;b=c,d/(e)*'!$&+:@~_-", "/.well-known/x", "/...", "/..a/b"]
    {
        check(path, PLAIN, path, path);
    }
}

#[test]
fn only_unreserved_bytes_are_decoded_on_the_wire() {
    check("/%61dmin", PLAIN, "/admin", "/admin");
    check("/%7euser/%41%2d%5f", PLAIN, "/~user/A-_", "/~user/A-_");
    check("/a%20b%3bc%3Fd%23", PLAIN, "/a b;c?d#", "/a%20b%3Bc%3Fd%23");
    check("/%c3%a4", PLAIN, "/\\xc3\\xa4", "/%C3%A4");
    check("/ä", PLAIN, "/\\xc3\\xa4", "/%C3%A4");
    check("/{a}|\"<>^`[]", PLAIN, "/{a}|\"<>^`[]", "/%7Ba%7D%7C%22%3C%3E%5E%60%5B%5D");
    // Decoded once, never twice.
    check("/public/%252e%252e/admin", PLAIN, "/public/%2e%2e/admin", "/public/%252e%252e/admin");
    check("/%25", PLAIN, "/%", "/%25");
}

#[test]
fn dot_segments_are_resolved_however_written() {
    for path in
        ["/public/../admin", "/public/%2e%2e/admin", "/public/.%2E/admin", "/./admin", "/a/b/../../admin"]
    {
        check(path, PLAIN, "/admin", "/admin");
    }
    check("/admin/.", PLAIN, "/admin/", "/admin/");
    check("/admin/x/..", PLAIN, "/admin/", "/admin/");
    check("/%41%20b/../c", PLAIN, "/c", "/c");
    check("/c/%20/./d%20/../e", PLAIN, "/c/ /e", "/c/%20/e");
    check("/a/..", PLAIN, "/", "/");
    for path in ["/..", "/../a", "/a/../..", "/a//../../b", "/%2e%2e/", "/./.."] {
        refused(path, PLAIN, UriFault::AboveRoot);
    }
}

#[test]
fn slashes_are_merged_unless_told_otherwise() {
    check("//admin", PLAIN, "/admin", "/admin");
    check("/admin//x///", PLAIN, "/admin/x/", "/admin/x/");
    check("/a//../b", PLAIN, "/b", "/b");
    let kept = UriOptions { merge_slashes: false, ..PLAIN };
    check("//admin", kept, "//admin", "//admin");
    check("/a//../b", kept, "/a/b", "/a/b");
    check("/a//", kept, "/a//", "/a//");
    refused("//../..", kept, UriFault::AboveRoot);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for path in ["/public/..%2fadmin", "/admin%2f", "/admin%2F", "/a%2Fb"] {
        refused(path, PLAIN, UriFault::EncodedSlash);
    }
    for path in [
        "/a%5cb",
        "/a%5Cb",
        "/public\\..\\admin",
        "/admin%00",
        "/admin%0a",
        "/admin%0D",
        "/a%1f",
        "/a%7f",
        "/a\0",
        "/a\x1f",
        "/a\x7f",
        "/a b",
        "/a\tb",
        "/admin#x",
        "/a?b",
    ] {
        refused(path, PLAIN, UriFault::BadByte);
    }
    for path in ["/%u0061dmin", "/%", "/%4", "/%4g", "/%g4", "/% 41", "/a%/b", "/%+1"] {
        refused(path, PLAIN, UriFault::BadPercent);
    }
    for path in ["/public/..;/admin", "/a/.;x/b", "/a/..;a=b", "/a/%2e%2e;/b", "/a/..%3B/b"] {
        refused(path, PLAIN, UriFault::HiddenDots);
    }
    for path in ["", "a", "*", "http://a/"] {
        refused(path, PLAIN, UriFault::BadForm);
    }
    check("/admin;a=b/..a;/b", PLAIN, "/admin;a=b/..a;/b", "/admin;a=b/..a;/b");
}

#[test]
fn overlong_forms_of_what_matters_are_refused_and_other_encodings_pass() {
    for path in [
        "/%c0%afadmin",
        "/%c0%ae%c0%ae/a",
        "/%e0%80%af",
        "/%e0%80%ae",
        "/%e0%81%9c",
        "/%f0%80%80%af",
        "/%f8%80%80%80%ae",
        "/%fc%80%80%80%80%af",
        "/%c1%9c",
        "/%c0%80",
        "/%c0%9f",
        "/%c1%bf",
        "/%c0.",
        "/a%c0%2e",
    ] {
        refused(path, PLAIN, UriFault::OverlongUtf8);
    }
    assert_eq!(forms(b"/\xc0\xaf", &PLAIN), Err(UriFault::OverlongUtf8));
    // GBK, Latin-1, a lone continuation, a cut sequence, full-width forms.
    check("/%c0%b4", PLAIN, "/\\xc0\\xb4", "/%C0%B4");
    check("/%e9t%e9", PLAIN, "/\\xe9t\\xe9", "/%E9t%E9");
    check("/%af%c0", PLAIN, "/\\xaf\\xc0", "/%AF%C0");
    check("/%ef%bc%8f", PLAIN, "/\\xef\\xbc\\x8f", "/%EF%BC%8F");
}

#[test]
fn an_encoded_slash_is_kept_as_such_by_option() {
    let kept = UriOptions { keep_encoded_slash: true, ..PLAIN };
    check("/a%2fb/c", kept, "/a%2Fb/c", "/a%2Fb/c");
    check("/a%2fb/../c", kept, "/c", "/c");
    for path in ["/public/..%2fadmin", "/a/x%2f..", "/a/x%2f..;p%2fy", "/a/%2e%2f", "/%2f.%2f"] {
        refused(path, kept, UriFault::HiddenDots);
    }
    refused("/a%5cb", kept, UriFault::BadByte);
}

#[test]
fn options_for_matching_leave_the_wire_alone() {
    let tail = UriOptions { delete_tail_slash: true, ..PLAIN };
    check("/a/", tail, "/a", "/a/");
    check("/a/%2e", tail, "/a", "/a/");
    check("/", tail, "/", "/");
    let servlet = UriOptions { servlet: true, ..PLAIN };
    check("/a;x=1/b;y", servlet, "/a/b", "/a;x=1/b;y");
    check("/a;x/../b", servlet, "/b", "/b");
    check("/a/;x", servlet, "/a/", "/a/;x");
    check("/a;", servlet, "/a", "/a;");
    refused("/;x/admin", servlet, UriFault::EmptySegment);
    refused("/a/..;x/admin", servlet, UriFault::HiddenDots);
}

#[test]
fn random_paths_come_out_clean_and_stay_as_they_are() {
    const PIECES: [&str; 26] = [
        "/", "/", "/", ".", "..", "a", "B", ";", "%2e", "%2E", "%2f", "%5c", "%25", "%61", "%20", "%c0",
        "%af", "%00", "%", "\\", "ä", "//", "/../", "/./", "~", "|",
    ];
    for seed in 0..20_000 {
        let mut rng = Rng::seeded(seed);
        let mut path = String::from("/");
        for _ in 0..rng.below(12) {
            path.push_str(PIECES[rng.below(PIECES.len() as u64) as usize]);
        }
        let options = UriOptions {
            merge_slashes: rng.below(4) > 0,
            keep_encoded_slash: rng.below(3) == 0,
            delete_tail_slash: rng.below(4) == 0,
            servlet: rng.below(4) == 0,
        };
        let (mut decoded, mut wire) = (Vec::new(), Vec::new());
        if normalise(path.as_bytes(), &options, &mut decoded, &mut wire).is_err() {
            continue;
        }
        let say = || format!("seed {seed}, {path:?}, {options:?}");
        for form in [&decoded, &wire] {
            assert_eq!(form.first(), Some(&b'/'), "{}", say());
            let dots = form.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..");
            assert!(!dots, "{}", say());
            let merged = !options.merge_slashes || memchr::memmem::find(form, b"//").is_none();
            assert!(merged || options.servlet, "{}", say());
        }
        assert!(wire.iter().all(|byte| *byte == b'%' || AS_IT_IS[usize::from(*byte)]), "{}", say());
        let again = forms(&wire, &options);
        assert_eq!(again, Ok((text(&decoded), text(&wire))), "{}", say());
    }
}

#[test]
fn each_form_of_target_has_its_methods() {
    let origin = |path: &'static str, query: Option<&'static str>| {
        Ok(Target::Origin { path: path.as_bytes(), query: query.map(str::as_bytes) })
    };
    let check =
        |target: &str, method, expect| assert_eq!(split(target.as_bytes(), method), expect, "{target:?}");
    check("/a?b=c?d", Method::Get, origin("/a", Some("b=c?d")));
    check("/admin?", Method::Get, origin("/admin", Some("")));
    check("/a", Method::Options, origin("/a", None));
    check("//evil/a", Method::Get, origin("//evil/a", None));
    check("*", Method::Options, Ok(Target::Asterisk));
    check("*", Method::Get, Err(UriFault::BadForm));
    check("a:80", Method::Connect, Ok(Target::Authority));
    check("a", Method::Connect, Err(UriFault::BadPort));
    check("/", Method::Connect, Err(UriFault::BadHost));
    check("http://a:80/", Method::Connect, Err(UriFault::BadPort));
    for form in ["", "a", "a:80", "admin/x", "?a", "http:/a", "http:a"] {
        check(form, Method::Get, Err(UriFault::BadForm));
    }
    for byte in ["/a#b", "/a?b#c", "/a b", "/a?\tb", "/\0", "/\x7f", "http://a/#"] {
        check(byte, Method::Get, Err(UriFault::BadByte));
    }
}

#[test]
fn the_absolute_form_is_taken_apart() {
    let check = |target: &str, scheme, authority: &str, path: &str, query: Option<&str>| {
        let (authority, path, query) = (authority.as_bytes(), path.as_bytes(), query.map(str::as_bytes));
        let expect = Target::Absolute { scheme, authority, path, query };
        assert_eq!(split(target.as_bytes(), Method::Get), Ok(expect), "{target:?}");
    };
    check("http://evil/", Scheme::Http, "evil", "/", None);
    check("HTTPS://A.b:8443/c?d", Scheme::Https, "A.b:8443", "/c", Some("d"));
    check("http://a", Scheme::Http, "a", "/", None);
    check("http://a?b/c", Scheme::Http, "a", "/", Some("b/c"));
    check("http://[::1]:80//x", Scheme::Http, "[::1]:80", "//x", None);
    let refused =
        |target: &str, fault| assert_eq!(split(target.as_bytes(), Method::Get), Err(fault), "{target:?}");
    refused("http://good:80@evil/", UriFault::BadPort);
    refused("http://good@evil/", UriFault::BadHost);
    refused("http:///a", UriFault::BadHost);
    refused("http://a\\b/", UriFault::BadHost);
    refused("ftp://a/", UriFault::BadScheme);
    refused("://a/", UriFault::BadScheme);
}

#[test]
fn hosts_are_made_alike_or_refused() {
    let check = |raw: &str, host: &str, port: Option<u16>| {
        let mut out = String::from("left over");
        assert_eq!(authority(raw.as_bytes(), &mut out), Ok(port), "{raw:?}");
        assert_eq!(out, host, "{raw:?}");
    };
    check("a", "a", None);
    check("A.EXAMPLE.", "a.example", None);
    check("a.example.:8080", "a.example", Some(8080));
    check("a:1", "a", Some(1));
    check("a:65535", "a", Some(65535));
    check("my_service-1:80", "my_service-1", Some(80));
    check("xn--mnchen-3ya.de", "xn--mnchen-3ya.de", None);
    check("127.0.0.1:9080", "127.0.0.1", Some(9080));
    check("[::1]", "[::1]", None);
    check("[FE80::A]:443", "[fe80::a]", Some(443));
    check("1a.2b", "1a.2b", None);
    check("0xyz", "0xyz", None);

    let long_label = "a".repeat(64);
    let long = ["a".repeat(50).as_str(); 6].join(".");
    for raw in [
        "",
        ".",
        "a..",
        "a..b",
        ".a",
        "a, b",
        "a/b",
        "a@b",
        "a b",
        " a",
        "a\t",
        "[::1",
        "[::1]x",
        "[]",
        "[1.2.3.4]",
        "[fe80::1%25eth0]",
        "[::g]",
        "::1",
        "münchen.de",
        "a\0",
        "a%62",
        "*",
        "*.a",
        "127.1",
        "0177.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "1.2.3.256",
        "1.2.3.4.5",
        "a.1",
        ":80",
        "a;b",
        "a,b",
        "a\\b",
        "a#b",
        &long_label,
        &long,
    ] {
        assert_eq!(authority(raw.as_bytes(), &mut String::new()), Err(UriFault::BadHost), "{raw:?}");
    }
    for raw in [
        "a:", "a:0", "a:00", "a:080", "a:65536", "a:99999", "a:100000", "a:+1", "a:1 ", "a:b", "a:1:2",
        "[::1]:",
    ] {
        assert_eq!(authority(raw.as_bytes(), &mut String::new()), Err(UriFault::BadPort), "{raw:?}");
    }
}

#[test]
fn authorities_agree_but_for_case_dot_and_default_port() {
    let check = |one: &str, other: &str, scheme, expect| {
        assert_eq!(same_authority(one.as_bytes(), other.as_bytes(), scheme), expect, "{one:?} {other:?}");
    };
    check("good", "GOOD.", Scheme::Http, true);
    check("good:80", "good", Scheme::Http, true);
    check("good", "good:443", Scheme::Https, true);
    check("good:80", "good", Scheme::Https, false);
    check("evil", "good", Scheme::Http, false);
    check("good:81", "good:82", Scheme::Http, false);
    check("a@b", "a@b", Scheme::Http, false);
    check("", "", Scheme::Http, false);
}

#[test]
fn random_bytes_are_never_more_than_refused() {
    for seed in 0..20_000 {
        let mut rng = Rng::seeded(seed);
        let mut bytes: Vec<u8> = (0..rng.below(40)).map(|_| rng.next_u64() as u8).collect();
        let prefix = ["", "/", "http://", "[", "/%", "/x"][rng.below(6) as usize];
        bytes.splice(0..0, prefix.bytes());
        let keep_encoded_slash = rng.below(2) == 0;
        let _ =
            normalise(&bytes, &UriOptions { keep_encoded_slash, ..PLAIN }, &mut Vec::new(), &mut Vec::new());
        let _ = split(&bytes, Method::Get);
        let _ = split(&bytes, Method::Connect);
        let _ = authority(&bytes, &mut String::new());
        let _ = hides_ascii(&bytes);
    }
}

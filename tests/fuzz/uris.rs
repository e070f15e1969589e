//! Request targets and authorities.

use ringway::base::rng::Rng;
use ringway::proto::head::Method;
use ringway::proto::uri::{self, Scheme, Target, UriFault, UriOptions};

use super::campaign;

const TARGETS: &[&[u8]] = &[
    b"/",
    b"/a/b/c",
    b"/a/./b/../c/",
    b"/%7Euser/%41%2d?x=%20&y=/../",
    b"//a///b",
    b"/a;v=1/b;p=2/..;/c",
    b"http://a.test:80/p?q",
    b"HTTPS://[::1]:443/",
    b"*",
    b"a.test:443",
    b"/caf%C3%A9/\xc3\xa9",
    b"/a%2Fb/%2e%2E/c",
    b"/.../..a/a../.b",
    b"http://a.test",
];

const TARGET_WORDS: &[&[u8]] = &[
    b"/../",
    b"/./",
    b"/..",
    b"..",
    b".",
    b"/",
    b"//",
    b"%2e",
    b"%2E",
    b"%2f",
    b"%5c",
    b"%25",
    b"%252e",
    b"%00",
    b"%",
    b"%z",
    b"%c0%af",
    b"%c0%ae",
    b"%e0%80%af",
    b"%ff",
    b";",
    b";a=b",
    b"..;",
    b"\\",
    b"?",
    b"#",
    b" ",
    b"\0",
    b"\xff",
    b"://",
    b"%20",
    b"%3b",
    b"%3F",
    b"%7f",
    b"%0d%0a",
    b"+",
];

const AUTHORITIES: &[&[u8]] = &[
    b"example.test",
    b"Example.TEST.:8080",
    b"127.0.0.1:80",
    b"[::1]",
    b"[2001:DB8::1]:443",
    b"a-b_c.d:1",
    b"xn--p1ai",
];

const AUTHORITY_WORDS: &[&[u8]] = &[
    b":", b".", b"..", b"[", b"]", b"::", b"@", b"%", b"%41", b"-", b"_", b"0x7f", b"127.1", b"65535",
    b"65536", b"00", b" ", b"/", b"\0", b"\xff", b"a",
];

fn options(rng: &mut Rng) -> UriOptions {
    let mut flag = || rng.below(2) == 0;
    UriOptions {
        merge_slashes: flag(),
        keep_encoded_slash: flag(),
        delete_tail_slash: flag(),
        servlet: flag(),
    }
}

fn forms(path: &[u8], options: &UriOptions) -> Result<(Vec<u8>, Vec<u8>), UriFault> {
    // What was in the buffers must not show.
    let (mut decoded, mut wire) = (b"/../old".to_vec(), b"/../old".to_vec());
    uri::normalise(path, options, &mut decoded, &mut wire).map(|()| (decoded, wire))
}

fn has(path: &[u8], part: &[u8]) -> bool {
    path.windows(part.len()).any(|window| window == part)
}

/// What must hold of both forms of an accepted path.
fn check_path(path: &[u8], options: &UriOptions) {
    let Ok((decoded, wire)) = forms(path, options) else { return };
    for form in [&decoded, &wire] {
        assert_eq!(form.first(), Some(&b'/'), "{}", form.escape_ascii());
        for part in [&b"/../"[..], b"/./"] {
            assert!(!has(form, part), "{}", form.escape_ascii());
        }
        assert!(!form.ends_with(b"/..") && !form.ends_with(b"/."), "{}", form.escape_ascii());
        assert!(!options.merge_slashes || !has(form, b"//"), "{}", form.escape_ascii());
        assert!(!form.iter().any(|byte| matches!(byte, 0..=0x1f | 0x7f)), "{}", form.escape_ascii());
    }
    assert!(
        wire.iter().all(|byte| matches!(byte, b'!'..=b'~') && !b"?#\\".contains(byte)),
        "{}",
        wire.escape_ascii()
    );
    let (decoded_again, wire_again) = forms(&wire, options).unwrap_or_else(|fault| {
        panic!("{fault:?} of {}, which came of an accepted path", wire.escape_ascii())
    });
    assert_eq!((decoded_again, wire_again), (decoded, wire));
}

#[test]
fn targets() {
    let methods = [Method::Get, Method::Options, Method::Connect, Method::Post];
    campaign(TARGETS, TARGET_WORDS, |bytes, rng| {
        let options = options(rng);
        check_path(bytes, &options);
        match uri::split(bytes, methods[rng.below(4) as usize]) {
            Ok(Target::Origin { path, query } | Target::Absolute { path, query, .. }) => {
                assert!(!path.contains(&b'?'));
                assert!(query.is_none_or(|query| !query.contains(&b'#')));
                check_path(path, &options);
            }
            Ok(Target::Asterisk | Target::Authority) | Err(_) => {}
        }
    });
}

#[test]
fn authorities() {
    campaign(AUTHORITIES, AUTHORITY_WORDS, |bytes, _| {
        let mut host = "old".to_owned();
        let Ok(port) = uri::authority(bytes, &mut host) else {
            assert!(!uri::same_authority(bytes, bytes, Scheme::Http));
            return;
        };
        assert!(!host.is_empty() && !host.ends_with('.'), "{host:?}");
        assert!(host.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()), "{host:?}");
        assert!(!host.contains(['/', '@', '?', '#', '\\', '%']), "{host:?}");
        let plain = port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let mut again = String::new();
        assert_eq!(uri::authority(plain.as_bytes(), &mut again), Ok(port), "{plain}");
        assert_eq!(again, host);
        for scheme in [Scheme::Http, Scheme::Https] {
            assert!(uri::same_authority(bytes, plain.as_bytes(), scheme), "{plain}");
        }
    });
}

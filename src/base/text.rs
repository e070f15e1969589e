//! ASCII text as bytes: what several wire formats and matchers want. Allocates only where an `out` is given.

/// Whether a byte may stand in a token (RFC 9110 5.6.2): names of headers, methods, codings.
pub const fn is_tchar(byte: u8) -> bool {
    TCHAR[byte as usize]
}

/// Whether all of it is one token; an empty one is not.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_tchar(*byte))
}

/// Whether a byte may stand in the value of a header: anything but controls, of which HTAB is allowed.
pub const fn is_field_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | b' '..=0x7e | 0x80..)
}

const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        table[at] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        at += 1;
    }
    table
};

/// Without spaces and tabs at both ends (RFC 9110 5.6.3: OWS).
pub const fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The elements between commas, trimmed, empty ones left out (RFC 9110 5.6.1). Knows no quoted strings: for
/// lists of tokens only.
pub fn comma_list(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b',').map(trim_ows).filter(|element| !element.is_empty())
}

/// A whole number written in digits alone: no sign, no space, no more than `u64::MAX`.
pub fn parse_u64(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() {
        return None;
    }
    bytes.iter().try_fold(0u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let both = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(both).collect()
}

/// The value of a hexadecimal digit in any case.
pub const fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// The byte that `%XY` at the front of `bytes` stands for; `None` when there is no whole triple.
pub fn percent_triple(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = bytes else { return None };
    Some(hex_value(*high)? << 4 | hex_value(*low)?)
}

/// Appends `byte` as `%XY` in upper case.
pub fn push_percent(out: &mut Vec<u8>, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Appends `bytes` to `out` with each whole triple decoded; a stray `%` stays as it is. For queries and
/// cookies, where leniency is the custom; paths have their own strict way.
pub fn percent_decode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (byte, taken) = percent_triple(rest).map_or((b'%', 1), |byte| (byte, 3));
        out.push(byte);
        rest = &rest[taken..];
    }
    out.extend_from_slice(rest);
}

/// Appends a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
pub fn write_json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    write_json_inside(out, text);
    out.push(b'"');
}

/// [`write_json_string`] without the quotes.
pub fn write_json_inside(out: &mut Vec<u8>, text: &[u8]) {
    if is_plain_json(text) {
        return out.extend_from_slice(text);
    }
    match std::str::from_utf8(text) {
        Ok(valid) => write_json_text(out, valid),
        Err(_) => write_json_text(out, &String::from_utf8_lossy(text)),
    }
}

/// Whether a text is ASCII that stands for itself in a JSON string, as nearly all are. Eight bytes at a time; the last
/// ones overlap those before.
pub fn is_plain_json(text: &[u8]) -> bool {
    let word = |bytes: &[u8; 8]| special_in_json(u64::from_le_bytes(*bytes));
    let found = match (text.first_chunk::<8>(), text.last_chunk()) {
        (Some(_), Some(last)) => {
            let (words, _) = text.as_chunks();
            words.iter().fold(word(last), |found, bytes| found | word(bytes))
        }
        _ => {
            // In a register: bytes that are written one by one can not be read together at once.
            let spaces = u64::from_ne_bytes([b' '; 8]);
            special_in_json(text.iter().fold(spaces, |few, byte| few << 8 | u64::from(*byte)))
        }
    };
    found == 0
}

/// Whether any of eight bytes has to be escaped, or is not ASCII: not zero then.
const fn special_in_json(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // The highest bit of a byte of the difference is set where that is less; beyond one that is, others may be, too.
    const fn below(word: u64, least: u8) -> u64 {
        word.wrapping_sub(ONES * least as u64) & !word
    }
    const fn is(word: u64, byte: u8) -> u64 {
        below(word ^ (ONES * byte as u64), 1)
    }
    (word | below(word, 0x20) | is(word, b'"') | is(word, b'\\') | is(word, 0x7f)) & HIGH
}

fn write_json_text(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut clean_from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f | 0x7f => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[clean_from..at]);
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            out.extend_from_slice(&[b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        clean_from = at + 1;
    }
    out.extend_from_slice(&bytes[clean_from..]);
}

/// Appends a decoded path as nginx writes it into a request line: controls, spaces, `#`, `%`, `?` and bytes beyond
/// ASCII coded, so that reading it again gives the same path.
pub fn escape_path(path: &[u8], out: &mut Vec<u8>) {
    escape(path, out, |byte| matches!(byte, b'#' | b'%' | b'?'));
}

/// Appends a reference (RFC 3986 4.1) with what none may contain coded: controls, spaces, quotes, backslashes,
/// bytes beyond ASCII. What is coded already stays.
pub fn escape_reference(reference: &[u8], out: &mut Vec<u8>) {
    escape(reference, out, |byte| {
        matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    });
}

fn escape(bytes: &[u8], out: &mut Vec<u8>, also: impl Fn(u8) -> bool) {
    for byte in bytes {
        if matches!(byte, b'!'..=b'~') && !also(*byte) {
            out.push(*byte);
        } else {
            push_percent(out, *byte);
        }
    }
}

/// The bytes of a form-encoded text (`+` is a space, `%XX` a byte; a broken triple stands for itself).
fn form_bytes(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *text.get(at)?;
        at += 1;
        if byte == b'+' {
            return Some(b' ');
        }
        if byte == b'%'
            && let (Some(high), Some(low)) =
                (text.get(at).and_then(|b| hex_value(*b)), text.get(at + 1).and_then(|b| hex_value(*b)))
        {
            at += 2;
            return Some(high << 4 | low);
        }
        Some(byte)
    })
}

/// Appends the decoded form of a form-encoded text.
pub fn form_decode(text: &[u8], out: &mut Vec<u8>) {
    out.extend(form_bytes(text));
}

/// Whether a form-encoded text decodes to `plain`.
pub fn form_decoded_eq(text: &[u8], plain: &[u8]) -> bool {
    form_bytes(text).eq(plain.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_trimmed_at_both_ends_and_nowhere_else() {
        assert_eq!(trim_ows(b" \t a b\t "), b"a b");
        assert_eq!(trim_ows(b" \t "), b"");
        assert_eq!(trim_ows(b"\x0ba"), b"\x0ba");
    }

    #[test]
    fn a_list_yields_its_elements_without_the_empty_ones() {
        let elements: Vec<_> = comma_list(b", a ,b,,c d\t,").collect();
        assert_eq!(elements, [b"a".as_slice(), b"b", b"c d"]);
        assert_eq!(comma_list(b" , ").count(), 0);
    }

    #[test]
    fn a_number_is_digits_and_nothing_else() {
        let check = |text: &str, expect| assert_eq!(parse_u64(text.as_bytes()), expect, "{text:?}");
        check("0", Some(0));
        check("05", Some(5));
        check("18446744073709551615", Some(u64::MAX));
        for refused in
            ["", " ", "+5", "-0", "0x5", "5_0", "5e0", "5.0", " 5", "5 ", "٥", "18446744073709551616"]
        {
            check(refused, None);
        }
    }

    #[test]
    fn triples_are_decoded_and_strays_kept() {
        let check = |text: &str, expect: &str| {
            let mut out = Vec::new();
            percent_decode(text.as_bytes(), &mut out);
            assert_eq!(out, expect.as_bytes(), "{text:?}");
        };
        check("a%20b%2fc", "a b/c");
        check("%", "%");
        check("100%%41", "100%A");
        check("%4", "%4");
        check("%zz%C3%A4", "%zzä");
    }

    #[test]
    fn a_token_has_no_delimiters() {
        assert!(is_token(b"x-A!#$%&'*+.^_`|~9"));
        for refused in [&b""[..], b"a b", b"a:", b"\"a\"", b"a/b", b"a\x7f", b"\xe4", b"a=b", b"a;b", b"a\\b"]
        {
            assert!(!is_token(refused), "{refused:?}");
        }
    }

    #[test]
    fn bytes_of_values_are_all_but_controls() {
        for byte in 0..=255u8 {
            assert_eq!(is_field_byte(byte), byte == b'\t' || (byte >= 0x20 && byte != 0x7f), "{byte:#x}");
        }
    }

    #[test]
    fn json_strings_are_escaped_and_never_broken() {
        let mut out = Vec::new();
        write_json_string(&mut out, b"a\"b\\c\n\x01\xffd");
        assert_eq!(String::from_utf8(out).expect("JSON is UTF-8"), "\"a\\\"b\\\\c\\n\\u0001\u{fffd}d\"");
    }

    #[test]
    fn what_is_special_is_seen_wherever_it_stands() {
        for (length, at) in (1..40).flat_map(|length| (0..length).map(move |at| (length, at))) {
            for byte in 0..=255u8 {
                let mut text = vec![b'~'; length];
                text[at] = byte;
                let is_plain = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
                assert_eq!(is_plain_json(&text), is_plain, "{byte:#x} at {at} of {length}");
            }
        }
        assert!(is_plain_json(b""));
    }

    #[test]
    fn every_byte_is_written_so_that_json_reads_it_back() {
        for byte in 0..=0x7f_u8 {
            let (text, mut out) = ([b'a', byte, b'z'], Vec::new());
            write_json_string(&mut out, &text);
            let read: String = serde_json::from_slice(&out).expect("a JSON string");
            assert_eq!(read.as_bytes(), text, "{byte:#x}");
        }
    }

    #[test]
    fn forms_decode_plus_and_triples_and_keep_broken_ones() {
        let mut out = Vec::new();
        form_decode(b"a+b%20c%4", &mut out);
        assert_eq!(out, b"a b c%4");
        assert!(form_decoded_eq(b"%6bey", b"key"));
        assert!(!form_decoded_eq(b"keys", b"key"));
    }

    #[test]
    fn what_would_end_or_change_a_uri_is_coded() {
        let check = |write: fn(&[u8], &mut Vec<u8>), text: &str, expect: &str| {
            let mut out = Vec::new();
            write(text.as_bytes(), &mut out);
            assert_eq!(out, expect.as_bytes(), "{text:?}");
        };
        check(escape_path, "/a b?#%\r\né", "/a%20b%3F%23%25%0D%0A%C3%A9");
        check(escape_path, "/a:b@c;d=e&f", "/a:b@c;d=e&f");
        check(escape_reference, "https://a/b%20c?d#e \r\n\\\"", "https://a/b%20c?d#e%20%0D%0A%5C%22");
    }
}

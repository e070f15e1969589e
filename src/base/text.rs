//! ASCII case, white space, percent coding, comma lists, JSON strings: text without an opinion.

/// Appends a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
pub fn write_json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    match std::str::from_utf8(text) {
        Ok(valid) => write_json_text(out, valid),
        Err(_) => write_json_text(out, &String::from_utf8_lossy(text)),
    }
    out.push(b'"');
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

const fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
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
                (text.get(at).and_then(|b| hex(*b)), text.get(at + 1).and_then(|b| hex(*b)))
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
    fn json_strings_are_escaped_and_never_broken() {
        let mut out = Vec::new();
        write_json_string(&mut out, b"a\"b\\c\n\x01\xffd");
        assert_eq!(String::from_utf8(out).expect("JSON is UTF-8"), "\"a\\\"b\\\\c\\n\\u0001\u{fffd}d\"");
    }

    #[test]
    fn forms_decode_plus_and_triples_and_keep_broken_ones() {
        let mut out = Vec::new();
        form_decode(b"a+b%20c%4", &mut out);
        assert_eq!(out, b"a b c%4");
        assert!(form_decoded_eq(b"%6bey", b"key"));
        assert!(!form_decoded_eq(b"keys", b"key"));
    }
}

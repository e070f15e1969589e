//! Fields of a form in several parts (RFC 7578), as far as rules ask for them.

use memchr::memmem;

/// Parts that are looked at.
const PARTS_MAX: usize = 100;
/// The longest boundary (RFC 2046 5.1.1).
const BOUNDARY_MAX: usize = 70;

/// The boundary that a `Content-Type` names, if it is of such a form.
pub(super) fn boundary_of(content_type: &[u8]) -> Option<&[u8]> {
    let mut parts = content_type.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_form = parts.next()?.eq_ignore_ascii_case(b"multipart/form-data");
    let boundary = parts.find_map(|part| parameter(part, b"boundary")).filter(|_| is_form)?;
    (1..=BOUNDARY_MAX).contains(&boundary.len()).then_some(boundary)
}

/// The content of the first part of that name.
pub(super) fn field<'a>(body: &'a [u8], boundary: &[u8], name: &[u8]) -> Option<&'a [u8]> {
    let delimiter = [b"--", boundary].concat();
    // A delimiter begins a line.
    let begins_line = |at: &usize| *at == 0 || body[..*at].ends_with(b"\r\n");
    let mut places = memmem::find_iter(body, &delimiter).filter(begins_line).take(PARTS_MAX + 1);
    let mut from = places.next()?;
    for to in places {
        let part = body.get(from + delimiter.len()..to)?.strip_prefix(b"\r\n")?;
        let end = memmem::find(part, b"\r\n\r\n")?;
        if part_name(&part[..end]) == Some(name) {
            return part[end + 4..].strip_suffix(b"\r\n");
        }
        from = to;
    }
    None
}

/// The name that the head of a part gives it.
fn part_name(head: &[u8]) -> Option<&[u8]> {
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let value = lines.find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(b"content-disposition").then(|| &line[colon + 1..])
    })?;
    value.split(|byte| *byte == b';').find_map(|part| parameter(part.trim_ascii(), b"name"))
}

/// The value of `name=value`, without quotes.
fn parameter<'a>(part: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let equals = memchr::memchr(b'=', part)?;
    let value = part[..equals].eq_ignore_ascii_case(name).then(|| &part[equals + 1..])?;
    match value.strip_prefix(b"\"") {
        Some(quoted) => quoted.strip_suffix(b"\""),
        None => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"--cut\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt --cut\r\n\
        --cut\r\ncontent-type: text/plain\r\ncontent-disposition: form-data; name=b; filename=\"x\"\r\n\r\n\r\n--cut--\r\n";

    #[test]
    fn a_field_is_the_first_part_of_its_name() {
        assert_eq!(field(BODY, b"cut", b"model"), Some(b"gpt --cut".as_slice()));
        assert_eq!(field(BODY, b"cut", b"b"), Some(b"".as_slice()));
        assert_eq!(field(BODY, b"cut", b"c"), None);
        assert_eq!(field(BODY, b"other", b"model"), None);
    }

    #[test]
    fn a_body_that_is_cut_anywhere_is_read_or_not_and_nothing_else() {
        for end in 0..BODY.len() {
            let found = field(&BODY[..end], b"cut", b"model");
            assert!(found.is_none_or(|found| found == b"gpt --cut"), "{end}");
        }
    }

    #[test]
    fn the_boundary_is_what_the_type_names() {
        for (value, boundary) in [
            ("multipart/form-data; boundary=cut", Some("cut")),
            ("Multipart/Form-Data; charset=x; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/mixed; boundary=cut", None),
            ("multipart/form-data; boundary=", None),
        ] {
            assert_eq!(boundary_of(value.as_bytes()), boundary.map(str::as_bytes), "{value}");
        }
    }
}

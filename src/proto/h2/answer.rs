//! An answer's head of HTTP/1, and what is behind its body, as a client of HTTP/2 is told them (RFC 9113 8.2 and 8.3.2).

use super::conversation::Fields;
use super::message::is_of_connection;
use crate::proto::head::{HeaderId, HeaderList};

/// Names as long as any that is usual; longer ones cost an allocation.
const NAME_BYTES: usize = 64;

/// To who asks for a WebSocket where there is none.
const NOT_IMPLEMENTED: u16 = 501;

/// Says a head. `websocket`: what agrees to one is a plain success (RFC 8441 5), so whatever else would be one must not look like
/// it: the client would take a page for frames.
pub fn head(fields: &mut Fields<'_>, status: u16, headers: &HeaderList, websocket: bool) {
    fields.status(match status {
        101 if websocket => 200,
        200..300 if websocket => NOT_IMPLEMENTED,
        status => status,
    });
    for (id, name, value) in headers.iter() {
        let is_answer = websocket && name.eq_ignore_ascii_case(b"sec-websocket-accept");
        if is_answer || is_of_connection(id, name, headers) {
            continue;
        }
        if id == HeaderId::Other {
            field(fields, name, value);
        } else {
            fields.field(id.text().as_bytes(), value);
        }
    }
}

/// Says what is behind a body.
pub fn trailers<'a>(fields: &mut Fields<'_>, lines: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    lines.for_each(|(name, value)| field(fields, name, value));
}

/// Says a field whose name may have capitals.
fn field(fields: &mut Fields<'_>, name: &[u8], value: &[u8]) {
    let mut room = [0; NAME_BYTES];
    if let Some(lower) = room.get_mut(..name.len()) {
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        fields.field(lower, value);
    } else {
        fields.field(&name.to_ascii_lowercase(), value);
    }
}

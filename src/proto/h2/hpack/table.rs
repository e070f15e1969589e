//! What a place in a block of headers stands for: fields that everybody knows (RFC 7541 appendix A), and those that were met on
//! the connection (2.3.2).

use std::collections::VecDeque;

/// Fields that everybody knows; the first has place 1.
#[rustfmt::skip]
static KNOWN: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// Number of fields that everybody knows.
pub(super) const KNOWN_COUNT: usize = KNOWN.len();

/// Bytes that a field counts besides its text (RFC 7541 4.1).
pub const FIELD_BYTES: usize = 32;

/// The known field at a place.
pub(super) fn known(place: usize) -> Option<(&'static [u8], &'static [u8])> {
    let (name, value) = KNOWN.get(place.checked_sub(1)?)?;
    Some((name.as_bytes(), value.as_bytes()))
}

/// The first place of a name that everybody knows; 0: nobody does.
pub(super) fn known_name(name: &[u8]) -> usize {
    match name {
        b"accept-charset" => 15,
        b"accept-encoding" => 16,
        b"accept-language" => 17,
        b"accept-ranges" => 18,
        b"accept" => 19,
        b"access-control-allow-origin" => 20,
        b"age" => 21,
        b"allow" => 22,
        b"authorization" => 23,
        b"cache-control" => 24,
        b"content-disposition" => 25,
        b"content-encoding" => 26,
        b"content-language" => 27,
        b"content-length" => 28,
        b"content-location" => 29,
        b"content-range" => 30,
        b"content-type" => 31,
        b"cookie" => 32,
        b"date" => 33,
        b"etag" => 34,
        b"expect" => 35,
        b"expires" => 36,
        b"from" => 37,
        b"host" => 38,
        b"if-match" => 39,
        b"if-modified-since" => 40,
        b"if-none-match" => 41,
        b"if-range" => 42,
        b"if-unmodified-since" => 43,
        b"last-modified" => 44,
        b"link" => 45,
        b"location" => 46,
        b"max-forwards" => 47,
        b"proxy-authenticate" => 48,
        b"proxy-authorization" => 49,
        b"range" => 50,
        b"referer" => 51,
        b"refresh" => 52,
        b"retry-after" => 53,
        b"server" => 54,
        b"set-cookie" => 55,
        b"strict-transport-security" => 56,
        b"transfer-encoding" => 57,
        b"user-agent" => 58,
        b"vary" => 59,
        b"via" => 60,
        b"www-authenticate" => 61,
        _ => 0,
    }
}

/// A field that was met: where its text is, and its hash, where somebody looks for it by that.
#[derive(Clone, Copy, Debug)]
struct Met {
    start: usize,
    name: u32,
    value: u32,
    hash: u64,
}

impl Met {
    const fn bytes(self) -> usize {
        (self.name + self.value) as usize
    }
}

/// Fields that were met, of so many bytes; the oldest are forgotten.
#[derive(Debug)]
pub struct Table {
    /// Their texts, one after the other, behind some that are forgotten.
    texts: Vec<u8>,
    met: VecDeque<Met>,
    /// As RFC 7541 4.1 counts them, and the most there may be.
    size: usize,
    max: usize,
}

impl Table {
    /// An empty one.
    pub(super) const fn new(max: usize) -> Self {
        Self { texts: Vec::new(), met: VecDeque::new(), size: 0, max }
    }

    /// Number of fields.
    pub(super) fn len(&self) -> usize {
        self.met.len()
    }

    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// Holds no more than so much from now on.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.make_room(0);
    }

    fn make_room(&mut self, bytes: usize) {
        while self.size + bytes > self.max
            && let Some(oldest) = self.met.pop_front()
        {
            self.size -= oldest.bytes() + FIELD_BYTES;
        }
        if self.met.is_empty() {
            self.texts.clear();
        }
    }

    /// Adds a field; one that is larger than all there may be only empties it (4.4).
    pub(super) fn add(&mut self, name: &[u8], value: &[u8], hash: u64) {
        let bytes = name.len() + value.len();
        self.make_room(bytes + FIELD_BYTES);
        if bytes + FIELD_BYTES > self.max {
            return;
        }
        if self.texts.len() + bytes > 2 * self.max {
            self.forget();
        }
        let start = self.texts.len();
        self.texts.extend_from_slice(name);
        self.texts.extend_from_slice(value);
        self.size += bytes + FIELD_BYTES;
        self.met.push_back(Met { start, name: name.len() as u32, value: value.len() as u32, hash });
    }

    /// Drops the texts of fields that are forgotten.
    fn forget(&mut self) {
        let first = self.met.front().map_or(self.texts.len(), |met| met.start);
        self.texts.drain(..first);
        self.met.iter_mut().for_each(|met| met.start -= first);
    }

    /// A field by its age: 0 is the youngest.
    pub(super) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let met = self.met.get(self.met.len().checked_sub(age + 1)?)?;
        let text = &self.texts[met.start..met.start + met.bytes()];
        Some(text.split_at(met.name as usize))
    }

    /// The age of a field.
    pub(super) fn find(&self, name: &[u8], value: &[u8], hash: u64) -> Option<usize> {
        let is_same = |met: &Met| {
            let text = &self.texts[met.start..met.start + met.bytes()];
            met.hash == hash && text.split_at(met.name as usize) == (name, value)
        };
        self.met.iter().rev().position(is_same)
    }
}

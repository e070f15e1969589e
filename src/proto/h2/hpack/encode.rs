//! Writes blocks of headers (RFC 7541 6).

use super::table::{KNOWN_COUNT, Table, known_name};
use super::{huffman, write_number};

/// Bytes of fields that we have a client remember, at most; it may have room for more.
const TABLE_BYTES_MAX: usize = 2048;
/// What a table holds unless somebody says otherwise (RFC 9113 6.5.2).
const TABLE_BYTES_DEFAULT: usize = 4096;
/// Fields that were said in full lately: one that is said again is worth remembering.
const LATELY: usize = 16;

/// What one side of a connection was told so far.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    lately: [u32; LATELY],
    at: u8,
    /// The most its table may hold, and the least it was to hold since it was last told of a change.
    allowed: usize,
    told: Option<usize>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            table: Table::new(TABLE_BYTES_MAX),
            lately: [0; LATELY],
            at: 0,
            allowed: TABLE_BYTES_DEFAULT,
            told: None,
        }
    }
}

/// Where fields are known by their hash, told from chosen ones by the table.
const HASHER: ahash::RandomState = ahash::RandomState::with_seeds(1, 2, 3, 4);

impl Encoder {
    /// The other side's table holds at most so much from now on; of more than usual no use is made.
    pub fn allow(&mut self, bytes: usize) {
        let bytes = bytes.min(TABLE_BYTES_DEFAULT);
        if bytes == self.allowed && self.told.is_none() {
            return;
        }
        let least = self.told.map_or(bytes, |least| least.min(bytes));
        self.told = Some(least);
        self.allowed = bytes;
        self.table.resize(least.min(TABLE_BYTES_MAX));
        self.table.resize(bytes.min(TABLE_BYTES_MAX));
    }

    /// Begins a block: tells what was changed of the table's size (4.2).
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some(least) = self.told.take() {
            if least < self.allowed {
                write_number(out, 0x20, 5, least);
            }
            write_number(out, 0x20, 5, self.allowed);
        }
    }

    /// Appends the status of an answer.
    pub fn status(&mut self, out: &mut Vec<u8>, status: u16) {
        let place = match status {
            200 => 8,
            204 => 9,
            206 => 10,
            304 => 11,
            400 => 12,
            404 => 13,
            500 => 14,
            _ => {
                out.extend_from_slice(&[0x08, 3]);
                return out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
            }
        };
        out.push(0x80 | place);
    }

    /// Appends a field; the name is in lower case.
    pub fn field(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let place = known_name(name);
        // Nobody on the way is to remember what may be a secret (7.1.3).
        if name == b"set-cookie" {
            return full(out, 0x10, 4, (place, name), value);
        }
        // A length is another each time.
        if name == b"content-length" {
            return full(out, 0, 4, (place, name), value);
        }
        let hash = HASHER.hash_one((name, value));
        if let Some(age) = self.table.find(name, value, hash) {
            return write_number(out, 0x80, 7, KNOWN_COUNT + 1 + age);
        }
        if self.is_again(hash as u32) && name.len() + value.len() <= self.table.max() / 4 {
            full(out, 0x40, 6, (place, name), value);
            self.table.add(name, value, hash);
        } else {
            full(out, 0, 4, (place, name), value);
        }
    }

    /// Whether it was said lately.
    fn is_again(&mut self, hash: u32) -> bool {
        if self.lately.contains(&hash) {
            return true;
        }
        self.lately[usize::from(self.at)] = hash;
        self.at = (self.at + 1) % LATELY as u8;
        false
    }

    /// Number of fields that the other side remembers of us.
    pub fn remembered(&self) -> usize {
        self.table.len()
    }
}

/// A field in full: its name by a place, unless that is 0.
fn full(out: &mut Vec<u8>, first: u8, bits: u32, (place, name): (usize, &[u8]), value: &[u8]) {
    write_number(out, first, bits, place);
    if place == 0 {
        text(out, name);
    }
    text(out, value);
}

/// Text, coded where that is shorter.
fn text(out: &mut Vec<u8>, text: &[u8]) {
    let coded = huffman::coded_len(text);
    if coded < text.len() {
        write_number(out, 0x80, 7, coded);
        huffman::encode(text, out);
    } else {
        write_number(out, 0, 7, text.len());
        out.extend_from_slice(text);
    }
}

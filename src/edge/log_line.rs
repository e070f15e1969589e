//! One line of the access log while it is written: JSON, in memory that stays in the processor's first cache.
//!
//! Most pieces are names that are known when this is compiled, and small numbers. So they are written by methods that are compiled where
//! they are asked for, into a slice, at a place that lies in a register: a piece is a comparison and a move or two.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::access_log::TEXT_BYTES;
use crate::base::address::Shown;
use crate::base::decimal::{ipv4, small, three_digits};
use crate::base::text::{is_plain_json, write_json_inside};

/// Room for a line at first, which most never need.
const ROOM_BYTES: usize = 4096;
/// Bytes of the longest piece of which some count: so many are always left behind a line.
const PIECE_BYTES: usize = 16;

/// A line, and where it has got to: beyond the room where that does not do.
#[derive(Debug)]
pub(super) struct Line {
    room: Vec<u8>,
    at: usize,
    /// What a text with escapes is written into.
    escaped: Vec<u8>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self { room: vec![0; ROOM_BYTES], at: 0, escaped: Vec::new() }
    }

    /// What `write` writes; again in more room where there was too little.
    pub(super) fn write(&mut self, mut write: impl FnMut(&mut Self)) -> &[u8] {
        self.at = 0;
        write(self);
        if self.at + PIECE_BYTES > self.room.len() {
            self.room.resize(self.at + PIECE_BYTES, 0);
            self.at = 0;
            write(self);
        }
        &self.room[..self.at]
    }

    #[inline(always)]
    pub(super) fn put(&mut self, piece: &[u8]) {
        if let Some(to) = self.room.get_mut(self.at..self.at + piece.len()) {
            to.copy_from_slice(piece);
        }
        self.at += piece.len();
    }

    /// The first `count` bytes of a piece.
    #[inline(always)]
    fn put_some<const LENGTH: usize>(&mut self, piece: &[u8; LENGTH], count: usize) {
        const { assert!(LENGTH <= PIECE_BYTES) };
        self.put(piece);
        self.at -= piece.len() - count;
    }

    #[inline(always)]
    pub(super) fn name(&mut self, name: &str) {
        self.put(name.as_bytes());
    }

    /// A text; left out when empty.
    #[inline(always)]
    pub(super) fn text(&mut self, name: &str, text: &[u8]) {
        if !text.is_empty() {
            self.name(name);
            self.inside(&text[..text.len().min(TEXT_BYTES)]);
            self.put(b"\"");
        }
    }

    /// A text that needs no escapes, as whoever made it has seen to: an id, the name of a consumer, a method, a word of
    /// ours; left out when empty.
    #[inline(always)]
    pub(super) fn word(&mut self, name: &str, word: &str) {
        debug_assert!(is_plain_json(word.as_bytes()), "{word:?} can not stand in a line of the log as it is");
        if !word.is_empty() {
            self.name(name);
            self.put(word.as_bytes());
            self.put(b"\"");
        }
    }

    fn inside(&mut self, text: &[u8]) {
        if is_plain_json(text) {
            return self.put(text);
        }
        let mut escaped = std::mem::take(&mut self.escaped);
        escaped.clear();
        write_json_inside(&mut escaped, text);
        self.put(&escaped);
        self.escaped = escaped;
    }

    #[inline(always)]
    pub(super) fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        if number < 1000 { self.small(number as u16) } else { self.decimal(number) }
    }

    fn decimal(&mut self, number: u64) {
        match number {
            0..1000 => self.small(number as u16),
            1000..1_000_000 => {
                self.small((number / 1000) as u16);
                self.put(&three_digits((number % 1000) as u16));
            }
            _ => self.put(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    #[inline(always)]
    fn small(&mut self, number: u16) {
        let (digits, count) = small(number);
        self.put_some(&digits, count);
    }

    /// Milliseconds with three decimals.
    #[inline(always)]
    pub(super) fn millis(&mut self, name: &str, time: Duration) {
        self.name(name);
        self.decimals(time);
    }

    fn decimals(&mut self, time: Duration) {
        let us = time.subsec_micros();
        match time.as_secs() {
            0 => self.small((us / 1000) as u16),
            seconds => self.decimal(seconds.saturating_mul(1000).saturating_add((us / 1000).into())),
        }
        let [tenths, hundredths, thousandths] = three_digits((us % 1000) as u16);
        self.put(&[b'.', tenths, hundredths, thousandths]);
    }

    pub(super) fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(v4) => {
                let (text, count) = ipv4(v4);
                self.put_some(&text, count);
            }
            // Writing to a Line can not fail.
            IpAddr::V6(_) => _ = write!(self, "{}", Shown(ip)),
        }
    }

    pub(super) fn socket(&mut self, node: SocketAddr) {
        if node.is_ipv6() {
            self.put(b"[");
        }
        self.ip(node.ip());
        self.put(if node.is_ipv6() { b"]:" } else { b":" });
        self.decimal(node.port().into());
    }
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(mut write: impl FnMut(&mut Line)) -> String {
        String::from_utf8(Line::new().write(|line| write(line)).to_vec()).expect("a line is UTF-8")
    }

    #[test]
    fn numbers_are_written_as_everywhere() {
        for number in (0..11_000).chain([99_999, 100_000, 999_999, 1_000_000, u64::MAX]) {
            assert_eq!(written(|line| line.number("n", number)), format!("n{number}"));
        }
    }

    #[test]
    fn times_are_milliseconds_with_three_decimals() {
        for (us, text) in
            [(0, "0.000"), (7, "0.007"), (999, "0.999"), (1000, "1.000"), (59_061_034, "59061.034")]
        {
            assert_eq!(written(|line| line.millis("", Duration::from_micros(us))), text);
        }
        let longest = written(|line| line.millis("", Duration::MAX));
        assert!(longest.ends_with(".999"), "{longest}");
    }

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in ["127.0.0.1:80", "255.255.255.255:65535", "[2001:db8::1]:443", "[fe80::1]:0"] {
            let node: SocketAddr = text.parse().expect("an address");
            assert_eq!(written(|line| line.socket(node)), text);
        }
    }

    #[test]
    fn texts_are_escaped_cut_and_left_out_when_empty() {
        assert_eq!(written(|line| line.text("n", b"")), "");
        assert_eq!(written(|line| line.text("n\"", b"a\"b")), "n\"a\\\"b\"");
        assert_eq!(written(|line| line.text("", &[b'a'; 9000])).len(), TEXT_BYTES + 1);
    }

    #[test]
    fn a_line_that_ends_where_the_room_does_is_whole() {
        for length in ROOM_BYTES - 40..ROOM_BYTES {
            let before = "a".repeat(length);
            let whole = written(|line| {
                line.put(before.as_bytes());
                line.number("", 7);
            });
            assert_eq!(whole, format!("{before}7"));
        }
    }

    #[test]
    fn a_line_that_is_longer_than_any_before_is_whole() {
        let mut line = Line::new();
        for length in [10, 1000, 2048, 5] {
            let text = vec![0xff; length];
            let whole = line.write(|line| {
                for _ in 0..8 {
                    line.text("n", &text);
                }
            });
            let one = format!("n{}\"", "\u{fffd}".repeat(length));
            assert_eq!(whole, one.repeat(8).as_bytes());
        }
    }
}

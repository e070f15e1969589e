//! Numbers as digits, the small ones from a table: what stands many times in a line of a log.
//!
//! A text comes in an array with room for the longest there is, and with its length: copying all of the array and going on behind
//! the text is a move or two, where copying as much as there is would be a call.

use std::net::Ipv4Addr;

/// Each number below a thousand: three digits, zeros in front among them, and how many it has without those.
static DIGITS: [[u8; 4]; 1000] = {
    let mut table = [[0; 4]; 1000];
    let mut number = 0;
    while number < table.len() {
        let digits = [number / 100, number / 10 % 10, number % 10];
        let count = 1 + (number > 9) as u8 + (number > 99) as u8;
        table[number] = [b'0' + digits[0] as u8, b'0' + digits[1] as u8, b'0' + digits[2] as u8, count];
        number += 1;
    }
    table
};

/// Three digits of a number below a thousand, zeros in front among them; of another those of what is left of it.
#[inline]
pub const fn three_digits(number: u16) -> [u8; 3] {
    let [hundreds, tens, ones, _] = DIGITS[number as usize % DIGITS.len()];
    [hundreds, tens, ones]
}

/// A number below a thousand, with zero bytes behind it, and how many digits it has; of another the last three.
#[inline]
pub const fn small(number: u16) -> ([u8; 3], usize) {
    let entry = u32::from_le_bytes(DIGITS[number as usize % DIGITS.len()]);
    let count = entry >> 24;
    // The count and the zeros in front fall out of the word.
    let digits = entry << 8 >> (8 * (4 - count));
    let [a, b, c, _] = digits.to_le_bytes();
    ([a, b, c], count as usize)
}

/// Up to sixteen digits, the first in the lowest byte.
struct Digits {
    text: u128,
    length: u32,
}

impl Digits {
    /// A number below a thousand.
    #[inline]
    const fn first(number: u64) -> Self {
        let ([a, b, c], length) = small(number as u16);
        Self { text: u32::from_le_bytes([a, b, c, 0]) as u128, length: length as u32 }
    }

    /// Three more digits.
    #[inline]
    const fn then(self, number: u64) -> Self {
        let [a, b, c] = three_digits(number as u16);
        let more = u32::from_le_bytes([a, b, c, 0]) as u128;
        Self { text: self.text | more << (8 * self.length), length: self.length + 3 }
    }
}

/// A short text in room of a length that is known beforehand: a number, or little more.
#[derive(Clone, Copy, Debug)]
pub struct Short {
    room: [u8; Self::ROOM],
    length: usize,
}

impl Short {
    /// Bytes of it: the longest number, and a few that follow.
    pub const ROOM: usize = 24;

    /// A number as digits.
    #[inline]
    pub fn number(number: u64) -> Self {
        // By three digits. Those of a number that is not large are put together in two registers.
        let (millions, thousands, ones) = (number / 1_000_000, number / 1000 % 1000, number % 1000);
        let digits = match (millions, thousands) {
            (0, 0) => Digits::first(ones),
            (0, _) => Digits::first(thousands).then(ones),
            (1..1000, _) => Digits::first(millions).then(thousands).then(ones),
            (1000..1_000_000, _) => {
                Digits::first(millions / 1000).then(millions % 1000).then(thousands).then(ones)
            }
            _ => return Self::long(number),
        };
        let mut room = [0; Self::ROOM];
        room[..size_of::<u128>()].copy_from_slice(&digits.text.to_le_bytes());
        Self { room, length: digits.length as usize }
    }

    #[cold]
    fn long(number: u64) -> Self {
        let mut short = Self { room: [0; Self::ROOM], length: 0 };
        for digit in itoa::Buffer::new().format(number).bytes() {
            short.push([digit, 0, 0], 1);
        }
        short
    }

    /// Appends the first `count` of some bytes, as far as there is room.
    #[inline]
    pub fn push(&mut self, bytes: [u8; 3], count: usize) {
        if let Some(to) = self.room.get_mut(self.length..self.length + bytes.len()) {
            to.copy_from_slice(&bytes);
            self.length += count.min(bytes.len());
        }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.room[..self.length]
    }

    /// The text, and whatever is behind it.
    pub const fn room(&self) -> &[u8; Self::ROOM] {
        &self.room
    }
}

/// Bytes of `255.255.255.255` and a dot.
const IPV4_BYTES: usize = 16;

/// An address with dots.
#[inline]
pub fn ipv4(address: Ipv4Addr) -> ([u8; IPV4_BYTES], usize) {
    // Put together in two registers: bytes that are written one by one can not be read together at once.
    let (mut text, mut at) = (0_u128, 0);
    for octet in address.octets() {
        let ([a, b, c], count) = small(octet.into());
        let with_dot = u32::from_le_bytes([a, b, c, 0]) | u32::from(b'.') << (8 * count);
        text |= u128::from(with_dot) << (8 * at);
        at += count + 1;
    }
    (text.to_le_bytes(), at - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_written_as_everywhere() {
        for number in 0..1000 {
            let (digits, count) = small(number);
            assert_eq!(digits[..count], *number.to_string().as_bytes());
            assert_eq!(three_digits(number), *format!("{number:03}").as_bytes());
        }
    }

    #[test]
    fn numbers_of_any_length_are_written_as_everywhere() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        for number in powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX, 1_020_300_405])
        {
            assert_eq!(Short::number(number).as_bytes(), number.to_string().as_bytes());
        }
        let mut longest = Short::number(u64::MAX);
        longest.push(*b".99", 3);
        longest.push(*b"abc", 3);
        assert_eq!(longest.as_bytes(), b"18446744073709551615.99", "what does not fit is not there");
    }

    #[test]
    fn addresses_are_written_as_everywhere() {
        for octet in 0..=255 {
            for octets in
                [[octet, 0, 255, 10], [1, octet, 99, 100], [255, 255, octet, 255], [9, 10, 200, octet]]
            {
                let (text, count) = ipv4(octets.into());
                assert_eq!(text[..count], *Ipv4Addr::from(octets).to_string().as_bytes());
            }
        }
    }
}

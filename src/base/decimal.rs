//! Numbers as digits, the small ones from a table: what stands many times in a line of a log.
//!
//! A text comes in an array with room for the longest there is, and with its length: copying all of the array and going on behind
//! the text is a move or two, where copying as much as there is would be a call.

use std::net::Ipv4Addr;

/// The digits of each number below a thousand, and how many there are.
static SMALL: [[u8; 4]; 1000] = {
    let mut table = [[0; 4]; 1000];
    let mut number = 0;
    while number < table.len() {
        let [hundreds, tens, ones] = three_digits(number as u16);
        table[number] = match number {
            0..10 => [ones, 0, 0, 1],
            10..100 => [tens, ones, 0, 2],
            _ => [hundreds, tens, ones, 3],
        };
        number += 1;
    }
    table
};

/// Three digits of a number below a thousand, zeros in front among them.
#[inline]
pub const fn three_digits(number: u16) -> [u8; 3] {
    [b'0' + (number / 100 % 10) as u8, b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// A number below a thousand; of another the last three digits.
#[inline]
pub const fn small(number: u16) -> ([u8; 3], usize) {
    if number as usize >= SMALL.len() {
        return (three_digits(number), 3);
    }
    let [a, b, c, count] = SMALL[number as usize];
    ([a, b, c], count as usize)
}

/// Bytes of `255.255.255.255` and a dot.
const IPV4_BYTES: usize = 16;

/// An address with dots.
pub fn ipv4(address: Ipv4Addr) -> ([u8; IPV4_BYTES], usize) {
    let (mut text, mut at) = ([0; IPV4_BYTES + 3], 0);
    for octet in address.octets() {
        let (digits, count) = small(octet as u16);
        // What is behind the digits is written over by what comes next.
        if let Some(to) = text.get_mut(at..at + digits.len()) {
            to.copy_from_slice(&digits);
        }
        at += count;
        if let Some(to) = text.get_mut(at) {
            *to = b'.';
        }
        at += 1;
    }
    let [text @ .., _, _, _] = text;
    (text, at - 1)
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

//! What is wanted of an answer's header lines in HTTP/2: the status, and gRPC's.
//!
//! Blocks repeat: most answers of a connection have the same bytes. The last few are kept with what they said, for as
//! long as the table they refer to is what it was, and so cost a comparison.

use loona_hpack::Decoder;

use crate::frames::Broken;

/// Header lines and trailers, and some to spare.
const KEPT_MAX: usize = 4;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
}

pub(crate) struct Table {
    decoder: Decoder<'static>,
    kept: Vec<(Box<[u8]>, Fields)>,
    /// Which of those kept goes next.
    oldest: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { decoder: Decoder::new(), kept: Vec::new(), oldest: 0 }
    }

    /// Every block of a connection must pass here, in order.
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Fields, Broken> {
        if let Some((_, fields)) = self.kept.iter().find(|(kept, _)| **kept == *block) {
            return Ok(*fields);
        }
        let changes = changes_table(block).ok_or(Broken)?;
        let mut fields = Fields::default();
        let number = |value: &[u8]| std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        self.decoder
            .decode_with_cb(block, |name, value| match &*name {
                b":status" => fields.status = number(&value),
                b"grpc-status" => fields.grpc_status = number(&value),
                _ => {}
            })
            .map_err(|_| Broken)?;
        if changes {
            self.kept.clear();
            self.oldest = 0;
        } else if self.kept.len() < KEPT_MAX {
            self.kept.push((block.into(), fields));
        } else {
            self.kept[self.oldest] = (block.into(), fields);
            self.oldest = (self.oldest + 1) % KEPT_MAX;
        }
        Ok(fields)
    }
}

/// Whether a block adds to the table or resizes it (RFC 7541 6); none if it is cut short.
fn changes_table(mut block: &[u8]) -> Option<bool> {
    let mut changes = false;
    while let Some(&first) = block.first() {
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = integer(&mut block, bits)?;
        changes |= (0x20..0x80).contains(&first);
        if first < 0x20 || (0x40..0x80).contains(&first) {
            for _ in 0..if index == 0 { 2 } else { 1 } {
                let length = integer(&mut block, 7)?;
                block = block.get(length..)?;
            }
        }
    }
    Some(changes)
}

/// An integer of RFC 7541 5.1 whose first byte has so many bits of it.
fn integer(bytes: &mut &[u8], bits: u32) -> Option<usize> {
    let (first, mut rest) = bytes.split_first()?;
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        // What is longer is no length of anything here.
        for shift in [0, 7, 14, 21] {
            let (byte, after) = rest.split_first()?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                *bytes = rest;
                return Some(value);
            }
        }
        return None;
    }
    *bytes = rest;
    Some(value)
}

/// Adds a header line as a literal that stays out of tables, so that all blocks of a run can be the same.
pub(crate) fn write(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        write_length(block, text.len());
        block.extend_from_slice(text.as_bytes());
    }
}

fn write_length(block: &mut Vec<u8>, length: usize) {
    if length < 0x7f {
        return block.push(length as u8);
    }
    block.push(0x7f);
    let mut rest = length - 0x7f;
    while rest >= 0x80 {
        block.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    block.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_refers_to_a_table_means_what_the_table_says() {
        let mut table = Table::new();
        // :status 302 as RFC 7541 C.6.1 has it: a literal that is added to the table, in Huffman's code.
        let added = [0x48, 0x82, 0x64, 0x02];
        let refers = [0xbe];
        let first = Fields { status: Some(302), grpc_status: None };
        assert_eq!(table.read(&added), Ok(first));
        assert_eq!(table.read(&refers), Ok(first));
        // The same bytes mean another line once the table has changed.
        assert_eq!(table.read(&[0x48, 0x83, 0x64, 0x0e, 0xff]).unwrap().status, Some(307));
        assert_eq!(table.read(&refers).unwrap().status, Some(307));
        assert_eq!(table.read(&refers).unwrap().status, Some(307));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut block = vec![0x88];
        write(&mut block, "grpc-status", "0");
        write(&mut block, "x", &"y".repeat(300));
        assert_eq!(changes_table(&block), Some(false));
        let expected = Fields { status: Some(200), grpc_status: Some(0) };
        let mut table = Table::new();
        for _ in 0..3 {
            assert_eq!(table.read(&block), Ok(expected));
        }
        for end in [2, 5, block.len() - 1] {
            assert_eq!(table.read(&block[..end]), Err(Broken), "{end}");
        }
    }

    #[test]
    fn more_blocks_than_are_kept_are_all_read() {
        let mut table = Table::new();
        for number in 0..20 {
            let mut block = vec![0x88];
            write(&mut block, "grpc-status", &(number % 7).to_string());
            assert_eq!(table.read(&block).unwrap().grpc_status, Some(number % 7));
        }
    }
}

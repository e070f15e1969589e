//! HPACK (RFC 7541): how HTTP/2 compresses fields.
//!
//! [`decode`] reads what a client compressed, [`encode`] compresses what it is told, [`table`] is what both remember,
//! [`huffman`] the code that text may be in.

pub mod decode;
pub mod encode;
pub mod huffman;
pub mod table;

#[cfg(test)]
mod tests;

/// What was compressed has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// Bytes of a number behind its first, at most: enough for any length there may be.
const MORE_BYTES_MAX: u32 = 4;

/// Reads a number whose first byte gives it so many bits (RFC 7541 5.1).
fn read_number(block: &mut &[u8], bits: u32) -> Result<usize, Broken> {
    let (first, mut rest) = block.split_first().ok_or(Broken)?;
    let full = (1_usize << bits) - 1;
    let mut number = usize::from(*first) & full;
    if number == full {
        for at in 0.. {
            let (byte, more) = rest.split_first().ok_or(Broken)?;
            if at == MORE_BYTES_MAX {
                return Err(Broken);
            }
            rest = more;
            number += usize::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    *block = rest;
    Ok(number)
}

/// Writes a number whose first byte gives it so many bits; the others of that byte are those of `first`.
fn write_number(out: &mut Vec<u8>, first: u8, bits: u32, number: usize) {
    let full = (1_usize << bits) - 1;
    if number < full {
        return out.push(first | number as u8);
    }
    out.push(first | full as u8);
    let mut rest = number - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

//! The shape of a compressed block of headers (RFC 7541 6), without what it says: that is the `h2` crate's to know.

/// Of the static table, those that are pseudo-headers (appendix A).
const PSEUDO: std::ops::RangeInclusive<usize> = 1..=14;
/// `:` by the code of appendix B: seven bits, at the front of the first byte.
const COLON_BITS: u8 = 0x5c << 1;
/// Bytes of a number behind its first, at most: more than any length there may be.
const MORE_BYTES_MAX: usize = 4;

/// It has no shape that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Whether a field of the block is a pseudo-header, as far as can be told: one that was met before, and is named by its place
/// among those, is not known.
pub(super) fn has_pseudo(mut block: &[u8]) -> Result<bool, Broken> {
    let mut found = false;
    while let Some(first) = block.first() {
        let (bits, is_indexed, is_size) = match first {
            0x80.. => (7, true, false),
            0x40.. => (6, false, false),
            0x20.. => (5, false, true),
            _ => (4, false, false),
        };
        let index = number(&mut block, bits)?;
        if is_size {
            continue;
        }
        found |= PSEUDO.contains(&index);
        match (is_indexed, index) {
            (true, 0) => return Err(Broken),
            (true, _) => {}
            (false, 0) => {
                found |= is_pseudo(text(&mut block)?);
                text(&mut block)?;
            }
            (false, _) => drop(text(&mut block)?),
        }
    }
    Ok(found)
}

/// A name, and whether it is in the code of appendix B.
type Text<'a> = (&'a [u8], bool);

fn is_pseudo((name, is_coded): Text<'_>) -> bool {
    name.first().is_some_and(|first| if is_coded { first & 0xfe == COLON_BITS } else { *first == b':' })
}

/// A number whose first byte gives it so many bits (RFC 7541 5.1).
fn number(block: &mut &[u8], bits: u32) -> Result<usize, Broken> {
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

/// Text, as long as it says (RFC 7541 5.2).
fn text<'a>(block: &mut &'a [u8]) -> Result<Text<'a>, Broken> {
    let is_coded = block.first().ok_or(Broken)? & 0x80 != 0;
    let length = number(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Broken)?;
    *block = rest;
    Ok((text, is_coded))
}

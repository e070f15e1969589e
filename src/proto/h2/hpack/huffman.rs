//! The code that text may be in (RFC 7541 5.2 and appendix B).

use super::Broken;

/// Bits of each byte's code. Nothing else need be said of it: codes of one length count up with their bytes, and those of
/// the next length go on where these ended.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const BITS_MAX: usize = 30;

/// The code as it is used: by byte, by the next eight bits, and by length.
struct Code {
    codes: [u32; 256],
    /// Byte and bits of the code that these eight bits begin with; 0 bits: it is longer.
    short: [(u8, u8); 256],
    /// By length: the first code, how many there are, and where their bytes begin in `bytes`.
    first: [u32; BITS_MAX + 1],
    count: [u32; BITS_MAX + 1],
    start: [usize; BITS_MAX + 1],
    bytes: [u8; 256],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut code = Code {
        codes: [0; 256],
        short: [(0, 0); 256],
        first: [0; BITS_MAX + 1],
        count: [0; BITS_MAX + 1],
        start: [0; BITS_MAX + 1],
        bytes: [0; 256],
    };
    let (mut next, mut length, mut at) = (0_u32, 1, 0);
    while length <= BITS_MAX {
        next <<= 1;
        code.first[length] = next;
        code.start[length] = at;
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as usize == length {
                code.codes[byte] = next;
                code.bytes[at] = byte as u8;
                if length <= 8 {
                    let mut tail = 0;
                    while tail < 1 << (8 - length) {
                        code.short[(next as usize) << (8 - length) | tail] = (byte as u8, length as u8);
                        tail += 1;
                    }
                }
                next += 1;
                at += 1;
            }
            byte += 1;
        }
        code.count[length] = next - code.first[length];
        length += 1;
    }
    code
}

/// Appends the text that is coded.
///
/// # Errors
/// When it is no code, or does not end as one must.
pub fn decode(mut coded: &[u8], out: &mut Vec<u8>) -> Result<(), Broken> {
    // What is at hand of it, at the high end, and how many bits that are.
    let (mut bits, mut held) = (0_u64, 0_u32);
    loop {
        while held <= 56
            && let Some((byte, rest)) = coded.split_first()
        {
            bits |= u64::from(*byte) << (56 - held);
            held += 8;
            coded = rest;
        }
        let (byte, length) = match CODE.short[(bits >> 56) as usize] {
            (_, 0) => match long(bits) {
                Some(found) => found,
                None => return end(bits, held),
            },
            (byte, length) => (byte, u32::from(length)),
        };
        if length > held {
            return end(bits, held);
        }
        out.push(byte);
        bits <<= length;
        held -= length;
    }
}

/// The byte of a code of more than eight bits, and its length.
fn long(bits: u64) -> Option<(u8, u32)> {
    (9..=BITS_MAX).find_map(|length| {
        let code = (bits >> (64 - length)) as u32;
        let at = code.checked_sub(CODE.first[length]).filter(|at| *at < CODE.count[length])?;
        Some((CODE.bytes[CODE.start[length] + at as usize], length as u32))
    })
}

/// What is left must be less than a byte, and all ones.
const fn end(bits: u64, held: u32) -> Result<(), Broken> {
    if held < 8 && bits.leading_ones() >= held { Ok(()) } else { Err(Broken) }
}

/// Bytes that text takes in the code.
pub fn coded_len(text: &[u8]) -> usize {
    text.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum::<usize>().div_ceil(8)
}

/// Appends text in the code.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0_u64, 0_u32);
    for byte in text {
        let length = u32::from(LENGTHS[usize::from(*byte)]);
        bits = bits << length | u64::from(CODE.codes[usize::from(*byte)]);
        held += length;
        while held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    if held > 0 {
        out.push((bits << (8 - held)) as u8 | (0xff >> held) as u8);
    }
}

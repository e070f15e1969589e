//! PEM (RFC 7468): blocks of base64 between lines that name what they are. What stands outside of blocks is passed
//! over, as openssl writes words about a certificate before it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    /// Such as `CERTIFICATE`.
    pub label: String,
    pub der: Vec<u8>,
}

/// All blocks of a text, in order.
///
/// # Errors
/// What is wrong with the first that is not one; nothing of its content.
pub fn read(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DASHES)) else {
            continue;
        };
        let mut inside = String::new();
        let end = format!("{END}{label}{DASHES}");
        loop {
            match lines.next() {
                Some(line) if line == end => break,
                // The headers of a key that is encrypted in the old way.
                Some(line) if line.contains(':') => return Err(format!("{label} is encrypted")),
                Some(line) if !line.starts_with(DASHES) => inside.push_str(line),
                _ => return Err(format!("{label} has no end")),
            }
        }
        let der = STANDARD.decode(inside).map_err(|_| format!("{label} is not base64"))?;
        blocks.push(Block { label: label.to_owned(), der });
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_in_order_and_words_around_them_are_not() {
        let text = "words\n-----BEGIN A B-----\nAQ\n ID\n-----END A B-----\r\n-----BEGIN C-----\r\nBA==\r\n-----END C-----";
        let block = |label: &str, der: &[u8]| Block { label: label.to_owned(), der: der.to_vec() };
        assert_eq!(read(text), Ok(vec![block("A B", &[1, 2, 3]), block("C", &[4])]));
        assert_eq!(read("nothing"), Ok(vec![]));
        for (bad, why) in [
            ("-----BEGIN A-----\nAQID", "A has no end"),
            ("-----BEGIN A-----\nAQID\n-----END B-----", "A has no end"),
            ("-----BEGIN A-----\n!\n-----END A-----", "A is not base64"),
            ("-----BEGIN A-----\nDEK-Info: x\n\nAQID\n-----END A-----", "A is encrypted"),
        ] {
            assert_eq!(read(bad), Err(why.to_owned()), "{bad}");
        }
    }
}

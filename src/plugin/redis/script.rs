//! Programs that Redis runs in one step, and how they are called.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::proto::resp;

/// A program that Redis runs in one step.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    /// By which it is called, in hexadecimal digits.
    digest: Vec<u8>,
}

/// What a script is run on.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub key: &'a [u8],
    pub numbers: &'a [u64],
    /// Comes behind the numbers.
    pub text: Option<&'a [u8]>,
}

impl Script {
    pub fn new(text: &'static str) -> Self {
        let mut hex = Vec::with_capacity(40);
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
            hex.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        Self { text, digest: hex }
    }

    /// The command that calls it by its digest.
    pub(super) fn by_digest(&self, call: Call<'_>) -> Vec<u8> {
        call.command(b"EVALSHA", &self.digest)
    }

    /// The command that brings it along.
    pub(super) fn whole(&self, call: Call<'_>) -> Vec<u8> {
        call.command(b"EVAL", self.text.as_bytes())
    }
}

impl Call<'_> {
    fn command(&self, how: &[u8], what: &[u8]) -> Vec<u8> {
        let texts: Vec<String> = self.numbers.iter().map(u64::to_string).collect();
        let mut words = vec![how, what, b"1", self.key];
        words.extend(texts.iter().map(String::as_bytes));
        words.extend(self.text);
        let mut out = Vec::new();
        resp::write_command(&mut out, &words);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_called_by_its_digest() {
        let script = Script::new("return 1");
        assert_eq!(script.digest, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let called = script.by_digest(Call { key: b"k", numbers: &[7, 30], text: Some(b"t") });
        assert!(called.starts_with(b"*7\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9"), "{}", called.escape_ascii());
        assert!(
            called.ends_with(b"$1\r\n1\r\n$1\r\nk\r\n$1\r\n7\r\n$2\r\n30\r\n$1\r\nt\r\n"),
            "{}",
            called.escape_ascii()
        );
    }
}

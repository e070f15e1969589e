//! `regex_uri`: pairs of pattern and replacement, of which the first that matches a path rewrites it.

use crate::exchange::Exchange;
use crate::expr::{Pattern, Template, compile_regex};
use crate::model::ConfigError;

/// Captures that replacements and headers may name: `$0` to `$15`.
pub const CAPTURES_MAX: usize = 16;

/// What a pattern captured; places that took no part are empty.
pub type Captures<'s> = [&'s [u8]; CAPTURES_MAX];

/// The pairs, in order.
#[derive(Debug, Default)]
pub struct RegexUri {
    pairs: Vec<(Pattern, Template)>,
}

impl RegexUri {
    /// Reads `[pattern, replacement, pattern, …]`.
    pub fn compile(texts: &[impl AsRef<str>]) -> Result<Self, ConfigError> {
        if !texts.len().is_multiple_of(2) {
            return Err(ConfigError::at("regex_uri", "The length of regex_uri should be an even number"));
        }
        let pairs = texts.chunks_exact(2).map(|pair| {
            let (pattern, replacement) = (pair[0].as_ref(), pair[1].as_ref());
            let fault = |why: String| {
                ConfigError::at("regex_uri", format!("invalid regex_uri({pattern}, {replacement}): {why}"))
            };
            let regex = compile_regex(pattern, false).map_err(fault)?;
            let template = Template::parse(replacement);
            if let Some(most) = template.capture_max()
                && most >= regex.captures_len().min(CAPTURES_MAX)
            {
                return Err(fault(format!("the pattern has no capture ${most}")));
            }
            Ok((regex, template))
        });
        Ok(Self { pairs: pairs.collect::<Result<_, _>>()? })
    }

    /// Appends `subject` with what the first matching pattern found replaced; the captures then, or nothing.
    pub fn rewrite<'s>(&self, subject: &'s [u8], ex: &Exchange, out: &mut Vec<u8>) -> Option<Captures<'s>> {
        for (regex, replacement) in &self.pairs {
            let mut captures: Captures<'s> = [&[]; CAPTURES_MAX];
            let Some(whole) = regex.captures(subject, 0, &mut captures) else { continue };
            out.extend_from_slice(&subject[..whole.start]);
            replacement.render_with(ex, &captures, out);
            out.extend_from_slice(&subject[whole.end..]);
            return Some(captures);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(texts: &[&str], subject: &str) -> Option<String> {
        let mut out = Vec::new();
        let pairs = RegexUri::compile(texts).unwrap();
        pairs.rewrite(subject.as_bytes(), &Exchange::new(), &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_first_pattern_that_matches_rewrites() {
        let check = |texts: &[&str], subject: &str, expected: Option<&str>| {
            assert_eq!(rewrite(texts, subject).as_deref(), expected, "{texts:?} {subject}");
        };
        check(&["^/v1/(.*)", "/v2/$1"], "/v1/a/b", Some("/v2/a/b"));
        check(&["^/v1/(.*)", "/v2/$1"], "/v3/a", None);
        check(&["^/(a)(x)?", "/${2}${1}1"], "/a", Some("/a1"));
        check(&["b", "c"], "/abb", Some("/acb"));
        check(&["^/(?!admin)(.*)", "/shop/$1"], "/a", Some("/shop/a"));
        check(&["^/(?!admin)(.*)", "/shop/$1"], "/admin", None);
        check(&["^/x", "/1", "^/y", "/2", "^/", "/3"], "/y", Some("/2"));
    }

    #[test]
    fn pairs_must_be_whole_and_their_captures_there() {
        let refused = |texts: &[&str], words: &str| {
            let error = RegexUri::compile(texts).unwrap_err().to_string();
            assert!(error.contains(words), "{texts:?}: {error}");
        };
        refused(&["^/a"], "The length of regex_uri should be an even number");
        refused(&["^/(", "/b"], "invalid regex_uri(^/(, /b): ");
        refused(&["^/(.*)", "/$2"], "the pattern has no capture $2");
        assert!(RegexUri::compile(&["^/(.*)", "/$1"]).is_ok());
    }
}

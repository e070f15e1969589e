//! Regular expressions as users of nginx write them, on an engine whose time is linear in its input.
//!
//! Look-around, backreferences, atomic groups and possessive quantifiers need backtracking, so they are refused
//! with their name. A possessive quantifier would even compile, and mean something else: that is why a pattern
//! is looked through before the engine sees it.

use regex::bytes::{Regex, RegexBuilder};

/// Most memory one compiled pattern may take; it bounds `(a{1000}){1000}`.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// Most memory the states found while matching may take, per pattern and thread.
pub const REGEX_STATES_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of groups.
pub const REGEX_DEPTH_MAX: u32 = 64;

/// Compiles a pattern; the error says what stands in the way. Bytes are matched, and `\d`, `\w`, `\s` are
/// ASCII, unless the pattern itself asks for Unicode classes.
pub fn compile_regex(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    if let Some(why) = needs_backtracking(pattern) {
        return Err(format!(
            "regular expression {pattern:?} uses {why}, which needs backtracking; rewrite it without"
        ));
    }
    let build = |unicode: bool| {
        RegexBuilder::new(pattern)
            .unicode(unicode)
            .case_insensitive(ignore_case)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_STATES_BYTES_MAX)
            .nest_limit(REGEX_DEPTH_MAX)
            .build()
    };
    match build(false) {
        Ok(regex) => Ok(regex),
        Err(regex::Error::Syntax(_)) => build(true).map_err(|error| fault(pattern, &error)),
        Err(error) => Err(fault(pattern, &error)),
    }
}

fn fault(pattern: &str, error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(most) => {
            format!("regular expression {pattern:?} needs more than {most} bytes when compiled")
        }
        error => {
            // The engine draws the pattern with a caret below; the last line has the reason.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or("").trim().trim_start_matches("error: ");
            format!("regular expression {pattern:?} is not valid: {reason}")
        }
    }
}

/// The first construct of the pattern that a linear engine has not.
fn needs_backtracking(pattern: &str) -> Option<&'static str> {
    let bytes = pattern.as_bytes();
    let (mut at, mut in_class, mut quantified) = (0, false, false);
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let was_quantified = std::mem::take(&mut quantified);
        match byte {
            b'\\' => {
                match rest.get(1) {
                    Some(b'1'..=b'9' | b'g' | b'k') if !in_class => return Some("a backreference"),
                    _ => {}
                }
                at += 1;
            }
            b'[' if !in_class => {
                in_class = true;
                // A `]` in front is a member of the class.
                at += usize::from(rest.get(1) == Some(&b'^'));
                at += usize::from(bytes.get(at + 1) == Some(&b']'));
            }
            b']' => in_class = false,
            _ if in_class => {}
            b'(' => {
                const GROUPS: [(&[u8], &str); 5] = [
                    (b"(?=", "look-ahead"),
                    (b"(?!", "look-ahead"),
                    (b"(?<=", "look-behind"),
                    (b"(?<!", "look-behind"),
                    (b"(?>", "an atomic group"),
                ];
                if let Some((_, why)) = GROUPS.iter().find(|(open, _)| rest.starts_with(open)) {
                    return Some(why);
                }
                // The `?` of `(?:` quantifies nothing.
                at += usize::from(rest.get(1) == Some(&b'?'));
            }
            b'+' if was_quantified => return Some("a possessive quantifier"),
            b'?' if was_quantified => {}
            b'*' | b'+' | b'?' | b'}' => quantified = true,
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pattern: &str, reason: &str) {
        let error = compile_regex(pattern, false).expect_err(pattern);
        assert!(error.contains(reason), "{pattern}: {error}");
    }

    #[test]
    fn what_needs_backtracking_is_named() {
        refused("a(?=b)", "look-ahead");
        refused("a(?!b)", "look-ahead");
        refused("(?<=a)b", "look-behind");
        refused("(?<!a)b", "look-behind");
        refused(r"(a)\1", "a backreference");
        refused(r"(?P<x>a)\k<x>", "a backreference");
        refused("(?>a+)b", "an atomic group");
        refused("a++b", "a possessive quantifier");
        refused("a{2,3}+b", "a possessive quantifier");
    }

    #[test]
    fn neighbours_of_backtracking_are_accepted() {
        for pattern in [
            "(?:a)b", "(?i)a+?", "a*?", "(?P<x>a)", "(?<x>a)", r"\(?=a", r"[(?=]+", r"\\1", r"a\++", "[]+]+",
            "[^]+]+", "[+]+",
        ] {
            assert_eq!(compile_regex(pattern, false).err(), None, "{pattern}");
        }
    }

    #[test]
    fn matching_is_on_bytes_and_unanchored() {
        let find =
            |pattern: &str, text: &[u8]| compile_regex(pattern, false).expect("a pattern").is_match(text);
        assert!(find("b", b"abc"));
        assert!(find("^a.c$", b"a\xffc"));
        assert!(!find(r"^\d$", "\u{0663}".as_bytes()), "digits are ASCII");
        assert!(find("é", "é".as_bytes()));
        assert!(find(r"\p{Greek}", "α".as_bytes()), "a pattern may ask for Unicode");
        assert!(compile_regex("^AB$", true).expect("a pattern").is_match(b"ab"));
    }

    #[test]
    fn faults_and_giants_are_refused_in_one_line() {
        refused("a(", "is not valid: unclosed group");
        refused("(a{1000}){1000}", "bytes when compiled");
        refused(&"(".repeat(100), "is not valid");
        for pattern in ["a(", "[z-a]", r"\"] {
            assert!(!compile_regex(pattern, false).expect_err(pattern).contains('\n'));
        }
    }
}

//! Regular expressions as users of nginx write them: on an engine whose time is linear in its input where that can be,
//! else on one that tries, within limits.
//!
//! Look-around, backreferences, atomic groups and possessive quantifiers need backtracking. A possessive quantifier would
//! even compile on the linear engine, and mean something else: that is why a pattern is looked through before either
//! engine sees it. PCRE2 takes such a pattern, compiled to machine code where it can be; a match that has tried
//! [`REGEX_TRIES_MAX`] times is given up, counts as none, and is counted ([`given_up`]).

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use pcre2::bytes::RegexBuilder as TryingBuilder;
use regex::bytes::{Regex, RegexBuilder};

/// Most memory one compiled pattern may take; it bounds `(a{1000}){1000}`.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// Most memory the states found while matching may take, per pattern and thread.
pub const REGEX_STATES_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of groups.
pub const REGEX_DEPTH_MAX: u32 = 64;

/// Most that one match of a pattern that needs backtracking may try: a millisecond or so of a core.
pub const REGEX_TRIES_MAX: u32 = 100_000;

/// How deep it may nest what it comes back to, where it is not compiled to machine code.
pub const REGEX_TRIES_DEPTH_MAX: u32 = 2000;

/// What it may remember of where to come back to, in KiB: on the heap, and as the stack of the machine code.
pub const REGEX_TRIES_KIB_MAX: usize = 512;

/// Matches that were given up, on all cores. Touched when one is and at no other time.
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);

/// How many matches were given up since the process began: each counted as none.
pub fn given_up() -> u64 {
    GIVEN_UP.load(Ordering::Relaxed)
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// In time linear in the text.
    Linear(Regex),
    /// By trying.
    Trying(Box<pcre2::bytes::Regex>),
}

impl Pattern {
    /// Whether it is found anywhere in a text.
    pub fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Linear(regex) => regex.is_match(text),
            Self::Trying(regex) => found(regex.is_match(text)).unwrap_or(false),
        }
    }

    /// Its captures, with the whole.
    pub fn captures_len(&self) -> usize {
        match self {
            Self::Linear(regex) => regex.captures_len(),
            Self::Trying(regex) => regex.captures_len(),
        }
    }

    /// Where it is found first from a place on, and what it captured as far as there is room: those that took no part stay
    /// as they are.
    pub fn captures<'s>(
        &self,
        text: &'s [u8],
        from: usize,
        captures: &mut [&'s [u8]],
    ) -> Option<Range<usize>> {
        match self {
            Self::Linear(regex) => {
                let found = regex.captures_at(text, from)?;
                for (capture, group) in captures.iter_mut().zip(found.iter()) {
                    *capture = group.map_or(*capture, |group| group.as_bytes());
                }
                Some(found.get_match().range())
            }
            Self::Trying(regex) => {
                let mut places = regex.capture_locations();
                let whole = found(regex.captures_read_at(&mut places, text, from)).flatten()?;
                for (at, capture) in captures.iter_mut().enumerate() {
                    // `\K` in a look-ahead can put an end before its start.
                    let group = places.get(at).and_then(|(start, end)| text.get(start..end));
                    *capture = group.unwrap_or(*capture);
                }
                (whole.start() <= whole.end()).then(|| whole.start()..whole.end())
            }
        }
    }
}

/// What a match came to; nothing where it was given up.
fn found<T>(result: Result<T, pcre2::Error>) -> Option<T> {
    result
        .inspect_err(|_| {
            GIVEN_UP.fetch_add(1, Ordering::Relaxed);
        })
        .ok()
}

/// Compiles a pattern; the error says what stands in the way. Bytes are matched, and `\d`, `\w`, `\s` are
/// ASCII, unless the pattern itself asks for Unicode classes.
pub fn compile_regex(pattern: &str, ignore_case: bool) -> Result<Pattern, String> {
    if needs_backtracking(pattern).is_none() {
        return compile_linear(pattern, ignore_case).map(Pattern::Linear);
    }
    // Limits stand in the pattern: each can be lowered by what follows, and not raised.
    let limited = format!(
        "(*LIMIT_MATCH={REGEX_TRIES_MAX})(*LIMIT_DEPTH={REGEX_TRIES_DEPTH_MAX})(*LIMIT_HEAP={REGEX_TRIES_KIB_MAX}){pattern}"
    );
    let built = TryingBuilder::new()
        .caseless(ignore_case)
        .jit_if_available(true)
        .max_jit_stack_size(Some(REGEX_TRIES_KIB_MAX * 1024))
        .build(&limited);
    built.map(|regex| Pattern::Trying(Box::new(regex))).map_err(|error| {
        let text = error.to_string();
        let reason = text.rsplit(": ").next().unwrap_or_default();
        format!("regular expression {pattern:?} is not valid: {reason}")
    })
}

/// [`compile_regex`] where it must be linear.
pub fn compile_linear(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
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
pub fn needs_backtracking(pattern: &str) -> Option<&'static str> {
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

    fn find(pattern: &str, text: &[u8]) -> bool {
        compile_regex(pattern, false).expect(pattern).is_match(text)
    }

    #[test]
    fn what_needs_backtracking_is_named_where_it_may_not_be_and_tried_elsewhere() {
        for (pattern, reason) in [
            ("a(?=b)", "look-ahead"),
            ("a(?!b)", "look-ahead"),
            ("(?<=a)b", "look-behind"),
            ("(?<!a)b", "look-behind"),
            (r"(a)\1", "a backreference"),
            (r"(?P<x>a)\k<x>", "a backreference"),
            ("(?>a+)b", "an atomic group"),
            ("a++b", "a possessive quantifier"),
            ("a{2,3}+b", "a possessive quantifier"),
        ] {
            let error = compile_linear(pattern, false).expect_err(pattern);
            assert!(error.contains(reason), "{pattern}: {error}");
            assert!(matches!(compile_regex(pattern, false), Ok(Pattern::Trying(_))), "{pattern}");
        }
    }

    #[test]
    fn neighbours_of_backtracking_are_linear() {
        for pattern in [
            "(?:a)b", "(?i)a+?", "a*?", "(?P<x>a)", "(?<x>a)", r"\(?=a", r"[(?=]+", r"\\1", r"a\++", "[]+]+",
            "[^]+]+", "[+]+",
        ] {
            assert!(matches!(compile_regex(pattern, false), Ok(Pattern::Linear(_))), "{pattern}");
        }
    }

    #[test]
    fn matching_is_on_bytes_and_unanchored() {
        assert!(find("b", b"abc"));
        assert!(find("^a.c$", b"a\xffc"));
        assert!(!find(r"^\d$", "\u{0663}".as_bytes()), "digits are ASCII");
        assert!(find("é", "é".as_bytes()));
        assert!(find(r"\p{Greek}", "α".as_bytes()), "a pattern may ask for Unicode");
        assert!(compile_regex("^AB$", true).expect("a pattern").is_match(b"ab"));
    }

    #[test]
    fn what_is_tried_is_matched_on_bytes_and_unanchored_as_well() {
        for (pattern, text, expect) in [
            ("^/(?!admin)", &b"/shop"[..], true),
            ("^/(?!admin)", b"/admin/x", false),
            (r"(.)\1", b"abba", true),
            (r"(.)\1", b"abab", false),
            ("(?<=a).c", b"a\xffc", true),
            (r"(?=x)x\d", "x\u{0663}".as_bytes(), false),
            ("a++b", b"xaab", true),
            ("a++a", b"aaa", false),
        ] {
            assert_eq!(find(pattern, text), expect, "{pattern} of {text:?}");
        }
        assert!(compile_regex("^AB(?!c)", true).expect("a pattern").is_match(b"abd"));
        assert!(!compile_regex("^AB(?!c)", false).expect("a pattern").is_match(b"abd"));
    }

    #[test]
    fn both_engines_capture_alike() {
        for (linear, trying, text) in [
            ("/(a)(x)?(.*)", "(?=/)/(a)(x)?(.*)", &b"/abc"[..]),
            ("b", "(?=b)b", b"abab"),
            ("z", "(?=z)z", b"ab"),
        ] {
            for from in [0, 1] {
                let (mut one, mut two) = ([&b"-"[..]; 4], [&b"-"[..]; 4]);
                let places = [
                    compile_regex(linear, false).expect(linear).captures(text, from, &mut one),
                    compile_regex(trying, false).expect(trying).captures(text, from, &mut two),
                ];
                assert_eq!((&places[0], one), (&places[1], two), "{linear} from {from}");
            }
        }
        assert_eq!(compile_regex("(?=a)(a)(b)", false).map(|pattern| pattern.captures_len()), Ok(3));
    }

    #[test]
    fn a_match_that_tries_for_too_long_is_none_and_is_counted() {
        let text = [&[b'a'; 64][..], b"!"].concat();
        for pattern in [
            r"^(?=a)(a+)+[bc]",
            r"^(a|aa)+\1[bc]",
            // A pattern can not give itself more than there is.
            r"(*LIMIT_MATCH=4000000000)^(?=a)(a+)+[bc]",
            r"(*NO_JIT)^(?=a)(a+)+[bc]",
        ] {
            let before = given_up();
            assert!(!find(pattern, &text), "{pattern}");
            assert!(given_up() > before, "{pattern} was not given up");
            let pattern = compile_regex(pattern, false).expect(pattern);
            assert_eq!(pattern.captures(&text, 0, &mut []), None);
        }
    }

    #[test]
    fn a_look_ahead_that_moves_the_end_before_the_start_is_no_match() {
        let pattern = compile_regex(r"(?=ab\K)", false);
        // Versions of the engine differ in whether they take it.
        if let Ok(pattern) = pattern {
            assert_eq!(pattern.captures(b"ab", 0, &mut [&b""[..]]), None);
        }
    }

    #[test]
    fn faults_and_giants_are_refused_in_one_line() {
        refused("a(", "is not valid: unclosed group");
        refused("(?=a)(", "is not valid: missing closing parenthesis");
        refused(r"(a)\2", "is not valid");
        refused("(a{1000}){1000}", "bytes when compiled");
        refused("(?=a)((a{1000}){1000}){1000}", "is not valid");
        refused(&"(".repeat(100), "is not valid");
        for pattern in ["a(", "[z-a]", r"\", "(?=a)(", "(?<=a+)b"] {
            assert!(!compile_regex(pattern, false).expect_err(pattern).contains('\n'));
        }
    }
}

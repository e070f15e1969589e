//! Rust sources as far as a check needs them: without comments and literals, without their tests, as words.
//!
//! No parser: every file here is formatted and compiles, so blanking what is not code and matching braces is
//! enough. What is blanked becomes spaces, so that lines and columns stay where they were.

use std::path::Path;

/// A file of the tree.
pub(crate) struct Source {
    /// From the root of the repository, such as `src/edge/h1.rs`.
    pub(crate) path: String,
    /// As it is written.
    pub(crate) text: String,
    /// Comments and the insides of literals blanked.
    pub(crate) code: String,
    /// `code` with the items under `#[cfg(test)]` blanked as well.
    pub(crate) plain: String,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blank_comments_and_literals(&text);
        let plain = blank_tests(&code);
        Self { path, text, code, plain }
    }

    /// The module the file is: `["edge", "h1"]`; nothing for the crate's roots.
    pub(crate) fn module(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
        if parts.last().is_some_and(|last| {
            last == "mod" || (parts.len() == 1 && ["lib", "main"].contains(&last.as_str()))
        }) {
            parts.pop();
        }
        parts
    }

    /// The room it belongs to: `edge`, or `main` for the file of that name.
    pub(crate) fn room(&self) -> String {
        self.module().into_iter().next().unwrap_or_else(|| {
            Path::new(&self.path)
                .file_stem()
                .map(|stem| stem.to_string_lossy().into_owned())
                .unwrap_or_default()
        })
    }

    /// Every path the plain code names from the crate's root, `super::` resolved: `["model", "field", "Port"]`.
    pub(crate) fn crate_paths(&self) -> Vec<Vec<String>> {
        let module = self.module();
        let words = words(&self.plain);
        let mut found = Vec::new();
        let mut at = 0;
        while at < words.len() {
            let start = at;
            let mut prefix = match words[at].1.as_str() {
                "crate" => Some(Vec::new()),
                "super" => {
                    let mut ups = 1;
                    while follows(&words, at, "super") {
                        at += 3;
                        ups += 1;
                    }
                    // More steps up than the file is deep start in an inline module: not a way out.
                    module.len().checked_sub(ups).map(|depth| module[..depth].to_vec())
                }
                _ => None,
            };
            let qualified = start > 1 && words[start - 1].1 == ":" && words[start - 2].1 == ":";
            if !qualified && let Some(prefix) = prefix.take() {
                at = collect(&words, at + 1, &prefix, &mut found);
            } else {
                at += 1;
            }
        }
        found
    }

    /// Functions with the number of their lines of code.
    pub(crate) fn functions(&self) -> Vec<(String, usize)> {
        let words = words(&self.code);
        let mut found = Vec::new();
        for at in 0..words.len().saturating_sub(1) {
            let name = &words[at + 1].1;
            if words[at].1 != "fn" || !name.starts_with(|first: char| first.is_alphabetic() || first == '_') {
                continue;
            }
            let rest = &self.code[words[at].0..];
            let Some(open) = body_or_end(rest).filter(|open| rest.as_bytes()[*open] == b'{') else {
                continue;
            };
            let end = open + matching(&rest[open..]);
            let lines = rest[open..end].lines().skip(1).filter(|line| !line.trim().is_empty()).count();
            found.push((name.clone(), lines.saturating_sub(1)));
        }
        found
    }

    /// Lines outside of tests, comments and blank lines included: what a reader scrolls through.
    pub(crate) fn lines_outside_tests(&self) -> usize {
        let lines = self.text.lines().zip(self.code.lines()).zip(self.plain.lines());
        lines.filter(|((_, code), plain)| code == plain || code.trim().is_empty()).count()
    }

    /// Names of modules declared under `#[cfg(test)]` and kept in files of their own.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(test)]") {
            let item = words(self.code[at..].split_inclusive([';', '{']).next().unwrap_or(""));
            for pair in item.windows(3) {
                if pair[0].1 == "mod" && pair[2].1 == ";" {
                    names.push(pair[1].1.clone());
                }
            }
        }
        names
    }
}

/// Whether `:: word` follows the word at `at`.
fn follows(words: &[(usize, String)], at: usize, word: &str) -> bool {
    let next = |step: usize| words.get(at + step).map(|found| found.1.as_str());
    next(1) == Some(":") && next(2) == Some(":") && next(3) == Some(word)
}

/// Reads `::a::b` or `::{a::b, c}` behind a prefix. Returns where it stopped.
fn collect(
    words: &[(usize, String)],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<Vec<String>>,
) -> usize {
    let mut path = prefix.to_vec();
    let is = |at: usize, what: &str| words.get(at).is_some_and(|word| word.1 == what);
    while is(at, ":") && is(at + 1, ":") {
        at += 2;
        if is(at, "{") {
            at += 1;
            while at < words.len() && !is(at, "}") {
                if is(at, ",") {
                    at += 1;
                    continue;
                }
                let mut inner = path.clone();
                inner.push(words[at].1.clone());
                at = collect(words, at + 1, &inner, found);
                while at < words.len() && !is(at, ",") && !is(at, "}") {
                    at += 1; // `as name`
                }
            }
            return at + 1;
        }
        let Some(word) = words.get(at).filter(|word| word.1 != "<") else { break };
        path.push(word.1.clone());
        at += 1;
    }
    found.push(path);
    at
}

/// Identifiers and single signs, each with its place.
pub(crate) fn words(code: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, sign) in code.char_indices() {
        let part = sign.is_alphanumeric() || sign == '_';
        if part && open {
            words.last_mut().expect("a word is open").1.push(sign);
        } else if !sign.is_whitespace() {
            words.push((at, sign.to_string()));
        }
        open = part;
    }
    words
}

/// Where an item's body opens, or its semicolon stands; not the one of `[u8; 4]`.
fn body_or_end(item: &str) -> Option<usize> {
    let mut depth = 0_isize;
    // An attribute's own brackets close before the item begins, so they do not count.
    item.bytes().position(|sign| {
        depth += match sign {
            b'(' | b'[' => 1,
            b')' | b']' => -1,
            _ => 0,
        };
        depth == 0 && matches!(sign, b'{' | b';')
    })
}

/// The length of the text from an opening brace to behind its closing one.
fn matching(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, sign) in code.bytes().enumerate() {
        match sign {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| **byte != b'\n') {
        *byte = b' ';
    }
}

fn blank_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        let rest = &code[at..];
        let end = match body_or_end(rest) {
            Some(stop) if rest.as_bytes()[stop] == b'{' => stop + matching(&rest[stop..]),
            Some(stop) => stop + 1,
            None => rest.len(),
        };
        blank(&mut bytes[at..at + end]);
    }
    String::from_utf8(bytes).expect("spaces keep it UTF-8: whole characters are blanked")
}

fn blank_comments_and_literals(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let mut at = 0;
    while at < out.len() {
        let (skip, end) =
            span(&text.as_bytes()[at..], at.checked_sub(1).map(|before| text.as_bytes()[before]));
        blank(&mut out[at + skip.min(end)..at + end]);
        at += end.max(1);
    }
    String::from_utf8(out).expect("spaces keep it UTF-8: whole characters are blanked")
}

/// What begins here: `(kept, length)`; a plain byte is kept whole.
fn span(rest: &[u8], before: Option<u8>) -> (usize, usize) {
    let until = |what: &[u8], from: usize| {
        (from..rest.len()).find(|at| rest[*at..].starts_with(what)).unwrap_or(rest.len())
    };
    let word_before = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => (0, until(b"\n", 0)),
        [b'/', b'*', ..] => {
            let (mut depth, mut at) = (1, 2);
            while depth > 0 && at < rest.len() {
                match &rest[at..] {
                    [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                    [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                    _ => at += 1,
                }
            }
            (0, at)
        }
        [b'"', ..] => {
            let mut at = 1;
            while at < rest.len() && rest[at] != b'"' {
                at += if rest[at] == b'\\' { 2 } else { 1 };
            }
            (1, (at + 1).min(rest.len()))
        }
        [b'r', b'"' | b'#', ..] if !word_before || before == Some(b'b') || before == Some(b'c') => {
            let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
            if rest.get(1 + hashes) != Some(&b'"') {
                return (1, 1); // a raw identifier
            }
            let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
            (1, (until(&close, 2 + hashes) + close.len()).min(rest.len()))
        }
        [b'\'', b'\\', _, ..] => (1, until(b"'", 3) + 1),
        [b'\'', first, ..] => {
            // A character has its closing quote right behind it; a lifetime has not.
            let width = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            if rest.get(1 + width) == Some(&b'\'') { (1, width + 2) } else { (1, 1) }
        }
        _ => (1, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.to_owned(), text.to_owned())
    }

    fn paths(path: &str, text: &str) -> Vec<String> {
        source(path, text).crate_paths().iter().map(|parts| parts.join("::")).collect()
    }

    #[test]
    fn comments_and_literals_are_not_code() {
        let code =
            source("src/a.rs", "a // crate::x\n/* /* b */ */ c \"\\\"crate::y\" 'd' '\\'' r#\"\"z\"# &'e f")
                .code;
        assert!(!code.contains("crate") && !code.contains('z') && !code.contains('b'), "{code}");
        assert!(code.contains('c') && code.contains("'e f"), "{code}");
    }

    #[test]
    fn groups_and_supers_are_resolved() {
        assert_eq!(
            paths("src/edge/h1.rs", "use crate::{base::text, link::{mailbox, outbox as o}, Foo};"),
            ["base::text", "link::mailbox", "link::outbox", "Foo"]
        );
        assert_eq!(
            paths("src/edge/h1.rs", "super::respond::x(); super::super::model::Route"),
            ["edge::respond::x", "model::Route"]
        );
        assert_eq!(paths("src/edge/mod.rs", "super::control::start(); self::x()"), ["control::start"]);
    }

    #[test]
    fn what_stands_under_cfg_test_is_not_seen() {
        let text =
            "use crate::base;\n#[cfg(test)]\nmod tests { use crate::control; fn f() { } }\nuse crate::link;";
        assert_eq!(paths("src/edge/h1.rs", text), ["base", "link"]);
        assert_eq!(source("src/a.rs", "#[cfg(test)]\nmod tests_more;").test_modules(), ["tests_more"]);
    }

    #[test]
    fn a_function_is_as_long_as_its_code() {
        let text = "fn one() -> [u8; 2] {\n    // why\n\n    go();\n    go();\n}\nfn none();\n";
        assert_eq!(source("src/a.rs", text).functions(), [("one".to_owned(), 2)]);
    }
}

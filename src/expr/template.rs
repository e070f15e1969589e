//! Texts with variables in them, `"$host/${arg_page ?? 1}"`, compiled to pieces.
//!
//! A reference is `$name` (letters, digits, `_` and `.`, as many as there are), `${name}`, or `${name ?? text}`
//! with a default for what is unset. `$1` and `${1}` are captures that the caller brings. `\$` is a plain `$`.
//! Anything else is itself, so every text is a template. A name's end is found greedily, so `$arg_x.html` asks
//! for `arg_x.html`; write `${arg_x}.html`.

use std::borrow::Cow;

use super::var::{Var, Vars};

/// A text whose variables are filled in per request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Box<[Piece]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Var(Var, Option<Box<str>>),
    Capture(usize, Option<Box<str>>),
}

impl Template {
    /// Reads a text; none is refused.
    pub fn parse(text: &str) -> Self {
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('\\') {
                plain.push_str(before);
                plain.push('$');
                rest = from.get(1..).unwrap_or_default();
                continue;
            }
            plain.push_str(before);
            if let Some((piece, behind)) = reference(from) {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
                }
                pieces.push(piece);
                rest = behind;
            } else {
                plain.push('$');
                rest = from.get(1..).unwrap_or_default();
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Self { pieces: pieces.into() }
    }

    /// Appends the text to `out`; returns how many references had a value or a default. Captures have none.
    pub fn render<V: Vars + ?Sized>(&self, vars: &V, out: &mut Vec<u8>) -> usize {
        let mut resolved = 0;
        for piece in &self.pieces {
            let (found, default) = match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                Piece::Var(var, default) => (vars.append(var, out), default),
                Piece::Capture(_, default) => (false, default),
            };
            if let (false, Some(default)) = (found, default) {
                out.extend_from_slice(default.as_bytes());
            }
            resolved += usize::from(found || default.is_some());
        }
        resolved
    }

    /// [`Self::render`] with captures: `$0` is the first of them.
    pub fn render_with<V: Vars + ?Sized>(&self, vars: &V, captures: &[&[u8]], out: &mut Vec<u8>) -> usize {
        self.render_by(vars, captures, out, |value, out| out.extend_from_slice(value))
    }

    /// [`Self::render`], every value written by `put`: for forms in which some bytes mean something.
    pub fn render_escaped<V: Vars + ?Sized>(
        &self,
        vars: &V,
        out: &mut Vec<u8>,
        put: impl Fn(&[u8], &mut Vec<u8>),
    ) {
        self.render_by(vars, &[], out, put);
    }

    fn render_by<V: Vars + ?Sized>(
        &self,
        vars: &V,
        captures: &[&[u8]],
        out: &mut Vec<u8>,
        put: impl Fn(&[u8], &mut Vec<u8>),
    ) -> usize {
        let mut resolved = 0;
        for piece in &self.pieces {
            let (value, default) = match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    continue;
                }
                Piece::Var(var, default) => (vars.var(var), default),
                Piece::Capture(number, default) => {
                    (captures.get(*number).map(|found| Cow::Borrowed(*found)), default)
                }
            };
            if let Some(value) = value.as_deref().or_else(|| default.as_deref().map(str::as_bytes)) {
                put(value, out);
                resolved += 1;
            }
        }
        resolved
    }

    /// Whether it has no reference.
    pub fn is_constant(&self) -> bool {
        self.as_constant().is_some()
    }

    /// The text, when it has no reference.
    pub fn as_constant(&self) -> Option<&str> {
        match &*self.pieces {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The variables it asks for, in order, repeats included.
    pub fn vars(&self) -> impl Iterator<Item = &Var> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Var(var, _) => Some(var),
            Piece::Text(_) | Piece::Capture(..) => None,
        })
    }

    /// What stands in it beside its references, without blanks at both ends.
    pub fn texts_within(&self) -> impl Iterator<Item = &str> {
        let last = self.pieces.len().saturating_sub(1);
        self.pieces.iter().enumerate().filter_map(move |(at, piece)| match piece {
            Piece::Text(text) => {
                let text = if at == 0 { text.trim_ascii_start() } else { text };
                Some(if at == last { text.trim_ascii_end() } else { text })
            }
            Piece::Var(..) | Piece::Capture(..) => None,
        })
    }

    /// The highest capture it asks for.
    pub fn capture_max(&self) -> Option<usize> {
        let captures = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Capture(number, _) => Some(*number),
            Piece::Text(_) | Piece::Var(..) => None,
        });
        captures.max()
    }
}

/// The reference that `text` begins with, and what is behind it.
fn reference(text: &str) -> Option<(Piece, &str)> {
    let name_on = text.strip_prefix('$')?;
    if let Some(braced) = name_on.strip_prefix('{') {
        let (inside, behind) = braced.split_once('}')?;
        let (name, default) = match inside.split_once("??") {
            Some((name, default)) => (name.trim(), Some(Box::from(default.trim()))),
            None => (inside.trim(), None),
        };
        let piece = match capture(name) {
            Some(number) => Piece::Capture(number, default),
            None if name.is_empty() => return None,
            None => Piece::Var(Var::parse(name), default),
        };
        return Some((piece, behind));
    }
    // No variable begins with a digit, so `$1st` is the first capture and `st`.
    let is_capture = name_on.starts_with(|first: char| first.is_ascii_digit());
    let is_name = |letter: char| match is_capture {
        true => letter.is_ascii_digit(),
        false => letter.is_ascii_alphanumeric() || letter == '_' || letter == '.',
    };
    let end = name_on.find(|letter| !is_name(letter)).unwrap_or(name_on.len());
    let (name, behind) = name_on.split_at(end);
    let piece = match capture(name) {
        Some(number) => Piece::Capture(number, None),
        None if name.is_empty() || is_capture => return None,
        None => Piece::Var(Var::parse(name), None),
    };
    Some((piece, behind))
}

fn capture(name: &str) -> Option<usize> {
    name.bytes().all(|byte| byte.is_ascii_digit()).then(|| name.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::var::Table;

    const ANSWERS: Table<'static> = Table(&[("host", "a.com"), ("arg_x", "1"), ("arg_empty", "")]);
    const CAPTURES: [&[u8]; 3] = [b"/v1/users", b"v1", b"users"];

    fn check(text: &str, expected: &str, resolved: usize) {
        let mut out = b"> ".to_vec();
        let count = Template::parse(text).render_with(&ANSWERS, &CAPTURES, &mut out);
        let out = String::from_utf8(out).expect("the samples are text");
        assert_eq!((out.as_str(), count), (format!("> {expected}").as_str(), resolved), "{text:?}");
    }

    #[test]
    fn references_are_filled_in_and_counted() {
        check("", "", 0);
        check("plain", "plain", 0);
        check("$host", "a.com", 1);
        check("$host$arg_x", "a.com1", 2);
        check("$host:80/$arg_x-", "a.com:80/1-", 2);
        check("http://${host}.org/", "http://a.com.org/", 1);
        check("${ host }", "a.com", 1);
        check("$arg_empty", "", 1);
    }

    #[test]
    fn what_is_unset_is_empty_and_not_counted_unless_it_has_a_default() {
        check("[$arg_y]", "[]", 0);
        check("[${arg_y}]", "[]", 0);
        check("[${arg_y ?? none at all }]", "[none at all]", 1);
        check("[${arg_y ??}]", "[]", 1);
        check("[${arg_x ?? none}]", "[1]", 1);
        check("[${arg_empty ?? none}]", "[]", 1);
        check("$nonsense", "", 0);
        check("$host.example", "", 0);
    }

    #[test]
    fn captures_come_from_the_caller() {
        check("/$2/$1", "/users/v1", 2);
        check("${1}.html $1.html $1st", "v1.html v1.html v1st", 3);
        check("$0", "/v1/users", 1);
        check("[$3]", "[]", 0);
        check("${3 ?? none}", "none", 1);
        let mut out = Vec::new();
        assert_eq!(Template::parse("a$1b").render(&ANSWERS, &mut out), 0);
        assert_eq!(out, b"ab");
        assert_eq!(Template::parse("$host$1${12}").capture_max(), Some(12));
        assert_eq!(Template::parse("$host").capture_max(), None);
    }

    #[test]
    fn a_dollar_that_begins_no_reference_is_itself() {
        for text in ["$", "a$", "$$", "$ host", "${", "${}", "${ }", "${host", "{host}", "$-", "$é", "\\"] {
            check(text, text, 0);
        }
        check("$$host", "$a.com", 1);
        check("$99999999999999999999999", "$99999999999999999999999", 0);
    }

    #[test]
    fn a_backslash_keeps_a_dollar_plain() {
        check(r"\$host", "$host", 0);
        check(r"\${host}$host", "${host}a.com", 1);
        check(r"a\b$host", r"a\ba.com", 1);
    }

    #[test]
    fn constants_are_known_as_such() {
        assert_eq!(Template::parse("plain").as_constant(), Some("plain"));
        assert_eq!(Template::parse("").as_constant(), Some(""));
        assert_eq!(Template::parse(r"\$host costs $").as_constant(), Some("$host costs $"));
        assert!(Template::parse("plain").is_constant());
        assert!(!Template::parse("$host").is_constant());
        assert!(!Template::parse("a$1").is_constant());
    }

    #[test]
    fn every_variable_is_shown() {
        let template = Template::parse("$host${arg_x ?? 1}$1$nonsense");
        let names: Vec<_> = template.vars().map(Var::name).collect();
        assert_eq!(names, ["host", "arg_x", "nonsense"]);
    }
}

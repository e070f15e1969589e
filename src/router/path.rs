//! Path patterns: exact (`/a`), prefix (`/a*`) and, where the mode has them, parameters (`/user/:id/*rest`).
//!
//! Every pattern has a literal beginning, its key, which a table or a tree finds; what follows is a [`Shape`]
//! that is compared once the key has matched. A shape is matched in one pass over the path, without backtracking:
//! that is why it may have one `*` only.

use std::ops::Range;

use memchr::{memchr, memrchr};

use super::RouterError;

/// Most parameters of one pattern; a match holds their places without allocating.
pub const PARAMS_MAX: usize = 16;

/// The name of what a bare `*` takes, as APISIX has it.
const ANONYMOUS: &str = ":ext";

/// Places in a path.
pub(super) type Spans = [(u32, u32); PARAMS_MAX];

/// A pattern, read.
#[derive(Debug)]
pub(super) struct PathPattern {
    /// The literal beginning, or the whole of an exact path.
    pub(super) key: Box<[u8]>,
    pub(super) kind: PathKind,
}

#[derive(Debug)]
pub(super) enum PathKind {
    Exact,
    Prefix,
    Shape(Box<Shape>),
}

/// What follows the key of a pattern with parameters.
#[derive(Debug, Default)]
pub(super) struct Shape {
    head: Vec<Piece>,
    rest: Rest,
    /// What follows the rest; matched from the end of the path backwards.
    tail: Vec<Piece>,
    /// Of all that is captured, from left to right.
    names: Vec<Box<str>>,
}

#[derive(Debug)]
enum Piece {
    /// These bytes.
    Literal(Box<[u8]>),
    /// One segment, not empty.
    Segment,
}

/// Whether the pattern has a `*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    #[default]
    None,
    Captured,
    /// A `*` inside a segment: anything may follow, and has no name.
    Ignored,
}

impl PathPattern {
    /// Reads a pattern; `with_params` says whether `:` and the text behind `*` mean something.
    pub(super) fn parse(path: &str, with_params: bool) -> Result<Self, RouterError> {
        let special = if with_params { first_special(path) } else { path.find('*') };
        let Some(at) = special else {
            return Ok(Self { key: path.as_bytes().into(), kind: PathKind::Exact });
        };
        let (key, behind) = path.split_at(at);
        let kind = if with_params {
            let begins_segment = key.is_empty() || key.ends_with('/');
            let shape = Shape::parse(path, behind, begins_segment)?;
            let is_plain = shape.head.is_empty() && shape.rest == Rest::Ignored;
            if is_plain { PathKind::Prefix } else { PathKind::Shape(Box::new(shape)) }
        } else {
            PathKind::Prefix
        };
        Ok(Self { key: key.as_bytes().into(), kind })
    }
}

/// Where the first `*` is, or the first `:` that begins a segment; one inside a segment is itself.
fn first_special(path: &str) -> Option<usize> {
    let mut begins_segment = true;
    path.bytes().position(|byte| {
        let found = byte == b'*' || byte == b':' && begins_segment;
        begins_segment = byte == b'/';
        found
    })
}

impl Shape {
    fn parse(path: &str, behind: &str, mut begins_segment: bool) -> Result<Self, RouterError> {
        let mut shape = Self::default();
        let mut left = behind;
        while let Some(first) = left.bytes().next() {
            let segment = left.find('/').unwrap_or(left.len());
            match first {
                b'*' if shape.rest != Rest::None => {
                    return Err(RouterError(format!("expected at most one `*` in path {path:?}")));
                }
                b'*' if begins_segment => {
                    shape.rest = Rest::Captured;
                    let name = &left[1..segment];
                    shape.names.push(if name.is_empty() { ANONYMOUS } else { name }.into());
                    left = &left[segment..];
                }
                b'*' => {
                    shape.rest = Rest::Ignored;
                    left = "";
                }
                b':' if begins_segment => {
                    if segment == 1 {
                        return Err(RouterError(format!("expected a name after `:` in path {path:?}")));
                    }
                    shape.names.push(left[1..segment].into());
                    shape.pieces().push(Piece::Segment);
                    left = &left[segment..];
                }
                _ => {
                    // A literal begins with the `/` behind a parameter, so the first byte is never special.
                    let end = first_special(left).unwrap_or(left.len());
                    shape.pieces().push(Piece::Literal(left.as_bytes()[..end].into()));
                    begins_segment = left[..end].ends_with('/');
                    left = &left[end..];
                }
            }
        }
        if shape.names.len() > PARAMS_MAX {
            return Err(RouterError(format!("expected at most {PARAMS_MAX} parameters in path {path:?}")));
        }
        Ok(shape)
    }

    fn pieces(&mut self) -> &mut Vec<Piece> {
        if self.rest == Rest::None { &mut self.head } else { &mut self.tail }
    }

    /// The names of what it captures.
    pub(super) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    /// The segment at place `index` behind the key, when every path that matches has the same there.
    pub(super) fn literal_segment(&self, index: usize) -> Option<&[u8]> {
        let mut at = 0;
        for (place, piece) in self.head.iter().enumerate() {
            let Piece::Literal(text) = piece else { continue };
            // A literal begins behind a parameter, in the middle of the segment whose number is `at`.
            let segments = text.split(|byte| *byte == b'/');
            let count = segments.clone().count();
            let ends_here = place + 1 == self.head.len() && self.rest == Rest::None;
            for (offset, segment) in segments.enumerate() {
                // The last segment of a literal may go on in a parameter or in the rest.
                let is_whole = offset > 0 && (offset + 1 < count || ends_here);
                if at + offset == index {
                    return is_whole.then_some(segment);
                }
            }
            at += count - 1;
        }
        None
    }

    /// Compares what is behind the key and notes the places of what is captured.
    pub(super) fn matches(&self, path: &[u8], key_bytes: usize, spans: &mut Spans) -> bool {
        let (mut at, mut captured) = (key_bytes, 0);
        let mut note = |place: usize, start: usize, end: usize| {
            if let Some(span) = spans.get_mut(place) {
                *span = (start as u32, end as u32);
            }
        };
        for piece in &self.head {
            let Some(left) = path.get(at..) else { return false };
            match piece {
                Piece::Literal(text) if left.starts_with(text) => at += text.len(),
                Piece::Literal(_) => return false,
                Piece::Segment => {
                    let bytes = memchr(b'/', left).unwrap_or(left.len());
                    if bytes == 0 {
                        return false;
                    }
                    note(captured, at, at + bytes);
                    captured += 1;
                    at += bytes;
                }
            }
        }
        if self.rest == Rest::None {
            return at == path.len();
        }
        let (mut end, mut last) = (path.len(), self.names.len());
        for piece in self.tail.iter().rev() {
            let Some(left) = path.get(at..end) else { return false };
            match piece {
                Piece::Literal(text) if left.ends_with(text) => end -= text.len(),
                Piece::Literal(_) => return false,
                Piece::Segment => {
                    // There is a `/` in front: a tail begins with the one behind the rest's name.
                    let Some(slash) = memrchr(b'/', left) else { return false };
                    let start = at + slash + 1;
                    if start == end {
                        return false;
                    }
                    last -= 1;
                    note(last, start, end);
                    end = start;
                }
            }
        }
        if self.rest == Rest::Captured {
            note(captured, at, end);
        }
        true
    }
}

/// A span as a range.
pub(super) fn range((start, end): (u32, u32)) -> Range<usize> {
    start as usize..end as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The captures of `path`, as `name=text` joined by spaces; `None` when the pattern does not match.
    fn captures(pattern: &str, path: &str) -> Option<String> {
        let pattern = PathPattern::parse(pattern, true).expect("the sample is a pattern");
        let matches_key = path.as_bytes().starts_with(&pattern.key);
        match pattern.kind {
            PathKind::Exact => (path.as_bytes() == &*pattern.key).then(String::new),
            PathKind::Prefix => matches_key.then(String::new),
            PathKind::Shape(shape) => {
                let mut spans = Spans::default();
                let matches = matches_key && shape.matches(path.as_bytes(), pattern.key.len(), &mut spans);
                matches.then(|| {
                    let named = shape.names.iter().zip(spans);
                    let texts: Vec<_> =
                        named.map(|(name, span)| format!("{name}={}", &path[range(span)])).collect();
                    texts.join(" ")
                })
            }
        }
    }

    fn check(pattern: &str, path: &str, expected: &str) {
        assert_eq!(captures(pattern, path).as_deref(), Some(expected), "{path} against {pattern}");
    }

    fn refuse(pattern: &str, path: &str) {
        assert_eq!(captures(pattern, path), None, "{path} against {pattern}");
    }

    #[test]
    fn a_parameter_is_one_whole_segment() {
        check("/user/:id", "/user/7", "id=7");
        check("/user/:id/orders/:order", "/user/7/orders/a.b", "id=7 order=a.b");
        check("/:a/:b", "/x/y", "a=x b=y");
        check(":a", "x", "a=x");
        refuse("/user/:id", "/user/");
        refuse("/user/:id", "/user/7/");
        refuse("/user/:id", "/user/7/8");
        refuse("/user/:id/", "/user/7");
        refuse("/user/:id/orders", "/user/7/order");
        refuse("/:a/:b", "/x/");
    }

    #[test]
    fn a_star_takes_the_rest_even_if_it_is_nothing() {
        check("/files/*path", "/files/a/b", "path=a/b");
        check("/files/*path", "/files/", "path=");
        check("/files/*", "/files/a/b", ":ext=a/b");
        check("/:user/*", "/x/a/b", "user=x :ext=a/b");
        check("*", "/x", ":ext=/x");
        refuse("/files/*path", "/files");
        refuse("/:user/*", "/x");
    }

    #[test]
    fn what_follows_a_star_is_matched_from_the_end() {
        check("/a/*mid/z", "/a/b/c/z", "mid=b/c");
        check("/a/*mid/:last", "/a/b/c/d", "mid=b/c last=d");
        check("/:a/*mid/x/:last/", "/1/2/3/x/4/", "a=1 mid=2/3 last=4");
        check("/a/*mid/z", "/a//z", "mid=");
        refuse("/a/*mid/z", "/a/z");
        refuse("/a/*mid/z", "/a/b/zz");
        refuse("/a/*mid/:last", "/a/b/");
        refuse("/a/*mid/:last", "/a/b");
    }

    #[test]
    fn marks_inside_a_segment_are_literal_or_end_the_pattern() {
        check("/a:b", "/a:b", "");
        refuse("/a:b", "/axb");
        check("/v1/items:batch/:id", "/v1/items:batch/3", "id=3");
        check("/foo*", "/foobar/x", "");
        check("/foo*bar", "/foo", "");
        check("/:a/foo*", "/x/foo/bar", "a=x");
        refuse("/:a/foo*", "/x/fo");
    }

    #[test]
    fn without_parameters_a_colon_is_literal_and_the_first_star_ends_the_prefix() {
        let parse = |path| PathPattern::parse(path, false).expect("the sample is a pattern");
        assert!(matches!(parse("/user/:id").kind, PathKind::Exact));
        let prefix = parse("/a/*/b*");
        assert!(matches!(prefix.kind, PathKind::Prefix));
        assert_eq!(&*prefix.key, b"/a/");
    }

    #[test]
    fn patterns_that_could_not_be_matched_in_one_pass_are_refused() {
        let refused = |path: &str, message: &str| {
            assert_eq!(PathPattern::parse(path, true).expect_err(path).to_string(), message);
        };
        refused("/*a/*b", "expected at most one `*` in path \"/*a/*b\"");
        refused("/a/:/b", "expected a name after `:` in path \"/a/:/b\"");
        let most = "/:p".repeat(PARAMS_MAX);
        assert!(PathPattern::parse(&most, true).is_ok());
        let beyond = format!("{most}/*");
        refused(&beyond, &format!("expected at most 16 parameters in path {beyond:?}"));
    }

    #[test]
    fn segments_that_every_match_shares_are_known() {
        let literal = |pattern: &str, index| {
            let PathKind::Shape(shape) = PathPattern::parse(pattern, true).expect("a pattern").kind else {
                panic!("{pattern} has no shape");
            };
            shape.literal_segment(index).map(|text| String::from_utf8_lossy(text).into_owned())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(literal("/t/:x/users", 0), None);
        assert_eq!(literal("/t/:x/users", 1), some("users"));
        assert_eq!(literal("/t/:x/users", 2), None);
        assert_eq!(literal("/:x/a/:y/b/c/", 1), some("a"));
        assert_eq!(literal("/:x/a/:y/b/c/", 2), None);
        assert_eq!(literal("/:x/a/:y/b/c/", 3), some("b"));
        assert_eq!(literal("/:x/a/:y/b/c/", 4), some("c"));
        assert_eq!(literal("/:x/a/:y/b/c/", 5), some(""));
        assert_eq!(literal("/:x/us*", 1), None);
        assert_eq!(literal("/:x/a/*rest/b", 1), some("a"));
        assert_eq!(literal("/:x/a/*rest/b", 2), None);
        assert_eq!(literal("/*rest/b", 0), None);
    }
}

//! Where in a value something is: `plugins.limit-count.count`, `nodes[2].weight`, `nodes["10.0.0.1:80"]`.
//!
//! A name of letters, digits, `_` and `-` stands bare behind a dot; any other is quoted as JSON in brackets, so
//! that a JSON pointer can always be derived from the text.

use std::fmt::Write;

/// One step inwards.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Writes steps as text.
pub(crate) fn render<'a>(steps: impl IntoIterator<Item = Step<'a>>) -> String {
    let mut text = String::new();
    for step in steps {
        // Writing to a String cannot fail.
        let _ = match step {
            Step::Index(index) => write!(text, "[{index}]"),
            Step::Key(key) if !is_bare(key) => write!(text, "[{}]", serde_json::Value::from(key)),
            Step::Key(key) if text.is_empty() => write!(text, "{key}"),
            Step::Key(key) => write!(text, ".{key}"),
        };
    }
    text
}

/// The same place as a JSON pointer (RFC 6901).
pub(super) fn pointer(path: &str) -> String {
    let mut pointer = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, behind) = next(rest);
        pointer.push('/');
        pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        rest = behind.strip_prefix('.').unwrap_or(behind);
    }
    pointer
}

/// The first step of a path and what is behind it.
pub(super) fn next(path: &str) -> (String, &str) {
    let Some(inner) = path.strip_prefix('[') else {
        let end = path.find(['.', '[']).unwrap_or(path.len());
        return (path[..end].to_owned(), &path[end..]);
    };
    let mut quoted = serde_json::Deserializer::from_str(inner).into_iter::<serde_json::Value>();
    let step = match quoted.next() {
        Some(Ok(serde_json::Value::String(key))) => key,
        Some(Ok(index)) => index.to_string(),
        _ => return (inner.to_owned(), ""),
    };
    let behind = inner.get(quoted.byte_offset()..).unwrap_or_default();
    (step, behind.strip_prefix(']').unwrap_or(behind))
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::{Step, pointer, render};

    #[test]
    fn a_pointer_is_derived_from_every_path() {
        let check = |steps: &[Step<'_>], path: &str, expected: &str| {
            let text = render(steps.iter().copied());
            assert_eq!(text, path);
            assert_eq!(pointer(&text), expected);
        };
        check(&[], "", "");
        check(&[Step::Key("uri")], "uri", "/uri");
        check(&[Step::Key("uris"), Step::Index(2)], "uris[2]", "/uris/2");
        check(
            &[Step::Key("plugins"), Step::Key("limit-count"), Step::Key("count")],
            "plugins.limit-count.count",
            "/plugins/limit-count/count",
        );
        check(
            &[Step::Key("nodes"), Step::Key("10.0.0.1:80")],
            "nodes[\"10.0.0.1:80\"]",
            "/nodes/10.0.0.1:80",
        );
        check(
            &[Step::Key("a/b~\"]"), Step::Index(0), Step::Key("c")],
            "[\"a/b~\\\"]\"][0].c",
            "/a~1b~0\"]/0/c",
        );
    }
}

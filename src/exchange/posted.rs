//! What a held request body says under a name: fields of a form, places in a JSON document.
//!
//! Only bodies that a plugin or a route asked to hold are here; of any other every name is unset. JSON is read anew for each
//! question, so rules that ask often belong behind one that asks for something cheaper; but once while the route is looked for
//! ([`Read`]), as a route's rules are asked of whoever comes.

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::Value;

use super::graphql::Operation;
use super::request::raw_pair;
use super::{Body, Request, multipart};
use crate::proto::head::HeaderId;

/// Steps of a path that are followed; a longer path finds nothing.
const STEPS_MAX: usize = 32;

/// What was read of a body that does not change meanwhile, however many ask.
#[derive(Debug, Default)]
pub struct Read {
    json: OnceCell<Option<Value>>,
    pub(super) graphql: OnceCell<Option<Operation>>,
}

/// A form's text without its coding, borrowed when there is none.
pub(super) fn decoded(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'+', b'%', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    crate::base::text::form_decode(raw, &mut out);
    Cow::Owned(out)
}

/// The first field of that name in a form.
pub(super) fn field<'a>(request: &'a Request, name: &str) -> Option<Cow<'a, [u8]>> {
    let Body::Held(body) = &request.body else { return None };
    is_of_type(request, b"application/x-www-form-urlencoded")
        .then(|| raw_pair(body, name.as_bytes()).map(decoded))
        .flatten()
}

/// What stands at `path` (`a.b[0].c`) of a JSON body, as text; of a form, be it in parts, the field of that name.
pub(super) fn at_path<'a>(request: &'a Request, path: &str) -> Option<Cow<'a, [u8]>> {
    if let Some(field) = field(request, path) {
        return Some(field);
    }
    if let (Body::Held(body), Some(boundary)) = (&request.body, multipart::boundary_of(content_type(request)))
    {
        return multipart::field(body, boundary, path.as_bytes()).map(Cow::Borrowed);
    }
    let root = document(request)?;
    match follow(&root, path).first()? {
        Value::Null => None,
        Value::String(text) => Some(Cow::Owned(text.clone().into_bytes())),
        other => Some(Cow::Owned(other.to_string().into_bytes())),
    }
}

/// Whether one of the values at `path`, in which `[*]` stands for every item, is what `is_it` looks for.
pub(super) fn any_at_path(request: &Request, path: &str, is_it: impl Fn(&Value) -> bool) -> bool {
    document(request).is_some_and(|root| {
        follow(&root, path).into_iter().any(|found| match found {
            Value::Array(items) => items.iter().any(&is_it),
            other => is_it(other),
        })
    })
}

pub(super) fn document(request: &Request) -> Option<Cow<'_, Value>> {
    match &request.read {
        Some(read) => read.json.get_or_init(|| parsed(request)).as_ref().map(Cow::Borrowed),
        None => parsed(request).map(Cow::Owned),
    }
}

fn parsed(request: &Request) -> Option<Value> {
    let Body::Held(body) = &request.body else { return None };
    // serde_json stops at 128 levels, so no body can exhaust the stack.
    is_of_type(request, b"application/json").then(|| serde_json::from_slice(body).ok()).flatten()
}

/// The text of a field of a JSON body; `Some(None)` where it has no such text, `None` where it is no JSON.
pub(super) fn json_text(request: &Request, name: &str) -> Option<Option<String>> {
    if !is_of_type(request, b"application/json") {
        return None;
    }
    Some(document(request).and_then(|root| Some(root.get(name)?.as_str()?.to_owned())))
}

fn content_type(request: &Request) -> &[u8] {
    request.headers.get_id(HeaderId::ContentType).unwrap_or(b"")
}

pub(super) fn is_of_type(request: &Request, media_type: &[u8]) -> bool {
    let value = content_type(request);
    let end = memchr::memchr(b';', value).unwrap_or(value.len());
    value[..end].trim_ascii().eq_ignore_ascii_case(media_type)
}

fn follow<'v>(root: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![root];
    let steps = path.split(['.', '[']).map(|step| step.strip_suffix(']').unwrap_or(step));
    for (number, step) in steps.filter(|step| !step.is_empty()).enumerate() {
        if number >= STEPS_MAX {
            return Vec::new();
        }
        found = found
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(items) if step == "*" => items.iter().collect::<Vec<_>>(),
                Value::Array(items) => {
                    step.parse().ok().and_then(|at: usize| items.get(at)).into_iter().collect()
                }
                other => other.get(step).into_iter().collect(),
            })
            .collect();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(media_type: &str, body: &str) -> Request {
        let mut request = Request::default();
        request.headers.set_id(HeaderId::ContentType, media_type.as_bytes());
        request.body = Body::Held(body.as_bytes().to_vec());
        request
    }

    #[test]
    fn places_in_a_document_are_found_by_path() {
        let json = request(
            "application/json; charset=utf-8",
            r#"{"model":"small","messages":[{"role":"system"},{"role":"user"}],"n":2,"gone":null}"#,
        );
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(at_path(&json, path).as_deref(), expected.map(str::as_bytes), "{path}");
        };
        check("model", Some("small"));
        check("messages[1].role", Some("user"));
        check("messages[2].role", None);
        check("n", Some("2"));
        check("gone", None);
        check("model.deeper", None);
        check(&"a.".repeat(40), None);
        assert!(any_at_path(&json, "messages[*].role", |role| role == "user"));
        assert!(!any_at_path(&json, "messages[*].role", |role| role == "tool"));
    }

    #[test]
    fn a_body_of_another_type_says_nothing() {
        assert_eq!(at_path(&request("text/plain", r#"{"a":"b"}"#), "a"), None);
        assert_eq!(at_path(&request("application/json", "{"), "a"), None);
        let form = request("application/x-www-form-urlencoded", "a=1%202&b=3");
        assert_eq!(field(&form, "a").as_deref(), Some(b"1 2".as_slice()));
        assert_eq!(at_path(&form, "b").as_deref(), Some(b"3".as_slice()));
        assert_eq!(field(&request("application/json", "a=1"), "a"), None);
    }
}

//! What a request of GraphQL asks for: the name, the kind and the root fields of its operation, and what it costs.
//!
//! It is read from the argument `query` of a GET, from the field `query` of a body of JSON, or is the body itself. It is read anew
//! for each question, but once while the route is looked for.

mod cost;

use std::borrow::Cow;

pub use self::cost::{Price, Prices, Strategy, Unpriced};

use apollo_parser::Parser;
use apollo_parser::cst::{CstNode as _, Definition, OperationDefinition, Selection};

use serde_json::Value;

use super::{Body, Request, posted};
use crate::proto::head::Method;

/// Longest request that is read.
pub const BYTES_MAX: usize = 1 << 20;
/// Deepest nesting that is read, and most words.
const DEPTH_MAX: usize = 64;
const TOKENS_MAX: usize = 100_000;

/// An operation, as far as rules ask for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operation {
    /// Empty where it has none.
    pub(super) name: String,
    /// `query`, `mutation` or `subscription`.
    pub(super) kind: &'static str,
    pub(super) root_fields: Vec<String>,
}

/// The first operation of a request; none where it is not of GraphQL.
pub(super) fn operation(request: &Request) -> Option<Cow<'_, Operation>> {
    match &request.read {
        Some(read) => read.graphql.get_or_init(|| parsed(request)).as_ref().map(Cow::Borrowed),
        None => parsed(request).map(Cow::Owned),
    }
}

/// Why a request has no cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCost {
    Method,
    NoBody,
    ContentType,
    Json,
    NoQuery,
    Empty,
    Syntax,
    Unpriced(Unpriced),
}

/// What a POST costs, whose body is JSON with a field `query`, or a query itself. Numbers that variables stand for count if
/// `with_variables` says so.
///
/// # Errors
/// Why it has no cost.
pub fn cost(
    request: &Request,
    (strategy, with_variables): (Strategy, bool),
    prices: Option<&Prices>,
) -> Result<f64, NoCost> {
    let free = Prices::default();
    let prices = prices.unwrap_or(&free);
    if request.method() != Method::Post {
        return Err(NoCost::Method);
    }
    let body = match &request.body {
        Body::Held(body) if !body.is_empty() => body,
        _ => return Err(NoCost::NoBody),
    };
    let json;
    let (text, name, variables) = if posted::is_of_type(request, b"application/json") {
        json = posted::document(request).ok_or(NoCost::Json)?;
        let query = json.get("query").and_then(Value::as_str).ok_or(NoCost::NoQuery)?;
        let name = json.get("operationName").and_then(Value::as_str);
        (query, name, json.get("variables").filter(|_| with_variables))
    } else if posted::is_of_type(request, b"application/graphql") {
        (std::str::from_utf8(body).map_err(|_| NoCost::Syntax)?, None, None)
    } else {
        return Err(NoCost::ContentType);
    };
    if text.trim().is_empty() {
        return Err(NoCost::Empty);
    }
    if text.len() > BYTES_MAX {
        return Err(NoCost::Unpriced(Unpriced::TooMuch));
    }
    let tree = Parser::new(text).recursion_limit(DEPTH_MAX).token_limit(TOKENS_MAX).parse();
    if tree.errors().len() > 0 {
        return Err(NoCost::Syntax);
    }
    cost::of_document(&tree.document(), name, variables, strategy, prices).map_err(NoCost::Unpriced)
}

fn parsed(request: &Request) -> Option<Operation> {
    let mut arg = Vec::new();
    let text = match (&request.body, request.method()) {
        (Body::Held(body), Method::Post) => match posted::json_text(request, "query") {
            Some(Some(query)) => query,
            Some(None) => return None,
            None => String::from_utf8(body.clone()).ok()?,
        },
        (_, Method::Get) if request.arg(b"query", &mut arg) => String::from_utf8(arg).ok()?,
        _ => return None,
    };
    if text.len() > BYTES_MAX {
        return None;
    }
    let tree = Parser::new(&text).recursion_limit(DEPTH_MAX).token_limit(TOKENS_MAX).parse();
    if tree.errors().len() > 0 {
        return None;
    }
    tree.document().definitions().find_map(|definition| match definition {
        Definition::OperationDefinition(operation) => Some(read(&operation)),
        _ => None,
    })
}

fn read(operation: &OperationDefinition) -> Operation {
    let kind = operation.operation_type().map_or("query", |kind| match () {
        () if kind.mutation_token().is_some() => "mutation",
        () if kind.subscription_token().is_some() => "subscription",
        () => "query",
    });
    let selections = operation.selection_set().into_iter().flat_map(|set| set.selections());
    let root_fields = selections.filter_map(|selection| match selection {
        Selection::Field(field) => Some(field.name()?.text().to_string()),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => None,
    });
    Operation {
        name: operation.name().map_or_else(String::new, |name| name.source_string().trim().to_owned()),
        kind,
        root_fields: root_fields.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::head::HeaderId;

    fn posted(media_type: &str, body: &str) -> Option<Operation> {
        let mut request = Request::default();
        request.line.method = Method::Post;
        request.headers.set_id(HeaderId::ContentType, media_type.as_bytes());
        request.body = Body::Held(body.as_bytes().to_vec());
        operation(&request).map(Cow::into_owned)
    }

    fn of(name: &str, kind: &'static str, fields: &[&str]) -> Option<Operation> {
        let root_fields = fields.iter().map(|field| (*field).to_owned()).collect();
        Some(Operation { name: name.to_owned(), kind, root_fields })
    }

    #[test]
    fn name_kind_and_root_fields_are_told() {
        let repo = "query repo {\n  owner { name }\n  alias: repo(id: 1) { id }\n  ...F\n}";
        assert_eq!(posted("", repo), of("repo", "query", &["owner", "repo"]));
        assert_eq!(posted("application/graphql", "mutation M { add(n: 1) }"), of("M", "mutation", &["add"]));
        assert_eq!(posted("text/plain", "{ owner }"), of("", "query", &["owner"]));
        assert_eq!(
            posted("text/plain", "fragment F on T { a } subscription { b }"),
            of("", "subscription", &["b"])
        );
        let json = serde_json::json!({"query": repo, "variables": {"a": 1}}).to_string();
        assert_eq!(posted("application/json", &json), of("repo", "query", &["owner", "repo"]));
    }

    #[test]
    fn a_query_may_stand_in_the_target() {
        let mut request = Request::default();
        request.line.method = Method::Get;
        request.query = b"a=1&query=query+q%7Bowner%7D".to_vec();
        assert_eq!(operation(&request).map(Cow::into_owned), of("q", "query", &["owner"]));
    }

    #[test]
    fn what_is_no_graphql_asks_for_nothing_however_deep_it_is() {
        for (media_type, body) in [
            ("text/plain", ""),
            ("text/plain", "query {"),
            ("text/plain", "hello world"),
            ("application/json", "{}"),
            ("application/json", "{\"query\": 1}"),
            ("application/json", "{"),
        ] {
            assert_eq!(posted(media_type, body), None, "{media_type}: {body}");
        }
        assert_eq!(posted("text/plain", &"{a".repeat(100_000)), None);
        assert_eq!(posted("text/plain", &format!("{{a(b:{}", "[".repeat(100_000))), None);
    }
}

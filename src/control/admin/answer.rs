//! Answers of the Admin API: a status, JSON, and the headers every answer has.

use axum::body::Body;
use axum::http::header::{ACCEPT, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use serde_json::{Value, json};

use super::form;
use crate::control::write::Refusal;
use crate::model::ConfigError;
use crate::model::settings::AdminApiVersion;

const PROBLEM: &str = "application/problem+json";

/// An answer on its way out.
pub(super) struct Answer {
    status: u16,
    body: Option<Value>,
    text: String,
    /// Whether the text is YAML.
    is_yaml: bool,
    headers: Vec<(&'static str, String)>,
    refusal: Option<Refusal>,
    /// The store's revision that the answer is true of.
    revision: Option<u64>,
    /// The object's own revision.
    tag: Option<u64>,
    /// What is taken and not acted upon.
    warnings: Vec<String>,
    /// Whether clients are told the version of the answers' form: those that are let in.
    is_anonymous: bool,
}

/// Whether a client reads problem details (RFC 9457) and asks for them.
pub(super) fn wants_problem_details(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|accept| accept.contains(PROBLEM))
}

impl Answer {
    pub(super) fn json(status: u16, body: Value) -> Self {
        Self { body: Some(body), ..Self::empty(status) }
    }

    /// A word, not as JSON.
    pub(super) fn text(status: u16, text: &'static str) -> Self {
        Self { text: text.to_owned(), ..Self::empty(status) }
    }

    pub(super) fn yaml(text: String) -> Self {
        Self { text, is_yaml: true, ..Self::empty(200) }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn empty(status: u16) -> Self {
        Self {
            status,
            body: None,
            text: String::new(),
            is_yaml: false,
            headers: Vec::new(),
            refusal: None,
            revision: None,
            tag: None,
            warnings: Vec::new(),
            is_anonymous: false,
        }
    }

    pub(super) fn refused(refusal: Refusal) -> Self {
        // What is not there is told in another form than what is wrong.
        let name = if refusal.message == KEY_NOT_FOUND { "message" } else { "error_msg" };
        let body = json!({ name: refusal.message });
        Self::refused_as(refusal, body)
    }

    /// A refusal that APISIX tells in a form of its own.
    pub(super) fn refused_as(refusal: Refusal, body: Value) -> Self {
        Self { refusal: Some(refusal.clone()), ..Self::json(refusal.status, body) }
    }

    /// True of this revision of the store.
    pub(super) fn at(self, revision: u64) -> Self {
        Self { revision: Some(revision), ..self }
    }

    /// With what the changed objects ask for and do not get.
    pub(super) fn warned(self, warnings: &[ConfigError]) -> Self {
        Self { warnings: warnings.iter().map(ConfigError::to_string).collect(), ..self }
    }

    /// To somebody who has not said who they are.
    pub(super) fn without_version(self) -> Self {
        Self { is_anonymous: true, ..self }
    }

    /// About an object that was last changed at this revision.
    pub(super) fn tagged(self, modified: u64) -> Self {
        Self { tag: Some(modified), ..self }
    }

    /// What is said, in another form.
    pub(super) fn reformed(self, form: impl FnOnce(Value) -> Value) -> Self {
        Self { body: self.body.map(form), ..self }
    }

    pub(super) fn into_response(
        self,
        cors: bool,
        problem_details: bool,
        version: AdminApiVersion,
    ) -> Response {
        let (body, kind) = match self.refusal {
            Some(refusal) if problem_details => (Some(problem(&refusal)), PROBLEM),
            _ if self.is_yaml => (None, "application/yaml"),
            _ => (self.body, "application/json"),
        };
        let text = body.map_or(self.text, |body| body.to_string() + "\n");
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = axum::http::StatusCode::from_u16(self.status)
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert("server", HeaderValue::from_static("ringway"));
        if !self.is_anonymous {
            headers.insert("x-api-version", HeaderValue::from_static(form::name(version)));
        }
        for (name, value) in &self.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(*name, value);
            }
        }
        for warning in &self.warnings {
            if let Ok(value) = HeaderValue::from_str(warning) {
                headers.append("x-config-warning", value);
            }
        }
        if let Some(revision) = self.revision {
            headers.insert("x-config-revision", HeaderValue::from(revision));
        }
        if let Some(tag) = self.tag
            && let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\""))
        {
            headers.insert(ETAG, tag);
        }
        if cors {
            for (name, value) in CORS {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
        }
        response
    }
}

/// What is said of an object that is not there.
pub(super) const KEY_NOT_FOUND: &str = "Key not found";

const CORS: [(&str, &str); 6] = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-credentials", "true"),
    ("access-control-expose-headers", "*"),
    ("access-control-max-age", "3600"),
    ("access-control-allow-methods", "POST, GET, PUT, OPTIONS, DELETE, PATCH"),
    ("access-control-allow-headers", "*"),
];

fn problem(refusal: &Refusal) -> Value {
    let faults: Vec<Value> = refusal
        .faults
        .iter()
        .map(|fault| json!({"object": fault.object, "path": fault.path, "pointer": fault.pointer(), "detail": fault.problem}))
        .collect();
    let title = match refusal.status {
        400 => "The request can not be followed",
        401 => "It is not known who asks",
        403 => "Not for whoever asks",
        404 => "Nothing here",
        405 => "Not with this method",
        409 | 412 => "The object has changed",
        _ => "The change was not made",
    };
    let detail = match refusal.faults.as_slice() {
        // With what was probably meant.
        [fault] if fault.problem.starts_with(&refusal.message) => &fault.problem,
        _ => &refusal.message,
    };
    json!({
        "type": "about:blank",
        "title": title,
        "status": refusal.status,
        "detail": detail,
        "errors": faults,
    })
}

//! What of a request may be shown: anything but what may be a credential.
//!
//! A value is hidden where its name says that it is a secret, and wherever it is one that a consumer is known by, or
//! holds what is hidden of the request.
//! Long values are cut.

use std::borrow::Cow;

use serde_json::Value;

use crate::base::text::form_decode;
use crate::exchange::Request;
use crate::expr::Var;
use crate::plugin::ConsumerIndex;
use crate::plugins::CATALOG;

/// What stands in place of a secret.
const MASK: &str = "***";
/// Characters of a value that are shown.
const SHOWN_MAX: usize = 200;
/// Shorter ones would be found everywhere, and hide nothing worth it.
const SECRET_BYTES_MIN: usize = 4;
/// Parts of names whose values are nobody's business.
const SECRET_PARTS: [&str; 13] = [
    "apikey",
    "api_key",
    "auth",
    "cookie",
    "credential",
    "jwt",
    "key",
    "passw",
    "pwd",
    "secret",
    "session",
    "signature",
    "token",
];

/// See the module.
pub(super) struct Veil<'a> {
    consumers: &'a ConsumerIndex,
    /// Secrets of the request, which plugins may have written elsewhere.
    secrets: Vec<Vec<u8>>,
}

impl<'a> Veil<'a> {
    pub(super) const fn new(consumers: &'a ConsumerIndex) -> Self {
        Self { consumers, secrets: Vec::new() }
    }

    /// Notes what of the request is hidden, so that it is wherever it is written to.
    pub(super) fn learn(&mut self, request: &Request) {
        let mut secrets = Vec::new();
        for (_, name, value) in request.headers.iter() {
            if self.named(&String::from_utf8_lossy(name), value) == MASK {
                secrets.push(value.to_vec());
            }
        }
        for pair in request.query.split(|byte| *byte == b'&') {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(end + 1..).unwrap_or_default();
            let (mut name, mut plain) = (Vec::new(), Vec::new());
            form_decode(&pair[..end], &mut name);
            form_decode(value, &mut plain);
            if self.named(&String::from_utf8_lossy(&name), &plain) == MASK {
                secrets.extend([value.to_vec(), plain]);
            }
        }
        secrets.retain(|secret| secret.len() >= SECRET_BYTES_MIN);
        self.secrets = secrets;
    }

    /// A value that goes by a name: of a header, an argument, a cookie.
    pub(super) fn named(&self, name: &str, value: &[u8]) -> String {
        if is_secret(name) { MASK.to_owned() } else { self.plain(value) }
    }

    /// A value of which nothing but itself is known.
    pub(super) fn plain(&self, value: &[u8]) -> String {
        let opens = |shown: &[u8]| {
            let mut cards = CATALOG.iter().filter(|card| card.credential.is_some());
            cards.any(|card| self.consumers.find(card.name, shown).is_some())
        };
        let holds = |secret: &Vec<u8>| memchr::memmem::find(value, secret).is_some();
        if opens(value.trim_ascii()) || self.secrets.iter().any(holds) {
            MASK.to_owned()
        } else {
            cut(&String::from_utf8_lossy(value))
        }
    }

    /// A query, argument by argument.
    pub(super) fn query(&self, query: &[u8]) -> String {
        let pairs = query.split(|byte| *byte == b'&').map(|pair| {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (name, value) = pair.split_at(end);
            let Some(value) = value.get(1..) else { return String::from_utf8_lossy(pair).into_owned() };
            let (mut plain_name, mut plain) = (Vec::new(), Vec::new());
            form_decode(name, &mut plain_name);
            form_decode(value, &mut plain);
            let name = String::from_utf8_lossy(name);
            let hides = self.named(&String::from_utf8_lossy(&plain_name), &plain) == MASK;
            let value = if hides { Cow::Borrowed(MASK) } else { String::from_utf8_lossy(value) };
            format!("{name}={value}")
        });
        cut(&pairs.collect::<Vec<_>>().join("&"))
    }

    /// A path with a query, if there is one.
    pub(super) fn target(&self, target: &[u8]) -> String {
        match target.iter().position(|byte| *byte == b'?') {
            None => self.plain(target),
            Some(at) => {
                let (path, query) = (&target[..at], &target[at + 1..]);
                format!("{}?{}", self.plain(path), self.query(query))
            }
        }
    }

    /// The value of a variable; null when it is unset.
    pub(super) fn variable(&self, var: &Var, value: Option<&[u8]>) -> Value {
        let Some(value) = value else { return Value::Null };
        match var {
            Var::Args => self.query(value),
            Var::RequestUri | Var::RealRequestUri | Var::RequestLine | Var::UpstreamUri => self.target(value),
            Var::RequestBody => MASK.to_owned(),
            other => self.named(&other.name(), value),
        }
        .into()
    }

    /// What a plugin answers with, which may have been written from the request; null when that is nothing.
    pub(super) fn written(&self, body: &[u8]) -> Value {
        if body.is_empty() { Value::Null } else { self.plain(body).trim_end().into() }
    }

    /// A condition as it is written, without the secret it may compare with.
    pub(super) fn condition(&self, var: &Var, written: &Value) -> Value {
        let mut shown = written.clone();
        if is_secret(&var.name())
            && let Some(last) = shown.as_array_mut().and_then(|items| items.last_mut())
            && !last.is_null()
        {
            *last = MASK.into();
        }
        shown
    }
}

/// Whether a name says that its value is a secret.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exchange::ConsumerLabels;

    #[test]
    fn what_may_be_a_credential_is_hidden_wherever_it_stands() {
        let mut index = ConsumerIndex::default();
        let labels = ConsumerLabels::new("jack", "", "", "");
        index.insert("key-auth", (b"open sesame".to_vec(), vec![]), 0, labels).expect("new");
        let veil = Veil::new(&index);
        for (name, value, shown) in [
            ("X-Version", "2", "2"),
            ("Authorization", "Basic abc", MASK),
            ("X-Api-Key", "wrong", MASK),
            ("http_x_access_token", "t", MASK),
            ("cookie_sid", "7", MASK),
            ("X-Door", "open sesame", MASK),
            ("X-Door", "open", "open"),
        ] {
            assert_eq!(veil.named(name, value.as_bytes()), shown, "{name}");
        }
        assert_eq!(
            veil.query(b"a=1&door=open+sesame&token=x&flag&b=%20"),
            "a=1&door=***&token=***&flag&b=%20"
        );
        assert_eq!(veil.target(b"/a?password=p"), "/a?password=***");
        assert_eq!(veil.target(b"/a"), "/a");
    }

    #[test]
    fn a_secret_of_the_request_is_hidden_wherever_it_is_written_to() {
        let index = ConsumerIndex::default();
        let mut veil = Veil::new(&index);
        let mut request = Request::default();
        request.headers.add("Authorization", b"Bearer t0");
        request.query = b"token=t%2d12&a=t2".to_vec();
        veil.learn(&request);
        for (body, shown) in [
            ("no\n", json!("no")),
            ("you said Bearer t0", json!(MASK)),
            ("you said t-12", json!(MASK)),
            ("you said t%2d12", json!(MASK)),
            ("you said t2", json!("you said t2")),
            ("", Value::Null),
        ] {
            assert_eq!(veil.written(body.as_bytes()), shown, "{body}");
        }
        assert_eq!(veil.named("X-Copy", b"Bearer t0"), MASK);
    }

    #[test]
    fn a_long_value_is_cut_and_its_length_told() {
        let index = ConsumerIndex::default();
        let shown = Veil::new(&index).plain("ä".repeat(300).as_bytes());
        assert_eq!(shown, format!("{}… (600 bytes)", "ä".repeat(200)));
    }
}

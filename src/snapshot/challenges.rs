//! What proves to an authority that a name is ours, while it is asking (RFC 8555 8.3, RFC 8737).

use std::sync::Arc;

use bytes::Bytes;

use super::tls::ServerRules;
use crate::base::hash::Map;

/// Where an authority asks over HTTP; what follows is the token.
const PATH: &[u8] = b"/.well-known/acme-challenge/";

/// See the module. Empty nearly always: then nobody looks for anything.
#[derive(Clone, Debug, Default)]
pub struct Challenges {
    /// What is answered over HTTP, by token.
    answers: Map<Box<[u8]>, Bytes>,
    /// By which rules an authority is answered over TLS, by name.
    rules: Map<Box<str>, Arc<ServerRules>>,
}

impl Challenges {
    /// Whether no authority is asking.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.rules.is_empty()
    }

    /// What is answered to a request for this path.
    pub fn answer(&self, path: &[u8]) -> Option<&Bytes> {
        self.answers.get(path.strip_prefix(PATH)?)
    }

    /// By which rules somebody is answered who asks for this name as only authorities do.
    pub fn rules(&self, name: &str) -> Option<&Arc<ServerRules>> {
        self.rules.get(name)
    }

    /// Answers a token with this from here on.
    pub(crate) fn put_answer(&mut self, token: &str, answer: &str) {
        self.answers.insert(token.as_bytes().into(), Bytes::copy_from_slice(answer.as_bytes()));
    }

    /// Answers who asks for a name by these rules from here on.
    pub(super) fn put_rules(&mut self, name: &str, rules: ServerRules) {
        self.rules.insert(name.to_ascii_lowercase().into(), Arc::new(rules));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_token_that_is_known_is_answered() {
        let mut challenges = Challenges::default();
        assert!(challenges.is_empty());
        challenges.put_answer("abc", "abc.key");
        assert!(!challenges.is_empty());
        let answer = |path: &str| challenges.answer(path.as_bytes()).map(|answer| &answer[..]);
        assert_eq!(answer("/.well-known/acme-challenge/abc"), Some(&b"abc.key"[..]));
        for path in ["/.well-known/acme-challenge/", "/.well-known/acme-challenge/abcd", "/abc", ""] {
            assert_eq!(answer(path), None, "{path}");
        }
    }
}

//! The Admin API of a gateway, as a client with the key sees it.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::{Answer, Client};

/// The Admin API of a gateway.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    pub(super) key: String,
}

impl Admin {
    /// One request with the key; `body` is left out where it is empty.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = [&[("X-API-KEY", self.key.as_str())], headers].concat();
        let path = format!("/apisix/admin{path}");
        Client::connect(self.address).request(method, &path, &headers, body.as_bytes())
    }

    /// An object is put, and the answer says so.
    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &str) -> Value {
        let answer = self.ask("PUT", path, &[], body);
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        answer.json()
    }

    /// One request without the key.
    #[track_caller]
    pub(crate) fn stranger(&self, path: &str) -> Answer {
        Client::connect(self.address).get(&format!("/apisix/admin{path}"))
    }
}

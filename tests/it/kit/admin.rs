//! The Admin API of a gateway, as a client with the key sees it.

use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::client::{self, Answer, Client, Raw};
use super::origin::Origin;

/// The Admin API of a gateway.
pub(crate) struct Admin {
    pub(crate) address: SocketAddr,
    pub(crate) key: String,
}

impl Admin {
    /// One request with the key; `body` is left out where it is empty.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = [&[("X-API-KEY", self.key.as_str())], headers].concat();
        let path = format!("/apisix/admin{path}");
        Client::connect(self.address).request(method, &path, &headers, body.as_bytes())
    }

    /// One request with the key to a process that may go away before it has answered.
    pub(crate) fn try_ask(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        let path = format!("/apisix/admin{path}");
        let request = client::request(method, &path, &[("X-API-KEY", &self.key)], body.as_bytes());
        let stream = TcpStream::connect(self.address).ok()?;
        Raw::over(stream).send(request).try_answer(method).ok()
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

/// A route of this path to an origin, as it is put.
pub(crate) fn route_to(origin: &Origin, uri: &str) -> String {
    json!({"uri": uri, "upstream": {"nodes": {origin.node(): 1}}}).to_string()
}

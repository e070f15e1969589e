//! What Vault says of its key-value stores, word for word as its documentation has it. No Vault is to be had where
//! these tests run (see docs/testing.md), so this stands for one: reading, in both versions, and how it refuses.

use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::origin::{Origin, reply};
use super::wire::Seen;

/// What opens it.
pub(crate) const TOKEN: &str = "hvs.a-token-of-the-tests";

/// A store of secrets, and who has asked.
pub(crate) struct Vault {
    origin: Origin,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By path below `/v1/`.
    kept: Map<String, Value>,
    is_sealed: bool,
}

impl Vault {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let origin = Origin::answering(move |seen| answer(&shared.lock().unwrap(), seen));
        Self { origin, state }
    }

    /// Keeps fields at `kv/PATH`, a store of the first version.
    pub(crate) fn keep(&self, path: &str, fields: Value) {
        self.state.lock().unwrap().kept.insert(format!("kv/{path}"), fields);
    }

    /// Keeps fields at `secret/PATH`, a store of the second version.
    pub(crate) fn keep_version(&self, path: &str, fields: Value) {
        self.state.lock().unwrap().kept.insert(format!("secret/data/{path}"), fields);
    }

    pub(crate) fn delete(&self, path: &str) {
        self.state.lock().unwrap().kept.remove(&format!("kv/{path}"));
    }

    /// As after a restart, before anybody has unsealed it.
    pub(crate) fn seal(&self, is_sealed: bool) {
        self.state.lock().unwrap().is_sealed = is_sealed;
    }

    /// A `secrets` object for it.
    pub(crate) fn store(&self, prefix: &str, token: &str) -> String {
        self.store_at(&format!("http://{}", self.node()), prefix, token)
    }

    /// Host and port.
    pub(crate) fn node(&self) -> String {
        self.origin.node()
    }

    /// A `secrets` object for it where something stands before it.
    pub(crate) fn store_at(&self, uri: &str, prefix: &str, token: &str) -> String {
        json!({"uri": uri, "prefix": prefix, "token": token}).to_string()
    }

    /// What it was asked for, in order.
    pub(crate) fn asked(&self) -> Vec<Seen> {
        self.origin.seen()
    }

    pub(crate) fn forget(&self) {
        self.origin.forget();
    }
}

fn answer(state: &State, seen: &Seen) -> Vec<u8> {
    let errors = |status, words: &[&str]| said(status, &json!({"errors": words}));
    if state.is_sealed {
        return errors("503 Service Unavailable", &["Vault is sealed"]);
    }
    if seen.header("x-vault-token") != Some(TOKEN) {
        return errors("403 Forbidden", &["permission denied"]);
    }
    let path = seen.target.strip_prefix("/v1/").unwrap_or_default();
    let Some(fields) = state.kept.get(path) else { return errors("404 Not Found", &[]) };
    let data = if path.starts_with("secret/") {
        json!({
            "data": fields,
            "metadata": {
                "created_time": "2018-03-22T02:24:06.945319214Z",
                "custom_metadata": null,
                "deletion_time": "",
                "destroyed": false,
                "version": 2,
            },
        })
    } else {
        fields.clone()
    };
    said(
        "200 OK",
        &json!({
            "request_id": "b56a8d1b-0f9d-b0c9-3a8d-5c1a2b3d4e5f",
            "lease_id": "",
            "renewable": false,
            "lease_duration": 2_764_800,
            "data": data,
            "wrap_info": null,
            "warnings": null,
            "auth": null,
        }),
    )
}

fn said(status: &str, body: &Value) -> Vec<u8> {
    reply(status, &body.to_string())
}

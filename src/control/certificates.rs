//! `/v1/certificates` of the control API: what clients are shown, until when, and what is awaited.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::board::Board;

/// Every certificate for clients, by id of its ssl.
pub(super) fn all(board: &Board) -> Value {
    let mut told: BTreeMap<String, Value> = board
        .certificates()
        .ends()
        .map(|(id, end)| (id.to_owned(), json!({"ssl": id, "not_after": end, "is_shown": true})))
        .collect();
    for (ssl, acme) in board.acme().map(|sight| sight.all()).unwrap_or_default() {
        let entry = told
            .entry(ssl.clone())
            .or_insert_with(|| json!({"ssl": ssl, "not_after": null, "is_shown": false}));
        entry["acme"] = acme;
    }
    told.into_values().collect()
}

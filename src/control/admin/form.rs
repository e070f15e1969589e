//! The form of answers about objects: that of version 3, which the API speaks, or the one before it, for tools that know no other.
//!
//! | | version 3 | version 2 |
//! |---|---|---|
//! | a list | `total`, `list` | `action`, `count`, `node` with `key`, `dir` and `nodes` |
//! | an object | `key`, `value`, … | `action`, `node` with `key`, `value`, …; read, also `count` |
//! | what was deleted | `deleted`, `key` | the same, with `action` and an empty `node` |

use axum::http::Method;
use serde_json::{Value, json};

use crate::model::settings::AdminApiVersion;

/// What `X-API-VERSION` says.
pub(super) const fn name(version: AdminApiVersion) -> &'static str {
    match version {
        AdminApiVersion::V2 => "v2",
        AdminApiVersion::V3 => "v3",
    }
}

/// An answer of version 3 in the form of version 2. `home` is the path of the list, such as `/apisix/routes`.
pub(super) fn older(method: &Method, home: &str, mut body: Value) -> Value {
    let Value::Object(fields) = &mut body else { return body };
    if let (Some(total), Some(list)) = (fields.shift_remove("total"), fields.shift_remove("list")) {
        return json!({"action": "get", "count": total, "node": {"key": home, "dir": true, "nodes": list}});
    }
    match *method {
        Method::GET | Method::HEAD => json!({"action": "get", "count": 1, "node": body}),
        Method::PUT => json!({"action": "set", "node": body}),
        Method::POST => json!({"action": "create", "node": body}),
        Method::PATCH => json!({"action": "compareAndSwap", "node": body}),
        Method::DELETE => {
            fields.insert("action".to_owned(), json!("delete"));
            fields.insert("node".to_owned(), json!({}));
            body
        }
        _ => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_a_form_in_version_2() {
        let object = json!({"key": "/apisix/routes/1", "value": {"uri": "/"}});
        let check = |method: Method, body: Value, expected: Value| {
            assert_eq!(older(&method, "/apisix/routes", body), expected, "{method}");
        };
        check(
            Method::GET,
            json!({"total": 1, "list": [object]}),
            json!({"action": "get", "count": 1, "node": {"key": "/apisix/routes", "dir": true, "nodes": [object]}}),
        );
        check(
            Method::GET,
            json!({"total": 0, "list": []}),
            json!({"action": "get", "count": 0, "node": {"key": "/apisix/routes", "dir": true, "nodes": []}}),
        );
        check(Method::GET, object.clone(), json!({"action": "get", "count": 1, "node": object}));
        check(Method::PUT, object.clone(), json!({"action": "set", "node": object}));
        check(Method::POST, object.clone(), json!({"action": "create", "node": object}));
        check(Method::PATCH, object.clone(), json!({"action": "compareAndSwap", "node": object}));
        check(
            Method::DELETE,
            json!({"deleted": "1", "key": "/apisix/routes/1"}),
            json!({"action": "delete", "deleted": "1", "key": "/apisix/routes/1", "node": {}}),
        );
    }
}

//! The OpenAPI document of the Admin API, made from the schemas of objects and plugins: it can not say anything else
//! than what is checked.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::objects::{SPECS, Spec, TTL_MAX};
use crate::model::Kind;
use crate::plugins::CATALOG;

/// The document; made once.
pub(super) fn document() -> &'static Value {
    static MADE: OnceLock<Value> = OnceLock::new();
    MADE.get_or_init(|| {
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Ringway Admin API",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Answers about objects are described as they are with admin.api_version v3, the default; \
                                X-API-VERSION tells which form is in use.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/apisix/admin"}],
            "security": [{"key": []}],
            "paths": paths(),
            "components": {
                "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-KEY"}},
                "schemas": schemas(),
            },
        })
    })
}

/// Its name among the schemas: `ConsumerGroup`.
fn name_of(kind: Kind) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    kind.singular().split('_').map(capital).collect()
}

fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    for kind in Kind::ALL {
        let name = name_of(*kind);
        let schema = moved((*kind.schema()).clone(), &name);
        schemas.insert(name, schema);
    }
    for card in CATALOG {
        let name = format!("plugin.{}", card.name);
        let schema = moved((card.schema)(), &name);
        schemas.insert(name, schema);
    }
    schemas.insert(
        "Refusal".to_owned(),
        json!({"type": "object", "properties": {"error_msg": {"type": "string"}, "message": {"type": "string"}}}),
    );
    schemas
}

/// A schema that refers to its own definitions, where it stands in the document.
fn moved(mut schema: Value, name: &str) -> Value {
    if let Value::Object(fields) = &mut schema {
        fields.shift_remove("$schema");
    }
    refer(&mut schema, name);
    schema
}

fn refer(value: &mut Value, name: &str) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value {
                    Value::String(target) if field == "$ref" && target.starts_with("#/") => {
                        *target = format!("#/components/schemas/{name}{}", &target[1..]);
                    }
                    Value::String(target) if field == "$ref" && target == "#" => {
                        *target = format!("#/components/schemas/{name}");
                    }
                    value => refer(value, name),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, name)),
        _ => {}
    }
}

fn paths() -> Map<String, Value> {
    let mut paths = Map::new();
    for spec in &SPECS {
        let plural = spec.kind.plural();
        match spec.kind {
            Kind::Secret => {
                paths.insert("/secrets".to_owned(), json!({"get": listing(spec.kind, &[])}));
                add(&mut paths, "/secrets/{manager}/{id}", spec, &["manager", "id"]);
            }
            kind => {
                paths.insert(format!("/{plural}"), collection(spec));
                let id = if kind == Kind::Consumer { "username" } else { "id" };
                add(&mut paths, &format!("/{plural}/{{{id}}}"), spec, &[id]);
            }
        }
    }
    let home = "/consumers/{username}/credentials";
    paths.insert(home.to_owned(), json!({"get": listing(Kind::Credential, &["username"])}));
    add(&mut paths, &format!("{home}/{{id}}"), &super::objects::CREDENTIALS, &["username", "id"]);
    let home = "/services/{service_id}/graphql_cost_decorations";
    let spec = &super::objects::DECORATIONS;
    let mut all = collection(spec);
    for (_, operation) in all.as_object_mut().into_iter().flatten() {
        if let (Value::Array(own), Value::Array(of_path)) =
            (&mut operation["parameters"], in_path(&["service_id"]))
        {
            own.splice(..0, of_path);
        }
    }
    paths.insert(home.to_owned(), all);
    add(&mut paths, &format!("{home}/{{id}}"), spec, &["service_id", "id"]);
    for (path, method, says, body) in OTHERS {
        let mut operation = json!({"summary": says, "responses": answers(json!({}))});
        let named: Vec<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        operation["parameters"] = in_path(&named);
        if body {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": {}}}});
        }
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        entry[method] = operation;
    }
    paths
}

/// What is not about one kind of object: path, method, what it does, whether it takes a body.
const OTHERS: [(&str, &str, &str, bool); 14] = [
    ("/configs", "get", "All objects as one document", false),
    ("/configs", "put", "Have these objects take the place of all", true),
    ("/configs/validate", "post", "Check a document, and change nothing", true),
    ("/batch", "post", "Several changes as one revision, or none", true),
    ("/history", "get", "Who changed what", false),
    ("/rollback/{revision}", "post", "Make the objects what they were", false),
    ("/schema/{kind}", "get", "The JSON schema of a kind of object", false),
    ("/schema/plugins/{name}", "get", "The JSON schema of a plugin", false),
    ("/schema/validate/{kind}", "post", "Check an object by itself", true),
    ("/plugins", "get", "All plugins, with their schemas", false),
    ("/plugins/list", "get", "Names of the plugins, in the order they run", false),
    ("/plugins/reload", "put", "Nothing, as all plugins are built in", false),
    ("/plugins/{name}", "get", "The JSON schema of a plugin", false),
    ("/openapi.json", "get", "This document", false),
];

fn collection(spec: &Spec) -> Value {
    let mut operations = json!({"get": listing(spec.kind, &[])});
    if spec.post {
        operations["post"] = writing(spec.kind, "Make one, with an id that is given to it", &[]);
    }
    if spec.kind == Kind::Consumer {
        operations["put"] = writing(spec.kind, "Make one or take its place", &[]);
    }
    operations
}

fn add(paths: &mut Map<String, Value>, path: &str, spec: &Spec, named: &[&str]) {
    let reading = |says: &str| json!({"summary": says, "parameters": in_path(named), "responses": answers(kept(spec.kind))});
    let mut operations = json!({
        "get": reading("Read one"),
        "put": writing(spec.kind, "Make one or take its place", named),
        "delete": reading("Delete one"),
    });
    if spec.patch {
        let mut patch = writing(spec.kind, "Change parts of one", named);
        patch["requestBody"]["content"]["application/json"]["schema"] = json!({"type": "object"});
        operations["patch"] = patch;
    }
    paths.insert(path.to_owned(), operations);
}

fn in_path(named: &[&str]) -> Value {
    let parameter =
        |name: &&str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    named.iter().map(parameter).collect()
}

fn listing(kind: Kind, named: &[&str]) -> Value {
    let mut parameters = in_path(named);
    if let Value::Array(parameters) = &mut parameters {
        for name in ["name", "uri", "label", "filter", "page", "page_size"] {
            parameters.push(json!({"name": name, "in": "query", "schema": {"type": "string"}}));
        }
    }
    let list = json!({
        "type": "object",
        "properties": {"total": {"type": "integer"}, "list": {"type": "array", "items": kept(kind)}},
    });
    json!({"summary": "List them", "parameters": parameters, "responses": answers(list)})
}

fn writing(kind: Kind, says: &str, named: &[&str]) -> Value {
    let schema = json!({"$ref": format!("#/components/schemas/{}", name_of(kind))});
    let mut parameters = in_path(named);
    if let Value::Array(parameters) = &mut parameters {
        parameters.push(json!({
            "name": "ttl", "in": "query", "description": "Seconds after which the object goes",
            "schema": {"type": "integer", "minimum": 1, "maximum": TTL_MAX as u64},
        }));
        parameters.push(json!({
            "name": "dry_run", "in": "query", "description": "Check it, and change nothing",
            "schema": {"type": "boolean"},
        }));
    }
    json!({
        "summary": says,
        "parameters": parameters,
        "requestBody": {"required": true, "content": {"application/json": {"schema": schema}}},
        "responses": answers(kept(kind)),
    })
}

fn kept(kind: Kind) -> Value {
    json!({
        "type": "object",
        "properties": {
            "key": {"type": "string"},
            "value": {"$ref": format!("#/components/schemas/{}", name_of(kind))},
            "expires": {"type": "integer", "description": "When it goes, in seconds since 1970"},
            "createdIndex": {"type": "integer"},
            "modifiedIndex": {"type": "integer"},
        },
    })
}

fn answers(schema: Value) -> Value {
    let refusal = json!({"$ref": "#/components/schemas/Refusal"});
    json!({
        "2XX": {"description": "Done", "content": {"application/json": {"schema": schema}}},
        "4XX": {"description": "Refused, and why", "content": {"application/json": {"schema": refusal}}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(target) if name == "$ref" => found.push(target.clone()),
                        value => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let mut found = Vec::new();
        references(document(), &mut found);
        assert!(found.len() > 50);
        for target in found {
            let pointer = target.strip_prefix('#').expect("a reference within the document");
            assert!(document().pointer(pointer).is_some(), "{target} leads nowhere");
        }
    }

    #[test]
    fn every_placeholder_of_a_path_is_a_parameter() {
        for (path, operations) in document()["paths"].as_object().expect("paths") {
            let named = path.matches('{').count();
            for (method, operation) in operations.as_object().expect("operations") {
                let parameters = operation["parameters"].as_array().expect("parameters");
                let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path").count();
                assert_eq!(in_path, named, "{method} {path}");
            }
        }
    }
}

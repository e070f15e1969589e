//! `schema`: the JSON schema of a kind of object, of a plugin, or of whole files, for editors and for programs that
//! write configuration; the same as a table, for pages.
//!
//! The schema of a whole file says all that a schema can say of it: objects of every kind, and in each the
//! configuration of every plugin. What it lets pass `check` may still refuse, such as a reference to nothing.

use serde_json::{Map, Value, json};

use super::args::SchemaArgs;
use super::table::table;
use super::{OK, Told, USAGE, inspect};
use crate::model::resources::listed_plugin;
use crate::model::schema::schema_of;
use crate::model::{Kind, Settings, settings};
use crate::plugins::{CATALOG, Card};
use crate::snapshot::meta_schema;

/// The dialect of every schema here.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Plugins that no release has.
const FOR_TESTS: [&str; 1] = ["crash"];
/// A text whose value comes from the environment, a file, or a store of secrets.
const PUT_IN: &str = r"\$\{\{|^\$([eE][nN][vV]|[fF][iI][lL][eE]|[sS][eE][cC][rR][eE][tT])://";

/// What a name stands for.
#[derive(Clone, Copy)]
enum Subject {
    /// Both files.
    All,
    Resources,
    Config,
    /// A file of tests.
    Tests,
    Kind(Kind),
    /// The list of plugins that may be used.
    Plugins,
    /// What may stand in the configuration of any plugin.
    Meta,
    Plugin(&'static Card),
}

impl Subject {
    fn of(name: Option<&str>) -> Option<Self> {
        Some(match name {
            None => Self::All,
            Some("resources") => Self::Resources,
            Some("config" | "settings") => Self::Config,
            Some("tests") => Self::Tests,
            Some("plugins") => Self::Plugins,
            Some("_meta") => Self::Meta,
            Some(name) => {
                let kind = Kind::ALL.iter().find(|kind| kind.plural() == name || kind.singular() == name);
                match (kind, Card::of(name)) {
                    (Some(kind), _) => Self::Kind(*kind),
                    (None, Some(card)) => Self::Plugin(card),
                    (None, None) => return None,
                }
            }
        })
    }
}

/// `schema`.
pub(super) fn schema(args: &SchemaArgs) -> Told {
    let Some(subject) = Subject::of(args.name.as_deref()) else {
        return inspect::unknown(args.name.as_deref().unwrap_or_default());
    };
    if args.markdown {
        return markdown(subject);
    }
    let value = match subject {
        Subject::All => all(),
        Subject::Resources => resources(),
        Subject::Config => config(),
        Subject::Tests => tests(),
        Subject::Kind(kind) => (*kind.schema()).clone(),
        Subject::Plugins => list_of_plugins(),
        Subject::Meta => meta_schema(),
        Subject::Plugin(card) => (card.schema)(),
    };
    Told { code: OK, text: format!("{value:#}\n") }
}

/// Tables, each below the heading that it has on its page.
fn markdown(subject: Subject) -> Told {
    let mut sections: Vec<(&str, Value)> = Vec::new();
    match subject {
        Subject::All | Subject::Resources | Subject::Tests => {
            let text = "a table is of one thing: expected a kind, a plugin, `plugins`, `_meta` or `config`\n";
            return Told { code: USAGE, text: text.to_owned() };
        }
        Subject::Config => sections.push(("Settings", (*schema_of::<Settings>()).clone())),
        Subject::Kind(kind) => sections.push(("Fields", (*kind.schema()).clone())),
        Subject::Plugins => sections.push(("Fields", listed_plugin())),
        Subject::Meta => sections.push(("In every plugin", meta_schema())),
        Subject::Plugin(card) => {
            sections.push(("Attributes", (card.schema)()));
            sections.extend(card.credential.map(|kind| ("Of a consumer", (kind.schema)())));
            let metadata = (card.metadata_schema)();
            if metadata["properties"].as_object().is_some_and(|fields| !fields.is_empty()) {
                sections.push(("Metadata", metadata));
            }
        }
    }
    let section = |(heading, schema): &(&str, Value)| format!("## {heading}\n\n{}\n", table(schema));
    Told { code: OK, text: sections.iter().map(section).collect::<Vec<_>>().join("\n") }
}

/// A file of either sort.
fn all() -> Value {
    let mut defs = Defs::default();
    defs.take("resources", resources(), "");
    defs.take("config", config(), "");
    let root = json!({ "anyOf": [at("resources"), at("config")] });
    document("Ringway", "A file of settings, or one of objects.", root, defs)
}

/// The settings of the process, as its file says them.
fn config() -> Value {
    let mut defs = Defs::default();
    defs.take("Settings", (*schema_of::<Settings>()).clone(), "");
    let mut root = defs.0.shift_remove("Settings").unwrap_or_default();
    for name in settings::keys_of_apisix() {
        let says =
            "A key of APISIX's config.yaml: taken where it means the same here, else told and ignored.";
        root["properties"][name] = json!({ "description": says });
    }
    let says = "The process's own file: where it listens, on which cores, what it logs, and every limit.";
    defs.leave_room(&mut root);
    document("Ringway: config.yaml", says, root, defs)
}

/// A file of tests; the objects in it are as their own file has them.
fn tests() -> Value {
    let mut defs = Defs::default();
    defs.take("TestFile", super::cases::schema(), "");
    let root = defs.0.shift_remove("TestFile").unwrap_or_default();
    document("Ringway: tests", "Requests to a configuration, and what is expected of each.", root, defs)
}

/// The file of all objects.
fn resources() -> Value {
    let mut defs = Defs::default();
    plugins(&mut defs);
    // Before the routes and services that may have one in them: by itself it has more fields.
    object(Kind::Upstream, &mut defs);
    let mut properties = Map::new();
    for kind in Kind::ALL {
        let name = object(*kind, &mut defs);
        let items = match kind {
            // They stand among the consumers.
            Kind::Credential => continue,
            // And these among the services.
            Kind::CostDecoration => continue,
            Kind::Service => json!({
                "if": { "properties": { "id": { "type": "string", "pattern": "/" } }, "required": ["id"] },
                "then": at("CostDecoration"),
                "else": at(&name),
            }),
            Kind::Consumer => json!({
                "if": { "properties": { "id": { "type": "string", "pattern": "/" } }, "required": ["id"] },
                "then": at("Credential"),
                "else": at(&name),
            }),
            Kind::PluginMetadata => metadata(&mut defs),
            _ => at(&name),
        };
        let says = kind.schema()["description"].clone();
        properties.insert(
            kind.plural().to_owned(),
            json!({ "description": says, "type": ["array", "null"], "items": items }),
        );
    }
    properties.insert("plugins".to_owned(), list_of_plugins());
    let says = "All objects, in APISIX's standalone form: routes, services, upstreams and so on, a list for each kind.";
    let mut root = json!({
        "type": ["object", "null"],
        "properties": properties,
        "patternProperties": { "_conf_version$": { "description": "Not read." } },
        "additionalProperties": false,
    });
    defs.leave_room(&mut root);
    document("Ringway: resources.yaml", says, root, defs)
}

fn list_of_plugins() -> Value {
    let mut listed = listed_plugin();
    listed.as_object_mut().map(|fields| fields.shift_remove("description"));
    json!({
        "description": "The plugins that may be used; absent: all there are.",
        "type": ["array", "null"],
        "items": { "anyOf": [{ "type": "string", "description": "The plugin's name." }, listed] },
    })
}

/// Defines a kind of object as it stands in a file, and tells its name among the definitions.
fn object(kind: Kind, defs: &mut Defs) -> String {
    let mut schema = (*kind.schema()).clone();
    let name = schema["title"].as_str().unwrap_or_else(|| kind.singular()).to_owned();
    let fields = &mut schema["properties"];
    match kind {
        // Its fields are the plugin's.
        Kind::PluginMetadata => return name,
        Kind::Credential => {
            fields["id"] = json!({
                "description": "Whose it is, and which: `USER/credentials/ID`.",
                "type": "string", "pattern": "^[a-zA-Z0-9_-]+/credentials/[a-zA-Z0-9_.-]+$",
            });
        }
        Kind::CostDecoration => {
            fields["id"] = json!({
                "description": "Whose it is, and which: `SERVICE/graphql_cost_decorations/ID`.",
                "type": "string", "pattern": "^[a-zA-Z0-9_.-]+/graphql_cost_decorations/[a-zA-Z0-9_.-]+$",
            });
        }
        Kind::Secret => {
            fields["id"] = json!({
                "description": "The manager, and which of its stores: `vault/1`.",
                "type": "string", "pattern": "^[a-zA-Z0-9_.-]+/[a-zA-Z0-9_.-]+$",
            });
            schema["required"] = json!(["id"]);
        }
        _ => {}
    }
    if let Some(Value::Object(plugins)) = schema["properties"].get_mut("plugins") {
        plugins.shift_remove("additionalProperties");
        let target = match kind {
            Kind::Consumer => "plugins-of-a-consumer",
            Kind::Credential => "credentials",
            _ => "plugins",
        };
        plugins.insert("$ref".to_owned(), json!(format!("#/$defs/{target}")));
    }
    for name in ["createdIndex", "modifiedIndex"] {
        schema["properties"][name] =
            json!({ "description": "Left in by whoever read it from a store. Not read." });
    }
    defs.take(&name, schema, "");
    name
}

/// Defines what objects write under the names of plugins.
fn plugins(defs: &mut Defs) {
    let (mut plugins, mut of_a_consumer, mut credentials) = (Map::new(), Map::new(), Map::new());
    for card in cards() {
        let name = format!("plugin.{}", card.name);
        let mut config = (card.schema)();
        config["properties"]["_meta"] = at("_meta");
        let says = config["description"].clone();
        defs.take(&name, config, &format!("{name}."));
        // What is switched off is not looked at.
        let used = json!({ "description": says, "type": "object", "if": at("off"), "else": at(&name) });
        plugins.insert(card.name.to_owned(), used.clone());
        let Some(kind) = card.credential else {
            of_a_consumer.insert(card.name.to_owned(), used);
            continue;
        };
        let name = format!("credential.{}", card.name);
        defs.take(&name, (kind.schema)(), &format!("{name}."));
        of_a_consumer.insert(card.name.to_owned(), at(&name));
        credentials.insert(card.name.to_owned(), at(&name));
    }
    let by_name = |known: Map<String, Value>| json!({ "properties": known, "additionalProperties": false });
    defs.add("plugins", by_name(plugins));
    defs.add("plugins-of-a-consumer", by_name(of_a_consumer));
    defs.add("credentials", by_name(credentials));
    defs.take("_meta", meta_schema(), "_meta.");
    let off = json!({ "properties": { "disable": { "const": true } }, "required": ["disable"] });
    defs.add("off", json!({ "properties": { "_meta": off }, "required": ["_meta"] }));
}

/// The metadata of one plugin or another.
fn metadata(defs: &mut Defs) -> Value {
    let (mut names, mut cases) = (Vec::new(), Vec::new());
    for card in cards() {
        let name = format!("metadata.{}", card.name);
        let mut schema = (card.metadata_schema)();
        schema["properties"]["id"] = json!({ "description": "The plugin's name." });
        defs.take(&name, schema, &format!("{name}."));
        let is_meant = json!({ "properties": { "id": { "const": card.name } }, "required": ["id"] });
        cases.push(json!({ "if": is_meant, "then": at(&name) }));
        names.push(card.name);
    }
    json!({ "type": "object", "properties": { "id": { "enum": names } }, "required": ["id"], "allOf": cases })
}

fn cards() -> impl Iterator<Item = &'static Card> {
    CATALOG.iter().filter(|card| !FOR_TESTS.contains(&card.name))
}

fn at(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// A document, of which `root` says what it is but for its definitions.
fn document(title: &str, says: &str, root: Value, mut defs: Defs) -> Value {
    defs.0.sort_keys();
    let mut document = json!({ "$schema": DIALECT, "title": title, "description": says });
    if let (Value::Object(document), Value::Object(root)) = (&mut document, root) {
        document.extend(root.into_iter().filter(|(name, _)| name != "description"));
        document.insert("$defs".to_owned(), Value::Object(defs.0));
    }
    document
}

/// The definitions of a document, by name.
#[derive(Default)]
struct Defs(Map<String, Value>);

impl Defs {
    /// Takes a schema that stands by itself in, under a name; the names of its own definitions get a prefix.
    fn take(&mut self, name: &str, mut schema: Value, prefix: &str) {
        refer(&mut schema, name, prefix);
        if let Value::Object(fields) = &mut schema {
            fields.shift_remove("$schema");
            fields.shift_remove("title");
            if let Some(Value::Object(own)) = fields.shift_remove("$defs") {
                own.into_iter().for_each(|(inner, schema)| self.add(&format!("{prefix}{inner}"), schema));
            }
        }
        self.add(name, schema);
    }

    /// Of two with one name the first stays.
    fn add(&mut self, name: &str, schema: Value) {
        self.0.entry(name).or_insert(schema);
    }

    /// Lets a text whose value is put in later stand where these definitions and `root` would refuse it.
    fn leave_room(&mut self, root: &mut Value) {
        leave_room(root);
        self.0.values_mut().for_each(leave_room);
        let says = "Its value is put in when the file is read, or comes from a store of secrets.";
        self.add("put-in", json!({ "description": says, "type": "string", "pattern": PUT_IN }));
    }
}

/// Has the references of a schema lead to where its definitions will be.
fn refer(schema: &mut Value, name: &str, prefix: &str) {
    match schema {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value {
                    Value::String(target) if field == "$ref" => {
                        if let Some(inner) = target.strip_prefix("#/$defs/").filter(|_| !prefix.is_empty()) {
                            // What was put in refers to what all share.
                            let shared = ["_meta", "off", "put-in"].contains(&inner);
                            *target = format!("#/$defs/{}{inner}", if shared { "" } else { prefix });
                        } else if target == "#" {
                            *target = format!("#/$defs/{name}");
                        }
                    }
                    value => refer(value, name, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| refer(item, name, prefix)),
        _ => {}
    }
}

/// See [`Defs::leave_room`].
fn leave_room(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    if is_narrow(fields) {
        let mut outer = Map::new();
        for name in ["description", "default", "writeOnly"] {
            outer.extend(fields.shift_remove(name).map(|value| (name.to_owned(), value)));
        }
        let inner = Value::Object(std::mem::take(fields));
        outer.insert("anyOf".to_owned(), json!([inner, at("put-in")]));
        *fields = outer;
        return;
    }
    for (keyword, part) in fields.iter_mut() {
        match (keyword.as_str(), part) {
            ("properties" | "patternProperties", Value::Object(parts)) => {
                parts.values_mut().for_each(leave_room);
            }
            ("anyOf" | "oneOf" | "prefixItems", Value::Array(parts)) => parts.iter_mut().for_each(leave_room),
            ("items" | "additionalProperties", part) => leave_room(part),
            _ => {}
        }
    }
}

/// Would a schema refuse such a text, and is it of one value rather than of a list or an object?
fn is_narrow(fields: &Map<String, Value>) -> bool {
    let is_fixed = |schema: &Value| schema.get("const").or_else(|| schema.get("enum")).is_some();
    let choices = fields.get("oneOf").and_then(Value::as_array);
    if fields.contains_key("const")
        || fields.contains_key("enum")
        || choices.is_some_and(|choices| choices.iter().all(is_fixed))
    {
        return true;
    }
    let types: Vec<&str> = match fields.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is_scalar =
        types.iter().any(|kind| *kind != "null") && !types.contains(&"object") && !types.contains(&"array");
    is_scalar && (!types.contains(&"string") || fields.contains_key("pattern"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::check;

    /// Every `$ref` in a value.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_definition() {
        for document in [all(), resources(), config()] {
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() > 20, "{}", found.len());
            for target in found {
                let pointer = target.strip_prefix('#').expect("a reference within the document");
                assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
            }
        }
    }

    #[test]
    fn a_text_whose_value_is_put_in_later_fits_where_one_value_is_asked_for() {
        let schema = resources();
        let fits = |fields: Value| {
            let mut route = json!({"id": 1, "uri": "/", "upstream": {"nodes": {"127.0.0.1:1980": 1}}});
            route.as_object_mut().expect("an object").extend(fields.as_object().cloned().expect("an object"));
            check(&schema, &json!({ "routes": [route] })).is_empty()
        };
        assert!(fits(json!({"priority": "${{PRIORITY:=1}}"})) && !fits(json!({"priority": "high"})));
        assert!(fits(json!({"methods": ["${{METHOD}}"]})) && !fits(json!({"methods": ["get"]})));
        assert!(!fits(json!({"methods": "${{METHODS}}"})));
        let header = |name: &str| json!({"plugins": {"key-auth": {"header": name}}});
        assert!(fits(header("$env://HEADER")) && fits(header("apikey")) && !fits(header("api key")));
    }

    #[test]
    fn a_file_is_looked_at_down_to_the_configuration_of_its_plugins() {
        let check = |document: Value, expected: &[&str]| {
            let faults: Vec<String> =
                check(&resources(), &document).iter().map(ToString::to_string).collect();
            assert_eq!(faults.len(), expected.len(), "{faults:?}");
            assert!(faults.iter().zip(expected).all(|(fault, part)| fault.contains(part)), "{faults:?}");
        };
        let consumer = |plugins: Value| json!({"consumers": [{"username": "jack", "plugins": plugins}]});
        check(Value::Null, &[]);
        check(consumer(json!({"key-auth": {"key": "x"}, "cors": {"_meta": {"priority": 1}}})), &[]);
        check(consumer(json!({"key-auth": {"header": "x"}})), &["found header", "key is required"]);
        check(
            json!({"consumers": [{"id": "jack/credentials/1", "plugins": {"key-auth": {"key": "x"}}}]}),
            &[],
        );
        check(json!({"consumers": [{"id": "jack/1", "plugins": {}}]}), &["consumers[0].id"]);
        let rule = |config: Value| json!({"global_rules": [{"id": 1, "plugins": {"limit-count": config}}]});
        check(rule(json!({"_meta": {"disable": true}})), &[]);
        check(rule(json!({"_meta": {"disable": false}})), &["expected at least one of"]);
        check(rule(json!({"count": 1, "time_window": 1, "_meta": {"off": true}})), &["found off"]);
        let metadata = |id: &str| json!({"plugin_metadata": [{"id": id, "limit_header": "X-Limit"}]});
        check(metadata("limit-count"), &[]);
        check(metadata("key-auth"), &["found limit_header"]);
        check(metadata("nothing"), &["plugin_metadata[0].id"]);
    }
}

//! The validator: walks schema and value together and collects every fault.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use regex::Regex;
use serde_json::{Map, Value};

use super::bounds::Bounds;
use super::whole;
use super::words::{both, branches, choices, expected, shown, types};
use crate::base::address;
use crate::base::hash::Set;
use crate::model::ConfigError;
use crate::model::field;
use crate::model::nearest::hint;
use crate::model::path::{Step, render};

/// Most faults told of one value: whoever has more wants the first hundreds mended first.
const FAULTS_MAX: usize = 500;
/// How deep schema and value are walked. Parsers stop at 128 levels of value, and a level takes two or three
/// steps of schema; more means a schema that refers to itself without end.
const DEPTH_MAX: usize = 512;
/// Compiled patterns kept. They come from schemas, of which the program has a fixed number.
const PATTERNS_MAX: usize = 1024;

/// Everything in which `instance` departs from `schema`.
pub fn check(schema: &Value, instance: &Value) -> Vec<ConfigError> {
    let mut walk = Walk { root: schema, path: Vec::new(), faults: Vec::new(), depth: 0, is_mute: false };
    walk.visit(schema, instance);
    walk.faults
}

/// Follows `$ref` to what it names. A reference to nothing is a schema that allows anything.
pub(super) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut at = schema;
    for _ in 0..DEPTH_MAX {
        let Some(pointer) = at.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'))
        else {
            return at;
        };
        at = root.pointer(pointer).unwrap_or(&Value::Bool(true));
    }
    &Value::Bool(true)
}

struct Walk<'a> {
    root: &'a Value,
    path: Vec<Step<'a>>,
    faults: Vec<ConfigError>,
    depth: usize,
    /// It is asked whether there is a fault, not which: the first, without a word, is enough.
    is_mute: bool,
}

impl<'a> Walk<'a> {
    fn visit(&mut self, schema: &'a Value, instance: &'a Value) {
        if self.is_mute && !self.faults.is_empty() {
            return;
        }
        if self.depth >= DEPTH_MAX {
            return self.fault("nested too deeply");
        }
        self.depth += 1;
        match schema {
            Value::Bool(false) => self.fault("not allowed here"),
            Value::Object(keywords) => {
                if keywords.contains_key("$ref") {
                    self.visit(resolve(self.root, schema), instance);
                }
                // A value of the wrong type has one fault, not one a keyword.
                if self.scalar(schema, keywords, instance) {
                    self.combined(schema, keywords, instance);
                    match instance {
                        Value::Array(items) => self.array(keywords, items),
                        Value::Object(fields) => self.object(keywords, fields),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        self.depth -= 1;
    }

    fn visit_at(&mut self, step: Step<'a>, schema: &'a Value, instance: &'a Value) {
        self.path.push(step);
        self.visit(schema, instance);
        self.path.pop();
    }

    fn fault(&mut self, problem: impl Into<String>) {
        if self.is_mute {
            self.faults.push(ConfigError::at(String::new(), String::new()));
        } else if self.faults.len() < FAULTS_MAX {
            self.faults.push(ConfigError::at(render(self.path.iter().copied()), problem));
        }
    }

    /// The faults of one alternative, without owning up to them yet.
    fn probe(&mut self, schema: &'a Value, instance: &'a Value) -> Vec<ConfigError> {
        let kept = std::mem::take(&mut self.faults);
        self.visit(schema, instance);
        std::mem::replace(&mut self.faults, kept)
    }

    fn holds(&mut self, schema: &'a Value, instance: &'a Value) -> bool {
        let was_mute = std::mem::replace(&mut self.is_mute, true);
        let faults = self.probe(schema, instance);
        self.is_mute = was_mute;
        faults.is_empty()
    }

    fn unexpected(&mut self, schema: &'a Value, instance: &'a Value) {
        if self.is_mute {
            return self.fault("");
        }
        let wanted = expected(self.root, schema);
        let secret = schema.get("writeOnly") == Some(&Value::Bool(true));
        let found = if secret { "something else, not shown".to_owned() } else { shown(instance) };
        let hint = instance.as_str().filter(|_| !secret).map_or_else(String::new, |text| {
            hint(text, choices(self.root, schema).into_iter().filter_map(Value::as_str))
        });
        self.fault(format!("expected {wanted}, got {found}{hint}"));
    }

    /// Type, fixed values, numbers and text: at most one fault, which says all that was expected.
    fn scalar(&mut self, schema: &'a Value, keywords: &'a Map<String, Value>, instance: &'a Value) -> bool {
        let types = types(keywords);
        let fixed = match (keywords.get("const"), keywords.get("enum")) {
            (Some(one), _) => one == instance,
            (None, Some(Value::Array(all))) => all.contains(instance),
            _ => true,
        };
        let holds = (types.is_empty() || types.iter().any(|name| is_type(name, instance)))
            && fixed
            && match instance {
                Value::Number(number) => Bounds::of(keywords).admit(number),
                Value::String(text) => text_holds(keywords, text),
                _ => true,
            };
        if !holds {
            self.unexpected(schema, instance);
        }
        holds
    }

    fn array(&mut self, keywords: &'a Map<String, Value>, items: &'a [Value]) {
        let count = |keyword| keywords.get(keyword).and_then(Value::as_u64);
        let length = items.len() as u64;
        if count("minItems").is_some_and(|least| length < least)
            || count("maxItems").is_some_and(|most| length > most)
        {
            let words = expected(self.root, &sketch(keywords, &["minItems", "maxItems"], "array"));
            let found = if length == 0 { "an empty list".to_owned() } else { length.to_string() };
            self.fault(format!("expected {words}, got {found}"));
        }
        if keywords.get("uniqueItems") == Some(&Value::Bool(true)) {
            let mut seen = Set::default();
            for item in items.iter().filter(|item| !seen.insert(*item)) {
                self.fault(format!("expected each item once, got {} again", shown(item)));
            }
        }
        let prefix = keywords.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = prefix.get(index).or_else(|| keywords.get("items")) {
                self.visit_at(Step::Index(index), schema, item);
            }
        }
        if let Some(schema) = keywords.get("contains")
            && !items.iter().any(|item| self.holds(schema, item))
        {
            let wanted = expected(self.root, schema);
            self.fault(format!("expected a list with {wanted} in it"));
        }
    }

    fn object(&mut self, keywords: &'a Map<String, Value>, fields: &'a Map<String, Value>) {
        let part = |keyword| keywords.get(keyword).and_then(Value::as_object);
        let properties = part("properties");
        let patterns = part("patternProperties");
        for (name, value) in fields {
            let mut known = false;
            if let Some(schema) = properties.and_then(|known| known.get(name)) {
                known = true;
                self.visit_at(Step::Key(name), schema, value);
            }
            for (pattern, schema) in patterns.into_iter().flatten() {
                if matches(pattern, name) {
                    known = true;
                    self.visit_at(Step::Key(name), schema, value);
                }
            }
            if let Some(schema) = keywords.get("propertyNames") {
                self.name_of_field(schema, name);
            }
            match keywords.get("additionalProperties") {
                Some(Value::Bool(false)) if !known => {
                    let names = properties.into_iter().flat_map(Map::keys).map(String::as_str);
                    self.fault(format!("additional properties forbidden, found {name}{}", hint(name, names)));
                }
                Some(schema) if !known => self.visit_at(Step::Key(name), schema, value),
                _ => {}
            }
        }
        self.presence(keywords, fields);
    }

    fn name_of_field(&mut self, schema: &'a Value, name: &str) {
        let name = Value::from(name);
        if !check(schema, &name).is_empty() {
            let wanted = expected(self.root, schema);
            self.fault(format!("expected {wanted} as the name of a field, got {}", shown(&name)));
        }
    }

    /// Which fields must be there, and how many.
    fn presence(&mut self, keywords: &'a Map<String, Value>, fields: &'a Map<String, Value>) {
        for name in names(keywords.get("required")) {
            if !fields.contains_key(name) {
                self.fault(format!("{name} is required"));
            }
        }
        for (name, others) in
            keywords.get("dependentRequired").and_then(Value::as_object).into_iter().flatten()
        {
            for other in names(Some(others)) {
                if is_given(fields, name) && !is_given(fields, other) {
                    self.fault(format!("{other} is required when {name} is given"));
                }
            }
        }
        for (name, schema) in
            keywords.get("dependentSchemas").and_then(Value::as_object).into_iter().flatten()
        {
            if is_given(fields, name) {
                self.presence_of_schema(schema, fields);
            }
        }
        let count = |keyword| keywords.get(keyword).and_then(Value::as_u64);
        let length = fields.len() as u64;
        if count("minProperties").is_some_and(|least| length < least)
            || count("maxProperties").is_some_and(|most| length > most)
        {
            let words = expected(self.root, &sketch(keywords, &["minProperties", "maxProperties"], "object"));
            self.fault(format!("expected {words}, got {length}"));
        }
    }

    fn presence_of_schema(&mut self, schema: &'a Value, fields: &'a Map<String, Value>) {
        if let Value::Object(keywords) = resolve(self.root, schema) {
            self.object(keywords, fields);
        }
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`, `if`.
    fn combined(&mut self, schema: &'a Value, keywords: &'a Map<String, Value>, instance: &'a Value) {
        let list = |keyword| keywords.get(keyword).and_then(Value::as_array);
        for part in list("allOf").into_iter().flatten() {
            self.visit(part, instance);
        }
        if let Some(options) = list("anyOf") {
            self.alternatives(schema, options, instance, Matches::Some);
        }
        if let Some(options) = list("oneOf") {
            self.alternatives(schema, options, instance, Matches::One);
        }
        if let Some(forbidden) = keywords.get("not") {
            self.forbidden(forbidden, instance);
        }
        if let Some(condition) = keywords.get("if") {
            let branch = if self.holds(condition, instance) { "then" } else { "else" };
            if let Some(consequence) = keywords.get(branch) {
                self.visit(consequence, instance);
            }
        }
    }

    fn forbidden(&mut self, forbidden: &'a Value, instance: &'a Value) {
        if let (Some(group), Value::Object(fields)) = (group(forbidden), instance) {
            if group.iter().all(|name| is_given(fields, name)) {
                let names: Vec<String> = group.iter().map(|name| format!("`{name}`")).collect();
                self.fault(match names.as_slice() {
                    [one] => format!("{one} is not allowed here"),
                    several => format!("expected at most one of {}", both(several)),
                });
            }
        } else if self.holds(forbidden, instance) {
            let words = expected(self.root, forbidden);
            self.fault(format!("expected anything but {words}, got {}", shown(instance)));
        }
    }

    fn alternatives(
        &mut self,
        schema: &'a Value,
        options: &'a [Value],
        instance: &'a Value,
        wanted: Matches,
    ) {
        if let Some(groups) = options.iter().map(group).collect::<Option<Vec<_>>>() {
            if let Value::Object(fields) = instance {
                self.groups_of_fields(&groups, fields, wanted);
            }
            return;
        }
        let matching = match wanted {
            Matches::Some => usize::from(options.iter().any(|option| self.holds(option, instance))),
            Matches::One => options.iter().filter(|option| self.holds(option, instance)).count(),
        };
        match matching {
            0 if self.is_mute => self.fault(""),
            0 => self.departs_from_all(schema, options, instance),
            1 => {}
            _ => self.fault("matches more than one of the forms it may have; leave some fields out"),
        }
    }

    /// Of a value that has none of the forms it may have.
    fn departs_from_all(&mut self, schema: &'a Value, options: &'a [Value], instance: &'a Value) {
        // The form that was meant is the one of the value's type; among several, the one it nearly keeps.
        let is_told_by_form = schema.get("x-expected").is_none();
        let mut tried = Vec::new();
        for option in options {
            if is_told_by_form && self.fits_type(option, instance) {
                tried.push((option, self.probe(option, instance)));
            }
        }
        let meant = tried
            .into_iter()
            .min_by_key(|(option, faults)| (!self.tags_agree(option, instance), faults.len()));
        match meant {
            Some((_, faults)) => self.faults.extend(faults),
            None => self.unexpected(schema, instance),
        }
    }

    /// Alternatives that only say which fields are there.
    fn groups_of_fields(&mut self, groups: &[Vec<&str>], fields: &Map<String, Value>, wanted: Matches) {
        let given = groups.iter().filter(|group| group.iter().all(|name| is_given(fields, name))).count();
        let how_many = match (wanted, given) {
            (Matches::Some, 1..) | (Matches::One, 1) => return,
            (Matches::Some, 0) => "at least one",
            (Matches::One, _) => "exactly one",
        };
        let quote = |name: &&str| format!("`{name}`");
        let words: Vec<String> =
            groups.iter().map(|group| group.iter().map(quote).collect::<Vec<_>>().join(" with ")).collect();
        self.fault(format!("expected {how_many} of {}", both(&words)));
    }

    /// Could a value of this type be meant by this schema? Fixed choices fit only themselves.
    fn fits_type(&self, schema: &'a Value, instance: &Value) -> bool {
        let schema = resolve(self.root, schema);
        let Some(keywords) = schema.as_object() else { return false };
        if keywords.contains_key("const") || keywords.contains_key("enum") {
            return false;
        }
        let types = types(keywords);
        if types.is_empty() {
            return branches(schema).any(|branch| self.fits_type(branch, instance));
        }
        types.iter().any(|name| *name != "null" && is_type(name, instance))
    }

    /// Do the fields that have one allowed value, such as `type` of a tagged choice, have it?
    fn tags_agree(&self, schema: &'a Value, instance: &Value) -> bool {
        let properties = resolve(self.root, schema).get("properties").and_then(Value::as_object);
        properties
            .into_iter()
            .flatten()
            .filter_map(|(name, schema)| Some((name, schema.get("const")?)))
            .all(|(name, tag)| instance.get(name) == Some(tag))
    }
}

#[derive(Clone, Copy)]
enum Matches {
    Some,
    One,
}

/// The names of a schema that says nothing but `required`.
fn group(schema: &Value) -> Option<Vec<&str>> {
    let keywords = schema.as_object()?;
    let only_required = keywords.len() == 1 && keywords.contains_key("required");
    only_required.then(|| names(keywords.get("required")).collect())
}

fn names(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// A field set to null is a field left out, as serde takes it.
fn is_given(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).is_some_and(|value| !value.is_null())
}

/// A schema of a type and some of the given keywords, to be put into words.
fn sketch(keywords: &Map<String, Value>, kept: &[&str], name: &str) -> Value {
    let mut small = Map::new();
    small.insert("type".to_owned(), Value::from(name));
    for keyword in kept {
        if let Some(value) = keywords.get(*keyword) {
            small.insert((*keyword).to_owned(), value.clone());
        }
    }
    Value::Object(small)
}

fn is_type(name: &str, instance: &Value) -> bool {
    match name {
        "string" => instance.is_string(),
        "integer" => instance.as_number().is_some_and(|number| !number.is_f64() || whole(number).is_some()),
        "number" => instance.is_number(),
        "boolean" => instance.is_boolean(),
        "array" => instance.is_array(),
        "object" => instance.is_object(),
        "null" => instance.is_null(),
        _ => true,
    }
}

fn text_holds(keywords: &Map<String, Value>, text: &str) -> bool {
    let count = |keyword| keywords.get(keyword).and_then(Value::as_u64);
    let (least, most) = (count("minLength"), count("maxLength"));
    if least.is_some() || most.is_some() {
        let length = text.chars().count() as u64;
        if least.is_some_and(|least| length < least) || most.is_some_and(|most| length > most) {
            return false;
        }
    }
    let pattern_holds =
        keywords.get("pattern").and_then(Value::as_str).is_none_or(|pattern| matches(pattern, text));
    pattern_holds
        && match keywords.get("format").and_then(Value::as_str) {
            Some("ip-range") => field::is_address_range(text),
            Some("ip") => text.parse::<std::net::IpAddr>().is_ok(),
            Some("ipv4") => text.parse::<std::net::Ipv4Addr>().is_ok(),
            Some("ipv6") => text.parse::<std::net::Ipv6Addr>().is_ok(),
            Some("socket-address") => text.parse::<std::net::SocketAddr>().is_ok(),
            Some("listen-place") => {
                text.parse::<std::net::SocketAddr>().is_ok() || address::path_in(text).is_some()
            }
            Some("unix-path") => address::path_in(&format!("{}{text}", address::UNIX)).is_some(),
            // Formats are remarks unless agreed upon.
            _ => true,
        }
}

/// Does a pattern occur in a text? One that does not compile is the schema's fault, and forbids nothing.
fn matches(pattern: &str, text: &str) -> bool {
    static COMPILED: Mutex<BTreeMap<String, Option<Regex>>> = Mutex::new(BTreeMap::new());
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if compiled.len() >= PATTERNS_MAX {
        compiled.clear();
    }
    if let Some(known) = compiled.get(pattern) {
        return known.as_ref().is_none_or(|regex| regex.is_match(text));
    }
    let regex = Regex::new(pattern).ok();
    debug_assert!(regex.is_some(), "the pattern {pattern} of a schema does not compile");
    let holds = regex.as_ref().is_none_or(|regex| regex.is_match(text));
    compiled.insert(pattern.to_owned(), regex);
    holds
}

//! Text to one JSON value, whatever the text is written in, within bounds.
//!
//! serde's own way into a `Value` would let a later field silently replace an earlier one of the same name, turn
//! what is no number into null, and grow a small file with aliases of aliases into gigabytes. This one refuses.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::ConfigError;

/// Largest file read. A route takes half a kilobyte, so this is two hundred thousand of them.
pub const FILE_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Most memory that a file's values may take once its aliases are followed. Worst case for the control thread.
pub const VALUE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Deepest nesting. Both parsers stop here by themselves; the value's readers rely on it.
pub const DEPTH_MAX: usize = 128;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
}

impl Format {
    /// The format a file's name speaks of: JSON for `.json`, else YAML.
    pub fn of_path(path: &std::path::Path) -> Self {
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json { Self::Json } else { Self::Yaml }
    }
}

/// Reads a text; an empty one is null.
pub(super) fn read(text: &str, format: Format) -> Result<Value, ConfigError> {
    if text.len() > FILE_BYTES_MAX {
        let found = text.len();
        return Err(ConfigError::new(format!("expected at most {FILE_BYTES_MAX} bytes, got {found}")));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let left = Cell::new(VALUE_BYTES_MAX);
    let seed = Reader { left: &left, format, depth: 0 };
    match format {
        Format::Json => {
            if text.trim().is_empty() {
                return Ok(Value::Null);
            }
            let mut input = serde_json::Deserializer::from_str(text);
            let value = seed.deserialize(&mut input).and_then(|value| input.end().map(|()| value));
            value.map_err(|error| ConfigError::new(format!("not JSON: {error}")))
        }
        Format::Yaml => {
            if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
                return Ok(Value::Null);
            }
            let value = seed.deserialize(serde_yaml_ng::Deserializer::from_str(text));
            value.map_err(|error| ConfigError::new(format!("not YAML: {error}")))
        }
    }
}

#[derive(Clone, Copy)]
struct Reader<'a> {
    /// What is left of [`VALUE_BYTES_MAX`].
    left: &'a Cell<usize>,
    format: Format,
    depth: usize,
}

impl Reader<'_> {
    fn charge<E: Error>(self, text_bytes: usize) -> Result<(), E> {
        let cost = size_of::<Value>().saturating_add(text_bytes);
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(0));
        left.map(|_| ())
            .ok_or_else(|| E::custom(format!("takes more than {VALUE_BYTES_MAX} bytes once read")))
    }

    fn inner<E: Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            return Err(E::custom(format!("nested deeper than {DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true, false, null, a list or an object, without tags")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.charge(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.charge(0)?;
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.charge(0)?;
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.charge(0)?;
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom(format!("{value} is not a number to count with")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.charge(value.len())?;
        Ok(Value::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.charge(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        self.deserialize(input)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.charge(0)?;
        let inner = self.inner()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.charge(0)?;
        let inner = self.inner()?;
        let mut fields = Map::new();
        let mut merged = Vec::new();
        while let Some(key) = entries.next_key_seed(inner)? {
            let name = match key {
                Value::String(name) => name,
                Value::Number(_) | Value::Bool(_) => key.to_string(),
                _ => return Err(A::Error::custom("the name of a field is neither text nor a number")),
            };
            let value = entries.next_value_seed(inner)?;
            if name == "<<" && self.format == Format::Yaml {
                merged.push(value);
            } else if fields.contains_key(&name) {
                return Err(A::Error::custom(format!("the field {name} is given twice")));
            } else {
                fields.insert(name, value);
            }
        }
        merged.into_iter().try_for_each(|value| merge(&mut fields, value)).map_err(A::Error::custom)?;
        Ok(Value::Object(fields))
    }
}

/// YAML's `<<: *defaults`: takes over the fields that are not there, from the first object that has them.
fn merge(fields: &mut Map<String, Value>, source: Value) -> Result<(), &'static str> {
    match source {
        Value::Object(defaults) => {
            for (name, value) in defaults {
                fields.entry(name).or_insert(value);
            }
            Ok(())
        }
        Value::Array(sources) if sources.iter().all(Value::is_object) => {
            sources.into_iter().try_for_each(|source| merge(fields, source))
        }
        _ => Err("<< expects an object or a list of objects"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Format, read};

    fn yaml(text: &str) -> Result<Value, String> {
        read(text, Format::Yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn yaml_and_json_come_to_one_value() {
        let expected = json!({"a": [1, -2, 0.5, true, null, "x"], "7": {"b": {}}});
        assert_eq!(yaml("a: [1, -2, 0.5, true, null, x]\n7:\n  b: {}\n").unwrap(), expected);
        assert_eq!(yaml("\u{feff}a: [1, -2, 0.5, true, null, x]\r\n7:\r\n  b: {}\r\n").unwrap(), expected);
        let text = r#"{"a": [1, -2, 0.5, true, null, "x"], "7": {"b": {}}}"#;
        assert_eq!(read(text, Format::Json).unwrap(), expected);
        assert_eq!(read(&format!("\u{feff}{text}\r\n"), Format::Json).unwrap(), expected);
    }

    #[test]
    fn a_text_without_anything_in_it_is_null() {
        for text in ["", "\n\n", "# only a remark\n#END\n", "\u{feff}"] {
            assert_eq!(yaml(text), Ok(Value::Null), "{text:?}");
        }
        assert_eq!(read(" \n", Format::Json).unwrap(), Value::Null);
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        assert!(yaml("a: 1\nb: 2\na: 3").unwrap_err().contains("the field a is given twice"));
        let json = read(r#"{"a": 1, "a": 2}"#, Format::Json).unwrap_err().to_string();
        assert!(json.contains("the field a is given twice"), "{json}");
    }

    #[test]
    fn a_merged_object_fills_in_and_never_replaces() {
        let text = "base: &base {a: 1, b: 1}\nmore: &more {b: 2, c: 2}\nx: {<<: *base, b: 3}\ny: {<<: [*base, *more]}";
        let value = yaml(text).unwrap();
        assert_eq!(value["x"], json!({"a": 1, "b": 3}));
        assert_eq!(value["y"], json!({"a": 1, "b": 1, "c": 2}));
        assert!(yaml("x: {<<: 1}").unwrap_err().contains("<< expects an object"));
    }

    #[test]
    fn what_has_no_place_in_json_is_refused() {
        assert!(yaml("a: .inf").unwrap_err().contains("inf is not a number to count with"));
        assert!(yaml("a: !secret x").unwrap_err().contains("without tags"));
        assert!(yaml("[1, 2]: x").unwrap_err().contains("neither text nor a number"));
        assert!(yaml("a: 1\n---\nb: 2").is_err());
    }

    #[test]
    fn aliases_of_aliases_are_stopped_before_memory_is_gone() {
        let thousand = "\"".to_owned() + &"x".repeat(1000) + "\"";
        let mut text = format!("a: &a {thousand}\n");
        for (inner, outer) in ["a", "b", "c", "d"].iter().zip(["b", "c", "d", "e"]) {
            let list = vec![format!("*{inner}"); 100].join(", ");
            text.push_str(&format!("{outer}: &{outer} [{list}]\n"));
        }
        // Hundred millions of values, a hundred gigabytes, in four kilobytes.
        let error = yaml(&text).unwrap_err();
        assert!(error.contains("once read") || error.contains("repetition limit"), "{error}");
    }

    #[test]
    fn nesting_ends_somewhere() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(yaml(&nested(100)).is_ok());
        assert!(yaml(&nested(100_000)).is_err());
        assert!(read(&nested(100), Format::Json).is_ok());
        assert!(read(&nested(100_000), Format::Json).is_err());
    }
}

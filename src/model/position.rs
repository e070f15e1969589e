//! Where in a text a field is written: for messages that a person or an editor follows to the line.
//!
//! The text is read once more for each question, and only as far as the answer: the parser says where it is when it is
//! stopped. So this is for faults, which are few, and costs nothing where there are none.

use std::fmt;

use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::path::next;
use super::values::FILE_BYTES_MAX;

/// A place in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    /// In characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where a path leads in a text of YAML or JSON, such as `routes[2].upstream.retries`; where it leads to nothing,
/// where the innermost thing on the way is. `None`: the text can not be read so far.
pub fn locate(text: &str, path: &str) -> Option<Position> {
    if text.len() > FILE_BYTES_MAX {
        return None;
    }
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (step, behind) = next(rest);
        steps.push(step);
        rest = behind.strip_prefix('.').unwrap_or(behind);
    }
    loop {
        match stopped_at(text, &steps) {
            // Read to the end, and it was not there.
            Ok(()) => drop(steps.pop()?),
            Err(error) if error.to_string().contains(STOP) => return position_of(&error),
            Err(_) => return None,
        }
    }
}

/// Where a text can not be read any further, if that is so: where its grammar is broken.
pub fn broken_at(text: &str) -> Option<Position> {
    let read = serde::Deserialize::deserialize(serde_yaml_ng::Deserializer::from_str(text));
    read.map(|IgnoredAny| ()).err().and_then(|error| position_of(&error))
}

/// What the parser says when it is stopped.
const STOP: &str = "here it is";

/// Reads as far as the steps lead, which is an error; all of it where they lead to nothing.
fn stopped_at(text: &str, steps: &[String]) -> Result<(), serde_yaml_ng::Error> {
    Walk { steps }.deserialize(serde_yaml_ng::Deserializer::from_str(text))
}

fn position_of(error: &serde_yaml_ng::Error) -> Option<Position> {
    error.location().map(|at| Position { line: at.line(), column: at.column() })
}

/// Goes where the steps lead, and stops the parser there.
struct Walk<'a> {
    steps: &'a [String],
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl Walk<'_> {
    /// A leaf: it is what was looked for, or the path goes on into nothing.
    fn leaf<E: Error>(&self) -> Result<(), E> {
        if self.steps.is_empty() { Err(E::custom(STOP)) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.leaf()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.leaf()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.leaf()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf()
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.leaf()
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        self.deserialize(input)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((wanted, behind)) = self.steps.split_first() else { return Err(A::Error::custom(STOP)) };
        let wanted: Option<usize> = wanted.parse().ok();
        let mut at = 0;
        loop {
            let is_there = if Some(at) == wanted {
                items.next_element_seed(Walk { steps: behind })?.is_some()
            } else {
                items.next_element::<IgnoredAny>()?.is_some()
            };
            if !is_there {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let Some((wanted, behind)) = self.steps.split_first() else { return Err(A::Error::custom(STOP)) };
        while let Some(name) = fields.next_key_seed(Name)? {
            if name.as_deref() == Some(wanted) {
                fields.next_value_seed(Walk { steps: behind })?;
            } else {
                fields.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// The name of a field, as the reader of values takes it; `None`: it is none.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<String>;

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<Option<String>, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<String>, E> {
        Ok(Some(name.to_owned()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Option<String>, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<Option<String>, E> {
        Ok(Some(truth.to_string()))
    }

    fn visit_unit<E: Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# routes first
routes:
  - id: 1
    uri: /a
    upstream: {nodes: {\"10.0.0.1:80\": many}, retries: ten}
  - uri: [/b]
upstreams:
";

    fn at(path: &str) -> Option<(usize, usize)> {
        locate(TEXT, path).map(|position| (position.line, position.column))
    }

    #[test]
    fn a_field_is_found_where_its_value_begins() {
        assert_eq!(at("routes[0].uri"), Some((4, 10)));
        assert_eq!(at("routes[0].upstream.retries"), Some((5, 55)));
        assert_eq!(at("routes[0].upstream.nodes[\"10.0.0.1:80\"]"), Some((5, 39)));
        assert_eq!(at("routes[1].uri[0]"), Some((6, 11)));
    }

    #[test]
    fn what_is_not_there_is_where_it_would_be() {
        assert_eq!(at("routes[0].upstream.checks.active"), at("routes[0].upstream"));
        assert_eq!(at("routes[9].uri"), at("routes"));
        assert_eq!(at("routes[1].upstream_id"), Some((6, 5)));
        assert_eq!(at("consumers"), Some((2, 1)));
    }

    #[test]
    fn json_is_read_as_well_and_what_is_neither_is_found_where_it_breaks() {
        let json = "{\n  \"routes\": [\n    {\"id\": 1, \"uri\": 7}\n  ]\n}\n";
        assert_eq!(locate(json, "routes[0].uri"), Some(Position { line: 3, column: 22 }));
        let broken = "routes:\n  - id: [1\nupstreams: {";
        assert_eq!(locate(broken, "upstreams"), None);
        assert_eq!(broken_at(broken).map(|position| position.line), Some(3));
        assert_eq!(broken_at(TEXT), None);
    }
}

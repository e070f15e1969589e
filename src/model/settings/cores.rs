//! How many event loops there are, and on which processors.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most cores, and highest processor: what current kernels can have.
const CORES_MAX: u16 = 4096;

/// How many event loops, and on which processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cores {
    /// One on every processor the process may use.
    #[default]
    Auto,
    /// So many, on the first processors the process may use.
    Count(u16),
    /// One on each of these, sorted.
    Listed(Vec<u16>),
}

impl Cores {
    /// Reads `auto`, or processors such as `0-3,6`.
    fn of_text(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        let mut processors = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (processor(first)?, processor(last)?);
            if first > last {
                return None;
            }
            processors.extend(first..=last);
        }
        Self::of_list(processors)
    }

    fn of_list(mut processors: Vec<u16>) -> Option<Self> {
        processors.sort_unstable();
        let doubled = processors.windows(2).any(|pair| pair[0] == pair[1]);
        let legal = !processors.is_empty() && !doubled && processors.iter().all(|at| *at < CORES_MAX);
        legal.then_some(Self::Listed(processors))
    }
}

fn processor(text: &str) -> Option<u16> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten().filter(|at| *at < CORES_MAX)
}

const EXPECTED: &str = "auto, a number of cores, or processors such as 0-3,6";

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(u16),
            Text(String),
            List(Vec<u16>),
        }
        let cores = match Written::deserialize(input)? {
            Written::Count(count) => (1..=CORES_MAX).contains(&count).then_some(Self::Count(count)),
            Written::Text(text) => Self::of_text(&text),
            Written::List(processors) => Self::of_list(processors),
        };
        cores.ok_or_else(|| D::Error::custom(format!("expected {EXPECTED}, each once")))
    }
}

impl Serialize for Cores {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => output.serialize_str("auto"),
            Self::Count(count) => output.serialize_u16(*count),
            Self::Listed(processors) => processors.serialize(output),
        }
    }
}

impl JsonSchema for Cores {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Cores".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let processor = json_schema!({ "type": "integer", "minimum": 0, "maximum": CORES_MAX - 1 });
        json_schema!({
            "x-expected": EXPECTED,
            "anyOf": [
                { "type": "string", "pattern": r"^(auto|[0-9]+(-[0-9]+)?( *, *[0-9]+(-[0-9]+)?)*)$" },
                { "type": "integer", "minimum": 1, "maximum": CORES_MAX },
                { "type": "array", "items": processor, "minItems": 1, "uniqueItems": true },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Cores;

    #[test]
    fn cores_are_a_number_a_list_or_left_to_us() {
        let check = |json: &str, expected: Option<Cores>| {
            assert_eq!(serde_json::from_str::<Cores>(json).ok(), expected, "{json}");
        };
        check(r#""auto""#, Some(Cores::Auto));
        check("4", Some(Cores::Count(4)));
        check("0", None);
        check("4097", None);
        check(r#""0-3""#, Some(Cores::Listed(vec![0, 1, 2, 3])));
        check(r#""6, 0-1""#, Some(Cores::Listed(vec![0, 1, 6])));
        check("[2, 0]", Some(Cores::Listed(vec![0, 2])));
        check("[]", None);
        check("[1, 1]", None);
        check(r#""0-1,1""#, None);
        check(r#""3-0""#, None);
        check(r#""0-4096""#, None);
        check(r#""many""#, None);
        check(r#""""#, None);
    }
}

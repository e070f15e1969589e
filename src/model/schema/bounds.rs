//! What a schema lets a number be.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::words::both;

/// What a number may be. The formats of Rust's smaller integers are bounds, too.
pub(super) struct Bounds {
    least: Option<Number>,
    most: Option<Number>,
    above: Option<Number>,
    below: Option<Number>,
    step: Option<f64>,
}

impl Bounds {
    pub(super) fn of(keywords: &Map<String, Value>) -> Self {
        let number = |keyword| keywords.get(keyword).and_then(Value::as_number).cloned();
        let (least, most): (Option<i64>, Option<i64>) = match keywords.get("format").and_then(Value::as_str) {
            Some("uint8") => (Some(0), Some(u8::MAX.into())),
            Some("uint16") => (Some(0), Some(u16::MAX.into())),
            Some("uint32") => (Some(0), Some(u32::MAX.into())),
            Some("uint64" | "uint") => (Some(0), None),
            Some("int8") => (Some(i8::MIN.into()), Some(i8::MAX.into())),
            Some("int16") => (Some(i16::MIN.into()), Some(i16::MAX.into())),
            Some("int32") => (Some(i32::MIN.into()), Some(i32::MAX.into())),
            _ => (None, None),
        };
        Self {
            least: number("minimum").or_else(|| least.map(Number::from)),
            most: number("maximum").or_else(|| most.map(Number::from)),
            above: number("exclusiveMinimum"),
            below: number("exclusiveMaximum"),
            step: keywords.get("multipleOf").and_then(Value::as_f64),
        }
    }

    pub(super) fn admit(&self, number: &Number) -> bool {
        let against = |bound: &Option<Number>, refused: &[Ordering]| {
            bound.as_ref().is_none_or(|bound| !refused.contains(&compare(number, bound)))
        };
        against(&self.least, &[Ordering::Less])
            && against(&self.most, &[Ordering::Greater])
            && against(&self.above, &[Ordering::Less, Ordering::Equal])
            && against(&self.below, &[Ordering::Greater, Ordering::Equal])
            && self.step.is_none_or(|step| {
                let times = number.as_f64().unwrap_or(f64::NAN) / step;
                (times - times.round()).abs() < 1e-9
            })
    }

    /// ` from 1 to 5`, ` above 0`, or nothing.
    pub(super) fn words(&self) -> String {
        let one = Number::from(1);
        let mut words = match (&self.least, &self.above, &self.most, &self.below) {
            (Some(least), None, Some(most), None) => return format!(" from {least} to {most}"),
            (Some(least), None, None, None) if *least == one => return " above 0".to_owned(),
            _ => Vec::new(),
        };
        let mut say = |phrase: &str, bound: &Option<Number>| {
            if let Some(bound) = bound {
                words.push(format!("{phrase} {bound}"));
            }
        };
        say("of at least", &self.least);
        say("above", &self.above);
        say("of at most", &self.most);
        say("below", &self.below);
        if words.is_empty() { String::new() } else { format!(" {}", both(&words)) }
    }
}

/// Whole numbers exactly, others as well as floats can.
fn compare(left: &Number, right: &Number) -> Ordering {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.as_f64().partial_cmp(&right.as_f64()).unwrap_or(Ordering::Equal),
    }
}

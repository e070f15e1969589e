//! A moment of the calendar, as a test says when it is.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::base::clock::UnixMs;

/// Noon of the first day of 2026: a time that is the same in every run.
const DEFAULT: UnixMs = 1_767_268_800_000;

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time(pub(super) UnixMs);

impl Default for Time {
    fn default() -> Self {
        Self(DEFAULT)
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "x-expected": "a time such as 2026-01-31T12:00:00Z"})
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let fault =
            || D::Error::custom(format!("expected a time such as 2026-01-31T12:00:00Z, got {text:?}"));
        read(&text).map(Self).ok_or_else(fault)
    }
}

/// RFC 3339 in UTC, without fractions.
fn read(text: &str) -> Option<UnixMs> {
    let bytes = text.as_bytes();
    let shape = bytes.iter().zip(b"0000-00-00T00:00:00Z").all(|(found, wanted)| match wanted {
        b'0' => found.is_ascii_digit(),
        other => found == other,
    });
    if !shape || bytes.len() != 20 {
        return None;
    }
    let part = |at: usize, len: usize| text[at..at + len].parse::<u64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 2)?, part(8, 2)?);
    let (hour, minute, second) = (part(11, 2)?, part(14, 2)?, part(17, 2)?);
    let is_leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
    let days = |month: u64| match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year < 1970 || !(1..=12).contains(&month) || day == 0 || day > days(month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let before = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    let days = before + (1..month).map(days).sum::<u64>() + day - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::write_rfc3339;

    #[test]
    fn a_time_is_read_as_it_is_written() {
        for text in
            ["1970-01-01T00:00:00", "2000-02-29T23:59:59", "2026-01-01T12:00:00", "2100-03-01T00:00:01"]
        {
            let at = read(&format!("{text}Z")).expect(text);
            let mut written = Vec::new();
            write_rfc3339(&mut written, at);
            assert_eq!(String::from_utf8_lossy(&written), format!("{text}.000Z"));
        }
        assert_eq!(read("2026-01-01T12:00:00Z"), Some(DEFAULT));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "now",
            "2026-01-01",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00+01:00",
            "1969-12-31T00:00:00Z",
            "2026-01-01T00:00:00Zz",
            "２026-01-01T00:00:0",
            "2100-02-29T00:00:00Z",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

//! Fields written as numbers.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A whole number from `MIN` to `MAX`. The default is `MIN`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct InRange<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> InRange<MIN, MAX> {
    /// The number, if it is in range.
    pub const fn new(number: i64) -> Option<Self> {
        if MIN <= number && number <= MAX { Some(Self(number)) } else { None }
    }

    /// A default; one out of range does not compile where it is a constant.
    pub const fn literal(number: i64) -> Self {
        assert!(MIN <= number && number <= MAX, "a default keeps the bounds of its field");
        Self(number)
    }

    pub const fn get(self) -> i64 {
        self.0
    }

    /// As a `u16`; what does not fit is clamped, and `MIN` and `MAX` should see to it that all does.
    pub fn u16(self) -> u16 {
        u16::try_from(self.0.max(0)).unwrap_or(u16::MAX)
    }

    /// As a `u32`; see [`Self::u16`].
    pub fn u32(self) -> u32 {
        u32::try_from(self.0.max(0)).unwrap_or(u32::MAX)
    }

    /// As a `u64`; see [`Self::u16`].
    pub fn u64(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }

    /// As a `usize`; see [`Self::u16`].
    pub fn usize(self) -> usize {
        usize::try_from(self.0.max(0)).unwrap_or(usize::MAX)
    }
}

impl<const MIN: i64, const MAX: i64> Default for InRange<MIN, MAX> {
    fn default() -> Self {
        Self(MIN)
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for InRange<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(input)?;
        Self::new(number).ok_or_else(|| {
            D::Error::custom(format!("expected a whole number from {MIN} to {MAX}, got {number}"))
        })
    }
}

impl<const MIN: i64, const MAX: i64> JsonSchema for InRange<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("InRange_{MIN}_to_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": MIN, "maximum": MAX })
    }
}

macro_rules! ranged_fields {
    ($($(#[$doc:meta])* $name:ident($inner:ty): $min:literal to $max:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name($inner);

        impl $name {
            /// A default; one out of range does not compile where it is a constant.
            pub const fn literal(number: $inner) -> Self {
                assert!($min <= number as i64 && number as i64 <= $max, "a default keeps the bounds of its field");
                Self(number)
            }

            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let number = InRange::<$min, $max>::deserialize(input)?;
                <$inner>::try_from(number.get()).map(Self).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                InRange::<$min, $max>::json_schema(generator)
            }
        }
    )*};
}

ranged_fields! {
    /// A port that can be connected to.
    Port(u16): 1 to 65535;

    /// How large a share a node gets, against its neighbours'; 0 takes it out.
    Weight(u32): 0 to 4294967295;

    /// A share of a hundred.
    Percent(u8): 0 to 100;
}

/// Longest time that can be written, some thirty years; beyond it arithmetic with clocks would overflow.
const SECONDS_MAX: f64 = 1e9;

/// A span of time above 0, written in seconds, with fractions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(Duration);

/// A span of time written in seconds, with fractions; 0 switches off what it bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecondsOrOff(Duration);

impl Seconds {
    /// A default.
    pub const fn literal(seconds: u64) -> Self {
        assert!(seconds > 0, "a default keeps the bounds of its field");
        Self(Duration::from_secs(seconds))
    }

    pub const fn get(self) -> Duration {
        self.0
    }
}

impl SecondsOrOff {
    /// A default.
    pub const fn literal(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The span; zero when off.
    pub const fn get(self) -> Duration {
        self.0
    }

    /// The span, or nothing when off.
    pub fn bound(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(input)?;
        match Duration::try_from_secs_f64(seconds) {
            // What rounds to nothing is no span either.
            Ok(span) if !span.is_zero() && seconds <= SECONDS_MAX => Ok(Self(span)),
            _ => Err(D::Error::custom(format!("expected a number above 0, got {seconds}"))),
        }
    }
}

impl<'de> Deserialize<'de> for SecondsOrOff {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(input)?;
        match Duration::try_from_secs_f64(seconds) {
            Ok(span) if seconds <= SECONDS_MAX => Ok(Self(span)),
            _ => Err(D::Error::custom(format!("expected a number of at least 0, got {seconds}"))),
        }
    }
}

/// Whole seconds are written as such: `60`, not `60.0`.
fn write<S: Serializer>(span: Duration, output: S) -> Result<S::Ok, S::Error> {
    if span.subsec_nanos() == 0 {
        output.serialize_u64(span.as_secs())
    } else {
        output.serialize_f64(span.as_secs_f64())
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        write(self.0, output)
    }
}

impl Serialize for SecondsOrOff {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        write(self.0, output)
    }
}

impl JsonSchema for Seconds {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number", "exclusiveMinimum": 0, "maximum": SECONDS_MAX, "x-expected": "a number above 0",
        })
    }
}

impl JsonSchema for SecondsOrOff {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SecondsOrOff".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number", "minimum": 0, "maximum": SECONDS_MAX, "x-expected": "a number of at least 0",
        })
    }
}

//! Protocol Buffers (protobuf.dev/programming-guides/encoding): what messages are made of, as tables that a core looks things up
//! in, and their bytes. [`definitions`] makes them of what the user writes.

pub mod definitions;

use crate::base::hash::Map;

/// How deep messages may stand in each other; what others of the trade take, too.
pub const DEPTH_MAX: usize = 100;

/// Types that belong together, each known by its place.
#[derive(Debug, Default)]
pub struct Types {
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
    /// By full name, as `package.Message`.
    pub by_name: Map<Box<str>, u32>,
    /// By path, as `/package.Service/Method`.
    pub methods: Map<Box<str>, Method>,
}

/// One method of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Places of messages.
    pub input: u32,
    pub output: u32,
    /// Either side sends many messages.
    pub streams: bool,
}

#[derive(Debug, Default)]
pub struct Message {
    pub fields: Vec<Field>,
    /// Places of fields, by number, in order.
    pub by_number: Vec<(u32, u16)>,
    /// Places of fields, by name and by the name that JSON has for them.
    pub by_name: Map<Box<str>, u16>,
    /// Places of the fields that have a value where a message lacks them, in order: those that can not be told from zero, and
    /// all.
    pub defaulted: Vec<u16>,
    pub defaulted_all: Vec<u16>,
}

#[derive(Debug)]
pub struct Field {
    pub name: Box<str>,
    pub number: u32,
    pub kind: Kind,
    pub shape: Shape,
    /// Whether a message can lack it, which is not the same as that it is zero.
    pub has_presence: bool,
    /// The value of one that is lacking, in JSON, where it is not the zero of its kind.
    pub default: Option<Box<str>>,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    One,
    Many {
        packed: bool,
    },
    /// Many messages of two fields: 1 is the key, 2 the value.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(u32),
    Message(u32),
    /// Of the second version, and given up long ago: not spoken here.
    Group,
}

impl Kind {
    /// How a value lies in a message, as the last three bits of its key say it.
    pub const fn wire(self) -> u8 {
        match self {
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Bool
            | Self::Enum(_) => 0,
            Self::Double | Self::Fixed64 | Self::Sfixed64 => 1,
            Self::String | Self::Bytes | Self::Message(_) => 2,
            Self::Group => 3,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => 5,
        }
    }
}

#[derive(Debug, Default)]
pub struct Enum {
    /// By number; the first name counts.
    pub names: Map<i32, Box<str>>,
    pub numbers: Map<Box<str>, i32>,
    /// The number of one that is lacking.
    pub default: i32,
}

impl Message {
    /// The place of a field.
    pub fn place_of(&self, number: u32) -> Option<u16> {
        let at = self.by_number.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some(self.by_number[at].1)
    }
}

/// A value as it lies in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// A variable number of bytes, or eight, or four.
    Varint(u64),
    Eight(u64),
    Four(u32),
    Bytes(&'a [u8]),
}

/// Reads a message, value by value.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next number of a field, and its value; `None` at the end, an error where there is neither.
    #[allow(clippy::result_unit_err)] // Nobody is told more than that it is malformed.
    pub fn next_field(&mut self) -> Option<Result<(u32, Wire<'a>), ()>> {
        if self.0.is_empty() {
            return None;
        }
        Some(self.field().ok_or(()))
    }

    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|number| *number > 0)?;
        let value = match key & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Eight(self.eight()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Four(self.four()?),
            _ => return None,
        };
        Some((number, value))
    }

    /// A number of up to ten bytes.
    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    pub fn eight(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    pub fn four(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Appends a number of up to ten bytes.
pub fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends what a value begins with.
pub fn write_key(out: &mut Vec<u8>, number: u32, wire: u8) {
    write_varint(out, u64::from(number) << 3 | u64::from(wire));
}

/// Signed numbers so that small ones are short.
pub const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// What [`zigzag`] made.
pub const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_they_were() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(Reader(&out).varint(), Some(value));
            assert_eq!(Reader(&out[..out.len() - 1]).varint(), None, "cut short");
            assert_eq!(zigzag(unzigzag(value)), value);
        }
        assert_eq!((zigzag(0), zigzag(-1), zigzag(1), zigzag(i64::MIN)), (0, 1, 2, u64::MAX));
        assert_eq!(Reader(&[0xff; 11]).varint(), None);
    }

    #[test]
    fn a_message_is_read_value_by_value() {
        let read = |bytes: &'static [u8]| {
            let mut reader = Reader(bytes);
            std::iter::from_fn(move || reader.next_field()).take(9).collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(
            read(b"\x08\x96\x01\x12\x02hi\x1d\x01\0\0\0\x21\x02\0\0\0\0\0\0\0"),
            Ok(vec![
                (1, Wire::Varint(150)),
                (2, Wire::Bytes(b"hi")),
                (3, Wire::Four(1)),
                (4, Wire::Eight(2))
            ])
        );
        assert_eq!(read(b""), Ok(vec![]));
        for broken in [
            &b"\x08"[..],
            b"\x12\x03hi",
            b"\0\0",
            b"\x0b",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x1d123",
        ] {
            assert_eq!(read(broken), Err(()), "{broken:?}");
        }
    }
}

//! Messages as JSON, written as they are read: the values of a message are put in the order of its fields, and nothing else is
//! made of them. What a message can make of JSON is bounded, whatever it says.

use std::cell::Cell;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Defaults, Ints, MESSAGE_BYTES_MAX, Options};
use crate::base::text::write_json_string;
use crate::proto::protobuf::{DEPTH_MAX, Field, Kind, Message, Reader, Shape, Types, Wire, unzigzag};

/// Most bytes of JSON that one message becomes: many short ones that lack much say more than they are.
const JSON_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A message that can not be read, or says too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What messages are written by.
pub(super) struct Decoder<'t> {
    pub(super) types: &'t Types,
    pub(super) options: Options,
    /// Bytes of messages in pieces that were put together so far: no more than a message may have.
    pub(super) copied: Cell<usize>,
}

/// A value and the place of its field.
type Token<'a> = (u16, Wire<'a>);

impl Decoder<'_> {
    /// Appends a message.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn message(&self, of: u32, bytes: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        if depth > DEPTH_MAX {
            return Err(Malformed);
        }
        let message = &self.types.messages[of as usize];
        let mut tokens = tokens_of(message, bytes)?;
        // The order in which they came stays among those of a field.
        tokens.sort_by_key(|(place, _)| *place);
        let lacking: &[u16] = match self.options.defaults {
            Defaults::No => &[],
            Defaults::Auto => &message.defaulted,
            Defaults::All => &message.defaulted_all,
        };
        let mut lacking = lacking.iter().copied().peekable();
        let (mut groups, mut first) = (tokens.chunk_by(|one, other| one.0 == other.0).peekable(), true);
        out.push(b'{');
        loop {
            let present = groups.peek().map(|group| group[0].0);
            let place = match (present, lacking.peek().copied()) {
                (None, None) => break,
                (Some(place), Some(lacks)) => place.min(lacks),
                (Some(place), None) | (None, Some(place)) => place,
            };
            lacking.next_if_eq(&place);
            let group = groups.next_if(|group| group[0].0 == place).unwrap_or_default();
            if !std::mem::take(&mut first) {
                out.push(b',');
            }
            let field = &message.fields[usize::from(place)];
            write_json_string(out, field.name.as_bytes());
            out.push(b':');
            self.field(field, group, out, depth)?;
            if out.len() > JSON_BYTES_MAX {
                return Err(Malformed);
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// A field by the values that came of it: of one that is single the last, of messages all, since they are one in pieces.
    fn field(&self, field: &Field, group: &[Token<'_>], out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        match (field.shape, field.kind, group) {
            (Shape::One, _, []) => self.default(field, out),
            (Shape::One, Kind::Message(_), [_, _, ..]) => {
                let pieces = group.iter().map(|(_, wire)| match wire {
                    Wire::Bytes(piece) => Ok(*piece),
                    Wire::Varint(_) | Wire::Eight(_) | Wire::Four(_) => Err(Malformed),
                });
                let whole = pieces.collect::<Result<Vec<_>, _>>()?.concat();
                self.copied.set(self.copied.get() + whole.len());
                if self.copied.get() > MESSAGE_BYTES_MAX {
                    return Err(Malformed);
                }
                return self.value(field.kind, Wire::Bytes(&whole), out, depth);
            }
            (Shape::One, _, [.., (_, wire)]) => return self.value(field.kind, *wire, out, depth),
            (Shape::Many { .. }, ..) => {
                out.push(b'[');
                let mut first = true;
                for (_, wire) in group {
                    self.many(field.kind, *wire, &mut first, out, depth)?;
                }
                out.push(b']');
            }
            (Shape::Map, ..) => return self.map(field, group, out, depth),
        }
        Ok(())
    }

    /// One value of many, or a packet of them.
    fn many(&self, kind: Kind, wire: Wire<'_>, first: &mut bool, out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        let mut one = |wire: Wire<'_>, out: &mut Vec<u8>| {
            if !std::mem::take(first) {
                out.push(b',');
            }
            if out.len() > JSON_BYTES_MAX { Err(Malformed) } else { self.value(kind, wire, out, depth) }
        };
        let Wire::Bytes(packed) = wire else { return one(wire, out) };
        let mut reader = Reader(packed);
        match kind.wire() {
            0 => {
                while !reader.0.is_empty() {
                    one(Wire::Varint(reader.varint().ok_or(Malformed)?), out)?;
                }
            }
            1 => {
                while !reader.0.is_empty() {
                    one(Wire::Eight(reader.eight().ok_or(Malformed)?), out)?;
                }
            }
            5 => {
                while !reader.0.is_empty() {
                    one(Wire::Four(reader.four().ok_or(Malformed)?), out)?;
                }
            }
            _ => one(wire, out)?,
        }
        Ok(())
    }

    fn map(&self, field: &Field, group: &[Token<'_>], out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        let Kind::Message(of) = field.kind else { return Err(Malformed) };
        let entry = &self.types.messages[of as usize];
        let (key_at, value_at) = entry.place_of(1).zip(entry.place_of(2)).ok_or(Malformed)?;
        let fields = [&entry.fields[usize::from(key_at)], &entry.fields[usize::from(value_at)]];
        // Of equal keys the last one counts.
        let mut entries: BTreeMap<Vec<u8>, Option<Wire<'_>>> = BTreeMap::new();
        for (_, wire) in group {
            let Wire::Bytes(bytes) = wire else { return Err(Malformed) };
            let (mut key, mut value) = (None, None);
            for (place, wire) in tokens_of(entry, bytes)? {
                if place == key_at {
                    key = Some(wire);
                } else {
                    value = Some(wire);
                }
            }
            let mut name = Vec::new();
            match key {
                Some(key) => self.value(fields[0].kind, key, &mut name, depth)?,
                None => self.default(fields[0], &mut name),
            }
            if name.first() != Some(&b'"') {
                name = [b"\"", &name[..], b"\""].concat();
            }
            entries.insert(name, value);
        }
        out.push(b'{');
        for (at, (name, value)) in entries.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&name);
            out.push(b':');
            match value {
                Some(value) => self.value(fields[1].kind, value, out, depth)?,
                None => match fields[1].kind {
                    Kind::Message(of) => self.message(of, b"", out, depth + 1)?,
                    _ => self.default(fields[1], out),
                },
            }
            if out.len() > JSON_BYTES_MAX {
                return Err(Malformed);
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// What stands for a value that is lacking.
    fn default(&self, field: &Field, out: &mut Vec<u8>) {
        match (&field.default, field.kind) {
            (Some(written), _) => out.extend_from_slice(written.as_bytes()),
            (None, Kind::Enum(of)) => self.enumerated(of, self.types.enums[of as usize].default, out),
            (None, Kind::Bool) => out.extend_from_slice(b"false"),
            (None, Kind::String | Kind::Bytes) => out.extend_from_slice(b"\"\""),
            (None, Kind::Message(_) | Kind::Group) => out.extend_from_slice(b"null"),
            (None, _) => out.push(b'0'),
        }
    }

    fn enumerated(&self, of: u32, number: i32, out: &mut Vec<u8>) {
        let name = self.types.enums[of as usize].names.get(&number).filter(|_| self.options.enum_names);
        match name {
            Some(name) => write_json_string(out, name.as_bytes()),
            None => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        }
    }

    fn value(&self, kind: Kind, wire: Wire<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), Malformed> {
        let mut digits = itoa::Buffer::new();
        match (kind, wire) {
            (Kind::Double, Wire::Eight(bits)) => real(f64::from_bits(bits), out),
            (Kind::Float, Wire::Four(bits)) => short_real(f32::from_bits(bits), out),
            // Wider ones are cut, as everybody does.
            (Kind::Int32, Wire::Varint(value)) => out.extend_from_slice(digits.format(value as i32).as_bytes()),
            (Kind::Uint32, Wire::Varint(value)) => out.extend_from_slice(digits.format(value as u32).as_bytes()),
            (Kind::Sint32, Wire::Varint(value)) => {
                out.extend_from_slice(digits.format(unzigzag(u64::from(value as u32)) as i32).as_bytes());
            }
            (Kind::Fixed32, Wire::Four(value)) => out.extend_from_slice(digits.format(value).as_bytes()),
            (Kind::Sfixed32, Wire::Four(value)) => out.extend_from_slice(digits.format(value as i32).as_bytes()),
            (Kind::Int64, Wire::Varint(value)) | (Kind::Sfixed64, Wire::Eight(value)) => {
                self.wide((value as i64).unsigned_abs(), (value as i64) < 0, out);
            }
            (Kind::Sint64, Wire::Varint(value)) => {
                let value = unzigzag(value);
                self.wide(value.unsigned_abs(), value < 0, out);
            }
            (Kind::Uint64, Wire::Varint(value)) | (Kind::Fixed64, Wire::Eight(value)) => self.wide(value, false, out),
            (Kind::Bool, Wire::Varint(value)) => {
                out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }
            (Kind::String, Wire::Bytes(bytes)) => write_json_string(out, bytes),
            (Kind::Bytes, Wire::Bytes(bytes)) => self.write_bytes(bytes, out),
            (Kind::Enum(of), Wire::Varint(value)) => self.enumerated(of, value as i32, out),
            (Kind::Message(of), Wire::Bytes(bytes)) => self.message(of, bytes, out, depth + 1)?,
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// Bytes, for which JSON has no form of its own.
    pub(super) fn write_bytes(&self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.options.bytes_in_base64 {
            write_json_string(out, STANDARD.encode(bytes).as_bytes());
        } else {
            write_json_string(out, bytes);
        }
    }

    /// A number of 64 bits. Those that do not fit 32 are texts where that is wished, as APISIX writes them.
    fn wide(&self, amount: u64, is_negative: bool, out: &mut Vec<u8>) {
        let sign: &[u8] = if is_negative { b"-" } else { b"" };
        let is_narrow = if is_negative { amount <= 1 << 31 } else { amount <= u64::from(u32::MAX) };
        let mut digits = itoa::Buffer::new();
        match self.options.ints {
            Ints::Number => out.extend_from_slice(&[sign, digits.format(amount).as_bytes()].concat()),
            _ if is_narrow => out.extend_from_slice(&[sign, digits.format(amount).as_bytes()].concat()),
            Ints::Text => {
                out.extend_from_slice(b"\"#");
                out.extend_from_slice(&[sign, digits.format(amount).as_bytes(), b"\""].concat());
            }
            Ints::Hex => {
                out.extend_from_slice(b"\"#");
                out.extend_from_slice(&[sign, format!("0x{amount:X}\"").as_bytes()].concat());
            }
        }
    }
}

/// The values of a message that it has fields for.
fn tokens_of<'a>(message: &Message, bytes: &'a [u8]) -> Result<Vec<Token<'a>>, Malformed> {
    let mut reader = Reader(bytes);
    let mut tokens = Vec::new();
    while let Some(read) = reader.next_field() {
        let (number, wire) = read.map_err(|()| Malformed)?;
        if let Some(place) = message.place_of(number) {
            tokens.push((place, wire));
        }
    }
    Ok(tokens)
}

/// JSON has no word for what is no number.
fn real(value: f64, out: &mut Vec<u8>) {
    match serde_json::Number::from_f64(value) {
        Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
        None => unreal(value, out),
    }
}

fn short_real(value: f32, out: &mut Vec<u8>) {
    if !value.is_finite() {
        unreal(value.into(), out);
    } else if value != 0.0 && !(1e-5..1e16).contains(&value.abs()) {
        out.extend_from_slice(format!("{value:e}").as_bytes());
    } else {
        out.extend_from_slice(format!("{value}").as_bytes());
    }
}

fn unreal(value: f64, out: &mut Vec<u8>) {
    let word: &[u8] = if value.is_nan() {
        b"\"NaN\""
    } else if value > 0.0 {
        b"\"Infinity\""
    } else {
        b"\"-Infinity\""
    };
    out.extend_from_slice(word);
}

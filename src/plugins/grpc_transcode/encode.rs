//! JSON and forms as messages. What a message has no field for is passed over, as APISIX does; what does not fit its field is a
//! fault with the way to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::base::text::form_decode;
use crate::proto::protobuf::{DEPTH_MAX, Field, Kind, Shape, Types, write_key, write_varint, zigzag};

/// Why there is no message: what was expected where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit(pub(super) String);

/// What values are read by.
pub(super) struct Encoder<'t> {
    pub(super) types: &'t Types,
    /// Bytes are written in base64.
    pub(super) base64: bool,
    /// All values are texts, and a field of many that came once is one.
    pub(super) form: bool,
}

impl Encoder<'_> {
    /// Appends the message that a value is.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn message(&self, of: u32, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), Misfit> {
        let Value::Object(fields) = value else { return Err(misfit("an object", value)) };
        if depth > DEPTH_MAX {
            return Err(Misfit(format!("expected at most {DEPTH_MAX} objects in each other")));
        }
        let message = &self.types.messages[of as usize];
        for (name, value) in fields {
            let Some(at) = message.by_name.get(name.as_str()) else { continue };
            if value.is_null() {
                continue;
            }
            let field = &message.fields[usize::from(*at)];
            self.field(field, value, out, depth).map_err(|misfit| Misfit(format!("{name}: {}", misfit.0)))?;
        }
        Ok(())
    }

    fn field(&self, field: &Field, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), Misfit> {
        match field.shape {
            Shape::One => {
                let from = out.len();
                write_key(out, field.number, field.kind.wire());
                let value_at = out.len();
                self.value(field.kind, value, out, depth)?;
                // One that can not be lacking is left out where it is zero.
                let is_zero = out[value_at..].iter().all(|byte| *byte == 0);
                if is_zero && !field.has_presence {
                    out.truncate(from);
                }
                Ok(())
            }
            Shape::Many { packed } => {
                let values = match value {
                    Value::Array(values) => &values[..],
                    one if self.form => std::slice::from_ref(one),
                    other => return Err(misfit("a list", other)),
                };
                self.many(field, packed, values, out, depth)
            }
            Shape::Map => match value {
                Value::Object(entries) => self.map(field, entries, out, depth),
                other => Err(misfit("an object", other)),
            },
        }
    }

    fn many(&self, field: &Field, packed: bool, values: &[Value], out: &mut Vec<u8>, depth: usize) -> Result<(), Misfit> {
        if packed && !values.is_empty() {
            let mut all = Vec::new();
            for value in values {
                self.value(field.kind, value, &mut all, depth)?;
            }
            write_key(out, field.number, 2);
            write_bytes(out, &all);
            return Ok(());
        }
        for value in values {
            write_key(out, field.number, field.kind.wire());
            self.value(field.kind, value, out, depth)?;
        }
        Ok(())
    }

    fn map(&self, field: &Field, entries: &Map<String, Value>, out: &mut Vec<u8>, depth: usize) -> Result<(), Misfit> {
        let Kind::Message(of) = field.kind else { return Ok(()) };
        let entry = &self.types.messages[of as usize];
        let (Some(key_at), Some(value_at)) = (entry.place_of(1), entry.place_of(2)) else { return Ok(()) };
        let (key_field, value_field) = (&entry.fields[usize::from(key_at)], &entry.fields[usize::from(value_at)]);
        let keys = Encoder { types: self.types, base64: self.base64, form: true };
        for (key, value) in entries {
            let mut bytes = Vec::new();
            write_key(&mut bytes, 1, key_field.kind.wire());
            keys.value(key_field.kind, &Value::String(key.clone()), &mut bytes, depth)?;
            write_key(&mut bytes, 2, value_field.kind.wire());
            self.value(value_field.kind, value, &mut bytes, depth)
                .map_err(|misfit| Misfit(format!("{key}: {}", misfit.0)))?;
            write_key(out, field.number, 2);
            write_bytes(out, &bytes);
        }
        Ok(())
    }

    fn value(&self, kind: Kind, value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), Misfit> {
        match kind {
            Kind::Double => out.extend_from_slice(&float(value)?.to_le_bytes()),
            Kind::Float => out.extend_from_slice(&(float(value)? as f32).to_le_bytes()),
            // Negative ones take ten bytes, whatever their width.
            Kind::Int32 => write_varint(out, i64::from(whole::<i32>(value)?) as u64),
            Kind::Int64 => write_varint(out, whole::<i64>(value)? as u64),
            Kind::Uint32 => write_varint(out, u64::from(whole::<u32>(value)?)),
            Kind::Uint64 => write_varint(out, whole::<u64>(value)?),
            Kind::Sint32 => write_varint(out, zigzag(i64::from(whole::<i32>(value)?))),
            Kind::Sint64 => write_varint(out, zigzag(whole::<i64>(value)?)),
            Kind::Fixed32 => out.extend_from_slice(&whole::<u32>(value)?.to_le_bytes()),
            Kind::Fixed64 => out.extend_from_slice(&whole::<u64>(value)?.to_le_bytes()),
            Kind::Sfixed32 => out.extend_from_slice(&whole::<i32>(value)?.to_le_bytes()),
            Kind::Sfixed64 => out.extend_from_slice(&whole::<i64>(value)?.to_le_bytes()),
            Kind::Bool => out.push(u8::from(self.truth(value)?)),
            Kind::String => write_bytes(out, &text(value)?),
            Kind::Bytes if self.base64 => {
                let decoded = STANDARD.decode(text(value)?).map_err(|_| misfit("base64", value))?;
                write_bytes(out, &decoded);
            }
            Kind::Bytes => write_bytes(out, &text(value)?),
            Kind::Enum(of) => {
                let names = &self.types.enums[of as usize].numbers;
                let named = value.as_str().and_then(|name| names.get(name)).copied();
                let number = match named {
                    Some(number) => number,
                    None if value.is_number() || self.form => whole::<i32>(value).map_err(|_| misfit("a name or number of the enum", value))?,
                    None => return Err(misfit("a name or number of the enum", value)),
                };
                write_varint(out, i64::from(number) as u64);
            }
            Kind::Message(of) => {
                let mut inner = Vec::new();
                self.message(of, value, &mut inner, depth + 1)?;
                write_bytes(out, &inner);
            }
            Kind::Group => return Err(Misfit("groups are not spoken".to_owned())),
        }
        Ok(())
    }

    fn truth(&self, value: &Value) -> Result<bool, Misfit> {
        match value {
            Value::Bool(truth) => Ok(*truth),
            Value::String(text) if self.form && matches!(&**text, "true" | "1") => Ok(true),
            Value::String(text) if self.form && matches!(&**text, "false" | "0") => Ok(false),
            other => Err(misfit("true or false", other)),
        }
    }
}

/// The fields of a form, or of a query: a list where one came more than once.
pub(super) fn form(text: &[u8]) -> Value {
    let mut fields = Map::new();
    let decoded = |part: &[u8]| {
        let mut out = Vec::new();
        form_decode(part, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    };
    for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
        let cut = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = (decoded(&pair[..cut]), Value::String(decoded(pair.get(cut + 1..).unwrap_or_default())));
        match fields.get_mut(&name) {
            None => drop(fields.insert(name, value)),
            Some(Value::Array(values)) => values.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }
    Value::Object(fields)
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn misfit(expected: &str, found: &Value) -> Misfit {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a truth",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Misfit(format!("expected {expected}, got {found}"))
}

/// A whole number, or a text of one; `#` before it says that it is one of 64 bits, as APISIX answers with them.
fn whole<T: TryFrom<i128>>(value: &Value) -> Result<T, Misfit> {
    let number = match value {
        Value::Number(number) => {
            let whole = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            // Beyond 2^53, a number that is no whole one is not what was meant.
            let real = || number.as_f64().filter(|real| real.fract() == 0.0 && real.abs() <= 9_007_199_254_740_992.0);
            whole.or_else(|| real().map(|real| real as i128))
        }
        Value::String(text) => {
            let text = text.strip_prefix('#').unwrap_or(text);
            let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
            let number = match digits.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                None => digits.parse().ok(),
            };
            number.filter(|_| !digits.starts_with('+')).map(|number| i128::from(number) * sign)
        }
        _ => None,
    };
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| misfit("a whole number of the field's width", value))
}

fn float(value: &Value) -> Result<f64, Misfit> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| misfit("a number", value))
}

fn text(value: &Value) -> Result<Vec<u8>, Misfit> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Number(number) => Ok(number.to_string().into_bytes()),
        other => Err(misfit("a text", other)),
    }
}

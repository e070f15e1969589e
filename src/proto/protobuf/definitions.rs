//! Protobuf definitions, compiled: what a proto says, as text or as a descriptor set in base64, becomes [`Types`].
//!
//! Runs on the control thread, once for each version of a proto. Files of Google's own (`google/protobuf/*.proto`) may be
//! imported, others not: a text is one file. Whatever is written, this ends with types or a sentence.

use std::panic::{AssertUnwindSafe, catch_unwind};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind as Described, MessageDescriptor, Value,
};

use super::{DEPTH_MAX, Enum, Field, Kind, Message, Method, Shape, Types};
use crate::base::hash::Map;
use crate::base::text::write_json_string;

/// What the text of a proto is called, where a fault names it.
const FILE: &str = "content";

/// Compiles a proto.
///
/// # Errors
/// Why it is none.
pub fn compile(content: &str) -> Result<Types, String> {
    // Whoever wrote it, it is not to take the control thread along.
    let compiled = catch_unwind(AssertUnwindSafe(|| pool_of(content).and_then(|pool| types_of(&pool))));
    compiled.unwrap_or_else(|_| Err("it can not be read".to_owned()))
}

fn pool_of(content: &str) -> Result<DescriptorPool, String> {
    let packed: Vec<u8> = content.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    // No definition goes without a semicolon or a brace.
    if packed.iter().all(is_base64) {
        let set = STANDARD.decode(&packed).map_err(|error| format!("a descriptor set in base64: {error}"))?;
        return DescriptorPool::decode(&set[..]).map_err(|error| format!("a descriptor set: {error}"));
    }
    if depth_of(content) > DEPTH_MAX {
        return Err(format!("braces stand more than {DEPTH_MAX} deep"));
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Text(content.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(FILE).map_err(|error| format!("{error:?}"))?;
    Ok(compiler.descriptor_pool())
}

/// The one file there is.
struct Text(String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == FILE { File::from_source(name, &self.0) } else { Err(protox::Error::file_not_found(name)) }
    }
}

/// How deep brackets stand in each other, outside of comments and texts.
fn depth_of(content: &str) -> usize {
    let (mut depth, mut most, mut rest) = (0_usize, 0, content.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'{' | b'[' | b'(' | b'<' => {
                depth += 1;
                most = most.max(depth);
            }
            b'}' | b']' | b')' | b'>' => depth = depth.saturating_sub(1),
            b'/' if rest.starts_with(b"/") => rest = behind_first(rest, b"\n"),
            b'/' if rest.starts_with(b"*") => rest = behind_first(&rest[1..], b"*/"),
            b'"' | b'\'' => {
                while let Some((inner, behind)) = rest.split_first() {
                    rest = if *inner == b'\\' { behind.get(1..).unwrap_or_default() } else { behind };
                    if inner == byte {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    most
}

fn behind_first<'a>(text: &'a [u8], end: &[u8]) -> &'a [u8] {
    memchr::memmem::find(text, end).map_or(&[], |at| &text[at + end.len()..])
}

/// The places of types, by their full names.
struct Places {
    messages: Map<Box<str>, u32>,
    enums: Map<Box<str>, u32>,
}

fn types_of(pool: &DescriptorPool) -> Result<Types, String> {
    let places = Places {
        messages: (0..).zip(pool.all_messages()).map(|(at, of)| (of.full_name().into(), at)).collect(),
        enums: (0..).zip(pool.all_enums()).map(|(at, of)| (of.full_name().into(), at)).collect(),
    };
    let mut types = Types::default();
    for message in pool.all_messages() {
        types.messages.push(message_of(&message, &places)?);
    }
    types.enums.extend(pool.all_enums().map(|of| enum_of(&of)));
    let place = |of: &MessageDescriptor| {
        places.messages.get(of.full_name()).copied().ok_or_else(|| format!("no message {}", of.full_name()))
    };
    for service in pool.services() {
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let streams = method.is_client_streaming() || method.is_server_streaming();
            let (input, output) = (place(&method.input())?, place(&method.output())?);
            types.methods.insert(path.into(), Method { input, output, streams });
        }
    }
    types.by_name = places.messages;
    Ok(types)
}

fn message_of(message: &MessageDescriptor, places: &Places) -> Result<Message, String> {
    let mut made = Message::default();
    // In the order they are written in.
    for declared in &message.descriptor_proto().field {
        let Some(field) = message.get_field_by_name(declared.name()) else { continue };
        let at = u16::try_from(made.fields.len())
            .map_err(|_| format!("{}: more fields than {}", message.full_name(), u16::MAX))?;
        made.by_name.insert(field.name().into(), at);
        made.by_number.push((field.number(), at));
        let described = field_of(&field, places)?;
        if described.shape != Shape::One
            || field.containing_oneof().is_none() && !matches!(described.kind, Kind::Message(_) | Kind::Group)
        {
            made.defaulted_all.push(at);
            if !described.has_presence {
                made.defaulted.push(at);
            }
        }
        made.fields.push(described);
    }
    for (at, declared) in (0..).zip(&message.descriptor_proto().field) {
        // Where a name is that of one and the JSON name of another, it is the first one's.
        if let Some(field) = message.get_field_by_name(declared.name()) {
            made.by_name.entry(field.json_name().into()).or_insert(at);
        }
    }
    made.by_number.sort_unstable();
    Ok(made)
}

fn field_of(field: &FieldDescriptor, places: &Places) -> Result<Field, String> {
    let kind = match field.kind() {
        Described::Double => Kind::Double,
        Described::Float => Kind::Float,
        Described::Int32 => Kind::Int32,
        Described::Int64 => Kind::Int64,
        Described::Uint32 => Kind::Uint32,
        Described::Uint64 => Kind::Uint64,
        Described::Sint32 => Kind::Sint32,
        Described::Sint64 => Kind::Sint64,
        Described::Fixed32 => Kind::Fixed32,
        Described::Fixed64 => Kind::Fixed64,
        Described::Sfixed32 => Kind::Sfixed32,
        Described::Sfixed64 => Kind::Sfixed64,
        Described::Bool => Kind::Bool,
        Described::String => Kind::String,
        Described::Bytes => Kind::Bytes,
        Described::Enum(of) => Kind::Enum(place_in(&places.enums, of.full_name())?),
        Described::Message(_) if field.is_group() => Kind::Group,
        Described::Message(of) => Kind::Message(place_in(&places.messages, of.full_name())?),
    };
    let shape = match field.cardinality() {
        _ if field.is_map() => Shape::Map,
        Cardinality::Repeated => Shape::Many { packed: field.is_packed() },
        Cardinality::Optional | Cardinality::Required => Shape::One,
    };
    Ok(Field {
        name: field.name().into(),
        number: field.number(),
        kind,
        shape,
        has_presence: field.supports_presence(),
        default: default_of(field),
    })
}

fn place_in(places: &Map<Box<str>, u32>, name: &str) -> Result<u32, String> {
    places.get(name).copied().ok_or_else(|| format!("no type {name}"))
}

/// A default that is written in the definition, in JSON. Of enums and bytes only the zero is known.
fn default_of(field: &FieldDescriptor) -> Option<Box<str>> {
    field.field_descriptor_proto().default_value.as_ref()?;
    let text = match field.default_value() {
        Value::Bool(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::F32(value) if value.is_finite() => value.to_string(),
        Value::F64(value) if value.is_finite() => value.to_string(),
        Value::String(value) => {
            let mut out = Vec::new();
            write_json_string(&mut out, value.as_bytes());
            String::from_utf8(out).ok()?
        }
        _ => return None,
    };
    Some(text.into())
}

fn enum_of(of: &EnumDescriptor) -> Enum {
    let mut made = Enum { default: of.default_value().number(), ..Enum::default() };
    for value in of.values() {
        made.names.entry(value.number()).or_insert_with(|| value.name().into());
        made.numbers.insert(value.name().into(), value.number());
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETER: &str = r#"
        syntax = "proto3";
        package a.b;
        import "google/protobuf/timestamp.proto"; // {{{
        service Greeter {
            rpc Say (Asked) returns (Said);
            rpc Chat (stream Asked) returns (stream Said);
        }
        enum Colour { RED = 0; GREEN = 5; }
        message Asked { string first_name = 1; repeated int32 ages = 3; Colour colour = 2; map<string, Said> more = 9; }
        message Said { google.protobuf.Timestamp at = 1; oneof which { int64 x = 2; string y = 3; } optional bool z = 4; }
    "#;

    #[test]
    fn a_text_becomes_types() {
        let types = compile(GREETER).unwrap();
        let say = types.methods["/a.b.Greeter/Say"];
        assert_eq!((say.input, say.streams), (types.by_name["a.b.Asked"], false));
        assert!(types.methods["/a.b.Greeter/Chat"].streams);
        let asked = &types.messages[say.input as usize];
        let names: Vec<_> = asked.fields.iter().map(|field| (&*field.name, field.number)).collect();
        assert_eq!(names, [("first_name", 1), ("ages", 3), ("colour", 2), ("more", 9)]);
        assert_eq!((asked.by_name["first_name"], asked.by_name["firstName"]), (0, 0));
        assert_eq!((asked.place_of(2), asked.place_of(4)), (Some(2), None));
        assert_eq!(asked.fields[1].shape, Shape::Many { packed: true });
        assert_eq!(asked.fields[3].shape, Shape::Map);
        let said = &types.messages[say.output as usize];
        assert!(
            said.defaulted.is_empty(),
            "members of a oneof, messages and optional fields are there or not"
        );
        let Kind::Message(at) = said.fields[0].kind else { panic!("a message") };
        assert_eq!(types.by_name["google.protobuf.Timestamp"], at);
    }

    #[test]
    fn a_descriptor_set_is_the_same_as_the_text() {
        let set = STANDARD.encode(pool_of(GREETER).unwrap().encode_to_vec());
        let types = compile(&set).unwrap();
        assert!(types.methods.contains_key("/a.b.Greeter/Say"));
        let wrapped: String =
            set.as_bytes().chunks(76).map(|line| format!("{}\n", String::from_utf8_lossy(line))).collect();
        assert!(compile(&wrapped).is_ok());
    }

    #[test]
    fn what_is_none_is_told() {
        for (content, words) in [
            ("message A {", "expected"),
            ("syntax = \"proto3\"; message A {\n  B b = 1; }", "content:2:3"),
            ("syntax = \"proto3\"; import \"etc/passwd\"; message A {}", "etc/passwd"),
            ("syntax = \"proto3\"; import \"content\"; message A {}", "content"),
            ("AAAA", "descriptor set"),
            ("A", "base64"),
        ] {
            let fault = compile(content).unwrap_err();
            assert!(fault.contains(words), "{content}: {fault}");
        }
        let deep = format!("{}{}", "message A {".repeat(100_000), "}".repeat(100_000));
        assert!(compile(&deep).unwrap_err().contains("deep"));
        let value = format!("option (x) = {}{};", "{ a: ".repeat(5000), "}".repeat(5000));
        assert!(compile(&value).is_err());
        let list = format!("option (x) = {{ a: {}{} }};", "[".repeat(5000), "]".repeat(5000));
        assert!(compile(&list).is_err());
    }

    #[test]
    fn brackets_in_comments_and_texts_do_not_count() {
        assert_eq!(depth_of("a { b [ \"{{\\\"{\" ] } // {{{\n { /* {{ */ }"), 2);
    }

    #[test]
    fn defaults_of_the_second_version_are_kept() {
        let types = compile("message A { optional int32 a = 1 [default = 7]; optional string b = 2 [default = \"x\\\"\"]; required bool c = 3; }").unwrap();
        let defaults: Vec<_> =
            types.messages[0].fields.iter().map(|field| field.default.as_deref()).collect();
        assert_eq!(defaults, [Some("7"), Some("\"x\\\"\""), None]);
        assert_eq!(
            (&types.messages[0].defaulted[..], &types.messages[0].defaulted_all[..]),
            (&[][..], &[0, 1, 2][..])
        );
    }
}

//! What functions in Lua may use that has to do with no request: JSON, base64, regular expressions, forms, time.

use std::cell::RefCell;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mlua::{Lua, LuaSerdeExt as _, LuaString, Table, Value};

use crate::base::clock;
use crate::base::hash::Map;
use crate::base::text::{form_decode, hex_value, push_percent};
use crate::expr::{Pattern, compile_regex};
use crate::runtime::limits::HELD_BODY_BYTES;

/// Patterns that a core keeps compiled; beyond, all are forgotten.
const PATTERNS_MAX: usize = 256;
/// Captures that are told of.
const CAPTURES_MAX: usize = 32;
/// Arguments of a form that are read.
const ARGS_MAX: usize = 100;

type Patterns = Rc<RefCell<Map<(String, bool), Rc<Pattern>>>>;

/// All of it, as a table.
pub(super) fn of(lua: &Lua) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("null", lua.null())?;
    library.raw_set("now", lua.create_function(|_, ()| Ok(clock::wall() as f64 / 1000.0))?)?;
    json(lua, &library)?;
    codings(lua, &library)?;
    forms(lua, &library)?;
    patterns(lua, &library)?;
    Ok(library)
}

/// A value of JSON in Lua, with `null` as what `ngx.null` is.
pub(super) fn to_lua(lua: &Lua, value: &serde_json::Value) -> mlua::Result<Value> {
    lua.to_value(value)
}

fn json(lua: &Lua, library: &Table) -> mlua::Result<()> {
    library.raw_set(
        "json_encode",
        lua.create_function(|lua, value: Value| {
            let value: serde_json::Value = lua.from_value(value)?;
            Ok(value.to_string())
        })?,
    )?;
    library.raw_set(
        "json_decode",
        lua.create_function(|lua, text: LuaString| {
            match serde_json::from_slice::<serde_json::Value>(&text.as_bytes()) {
                Ok(value) => Ok((to_lua(lua, &value)?, None)),
                Err(fault) => Ok((Value::Nil, Some(fault.to_string()))),
            }
        })?,
    )?;
    library.raw_set(
        "json_decode_or_fail",
        lua.create_function(|lua, text: LuaString| {
            let value: serde_json::Value =
                serde_json::from_slice(&text.as_bytes()).map_err(mlua::Error::external)?;
            to_lua(lua, &value)
        })?,
    )
}

fn codings(lua: &Lua, library: &Table) -> mlua::Result<()> {
    for (name, engine) in [("base64", STANDARD), ("base64url", URL_SAFE_NO_PAD)] {
        let encoder = engine.clone();
        library.raw_set(
            format!("encode_{name}"),
            lua.create_function(move |_, text: LuaString| Ok(encoder.encode(text.as_bytes())))?,
        )?;
        library.raw_set(
            format!("decode_{name}"),
            lua.create_function(move |lua, text: LuaString| {
                engine.decode(text.as_bytes()).ok().map(|bytes| lua.create_string(bytes)).transpose()
            })?,
        )?;
    }
    Ok(())
}

fn forms(lua: &Lua, library: &Table) -> mlua::Result<()> {
    library.raw_set(
        "escape_uri",
        lua.create_function(|lua, text: LuaString| {
            let mut out = Vec::new();
            escape_component(&text.as_bytes(), &mut out);
            lua.create_string(out)
        })?,
    )?;
    library.raw_set(
        "unescape_uri",
        lua.create_function(|lua, text: LuaString| {
            let mut out = Vec::new();
            form_decode(&text.as_bytes(), &mut out);
            lua.create_string(out)
        })?,
    )?;
    library.raw_set(
        "decode_args",
        lua.create_function(|lua, text: LuaString| args_of(lua, &text.as_bytes()))?,
    )?;
    library.raw_set(
        "encode_args",
        lua.create_function(|lua, args: Table| {
            let mut out = Vec::new();
            for pair in args.pairs::<LuaString, Value>() {
                let (name, value) = pair?;
                write_args(&mut out, &name.as_bytes(), &value)?;
            }
            lua.create_string(out)
        })?,
    )
}

/// The arguments of a form: texts, `true` where there is no `=`, a list where a name comes again.
pub(super) fn args_of(lua: &Lua, form: &[u8]) -> mlua::Result<Table> {
    let args = lua.create_table()?;
    for pair in form.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).take(ARGS_MAX) {
        let cut = memchr::memchr(b'=', pair);
        let mut name = Vec::new();
        form_decode(&pair[..cut.unwrap_or(pair.len())], &mut name);
        let value = match cut {
            None => Value::Boolean(true),
            Some(cut) => {
                let mut text = Vec::new();
                form_decode(&pair[cut + 1..], &mut text);
                Value::String(lua.create_string(text)?)
            }
        };
        add_to(lua, &args, &lua.create_string(name)?, value)?;
    }
    Ok(args)
}

/// Adds a value under a name: one alone, several as a list.
pub(super) fn add_to(lua: &Lua, table: &Table, name: &LuaString, value: Value) -> mlua::Result<()> {
    match table.raw_get::<Value>(name)? {
        Value::Nil => table.raw_set(name, value),
        Value::Table(list) => list.raw_push(value),
        one => table.raw_set(name, lua.create_sequence_from([one, value])?),
    }
}

fn write_args(out: &mut Vec<u8>, name: &[u8], value: &Value) -> mlua::Result<()> {
    if let Value::Table(list) = value {
        for value in list.sequence_values::<Value>() {
            write_args(out, name, &value?)?;
        }
        return Ok(());
    }
    if matches!(value, Value::Boolean(false) | Value::Nil) {
        return Ok(());
    }
    if !out.is_empty() {
        out.push(b'&');
    }
    escape_component(name, out);
    if *value != Value::Boolean(true) {
        out.push(b'=');
        escape_component(value.to_string()?.as_bytes(), out);
    }
    Ok(())
}

/// As `ngx.escape_uri`: all but unreserved characters (RFC 3986 2.3).
fn escape_component(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(*byte);
        } else {
            push_percent(out, *byte);
        }
    }
}

fn patterns(lua: &Lua, library: &Table) -> mlua::Result<()> {
    let kept = Patterns::default();
    let known = Rc::clone(&kept);
    library.raw_set(
        "re_match",
        lua.create_function(
            move |lua, (text, pattern, options, from): (LuaString, String, String, usize)| {
                let pattern = compiled(&known, pattern, &options)?;
                let (text, mut captures) = (text.as_bytes(), [&b""[..]; CAPTURES_MAX]);
                let from = from.saturating_sub(1).min(text.len());
                let Some(_) = pattern.captures(&text, from, &mut captures) else { return Ok(None) };
                let found = lua.create_table()?;
                for (at, capture) in captures.iter().take(pattern.captures_len()).enumerate() {
                    found.raw_set(at, lua.create_string(capture)?)?;
                }
                Ok(Some(found))
            },
        )?,
    )?;
    let known = Rc::clone(&kept);
    library.raw_set(
        "re_find",
        lua.create_function(move |_, (text, pattern, options, from): (LuaString, String, String, usize)| {
            let pattern = compiled(&known, pattern, &options)?;
            let text = text.as_bytes();
            let found = pattern.captures(&text, from.saturating_sub(1).min(text.len()), &mut []);
            Ok(found.map_or((None, None), |range| (Some(range.start + 1), Some(range.end))))
        })?,
    )?;
    library.raw_set(
        "re_replace",
        lua.create_function(
            move |lua, (text, pattern, with, options, all): (LuaString, String, Value, String, bool)| {
                let pattern = compiled(&kept, pattern, &options)?;
                let (text, count) = replaced(lua, &text.as_bytes(), &pattern, &with, all)?;
                Ok((lua.create_string(text)?, count))
            },
        )?,
    )
}

fn compiled(kept: &Patterns, pattern: String, options: &str) -> mlua::Result<Rc<Pattern>> {
    let key = (pattern, options.contains('i'));
    if let Some(known) = kept.borrow().get(&key) {
        return Ok(Rc::clone(known));
    }
    let made = Rc::new(compile_regex(&key.0, key.1).map_err(mlua::Error::runtime)?);
    let mut kept = kept.borrow_mut();
    if kept.len() >= PATTERNS_MAX {
        kept.clear();
    }
    kept.insert(key, Rc::clone(&made));
    Ok(made)
}

/// The text with what was found replaced, by a text with `$1` or by what a function makes of the captures; and how often.
fn replaced(
    lua: &Lua,
    text: &[u8],
    pattern: &Pattern,
    with: &Value,
    all: bool,
) -> mlua::Result<(Vec<u8>, usize)> {
    let (mut out, mut copied, mut from, mut count) = (Vec::new(), 0, 0, 0);
    while from <= text.len() {
        let mut captures = [&b""[..]; CAPTURES_MAX];
        let Some(range) = pattern.captures(text, from, &mut captures) else { break };
        count += 1;
        out.extend_from_slice(text.get(copied..range.start).unwrap_or_default());
        match with {
            Value::Function(make) => {
                let found = lua.create_table()?;
                for (at, capture) in captures.iter().take(pattern.captures_len()).enumerate() {
                    found.raw_set(at, lua.create_string(capture)?)?;
                }
                out.extend_from_slice(&make.call::<LuaString>(found)?.as_bytes());
            }
            with => expand(with.to_string()?.as_bytes(), &captures, &mut out),
        }
        if out.len() > HELD_BODY_BYTES {
            return Err(mlua::Error::runtime(format!("a replacement of more than {HELD_BODY_BYTES} bytes")));
        }
        copied = range.end;
        // Nothing was found: the next place is looked at, lest the same be found again.
        from = if range.is_empty() { range.end + 1 } else { range.end };
        if !all {
            break;
        }
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    Ok((out, count))
}

/// Writes a replacement: `$1` and `${1}` are captures, `$$` is a dollar.
fn expand(with: &[u8], captures: &[&[u8]], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < with.len() {
        let rest = &with[at..];
        let digit =
            |place: usize| rest.get(place).and_then(|byte| hex_value(*byte)).filter(|value| *value < 10);
        match (rest[0], rest.get(1)) {
            (b'$', Some(b'$')) => {
                out.push(b'$');
                at += 2;
            }
            (b'$', Some(b'{')) if digit(2).is_some() && rest.get(3) == Some(&b'}') => {
                out.extend_from_slice(
                    captures.get(digit(2).map_or(0, usize::from)).copied().unwrap_or_default(),
                );
                at += 4;
            }
            (b'$', _) if digit(1).is_some() => {
                out.extend_from_slice(
                    captures.get(digit(1).map_or(0, usize::from)).copied().unwrap_or_default(),
                );
                at += 2;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

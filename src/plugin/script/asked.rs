//! What functions in Lua ask of the request at hand: a word, and what it is about.

use bytes::Bytes;
use mlua::{Lua, LuaString, Table, Value};

use super::library::{add_to, args_of};
use super::{PendingHeader, Said};
use crate::base::text::{escape_path, escape_reference, is_field_byte, is_token};
use crate::exchange::{Body, Chunk, Exchange, SlotId, Source};
use crate::expr::{Var, Vars as _};
use crate::link::outbox::Level;
use crate::plugin::header_edits::FRAMING;
use crate::plugin::{Env, Phase};
use crate::proto::head::{HeaderId, HeaderList, Method};

/// Most bytes of one line that a function logs, as in nginx.
const LOG_BYTES_MAX: usize = 2048;

/// How far a function's hands reach.
pub(super) enum Reach<'a, 'c> {
    Change(&'a mut Exchange),
    /// A piece of the body is in its hands, too.
    Piece(&'a mut Exchange, &'a mut Chunk<'c>),
    See(&'a Exchange),
}

/// Answers for one request.
pub(super) struct Asked<'r, 'a, 'c, 'e> {
    pub(super) reach: &'r mut Reach<'a, 'c>,
    pub(super) slot: SlotId,
    pub(super) phase: Phase,
    pub(super) env: Env<'e>,
}

impl Asked<'_, '_, '_, '_> {
    const fn ex(&self) -> &Exchange {
        match &*self.reach {
            Reach::Change(ex) | Reach::Piece(ex, _) => ex,
            Reach::See(ex) => ex,
        }
    }

    fn ex_mut(&mut self) -> mlua::Result<&mut Exchange> {
        match self.reach {
            Reach::Change(ex) | Reach::Piece(ex, _) => Ok(ex),
            Reach::See(_) => Err(refused("nothing can be changed any more")),
        }
    }

    /// The `ctx` of the request, if a function has had one.
    pub(super) fn ctx(&self) -> Option<Table> {
        self.ex().slots.get::<Said>(self.slot)?.ctx.clone()
    }

    /// Keeps it for the next function. One that comes when all is over needs none.
    pub(super) fn keep(&mut self, ctx: &Table) {
        let slot = self.slot;
        if let Ok(ex) = self.ex_mut() {
            ex.slots.of::<Said>(slot).ctx = Some(ctx.clone());
        }
    }

    pub(super) fn answer(
        &mut self,
        lua: &Lua,
        word: &[u8],
        one: &Value,
        other: Value,
    ) -> mlua::Result<Value> {
        match word {
            b"var" => self.var(lua, one),
            b"log" => self.log(one, &other),
            b"header" => header_value(lua, &self.ex().request.headers, one),
            b"headers" => headers_of(lua, &self.ex().request.headers),
            b"args" => Ok(Value::Table(args_of(lua, &self.ex().request.query)?)),
            b"body" => self.body(lua),
            b"post_args" => match &self.ex().request.body {
                Body::Held(body) => Ok(Value::Table(args_of(lua, body)?)),
                Body::Empty | Body::Flowing => Ok(Value::Table(lua.create_table()?)),
            },
            b"status" => Ok(self.status()),
            b"source" => Ok(Value::String(lua.create_string(source_of(self.ex()))?)),
            b"response_header" => self.response_header(lua, one),
            b"response_headers" => headers_of(lua, &self.ex().response.headers),
            b"piece" => self.piece(lua, one),
            word => self.change(word, one, other),
        }
    }

    /// What changes something.
    fn change(&mut self, word: &[u8], one: &Value, other: Value) -> mlua::Result<Value> {
        let done = match word {
            b"set_var" => return self.set_var(one, &other),
            b"set_header" => self.request_header(one, &other, true),
            b"add_header" => self.request_header(one, &other, false),
            b"set_args" => self.set_args(one),
            b"set_uri" => self.set_uri(one),
            b"set_method" => self.set_method(one),
            b"set_body" => self.set_body(one),
            b"set_status" => self.set_status(one),
            b"set_response_header" => self.set_response_header(one, &other, true),
            b"add_response_header" => self.set_response_header(one, &other, false),
            b"body_changes" => self.ex_mut().map(|ex| ex.response.forget_body_headers()),
            b"set_piece" => self.set_piece(one, &other),
            _ => Err(refused("nobody knows what is asked")),
        };
        done.map(|()| Value::Nil)
    }

    // ---- the request ---------------------------------------------------------------------------------------------

    fn var(&self, lua: &Lua, name: &Value) -> mlua::Result<Value> {
        let var = Var::parse(&name.to_string()?);
        let Some(value) = self.ex().var(&var) else { return Ok(Value::Nil) };
        if var.is_typed()
            && let Ok(typed) = serde_json::from_slice::<serde_json::Value>(&value)
        {
            return super::library::to_lua(lua, &typed);
        }
        Ok(Value::String(lua.create_string(&value)?))
    }

    fn set_var(&mut self, name: &Value, value: &Value) -> mlua::Result<Value> {
        let (name, text) = (name.to_string()?, value.to_string()?);
        let request = &mut self.ex_mut()?.request;
        match name.as_str() {
            "upstream_uri" => {
                request.forward.target.clear();
                escape_reference(text.as_bytes(), &mut request.forward.target);
                if !request.forward.target.starts_with(b"/") {
                    request.forward.target.insert(0, b'/');
                }
            }
            "upstream_host" => {
                let fits = !text.is_empty()
                    && text.bytes().all(|byte| is_field_byte(byte) && !byte.is_ascii_whitespace());
                if !fits {
                    return Err(refused("a host is expected"));
                }
                request.forward.host = text.into_bytes();
            }
            "args" => return self.set_args(value).map(|()| Value::Boolean(true)),
            _ => return Ok(Value::Boolean(false)),
        }
        Ok(Value::Boolean(true))
    }

    fn request_header(&mut self, name: &Value, value: &Value, replaces: bool) -> mlua::Result<()> {
        let header = PendingHeader::read(name, value, replaces)?;
        header.put_on(&mut self.ex_mut()?.request.headers);
        Ok(())
    }

    fn set_args(&mut self, args: &Value) -> mlua::Result<()> {
        let text = args.to_string()?;
        let request = &mut self.ex_mut()?.request;
        request.query.clear();
        escape_reference(text.as_bytes(), &mut request.query);
        request.has_query = !request.query.is_empty();
        Ok(())
    }

    fn set_uri(&mut self, uri: &Value) -> mlua::Result<()> {
        let text = uri.to_string()?;
        if !text.starts_with('/') {
            return Err(refused("a path is expected, beginning with /"));
        }
        let request = &mut self.ex_mut()?.request;
        let mut target = Vec::with_capacity(text.len() + request.query.len() + 1);
        escape_path(text.as_bytes(), &mut target);
        if request.has_query {
            target.push(b'?');
            target.extend_from_slice(&request.query);
        }
        request.forward.target = target;
        Ok(())
    }

    fn set_method(&mut self, method: &Value) -> mlua::Result<()> {
        let text = method.to_string()?;
        let method = Method::of(text.as_bytes()).ok_or_else(|| refused("a method is expected"))?;
        self.ex_mut()?.request.forward.method = Some(method);
        Ok(())
    }

    fn body(&self, lua: &Lua) -> mlua::Result<Value> {
        match &self.ex().request.body {
            Body::Held(body) if !body.is_empty() => Ok(Value::String(lua.create_string(body)?)),
            Body::Held(_) | Body::Empty | Body::Flowing => Ok(Value::Nil),
        }
    }

    fn set_body(&mut self, body: &Value) -> mlua::Result<()> {
        let Value::String(body) = body else { return Err(refused("a text is expected")) };
        // Functions whose text says `body` have it held before they run.
        if !matches!(self.phase, Phase::Rewrite | Phase::Access | Phase::BeforeProxy) {
            return Err(refused("the body can be set in phases rewrite, access and before_proxy"));
        }
        let request = &mut self.ex_mut()?.request;
        request.body = Body::Held(body.as_bytes().to_vec());
        Ok(())
    }

    // ---- the response --------------------------------------------------------------------------------------------

    fn said(&mut self) -> mlua::Result<&mut Said> {
        let slot = self.slot;
        Ok(self.ex_mut()?.slots.of::<Said>(slot))
    }

    /// Whether the head of the response is there.
    fn has_response(&self) -> bool {
        self.ex().response.status != 0
    }

    fn status(&self) -> Value {
        let pending = self.ex().slots.get::<Said>(self.slot).and_then(|said| said.status);
        Value::Integer(pending.unwrap_or_else(|| self.ex().response.status).into())
    }

    fn set_status(&mut self, status: &Value) -> mlua::Result<()> {
        let status = status.as_u32().and_then(|status| u16::try_from(status).ok());
        let status = status.filter(|status| (200..=599).contains(status));
        let status = status.ok_or_else(|| refused("a status is expected, from 200 to 599"))?;
        if self.has_response() {
            self.ex_mut()?.response.status = status;
        } else {
            self.said()?.status = Some(status);
        }
        Ok(())
    }

    fn response_header(&self, lua: &Lua, name: &Value) -> mlua::Result<Value> {
        if self.has_response() {
            return header_value(lua, &self.ex().response.headers, name);
        }
        let name = name.to_string()?;
        let said = self.ex().slots.get::<Said>(self.slot);
        let pending = said.and_then(|said| {
            said.headers.iter().rev().find(|header| header.name.eq_ignore_ascii_case(&name))
        });
        match pending.and_then(|header| header.values.first()) {
            Some(value) => Ok(Value::String(lua.create_string(value)?)),
            None => Ok(Value::Nil),
        }
    }

    fn set_response_header(&mut self, name: &Value, value: &Value, replaces: bool) -> mlua::Result<()> {
        let header = PendingHeader::read(name, value, replaces)?;
        if self.has_response() {
            header.put_on(&mut self.ex_mut()?.response.headers);
        } else {
            self.said()?.headers.push(header);
        }
        Ok(())
    }

    fn piece(&self, lua: &Lua, at: &Value) -> mlua::Result<Value> {
        let Reach::Piece(_, chunk) = &*self.reach else { return Ok(Value::Nil) };
        match at.as_u32() {
            Some(1) => Ok(Value::String(lua.create_string(&*chunk.bytes)?)),
            Some(2) => Ok(Value::Boolean(chunk.last)),
            _ => Ok(Value::Nil),
        }
    }

    fn set_piece(&mut self, at: &Value, value: &Value) -> mlua::Result<()> {
        let Reach::Piece(_, chunk) = &mut *self.reach else {
            return Err(refused("ngx.arg is there in phase body_filter"));
        };
        match (at.as_u32(), value) {
            (Some(1), Value::Nil) => chunk.bytes.clear(),
            (Some(1), value) => {
                let text = value.to_string()?;
                chunk.bytes.clear();
                match value {
                    Value::String(text) => chunk.bytes.extend_from_slice(&text.as_bytes()),
                    _ => chunk.bytes.extend_from_slice(text.as_bytes()),
                }
            }
            // Where the body ends is the other side's to say.
            _ => return Err(refused("only ngx.arg[1] can be set")),
        }
        Ok(())
    }

    fn log(&self, level: &Value, text: &Value) -> mlua::Result<Value> {
        let level = match level.as_u32().unwrap_or(6) {
            0..=4 => Level::Error,
            5 => Level::Warn,
            6 | 7 => Level::Info,
            _ => Level::Debug,
        };
        let mut text: String =
            text.to_string()?.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let end = (0..=LOG_BYTES_MAX.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        self.env.core.note(level, text);
        Ok(Value::Nil)
    }
}

impl PendingHeader {
    fn read(name: &Value, value: &Value, replaces: bool) -> mlua::Result<Self> {
        let name = name.to_string()?;
        if !is_token(name.as_bytes()) || FRAMING.contains(&HeaderId::of(name.as_bytes())) {
            return Err(refused(&format!("header {name:?} can not be set")));
        }
        let one = |value: &Value| -> mlua::Result<Bytes> {
            let bytes = match value {
                Value::String(text) => Bytes::copy_from_slice(&text.as_bytes()),
                other => Bytes::from(other.to_string()?),
            };
            match bytes.iter().all(|byte| is_field_byte(*byte)) {
                true => Ok(bytes),
                false => {
                    Err(refused(&format!("the value of header {name:?} has a byte that no header may have")))
                }
            }
        };
        let values = match value {
            Value::Nil => Vec::new(),
            Value::Table(list) => {
                list.sequence_values::<Value>().map(|value| one(&value?)).collect::<mlua::Result<_>>()?
            }
            value => vec![one(value)?],
        };
        Ok(Self { name, replaces, values })
    }

    pub(super) fn put_on(&self, headers: &mut HeaderList) {
        if self.replaces {
            headers.remove(&self.name);
        }
        for value in &self.values {
            headers.add(&self.name, value);
        }
    }
}

fn refused(why: &str) -> mlua::Error {
    mlua::Error::runtime(why)
}

/// The value of a header; a list where it comes in several lines.
fn header_value(lua: &Lua, headers: &HeaderList, name: &Value) -> mlua::Result<Value> {
    let name = name.to_string()?;
    let mut lines = headers.all(&name);
    match (lines.next(), lines.next()) {
        (None, _) => Ok(Value::Nil),
        (Some(one), None) => Ok(Value::String(lua.create_string(one)?)),
        (Some(one), Some(other)) => {
            let all = [one, other].into_iter().chain(lines);
            let all = all.map(|line| lua.create_string(line)).collect::<mlua::Result<Vec<LuaString>>>()?;
            Ok(Value::Table(lua.create_sequence_from(all)?))
        }
    }
}

/// All headers, by names in lower case.
fn headers_of(lua: &Lua, headers: &HeaderList) -> mlua::Result<Value> {
    let table = lua.create_table()?;
    for (_, name, value) in headers.iter() {
        let name = lua.create_string(name.to_ascii_lowercase())?;
        add_to(lua, &table, &name, Value::String(lua.create_string(value)?))?;
    }
    Ok(Value::Table(table))
}

/// APISIX's words for who made the response.
const fn source_of(ex: &Exchange) -> &'static str {
    match ex.response.source {
        Source::Upstream => "upstream",
        Source::Plugin(_) => "apisix",
        Source::Gateway => "nginx",
    }
}

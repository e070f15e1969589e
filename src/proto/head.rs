//! Heads of messages as spans into the bytes that were received: no copy, no map, no allocation per request.
//!
//! A [`HeaderList`] owns the receive buffer (the head and whatever came behind it) while an exchange lasts, and
//! gives it back with [`HeaderList::take_received`]. Headers set here live in a second buffer (`added`), also
//! kept and reused. Names that matter to a gateway have a [`HeaderId`], so looking for them is one bit test
//! and comparing two bytes, not two strings.

pub use self::trio::Trio;
pub use super::names::{FieldName, HeaderId, HeaderSet};
pub use super::start_line::{Method, RequestLine, StatusLine, Version};

mod trio;

/// Most bytes of header text that plugins may add to one message; what goes beyond is dropped and
/// [`HeaderList::overflowed`] says so, upon which the message is refused. Worst case 64 KiB an exchange.
pub const ADDED_BYTES_MAX: usize = 64 * 1024;
/// Least that memory for added text grows by: what is added to usual heads has room at once, whatever length a
/// number in it has.
const ADDED_BYTES_STEP: usize = 512;

/// A stretch of a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    /// From `start` up to, not including, `end`.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, len: (end - start) as u32 }
    }

    /// The index behind the last byte.
    pub const fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    /// The bytes it spans in `buffer`.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[self.start as usize..self.end()]
    }
}

/// Where the text of a line lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// In the received bytes, written exactly `name: value\r\n`, so that it may be copied as it stands.
    ReceivedPlain,
    /// In the received bytes, with other white space around the value.
    Received,
    /// In `added`, written as it is to be copied.
    Added,
    /// Removed; stays in place so that the order of the others does.
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Span,
    value: Span,
    id: HeaderId,
    home: Home,
}

/// Which lines [`HeaderList::write`] leaves out.
#[derive(Clone, Copy, Default)]
pub struct Omit<'a> {
    /// Names left out whoever wrote them: those the gateway writes itself.
    pub always: HeaderSet,
    /// Names left out when received; lines added here are ours and go.
    pub received: HeaderSet,
    /// Asked for every other received line.
    pub named: Option<&'a dyn Fn(HeaderId, &[u8]) -> bool>,
}

/// Between a name and its value.
const COLON: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";

/// Lines of one home that lie one behind the other there, as they are to be written.
#[derive(Clone, Copy)]
struct Run {
    start: usize,
    end: usize,
    home: Home,
}

impl Default for Run {
    fn default() -> Self {
        Self { start: 0, end: 0, home: Home::ReceivedPlain }
    }
}

/// The headers of one message, in order, with the bytes they are written in.
#[derive(Debug, Default)]
pub struct HeaderList {
    received: Vec<u8>,
    added: Vec<u8>,
    lines: Vec<Line>,
    present: HeaderSet,
    /// Of which there was one already when another came.
    repeated: HeaderSet,
    overflowed: bool,
}

impl HeaderList {
    /// No headers, no memory.
    pub const fn new() -> Self {
        Self {
            received: Vec::new(),
            added: Vec::new(),
            lines: Vec::new(),
            present: HeaderSet(0),
            repeated: HeaderSet(0),
            overflowed: false,
        }
    }

    /// Forgets everything but keeps the memory. A receive buffer still held is dropped: take it first.
    pub fn clear(&mut self) {
        self.received = Vec::new();
        self.added.clear();
        self.lines.clear();
        self.present = HeaderSet(0);
        self.repeated = HeaderSet(0);
        self.overflowed = false;
    }

    /// Takes the receive buffer in; spans given to [`Self::push_received`] refer to it.
    pub fn hold_received(&mut self, received: Vec<u8>) {
        self.received = received;
    }

    /// Gives the receive buffer back. All received lines are forgotten with it.
    pub fn take_received(&mut self) -> Vec<u8> {
        self.lines.clear();
        self.present = HeaderSet(0);
        self.repeated = HeaderSet(0);
        std::mem::take(&mut self.received)
    }

    /// Holds what is here in no more memory than it needs, and of the received bytes the head alone. The receive buffer, to be
    /// given back.
    pub fn compact(&mut self, head: Span) -> Vec<u8> {
        self.added.shrink_to_fit();
        self.lines.shrink_to_fit();
        let received = self.received[..head.end()].to_vec();
        std::mem::replace(&mut self.received, received)
    }

    /// The bytes received: the head and whatever came behind it.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Notes a line of the received head. `plain`: it is written exactly `name: value\r\n`.
    pub fn push_received(&mut self, name: Span, value: Span, id: HeaderId, plain: bool) {
        self.note(id);
        let home = if plain { Home::ReceivedPlain } else { Home::Received };
        self.lines.push(Line { name, value, id, home });
    }

    /// Appends a line, whether or not the name is there already.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        self.append(HeaderId::of(name.as_bytes()), name, value);
    }

    /// [`Self::add`] for a known name, written in lower case.
    pub fn add_id(&mut self, id: HeaderId, value: &[u8]) {
        self.append(id, id.text(), value);
    }

    /// Replaces all lines of the name by one, at the place of the first.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        self.replace(HeaderId::of(name.as_bytes()), name, value);
    }

    /// [`Self::set`] for a name that is used again and again.
    pub fn put(&mut self, name: &FieldName, value: &[u8]) {
        self.replace(name.id(), name.text(), value);
    }

    /// [`Self::set`] for a known name.
    pub fn set_id(&mut self, id: HeaderId, value: &[u8]) {
        self.replace(id, id.text(), value);
    }

    /// Removes all lines of the name; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let id = HeaderId::of(name.as_bytes());
        if id != HeaderId::Other {
            return self.remove_id(id);
        }
        let mut found = false;
        for at in 0..self.lines.len() {
            if self.is_named(&self.lines[at], id, name.as_bytes()) {
                self.lines[at].home = Home::Gone;
                found = true;
            }
        }
        found
    }

    /// [`Self::remove`] for a known name.
    pub fn remove_id(&mut self, id: HeaderId) -> bool {
        if !self.present.contains(id) {
            return false;
        }
        for line in &mut self.lines {
            if line.id == id {
                line.home = Home::Gone;
            }
        }
        self.present.0 &= !id.bit();
        self.repeated.0 &= !id.bit();
        true
    }

    /// The value of the first line of the name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let id = HeaderId::of(name.as_bytes());
        let line = self.lines.iter().find(|line| self.is_named(line, id, name.as_bytes()))?;
        Some(self.text(line, line.value))
    }

    /// [`Self::get`] for a known name.
    pub fn get_id(&self, id: HeaderId) -> Option<&[u8]> {
        self.all_id(id).next()
    }

    /// The values of all lines of the name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.named(HeaderId::of(name.as_bytes()), name)
    }

    /// [`Self::all`] for a name that is used again and again.
    pub fn all_of<'a>(&'a self, name: &'a FieldName) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.named(name.id(), name.text())
    }

    fn named<'a>(&'a self, id: HeaderId, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let lines = if self.present.0 & id.bit() == 0 { &[][..] } else { &self.lines[..] };
        lines
            .iter()
            .filter(move |line| self.is_named(line, id, name.as_bytes()))
            .map(|line| self.text(line, line.value))
    }

    /// [`Self::all`] for a known name.
    pub fn all_id(&self, id: HeaderId) -> impl Iterator<Item = &[u8]> {
        let lines = if self.present.contains(id) { &self.lines[..] } else { &[][..] };
        lines
            .iter()
            .filter(move |line| line.id == id && line.home != Home::Gone)
            .map(|line| self.text(line, line.value))
    }

    /// Whether a line of the known name is there: one bit test.
    pub const fn has(&self, id: HeaderId) -> bool {
        self.present.contains(id)
    }

    /// Whether several lines of the known name are there: one bit test.
    pub const fn is_repeated(&self, id: HeaderId) -> bool {
        self.repeated.contains(id)
    }

    /// Whether several lines of any of the known names are there: one bit test.
    pub const fn repeats_any(&self, set: HeaderSet) -> bool {
        self.repeated.0 & set.0 & !1 != 0
    }

    /// Whether any of the known names is there: one bit test.
    pub const fn has_any(&self, set: HeaderSet) -> bool {
        self.present.0 & set.0 & !1 != 0
    }

    /// Whether any line had a name without an id.
    pub const fn has_unknown(&self) -> bool {
        self.present.0 & HeaderId::Other.bit() != 0
    }

    /// All lines in order, as `(id, name, value)`; names as they were written.
    pub fn iter(&self) -> impl Iterator<Item = (HeaderId, &[u8], &[u8])> {
        self.lines
            .iter()
            .filter(|line| line.home != Home::Gone)
            .map(|line| (line.id, self.text(line, line.name), self.text(line, line.value)))
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.iter().filter(|line| line.home != Home::Gone).count()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether more was added than [`ADDED_BYTES_MAX`], so that lines are missing.
    pub const fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Appends the lines as `name: value\r\n` to `out`. Neighbours that lie so in one buffer go over in one copy.
    pub fn write(&self, out: &mut Vec<u8>, omit: &Omit<'_>) {
        let mut run = Run::default();
        for line in &self.lines {
            if self.is_omitted(line, omit) {
                continue;
            }
            let start = line.name.start as usize;
            if line.home == Home::Received {
                self.write_run(run, out);
                run = Run::default();
                out.extend_from_slice(self.text(line, line.name));
                out.extend_from_slice(COLON);
                out.extend_from_slice(self.text(line, line.value));
                out.extend_from_slice(LINE_END);
                continue;
            }
            if start != run.end || line.home != run.home {
                self.write_run(run, out);
                run = Run { start, end: start, home: line.home };
            }
            run.end = line.value.end() + LINE_END.len();
        }
        self.write_run(run, out);
    }

    #[inline]
    fn write_run(&self, run: Run, out: &mut Vec<u8>) {
        let buffer = if run.home == Home::Added { &self.added } else { &self.received };
        out.extend_from_slice(&buffer[run.start..run.end]);
    }

    fn is_omitted(&self, line: &Line, omit: &Omit<'_>) -> bool {
        match line.home {
            Home::Gone => true,
            Home::Added => omit.always.contains(line.id),
            Home::Received | Home::ReceivedPlain => {
                omit.always.contains(line.id)
                    || omit.received.contains(line.id)
                    || omit.named.is_some_and(|named| named(line.id, self.text(line, line.name)))
            }
        }
    }

    /// Whether a line of the known name was set or added here, rather than received.
    pub fn was_added(&self, id: HeaderId) -> bool {
        self.has(id) && self.lines.iter().any(|line| line.id == id && line.home == Home::Added)
    }

    fn text(&self, line: &Line, span: Span) -> &[u8] {
        match line.home {
            Home::Added => span.of(&self.added),
            Home::ReceivedPlain | Home::Received | Home::Gone => span.of(&self.received),
        }
    }

    fn is_named(&self, line: &Line, id: HeaderId, name: &[u8]) -> bool {
        line.home != Home::Gone
            && line.id == id
            && (id != HeaderId::Other || self.text(line, line.name).eq_ignore_ascii_case(name))
    }

    fn append(&mut self, id: HeaderId, name: &str, value: &[u8]) {
        if let Some(line) = self.store(id, name, value) {
            self.note(id);
            self.lines.push(line);
        }
    }

    /// Puts a line in the place of the first of its name, and has the others go.
    fn replace(&mut self, id: HeaderId, name: &str, value: &[u8]) {
        let Some(stored) = self.store(id, name, value) else { return };
        let mut placed = false;
        let may_be_there = self.present.0 & id.bit() != 0;
        let end = if may_be_there { self.lines.len() } else { 0 };
        for at in 0..end {
            if self.is_named(&self.lines[at], id, name.as_bytes()) {
                if placed {
                    self.lines[at].home = Home::Gone;
                } else {
                    self.lines[at] = stored;
                    placed = true;
                }
            }
        }
        if !placed {
            self.lines.push(stored);
        }
        self.present.insert(id);
        self.repeated.0 &= !id.bit();
    }

    const fn note(&mut self, id: HeaderId) {
        self.repeated.0 |= self.present.0 & id.bit();
        self.present.insert(id);
    }

    /// Makes room for so many bytes more of `added`.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        if self.added.capacity() - self.added.len() < bytes {
            self.added.reserve(bytes.max(ADDED_BYTES_STEP));
        }
    }

    /// Writes the text of a line to `added`.
    fn store(&mut self, id: HeaderId, name: &str, value: &[u8]) -> Option<Line> {
        let (start, whole) = (self.added.len(), name.len() + COLON.len() + value.len() + LINE_END.len());
        if start + whole > ADDED_BYTES_MAX {
            self.overflowed = true;
            return None;
        }
        self.make_room(whole);
        let added = &mut self.added;
        added.extend_from_slice(name.as_bytes());
        added.extend_from_slice(COLON);
        put_value(value, added);
        let (value_start, value_end) = (start + name.len() + COLON.len(), added.len());
        added.extend_from_slice(LINE_END);
        Some(Line {
            name: Span::new(start, start + name.len()),
            value: Span::new(value_start, value_end),
            id,
            home: Home::Added,
        })
    }
}

/// Appends a value. Bytes that could end a line early become spaces, so no value can ever smuggle a second header
/// (RFC 9110 5.5).
fn put_value(value: &[u8], out: &mut Vec<u8>) {
    out.extend(value.iter().map(|byte| match byte {
        b'\r' | b'\n' | 0 => b' ',
        other => *other,
    }));
}

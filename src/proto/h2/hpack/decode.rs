//! Reads blocks of headers (RFC 7541 3 and 6).

use super::table::{FIELD_BYTES, KNOWN_COUNT, Table, known};
use super::{Broken, huffman, read_number};

/// Why a block was not read to its end; the connection can not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It has no meaning.
    Broken,
    /// It says more than anybody wants to hear.
    TooMuch,
}

impl From<Broken> for Unread {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// What one side of a connection has told so far.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// The most that its table may have been told to hold.
    max: usize,
}

/// Where texts are put that were coded; nothing stays in it.
#[derive(Debug, Default)]
pub struct Texts {
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A field as it is written.
enum Written {
    /// By its place.
    Place(usize),
    /// In full, its name by a place unless that is 0; to be remembered?
    Full(usize, bool),
}

impl Decoder {
    /// For a table of so many bytes.
    pub const fn new(max: usize) -> Self {
        Self { table: Table::new(max), max }
    }

    /// Tells each field of a block. All of a block must be read, and every block, or the next will be misunderstood. `most` are
    /// the bytes that its fields may be in all, counted as RFC 9113 6.5.2 does.
    ///
    /// # Errors
    /// When it has no meaning, or says too much.
    pub fn decode(
        &mut self,
        mut block: &[u8],
        most: usize,
        texts: &mut Texts,
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Unread> {
        let (mut is_first, mut bytes) = (true, 0);
        let mut field = |name: &[u8], value: &[u8]| {
            bytes += name.len() + value.len() + FIELD_BYTES;
            field(name, value);
            bytes
        };
        while let Some(first) = block.first() {
            let written = match first {
                0x80.. => Written::Place(read_number(&mut block, 7)?),
                0x40.. => Written::Full(read_number(&mut block, 6)?, true),
                0x20.. => {
                    let size = read_number(&mut block, 5)?;
                    // Only at the beginning (4.2).
                    if size > self.max || !is_first {
                        return Err(Unread::Broken);
                    }
                    self.table.resize(size);
                    continue;
                }
                _ => Written::Full(read_number(&mut block, 4)?, false),
            };
            is_first = false;
            let bytes = match written {
                Written::Place(place) => {
                    let (name, value) = self.at(place).ok_or(Broken)?;
                    field(name, value)
                }
                Written::Full(place, remember) => {
                    self.full(place, remember, &mut block, texts, &mut field)?
                }
            };
            if bytes > most {
                return Err(Unread::TooMuch);
            }
        }
        Ok(())
    }

    fn at(&self, place: usize) -> Option<(&[u8], &[u8])> {
        if place <= KNOWN_COUNT { known(place) } else { self.table.get(place - KNOWN_COUNT - 1) }
    }

    fn full(
        &mut self,
        place: usize,
        remember: bool,
        block: &mut &[u8],
        texts: &mut Texts,
        field: &mut impl FnMut(&[u8], &[u8]) -> usize,
    ) -> Result<usize, Broken> {
        let named = if place == 0 { Some(Text::take(block)?) } else { None };
        let value = Text::take(block)?.read(&mut texts.value)?;
        let name = match (named, known(place)) {
            (Some(name), _) => name.read(&mut texts.name)?,
            (None, Some((name, _))) => name,
            // The table may forget it to make room.
            (None, None) => {
                let (name, _) = self.at(place).ok_or(Broken)?;
                texts.name.clear();
                texts.name.extend_from_slice(name);
                &texts.name
            }
        };
        let bytes = field(name, value);
        if remember {
            self.table.add(name, value, 0);
        }
        Ok(bytes)
    }
}

/// Text as it stands in a block (5.2).
#[derive(Clone, Copy)]
struct Text<'a> {
    bytes: &'a [u8],
    is_coded: bool,
}

impl<'a> Text<'a> {
    /// Takes as much off the block as it says.
    fn take(block: &mut &'a [u8]) -> Result<Self, Broken> {
        let is_coded = block.first().ok_or(Broken)? & 0x80 != 0;
        let length = read_number(block, 7)?;
        let (bytes, rest) = block.split_at_checked(length).ok_or(Broken)?;
        *block = rest;
        Ok(Self { bytes, is_coded })
    }

    /// What it says; `room` is where it is put, if it was coded.
    fn read<'b>(self, room: &'b mut Vec<u8>) -> Result<&'b [u8], Broken>
    where
        'a: 'b,
    {
        if !self.is_coded {
            return Ok(self.bytes);
        }
        room.clear();
        huffman::decode(self.bytes, room)?;
        Ok(room)
    }
}

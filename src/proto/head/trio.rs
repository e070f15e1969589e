//! Three lines that are set together again and again, each with a short value: what limits tell in the head of an answer.
//!
//! Names and values are copied with all the room they may take, one over the end of the other, and what has come of it once
//! more, to where lines are kept: some forty moves in place of a dozen calls that find out how long each piece is.

use super::{ADDED_BYTES_MAX, COLON, FieldName, HeaderList, Home, LINE_END, Line, Span};
use crate::base::decimal::Short;

/// Bytes of the longest name that is copied so, with its colon.
const BEGIN_BYTES: usize = 32;
/// Room for all three lines, and for what is copied behind the last.
const ROOM_BYTES: usize = 3 * (BEGIN_BYTES + Short::ROOM + LINE_END.len());

/// The names of three lines.
#[derive(Debug)]
pub struct Trio {
    names: [FieldName; 3],
    /// How each line begins; of a name that is longer than there is room for nothing.
    begins: [[u8; BEGIN_BYTES]; 3],
    /// Whether they may be written in one go where none of them is there yet.
    is_short: bool,
}

impl Trio {
    /// Those names, as they are to be written.
    pub fn new(names: [&str; 3]) -> Self {
        let names = names.map(FieldName::new);
        let begins = names.each_ref().map(|name| {
            let begin = [name.text().as_bytes(), COLON].concat();
            let mut text = [0; BEGIN_BYTES];
            if let Some(to) = text.get_mut(..begin.len()) {
                to.copy_from_slice(&begin);
            }
            text
        });
        let differ = |a: &FieldName, b: &FieldName| !a.text().eq_ignore_ascii_case(b.text());
        let [first, second, third] = &names;
        let is_short = names.iter().all(|name| name.text().len() + COLON.len() <= BEGIN_BYTES)
            && differ(first, second)
            && differ(second, third)
            && differ(first, third);
        Self { names, begins, is_short }
    }
}

impl HeaderList {
    /// [`Self::put`] for each of three names.
    pub fn put_trio(&mut self, trio: &Trio, values: &[Short; 3]) {
        let ids = trio.names.iter().fold(0, |ids, name| ids | name.id().bit());
        if !trio.is_short || self.present.0 & ids != 0 || self.added.len() + ROOM_BYTES > ADDED_BYTES_MAX {
            for (name, value) in trio.names.iter().zip(values) {
                self.put(name, value.as_bytes());
            }
            return;
        }
        let (mut room, mut at) = ([0; ROOM_BYTES], 0);
        let mut put = |piece: &[u8], length: usize| {
            if let Some(to) = room.get_mut(at..at + piece.len()) {
                to.copy_from_slice(piece);
            }
            at += length;
            at
        };
        let start = self.added.len();
        let mut begin = start;
        for ((name, text), value) in trio.names.iter().zip(&trio.begins).zip(values) {
            let value_at = start + put(text, name.text().len() + COLON.len());
            let value_end = start + put(value.room(), value.as_bytes().len());
            self.lines.push(Line {
                name: Span::new(begin, begin + name.text().len()),
                value: Span::new(value_at, value_end),
                id: name.id(),
                home: Home::Added,
            });
            begin = start + put(LINE_END, LINE_END.len());
        }
        self.make_room(at);
        self.added.extend_from_slice(&room[..at]);
        self.present.0 |= ids;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Omit;
    use super::*;

    fn written(headers: &HeaderList) -> String {
        let mut out = Vec::new();
        headers.write(&mut out, &Omit::default());
        String::from_utf8(out).expect("sample headers are ASCII")
    }

    #[test]
    fn three_lines_are_as_if_they_were_set_one_by_one() {
        let long = format!("X-{}-RateLimit-Limit", "a".repeat(40));
        let known = ["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"];
        let sets = [
            known,
            ["X-1-RateLimit-Limit", "X-1-RateLimit-Remaining", "X-1-RateLimit-Reset"],
            [&long, "B", "C"],
            ["A", "a", "B"],
            [&"n".repeat(BEGIN_BYTES - 2), &"m".repeat(BEGIN_BYTES - 2), &"o".repeat(BEGIN_BYTES - 2)],
        ];
        let befores: [&[&str]; 4] = [
            &[],
            &["Server"],
            &["X-RateLimit-Reset", "B", "x-ratelimit-reset"],
            &["X-Other", "x-1-ratelimit-limit"],
        ];
        let numbers = [[0, 7, 1000], [u64::MAX; 3], [10, 999, 1_000_000]];
        for names in sets {
            for before in befores {
                for numbers in numbers {
                    let (mut together, mut apart) = (HeaderList::new(), HeaderList::new());
                    for name in before {
                        together.add(name, b"there");
                        apart.add(name, b"there");
                    }
                    together.put_trio(&Trio::new(names), &numbers.map(Short::number));
                    for (name, number) in names.iter().zip(numbers) {
                        apart.set(name, number.to_string().as_bytes());
                    }
                    assert_eq!(written(&together), written(&apart), "{names:?} after {before:?}");
                    for name in names {
                        assert_eq!(
                            together.get(name),
                            apart.get(name),
                            "{name} of {names:?} after {before:?}"
                        );
                    }
                    assert_eq!((together.present, together.repeated), (apart.present, apart.repeated));
                }
            }
        }
    }

    #[test]
    fn a_head_whose_numbers_get_longer_asks_for_no_more_memory() {
        let trio = Trio::new(["X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]);
        for others in 0..300 {
            let mut headers = HeaderList::new();
            let mut write = |number| {
                headers.clear();
                headers.add("Server", &b"r".repeat(others));
                headers.put_trio(&trio, &[number; 3].map(Short::number));
                headers.set("Age", Short::number(number).as_bytes());
                headers.added.capacity()
            };
            assert_eq!(write(0), write(u64::MAX), "beside {others} bytes of another line");
        }
    }

    #[test]
    fn lines_for_which_there_is_no_room_are_noticed() {
        let mut headers = HeaderList::new();
        while !headers.overflowed() {
            headers.put_trio(&Trio::new(["A", "B", "C"]), &[1, 2, 3].map(Short::number));
            headers.add("x", &[b'a'; 1000]);
        }
        headers.put_trio(&Trio::new(["D", "E", "F"]), &[1, 2, 3].map(Short::number));
        assert!(headers.added.len() <= ADDED_BYTES_MAX);
    }
}

//! Entries of one core that wait to leave, for one use of a plugin.
//!
//! A batch leaves when it has enough bytes or entries, when its oldest entry has waited for long enough, and at the end of
//! the core.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::link::lines::Destination;
use crate::link::outbox::Report;
use crate::runtime::chore::Chore;
use crate::runtime::{Core, LocalId};

/// What stands around entries and between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing: each brings its own end.
    Lines,
    /// An array of JSON.
    Array,
    /// A line feed between two.
    Apart,
}

/// How entries of one use are collected, and where they go.
pub struct Batches {
    pub to: Arc<Destination>,
    pub shape: Shape,
    /// Where a core keeps those that wait.
    pub waiting: LocalId,
    /// Bytes, and entries, after which a batch leaves.
    pub bytes: usize,
    pub entries: u64,
    /// How long an entry waits at most.
    pub age: Duration,
}

/// Entries of one core that wait to leave.
#[derive(Debug, Default)]
struct Batch {
    bytes: RefCell<Vec<u8>>,
    entries: Cell<u64>,
    /// Where values are written before they are quoted.
    scratch: RefCell<Vec<u8>>,
    /// Somebody sees to it that they leave.
    is_looked_after: Cell<bool>,
}

impl Batches {
    /// Takes an entry: what `write` appends to its second argument, with the first as a place for notes.
    pub fn take(&self, core: &Core, write: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) {
        let batch = core.local(self.waiting, Batch::default);
        let mut bytes = batch.bytes.borrow_mut();
        self.shape.before(batch.entries.get() == 0, &mut bytes);
        write(&mut batch.scratch.borrow_mut(), &mut bytes);
        let is_due = bytes.len() >= self.bytes;
        drop(bytes);
        batch.entries.set(batch.entries.get() + 1);
        if is_due || batch.entries.get() >= self.entries {
            return batch.leave(core, self.shape, &self.to);
        }
        if !batch.is_looked_after.replace(true) {
            let (to, shape) = (Arc::clone(&self.to), self.shape);
            let look = Look { batch: Rc::clone(&batch), to, shape, age: self.age };
            if core.chores.give(Box::new(look)).is_err() {
                batch.is_looked_after.set(false);
                batch.leave(core, self.shape, &self.to);
            }
        }
    }
}

impl Shape {
    fn before(self, is_first: bool, out: &mut Vec<u8>) {
        match (self, is_first) {
            (Self::Array, true) => out.push(b'['),
            (Self::Array, false) => out.push(b','),
            (Self::Apart, false) => out.push(b'\n'),
            (Self::Lines, _) | (Self::Apart, true) => {}
        }
    }

    fn end(self, out: &mut Vec<u8>) {
        if self == Self::Array {
            out.push(b']');
        }
    }
}

impl Batch {
    fn leave(&self, core: &Core, shape: Shape, to: &Arc<Destination>) {
        let lines = self.entries.take();
        if lines == 0 {
            return;
        }
        let mut bytes = self.bytes.take();
        shape.end(&mut bytes);
        let logger = to.logger;
        if core.outbox.send(Report::Lines { to: Arc::clone(to), bytes, lines }).is_err() {
            core.stats.entry_drops[logger as usize].add(lines);
        }
    }
}

/// Sees to it that no entry waits for longer than it may.
#[derive(Debug)]
struct Look {
    batch: Rc<Batch>,
    to: Arc<Destination>,
    shape: Shape,
    age: Duration,
}

impl Chore for Look {
    fn run<'a>(self: Box<Self>, core: &'a Core) -> Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move {
            loop {
                core.chores.rest(core, self.age).await;
                if self.batch.entries.get() == 0 || core.chores.is_hurried() {
                    break;
                }
                self.batch.leave(core, self.shape, &self.to);
            }
            self.batch.is_looked_after.set(false);
            self.batch.leave(core, self.shape, &self.to);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    fn shown(shape: Shape, entries: &[&str]) -> String {
        let mut out = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            shape.before(at == 0, &mut out);
            out.extend_from_slice(entry.as_bytes());
        }
        shape.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_batch_has_the_shape_it_is_to_have() {
        assert_eq!(shown(Shape::Array, &["1"]), "[1]");
        assert_eq!(shown(Shape::Array, &["1", "2"]), "[1,2]");
        assert_eq!(shown(Shape::Apart, &["1", "2"]), "1\n2");
        assert_eq!(shown(Shape::Lines, &["1\n", "2\n"]), "1\n2\n");
    }
}

//! Plugins' private per-request state: empty until used, allocates on first use only.

use std::any::Any;

/// Names one plugin's slot; handed out by `CompileCx::slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(pub u32);

/// The slots of one exchange. Few are ever used, so a list is faster than a table.
#[derive(Debug, Default)]
pub struct Slots {
    used: Vec<(SlotId, Box<dyn Any>)>,
}

impl Slots {
    /// The state in a slot, made on first use.
    pub fn of<T: Default + 'static>(&mut self, id: SlotId) -> &mut T {
        let at = self.used.iter().position(|(used, _)| *used == id).unwrap_or_else(|| {
            self.used.push((id, Box::new(T::default())));
            self.used.len() - 1
        });
        self.used[at].1.downcast_mut().expect("a SlotId is handed out for one type")
    }

    /// The state in a slot, if it was used.
    pub fn get<T: 'static>(&self, id: SlotId) -> Option<&T> {
        self.used.iter().find(|(used, _)| *used == id).and_then(|(_, state)| state.downcast_ref())
    }

    /// Drops all states.
    pub fn clear(&mut self) {
        self.used.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{SlotId, Slots};

    #[test]
    fn a_slot_keeps_its_state_until_cleared() {
        let mut slots = Slots::default();
        *slots.of::<u32>(SlotId(1)) += 5;
        *slots.of::<u32>(SlotId(2)) += 1;
        assert_eq!((slots.get::<u32>(SlotId(1)), slots.get::<u32>(SlotId(2))), (Some(&5), Some(&1)));
        slots.clear();
        assert_eq!(slots.get::<u32>(SlotId(1)), None);
    }
}

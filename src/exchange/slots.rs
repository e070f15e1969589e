//! Plugins' private per-request state: empty until used. A slot's memory stays with the exchange, so only the
//! first use of all allocates; its contents are reset when the request is over.

use std::any::Any;

/// Names one plugin's slot; handed out by `CompileCx::slot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId(pub u32);

#[derive(Debug)]
struct Slot {
    id: SlotId,
    /// Whether the request under way used it.
    used: bool,
    state: Box<dyn Any>,
    reset: fn(&mut dyn Any),
}

/// The slots of one exchange. Few are ever used, so a list is faster than a table.
#[derive(Debug, Default)]
pub struct Slots {
    slots: Vec<Slot>,
}

fn reset<T: Default + 'static>(state: &mut dyn Any) {
    if let Some(state) = state.downcast_mut::<T>() {
        *state = T::default();
    }
}

impl Slots {
    /// The state in a slot, fresh on the first use in a request.
    pub fn of<T: Default + 'static>(&mut self, id: SlotId) -> &mut T {
        let at = self.slots.iter().position(|slot| slot.id == id).unwrap_or_else(|| {
            self.slots.push(Slot { id, used: true, state: Box::new(T::default()), reset: reset::<T> });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[at];
        slot.used = true;
        slot.state.downcast_mut().expect("a SlotId is handed out for one type")
    }

    /// The state in a slot, if the request used it.
    pub fn get<T: 'static>(&self, id: SlotId) -> Option<&T> {
        self.slots.iter().find(|slot| slot.id == id && slot.used)?.state.downcast_ref()
    }

    /// Gives up slots that the request did not use.
    pub(super) fn compact(&mut self) {
        self.slots.retain(|slot| slot.used);
        self.slots.shrink_to_fit();
    }

    /// Resets all states; what they held is dropped now.
    pub fn clear(&mut self) {
        for slot in self.slots.iter_mut().filter(|slot| slot.used) {
            slot.used = false;
            (slot.reset)(&mut *slot.state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::{SlotId, Slots};

    #[test]
    fn a_slot_keeps_its_state_until_cleared() {
        let mut slots = Slots::default();
        *slots.of::<u32>(SlotId(1)) += 5;
        *slots.of::<u32>(SlotId(2)) += 1;
        assert_eq!((slots.get::<u32>(SlotId(1)), slots.get::<u32>(SlotId(2))), (Some(&5), Some(&1)));
        slots.clear();
        assert_eq!(slots.get::<u32>(SlotId(1)), None);
        assert_eq!(*slots.of::<u32>(SlotId(1)), 0);
    }

    #[test]
    fn clearing_drops_what_a_slot_held_and_keeps_its_memory() {
        let mut slots = Slots::default();
        let held = Rc::new(());
        *slots.of::<Option<Rc<()>>>(SlotId(1)) = Some(Rc::clone(&held));
        let at = std::ptr::from_ref(slots.of::<Option<Rc<()>>>(SlotId(1)));
        slots.clear();
        assert_eq!(Rc::strong_count(&held), 1);
        assert_eq!(std::ptr::from_ref(slots.of::<Option<Rc<()>>>(SlotId(1))), at);
    }
}

//! Asking memory early for what will be looked at soon, so that it has come by then.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;

/// Where something was. It may be elsewhere by now, or nowhere: nothing is read there, so that asking for it in vain is all
/// that can happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts(usize);

/// Bytes of two lines of the cache side by side.
const PAIR: usize = 128;
const LINE: usize = 64;

impl Whereabouts {
    /// Of that.
    #[inline]
    pub fn of<T>(thing: &T) -> Self {
        Self(std::ptr::from_ref(thing).addr())
    }

    /// Asks for the pair of lines it is in, and does not wait for them. On processors where nobody has looked at what helps
    /// it does nothing.
    #[inline]
    pub fn foresee(self) {
        if self.0 == 0 {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let pair = std::ptr::without_provenance::<i8>(self.0 & !(PAIR - 1));
            // SAFETY: a prefetch reads nothing that the program could see and faults nowhere, whatever the address; the
            // instruction is part of every x86-64. Kept by this function, which makes no reference of the pointer.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(pair);
                _mm_prefetch::<_MM_HINT_T0>(pair.wrapping_add(LINE));
            }
        }
    }
}

/// Asks for the lines that hold this room, to write there; those of the first bytes, if it is longer than what is written at
/// once. Nothing is written.
#[inline]
pub fn foresee_writing<const BYTES: usize>(room: &[MaybeUninit<u8>]) {
    #[cfg(target_arch = "x86_64")]
    for line in room[..room.len().min(BYTES)].chunks(LINE) {
        // SAFETY: the instruction changes no byte, flag or register and faults on no address, and this is one of room that is
        // borrowed here. A processor that does not know it takes it for one that does nothing.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (room, LINE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_or_never_was_can_be_asked_for() {
        let gone = Whereabouts::of(&*Box::new([7_u64; 4]));
        let wild = [0, 1, 63, usize::MAX, usize::MAX - PAIR, 1 << 47, 0xdead_beef_0000].map(Whereabouts);
        [gone].into_iter().chain(wild).for_each(Whereabouts::foresee);
        let here = 5_u64;
        Whereabouts::of(&here).foresee();
        assert_eq!((here, Whereabouts::default()), (5, Whereabouts(0)));
    }

    #[test]
    fn room_of_any_length_can_be_asked_for_and_stays_as_it_is() {
        for length in [0, 1, LINE - 1, LINE, LINE + 1, 511, 512, 513, 5000] {
            let mut bytes = Vec::with_capacity(length + 3);
            bytes.extend_from_slice(b"abc");
            foresee_writing::<512>(bytes.spare_capacity_mut());
            assert_eq!(bytes, b"abc");
        }
    }
}

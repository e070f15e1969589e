//! The processor, given up for a moment to whoever waits for it, which is mostly a core.
//!
//! The control thread has no processor of its own, and a change takes it most of a millisecond. Linux lets a thread that has just begun go on for
//! longer than that, whoever is woken meanwhile; so the requests of a core would wait for all of it. Between steps of some tenths of a millisecond at
//! most the thread asks instead whether anybody waits: a call of 0.3 us where nobody does.

/// Lets others of this processor go first, once.
pub(super) fn step_aside() {
    std::thread::yield_now();
}

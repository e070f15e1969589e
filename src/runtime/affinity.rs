//! Threads to processors.

/// Pins the calling thread to a processor by its number. False when the system refuses, which is not fatal:
/// the loop then runs wherever the scheduler puts it.
pub fn pin(processor: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: processor })
}

/// The processors this process may use.
pub fn available() -> Vec<usize> {
    core_affinity::get_core_ids()
        .filter(|ids| !ids.is_empty())
        .map_or_else(|| vec![0], |ids| ids.into_iter().map(|core| core.id).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_can_be_pinned_to_a_processor_it_may_use() {
        let first = super::available()[0];
        assert!(std::thread::spawn(move || super::pin(first)).join().expect("no panic"));
    }
}

//! Threads to processors, and who goes first where they share one.

use super::sys;

/// How long a core asks to run at a time, in nanoseconds: the least there is. From Linux 6.12 on, who is woken takes the place of one that asks for longer;
/// before, it is ignored.
const CORE_SLICE_NS: u64 = 100_000;
/// How long who leaves room asks to run at a time. As long as all others ask for, each of its steps would wait for the tick of the clock where a core never
/// rests; as short as a core's, it would take the core's place.
const PATIENT_SLICE_NS: u64 = 300_000;
/// What who leaves room adds to its niceness: a ninth of the weight.
const NICENESS: i32 = 10;
/// The most there is.
const NICENESS_MAX: i32 = 19;

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

/// Has the calling thread, a core, run as soon as it may when it is woken. Its share of the processor stays the same.
pub fn run_soon() {
    // Where the system refuses it runs when it always did.
    let _ = sys::schedule(|attributes| attributes.sched_runtime = CORE_SLICE_NS);
}

/// Has the calling thread wait for its turn when it is woken: it does not take the place of a core that runs. Its share of the processor stays the same, so
/// cores that never rest do not keep it from its work. Threads that it starts do likewise.
pub fn wait_for_turn() {
    // Where the system refuses it runs when it always did.
    let _ = sys::schedule(|attributes| {
        attributes.sched_policy = libc::SCHED_BATCH as u32;
        // The slice that all have.
        attributes.sched_runtime = 0;
    });
}

/// Has the calling thread leave a processor that it shares with a core to the core, where that wants it: woken, the core has its place at once, and
/// if it never rests still leaves a tenth. Not to be taken back; threads that it starts do likewise.
pub fn leave_room() {
    // Where the system refuses it runs when it always did.
    let _ = sys::schedule(|attributes| {
        attributes.sched_nice = (attributes.sched_nice + NICENESS).min(NICENESS_MAX);
        attributes.sched_runtime = PATIENT_SLICE_NS;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_a_processor_it_may_use() {
        let first = available()[0];
        assert!(std::thread::spawn(move || pin(first)).join().expect("no panic"));
    }

    /// The policy, niceness and slice of a thread after it has asked for something.
    fn scheduled(ask: fn()) -> (i32, i32, u64) {
        let asked = std::thread::spawn(move || {
            ask();
            let mut seen = (0, 0, 0);
            sys::schedule(|attributes| {
                seen = (attributes.sched_policy as i32, attributes.sched_nice, attributes.sched_runtime);
            })
            .expect("it may be asked");
            seen
        });
        asked.join().expect("no panic")
    }

    #[test]
    fn cores_ask_for_short_slices_and_who_waits_for_its_turn_is_told_apart() {
        let (policy, usual, slice_ns) = scheduled(run_soon);
        assert_eq!(policy, libc::SCHED_OTHER);
        // Linux before 6.12 has no slices to ask for.
        assert!([0, CORE_SLICE_NS].contains(&slice_ns), "{slice_ns} ns");
        let (policy, niceness, slice_ns) = scheduled(wait_for_turn);
        assert_eq!((policy, niceness), (libc::SCHED_BATCH, usual));
        assert_ne!(slice_ns, CORE_SLICE_NS);
    }

    #[test]
    fn who_leaves_room_is_nicer_than_it_was_and_at_most_as_nice_as_can_be() {
        let (policy, usual, _) = scheduled(|| {});
        let (same, niceness, slice_ns) = scheduled(leave_room);
        assert_eq!((same, niceness), (policy, (usual + NICENESS).min(NICENESS_MAX)));
        assert!([0, PATIENT_SLICE_NS].contains(&slice_ns), "{slice_ns} ns");
        let (_, most, _) = scheduled(|| (0..3).for_each(|_| leave_room()));
        assert_eq!(most, NICENESS_MAX);
    }
}

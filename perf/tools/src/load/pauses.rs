//! When a processor ran nobody of ours: what is then kept waiting is nobody's doing.
//!
//! A host does not tell its guest of all that it takes from it, and the kernel of a server does not interrupt itself for long in what it does for others. So
//! a thread on each processor asks to be woken every millisecond, before anything else there may run, and writes down when it was woken late. A program
//! can not keep it waiting.

use std::io;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::machine;

const EVERY: Duration = Duration::from_millis(1);
/// Later than this is a pause. A system call of a gateway that took as long would be excused by it.
const LATE_MIN: Duration = Duration::from_micros(1500);
/// In real time.
const PRIORITY: &str = "50";
/// What was due so long before a pause may have been under way in it, and what is due so long after one, and so many times the
/// pause, may wait behind what it held up.
const BEFORE: Duration = Duration::from_millis(5);
const AFTER: Duration = Duration::from_millis(5);
const AFTER_TIMES: u32 = 2;
/// Requests whose times are kept; a run that has more tells nothing of them apart.
const KEPT_MAX: usize = 1 << 23;

type Pauses = Vec<(Instant, Instant)>;

/// Threads that watch; they end with it.
pub(crate) struct Watch {
    found: Arc<Mutex<Pauses>>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Gives the calling thread a policy of scheduling.
fn schedule(policy: &str, priority: &str) -> io::Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let done = Command::new("chrt").args([policy, "--pid", priority, &thread]).output()?;
    if done.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("to see pauses, chrt must set how threads are scheduled: {}", why.trim())))
}

fn watch(found: &Mutex<Pauses>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Relaxed) {
        let before = Instant::now();
        std::thread::sleep(EVERY);
        let now = Instant::now();
        if now - before > EVERY + LATE_MIN {
            found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((before, now));
        }
    }
}

impl Watch {
    pub(crate) fn begin(processors: &[usize]) -> io::Result<Self> {
        let mut begun = Self { found: Arc::default(), stopped: Arc::default(), threads: Vec::new() };
        for processor in processors.iter().copied() {
            let (found, stopped) = (begun.found.clone(), begun.stopped.clone());
            let (ready, is_ready) = mpsc::channel();
            let thread =
                std::thread::Builder::new().name(format!("pauses-{processor}")).spawn(move || {
                    let first = machine::pin(processor).and_then(|()| schedule("--fifo", PRIORITY));
                    let is_first = first.is_ok();
                    if ready.send(first).is_ok() && is_first {
                        watch(&found, &stopped);
                    }
                })?;
            begun.threads.push(thread);
            is_ready.recv().map_err(io::Error::other)??;
        }
        Ok(begun)
    }

    /// Ends the threads: the pauses of all processors, in order of their beginning.
    pub(crate) fn end(mut self) -> Pauses {
        self.stop();
        let mut found =
            std::mem::take(&mut *self.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        found.sort();
        found
    }

    fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has found nothing more.
            let _ = thread.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// When requests were due, and how long they took.
#[derive(Default)]
pub(crate) struct Kept(Vec<(Instant, Duration)>);

impl Kept {
    pub(crate) fn keep(&mut self, due: Instant, latency: Duration) {
        if self.0.len() < KEPT_MAX {
            self.0.push((due, latency));
        }
    }

    /// The latencies of what was due outside of pauses: by when it was due alone, whatever came of it.
    fn outside(&mut self, pauses: &Pauses, into: &mut Histogram<u64>) {
        self.0.sort_unstable_by_key(|(due, _)| *due);
        let mut ahead = pauses.iter().peekable();
        let mut until: Option<Instant> = None;
        for (due, latency) in &self.0 {
            while let Some((begin, end)) = ahead.next_if(|(begin, _)| *begin <= *due + BEFORE) {
                let over = *end + AFTER + (*end - *begin) * AFTER_TIMES;
                until = until.max(Some(over));
            }
            if until.is_none_or(|until| *due >= until) {
                into.saturating_record(latency.as_nanos() as u64);
            }
        }
    }

    /// Microseconds outside of pauses, the share of requests that this is of, and the pauses; nothing where too many came.
    pub(crate) fn report(&mut self, pauses: &Pauses, mut histogram: Histogram<u64>) -> Value {
        let of = self.0.len();
        if of == 0 || of == KEPT_MAX {
            return Value::Null;
        }
        self.outside(pauses, &mut histogram);
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let paused: Duration = pauses.iter().map(|(begin, end)| *end - *begin).sum();
        json!({
            "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999), "max": histogram.max() as f64 / 1000.0,
            "share": histogram.len() as f64 / of as f64,
            "pauses": pauses.len(),
            "paused_ms": paused.as_secs_f64() * 1000.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_around_a_pause_is_left_out_whatever_it_took() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut kept = Kept::default();
        for ms in (0..200).rev() {
            kept.keep(at(ms), Duration::from_micros(100 + ms));
        }
        // Left out: from 95 to 110 + 5 + 20 ms, and from 135 to 148.
        let report = kept.report(
            &vec![(at(100), at(110)), (at(140), at(141))],
            Histogram::new_with_bounds(1, 1 << 40, 3).unwrap(),
        );
        assert_eq!(report["share"], (200 - 53) as f64 / 200.0, "{report}");
        assert_eq!((report["pauses"].clone(), report["paused_ms"].clone()), (json!(2), json!(11.0)));
    }

    #[test]
    fn threads_that_watch_end_when_they_are_told() {
        // Without root there is nothing to be seen, and that is said.
        match Watch::begin(&[0]) {
            Ok(watch) => assert!(watch.end().iter().all(|(begin, end)| *end - *begin > LATE_MIN)),
            Err(error) => assert!(error.to_string().contains("how threads are scheduled"), "{error}"),
        }
    }
}

//! Waiting without sleeping for a guess: ask until the answer comes or patience ends.

use std::thread;
use std::time::{Duration, Instant};

/// How long anything may take. Generous, because it is only spent when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(5);

/// Asks until there is an answer; `what` is the sentence of the failure.
pub(crate) fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// The same with another deadline.
pub(crate) fn within<T>(patience: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        thread::sleep(PAUSE);
    }
}

//! A question of a core that the control side answers, such as for the page of metrics. It goes out as a report, so a core never waits
//! to ask; the answer lies in a place that both know, and a byte through a socket pair wakes the core, so no future is
//! woken from a foreign thread. Whoever drops a question without an answer ends the pair, which the core sees as well.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

/// What may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The page of metrics, as text.
    Metrics,
}

/// The asked one's end.
#[derive(Debug)]
pub struct Inquiry {
    pub subject: Subject,
    answer: Arc<OnceLock<Vec<u8>>>,
    bell: UnixStream,
}

/// The core's end: an answer is there, or will never be, when `bell` can be read.
#[derive(Debug)]
pub struct Awaited {
    answer: Arc<OnceLock<Vec<u8>>>,
    bell: UnixStream,
}

/// Makes both ends.
///
/// # Errors
/// When the system has no socket pair to give.
pub fn inquiry(subject: Subject) -> io::Result<(Inquiry, Awaited)> {
    let (bell, hears) = UnixStream::pair()?;
    bell.set_nonblocking(true)?;
    let answer = Arc::new(OnceLock::new());
    Ok((Inquiry { subject, answer: Arc::clone(&answer), bell }, Awaited { answer, bell: hears }))
}

impl Inquiry {
    /// Whether whoever asked still waits.
    pub fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.answer) > 1
    }

    /// Answers. Whoever asked may have gone.
    pub fn answer(self, text: Vec<u8>) {
        if self.answer.set(text).is_ok() {
            // The pair is new, so there is room for one byte.
            let _ = (&self.bell).write(&[1]);
        }
    }
}

impl Awaited {
    /// What to wait for, and where the answer will be.
    pub fn into_parts(self) -> (OwnedFd, Answer) {
        (self.bell.into(), Answer(self.answer))
    }
}

/// Where an answer will be.
#[derive(Debug)]
pub struct Answer(Arc<OnceLock<Vec<u8>>>);

impl Answer {
    /// The answer, if there is one by now.
    pub fn take(self) -> Option<Vec<u8>> {
        match Arc::try_unwrap(self.0) {
            Ok(place) => place.into_inner(),
            // The other end is about to let go of it.
            Err(place) => place.get().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn an_answer_rings_the_bell_and_lies_ready() {
        let (inquiry, awaited) = inquiry(Subject::Metrics).expect("a socket pair");
        assert!(inquiry.is_awaited());
        inquiry.answer(b"page".to_vec());
        let (bell, answer) = awaited.into_parts();
        let mut rung = Vec::new();
        UnixStream::from(bell).read_to_end(&mut rung).expect("a byte and the end");
        assert_eq!((rung, answer.take()), (vec![1], Some(b"page".to_vec())));
    }

    #[test]
    fn a_question_that_is_dropped_ends_the_wait_and_one_nobody_waits_for_is_told() {
        let (question, awaited) = inquiry(Subject::Metrics).expect("a socket pair");
        drop(question);
        let (bell, answer) = awaited.into_parts();
        let mut rung = Vec::new();
        UnixStream::from(bell).read_to_end(&mut rung).expect("the end");
        assert_eq!((rung, answer.take()), (Vec::new(), None));
        let (question, awaited) = inquiry(Subject::Metrics).expect("a socket pair");
        drop(awaited);
        assert!(!question.is_awaited());
        question.answer(Vec::new());
    }
}

//! Names of nodes, asked again over time, on a thread of their own: a resolver may take seconds.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

use super::dns;
use crate::base::clock::Moment;

/// How often names are asked again.
pub const EVERY: Duration = Duration::from_secs(30);

/// Names with their addresses; those that had an answer.
pub type Answers = Vec<(String, Vec<IpAddr>)>;

/// Asks one round at a time.
#[derive(Debug, Default)]
pub struct Lookup {
    asked_at: Moment,
    under_way: Option<Receiver<Answers>>,
}

impl Lookup {
    /// Answers that have come in, if any. Starts the next round for `names` when it is due.
    pub fn advance(&mut self, now: Moment, names: impl FnOnce() -> Vec<String>) -> Option<Answers> {
        if let Some(answers) = &self.under_way {
            match answers.try_recv() {
                Err(TryRecvError::Empty) => return None,
                Ok(answers) => {
                    self.under_way = None;
                    return Some(answers);
                }
                Err(TryRecvError::Disconnected) => self.under_way = None,
            }
        }
        if now.since(self.asked_at) < EVERY {
            return None;
        }
        self.asked_at = now;
        let names = names();
        if !names.is_empty() {
            let (tell, hear) = channel();
            // Without a thread to spare there is no answer this time; the last ones stay in force.
            let asked = std::thread::Builder::new().name("names".to_owned()).spawn(move || {
                let answers =
                    names.into_iter().filter_map(|name| dns::resolve(&name).ok().map(|found| (name, found)));
                let _ = tell.send(answers.collect());
            });
            self.under_way = asked.ok().map(|_| hear);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_when_due_and_only_then() {
        let mut lookup = Lookup::default();
        let early = Moment::from_nanos(1);
        assert!(lookup.advance(early, || panic!("not due")).is_none());
        let due = early.plus(EVERY + EVERY);
        assert!(
            lookup.advance(due, || vec!["localhost".to_owned(), "no-such-name.invalid".to_owned()]).is_none()
        );
        let answers = lookup.under_way.as_ref().expect("a round is under way").recv().expect("it answers");
        assert_eq!(answers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["localhost"]);
    }
}

//! Objects that were put for a time (`?ttl`) go when it is over, as a change like any other: kept, in the history and the audit
//! log. Who still refers to one finds it missing, as after a forced deletion.
//!
//! In front of etcd there is nothing to do: there the lease ends, and etcd tells.

use std::io;
use std::time::Duration;

use super::Control;
use super::admin::held;
use super::log;
use super::signals::Stage;
use super::source::file::LOOK_EVERY;
use super::store::{Author, Store, Term};
use super::write::How;
use crate::base::clock::{self, Moment};

/// After a deletion that could not be kept, the next try.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Who takes them out.
fn author() -> Author {
    Author { who: "ttl".to_owned(), from: "gateway".to_owned() }
}

/// Takes out of a store what went while nobody served it.
///
/// # Errors
/// When that can not be kept.
pub(super) fn catch_up(store: &mut Store) -> io::Result<()> {
    loop {
        let now = clock::wall();
        let over = store.over(now);
        if over.is_empty() {
            return Ok(());
        }
        let (objects, revision) = (over.len(), store.commit(over, &author(), now, Term::Lasting)?);
        log::info(format!("objects whose time was over: {objects}; revision {revision}"));
    }
}

impl Control {
    /// Takes out what is due.
    pub(super) async fn expire(&mut self, now: Moment) {
        if now < self.done.expired_until || self.etcd.is_some() || self.stage != Stage::Serving {
            return;
        }
        self.done.expired_until = now.plus(LOOK_EVERY);
        let wall = clock::wall();
        if held(&self.holdings.store).over(wall).is_empty() {
            return;
        }
        let how = How { author: author(), dry_run: false, ttl: None };
        let prepare = Box::new(move |store: &Store| Ok(store.over(wall)));
        if let Err(refusal) = self.change(prepare, &how, now).await {
            log::error(format!("objects whose time is over stay for now: {}", refusal.message));
            self.done.expired_until = now.plus(TRY_AGAIN);
        }
    }
}

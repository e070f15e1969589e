//! Objects that were put for a time (`?ttl`) go when it is over, as a change like any other: kept, in the history and the audit
//! log. Who still refers to one finds it missing, as after a forced deletion.
//!
//! In front of etcd there is nothing to do: there the lease ends, and etcd tells.

use std::io;
use std::time::Duration;

use super::Control;
use super::admin::held;
use super::audit;
use super::log;
use super::signals::Stage;
use super::source::file::LOOK_EVERY;
use super::store::{Author, Change, Revision, Store, Term};
use super::write::{How, changed_line};
use crate::base::clock::{self, Moment};
use crate::model::object_name;

/// After a deletion that could not be kept, the next try.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Who takes them out.
fn author() -> Author {
    Author { who: "ttl".to_owned(), from: "gateway".to_owned() }
}

/// Takes out of a store what went while nobody served it; each revision of that, for the audit log.
///
/// # Errors
/// When that can not be kept.
pub(super) fn catch_up(store: &mut Store) -> io::Result<Vec<Revision>> {
    let mut made = Vec::new();
    loop {
        let now = clock::wall();
        let over = store.over(now);
        if over.is_empty() {
            return Ok(made);
        }
        let (author, names) = (author(), over.iter().map(Change::key).collect::<Vec<_>>());
        let changes = audit::changed(store, &over);
        let revision = store.commit(over, &author, now, Term::Lasting)?;
        for (kind, id) in names {
            log::info(changed_line(&object_name(kind, &id), &author, revision));
        }
        made.push(Revision { revision, at: now, author, changes });
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
        if !held(&self.holdings.store).has_over(wall) {
            return;
        }
        let how = How { author: author(), dry_run: false, force: true, ttl: None };
        let prepare = Box::new(move |store: &Store| Ok(store.over(wall)));
        if let Err(refusal) = self.change(prepare, &how, now).await {
            log::error(format!("objects whose time is over stay for now: {}", refusal.message));
            self.done.expired_until = now.plus(TRY_AGAIN);
        }
    }
}

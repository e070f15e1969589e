//! What `$secret://` and `$file://` references stand for: stores of secrets are asked, and asked again over time; files are
//! read when they change.
//!
//! One round at a time, in the background. A store that fails takes nothing away: its values stay, the failure is
//! logged once, and so is its end. No value is ever logged.

mod files;
mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::dial::Dialer;
use super::log;
use crate::base::clock::{self, Moment};
use crate::model::SecretStore;
use crate::model::reference::Reference;
use crate::model::settings::Settings;
use crate::snapshot::compile::Outcome;
use crate::snapshot::{Compiler, Learnt, Wanted};

pub use files::Files;
use files::Stamp;

/// How long a value is taken to be true: a secret that is changed is in force after a minute. `HUP` asks at once.
const EVERY: Duration = Duration::from_secs(60);
/// How soon a store that failed, or did not have a value, is asked again.
const RETRY: Duration = Duration::from_secs(5);
/// What a start gives the stores, so that it does not begin with routes that refuse.
const START: Duration = Duration::from_secs(3);

/// References, each with what was learnt.
pub type Answers = Vec<(String, Learnt)>;

/// What the process's environment says of a variable.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// See the module.
#[derive(Debug)]
pub struct Secrets {
    dialer: Dialer,
    files: Files,
    /// References to files, each with the file as it was when it was last read.
    stamps: BTreeMap<String, Option<Stamp>>,
    /// What is wrong with files, by reference.
    unread: BTreeMap<String, String>,
    /// What configuration refers to, and of which snapshot that is true.
    wanted: Vec<Wanted>,
    wanted_at: u64,
    seen: BTreeMap<String, Seen>,
    under_way: Option<oneshot::Receiver<Answers>>,
    /// Troubles that were logged.
    told: BTreeSet<String>,
}

/// A reference that was asked about.
#[derive(Debug)]
struct Seen {
    store: Arc<SecretStore>,
    asked_at: Moment,
    trouble: Option<String>,
}

impl Seen {
    /// Whether it is to be asked about again.
    fn is_due(&self, store: &Arc<SecretStore>, now: Moment) -> bool {
        let patience = if self.trouble.is_some() { RETRY } else { EVERY };
        !Arc::ptr_eq(&self.store, store) || now.since(self.asked_at) >= patience
    }
}

impl Secrets {
    /// Nothing is known yet.
    pub fn new(settings: &Settings) -> Self {
        Self {
            dialer: Dialer::new(settings),
            files: Files::new(settings),
            stamps: BTreeMap::new(),
            unread: BTreeMap::new(),
            wanted: Vec::new(),
            wanted_at: 0,
            seen: BTreeMap::new(),
            under_way: None,
            told: BTreeSet::new(),
        }
    }

    /// Asks for what a first snapshot refers to, and waits a moment for it; the snapshot with it, if that came.
    ///
    /// # Errors
    /// When there is no runtime to be had.
    pub fn first(&mut self, compiler: &mut Compiler) -> io::Result<Option<Outcome>> {
        let due = self.due(clock::now(), compiler);
        if due.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asked = runtime.block_on(async {
            tokio::time::timeout(START, vault::ask(due, self.dialer.clone(), self.files.clone())).await
        });
        // A name may still be looked up: that is not waited for.
        runtime.shutdown_background();
        let Ok(answers) = asked else {
            log::warn(format!("stores of secrets have not answered within {START:?}; they are asked on"));
            self.ask_all_again();
            return Ok(None);
        };
        self.note(&answers);
        Ok(compiler.learn_secrets(answers))
    }

    /// Answers that have come in, if any. Starts the next round for what is due. Needs a tokio runtime.
    pub fn advance(&mut self, now: Moment, compiler: &Compiler) -> Option<Answers> {
        let read = self.look_at_files(compiler);
        if !read.is_empty() {
            return Some(read);
        }
        if let Some(answers) = &mut self.under_way {
            match answers.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return None,
                Ok(answers) => {
                    self.under_way = None;
                    self.note(&answers);
                    return Some(answers);
                }
                Err(oneshot::error::TryRecvError::Closed) => self.under_way = None,
            }
        }
        let due = self.due(now, compiler);
        if !due.is_empty() {
            let (tell, hear) = oneshot::channel();
            let (dialer, files) = (self.dialer.clone(), self.files.clone());
            tokio::spawn(async move { tell.send(vault::ask(due, dialer, files).await) });
            self.under_way = Some(hear);
        }
        None
    }

    /// Has everything be due; whether there is anything.
    pub fn ask_all_again(&mut self) -> bool {
        self.seen.clear();
        self.stamps.clear();
        !self.wanted.is_empty()
    }

    /// What files say that were written or replaced since they were last read, or are newly referred to.
    fn look_at_files(&mut self, compiler: &Compiler) -> Answers {
        let wanted = compiler.references_to_files();
        let (had, mut answers) = (std::mem::take(&mut self.stamps), Answers::new());
        for reference in wanted {
            let Ok(Reference::File { path }) = Reference::of(&reference) else { continue };
            // Looked at before it is read: what is written in between is read once more.
            let stamp = Stamp::of(path);
            if had.get(&reference) != Some(&stamp) {
                answers.push((reference.clone(), self.files.learn(path)));
            }
            self.stamps.insert(reference, stamp);
        }
        let is_wanted = |reference: &String, _: &mut String| self.stamps.contains_key(reference);
        let had_trouble = self.unread.len();
        self.unread.retain(is_wanted);
        for (reference, learnt) in &answers {
            match learnt {
                Learnt::Value(_) => self.unread.remove(reference),
                Learnt::Absent(why) | Learnt::Failed(why) => {
                    self.unread.insert(reference.clone(), format!("{reference}: {why}"))
                }
            };
        }
        if !answers.is_empty() || self.unread.len() != had_trouble {
            self.tell_troubles();
        }
        answers
    }

    /// What is to be asked now; it is taken to have been.
    fn due(&mut self, now: Moment, compiler: &Compiler) -> Vec<Wanted> {
        if self.wanted_at != compiler.generation() {
            self.wanted_at = compiler.generation();
            self.wanted = compiler.references();
            let named: BTreeSet<&str> = self.wanted.iter().map(|wanted| wanted.reference.as_str()).collect();
            self.seen.retain(|reference, _| named.contains(reference.as_str()));
        }
        let is_due = |wanted: &&Wanted| {
            self.seen.get(&wanted.reference).is_none_or(|seen| seen.is_due(&wanted.store, now))
        };
        let due: Vec<Wanted> = self.wanted.iter().filter(is_due).cloned().collect();
        for Wanted { reference, store } in &due {
            let trouble = self.seen.get(reference).and_then(|seen| seen.trouble.clone());
            let seen = Seen { store: Arc::clone(store), asked_at: now, trouble };
            self.seen.insert(reference.clone(), seen);
        }
        due
    }

    /// Notes how it went, and logs what is new about that.
    fn note(&mut self, answers: &Answers) {
        for (reference, learnt) in answers {
            let Some(seen) = self.seen.get_mut(reference) else { continue };
            seen.trouble = match learnt {
                Learnt::Value(_) => None,
                Learnt::Absent(why) | Learnt::Failed(why) => Some(why.clone()),
            };
        }
        self.tell_troubles();
    }

    /// Logs what is new about what is wrong.
    fn tell_troubles(&mut self) {
        let of_stores = self.seen.values().filter_map(|seen| seen.trouble.clone());
        let troubles: BTreeSet<String> = of_stores.chain(self.unread.values().cloned()).collect();
        for trouble in troubles.difference(&self.told) {
            log::warn(trouble.clone());
        }
        for trouble in self.told.difference(&troubles) {
            log::info(format!("it is over: {trouble}"));
        }
        self.told = troubles;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Arc<SecretStore> {
        let text = r#"{"uri": "http://127.0.0.1:1", "prefix": "kv", "token": "t"}"#;
        Arc::new(serde_json::from_str(text).expect("a store"))
    }

    #[test]
    fn a_value_is_asked_for_again_when_old_when_it_failed_or_when_its_store_is_another() {
        let (store, other) = (store(), store());
        let at = Moment::from_nanos(1);
        let mut seen = Seen { store: Arc::clone(&store), asked_at: at, trouble: None };
        assert!(!seen.is_due(&store, at.plus(RETRY)));
        assert!(seen.is_due(&store, at.plus(EVERY)) && seen.is_due(&other, at));
        seen.trouble = Some("no".to_owned());
        assert!(seen.is_due(&store, at.plus(RETRY)) && !seen.is_due(&store, at));
    }

    #[test]
    fn what_is_wrong_is_told_once_for_all_it_concerns() {
        let mut secrets = Secrets::new(&Settings::default());
        for name in ["a", "b"] {
            let seen = Seen { store: store(), asked_at: Moment::ZERO, trouble: None };
            secrets.seen.insert(name.to_owned(), seen);
        }
        let failed = |name: &str| (name.to_owned(), Learnt::Failed("no connection".to_owned()));
        secrets.note(&vec![failed("a"), failed("b")]);
        assert_eq!(secrets.told.len(), 1);
        secrets.note(&vec![("a".to_owned(), Learnt::Value("v".into()))]);
        assert_eq!(secrets.told.len(), 1, "it still concerns b");
        secrets.note(&vec![("b".to_owned(), Learnt::Value("v".into()))]);
        assert!(secrets.told.is_empty());
    }
}

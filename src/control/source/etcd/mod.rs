//! Objects from etcd 3, in the layout of APISIX: `PREFIX/routes/ID`, `PREFIX/consumers/NAME/credentials/ID` and so on,
//! values in JSON.
//!
//! ```text
//! etcd ─▶ watch.rs ─▶ mirror.rs ─▶ changes ─▶ the compiler
//!                         └▶ the store, which the Admin API shows, and keep.rs, for a start without etcd
//! ```
//!
//! At start what was kept is compiled first and what etcd has after it, so that a bad value has its last good version
//! there even when the process is new.

mod client;
mod indexes;
mod keep;
mod mirror;
mod shelf;
mod watch;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::base::clock::Moment;
use crate::control::admin::{Shared, held};
use crate::control::dial::Dialer;
use crate::control::log;
use crate::control::seal::Seal;
use crate::control::store::{Change, Store};
use crate::control::whole_file;
use crate::control::write::Refusal;
use crate::model::settings::{Endpoint, EtcdSettings};
use crate::model::{Kind, Settings, object_name};
use crate::snapshot::Compiler;
use crate::snapshot::compile::Outcome;

use client::{Again, Client, Trouble};
use indexes::Indexes;
use keep::Kept;
use mirror::{Mirror, Step, Told};
use watch::{All, NEWS_MAX, Watcher};
use wire::{Bytes, Span};

pub(crate) use shelf::{Lease, Shelf, Told as OnShelf};
pub(crate) use watch::News;

/// How long etcd gets at start where an earlier configuration is kept.
const FIRST_PATIENCE: Duration = Duration::from_secs(3);
/// How long it gets for a change. The control loop waits meanwhile, with signals and all else that it does.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries at start.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// Between two writings of what is kept.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// Strange keys that are told one by one.
const STRANGE_TOLD: usize = 20;

/// An etcd that holds the objects.
pub struct Etcd {
    settings: EtcdSettings,
    dialer: Dialer,
    span: Span,
    mirror: Mirror,
    file: PathBuf,
    /// From an earlier run, until it is taken.
    kept: Option<Kept>,
    /// What etcd had at start, until it is taken.
    listed: Option<All>,
    news: Option<mpsc::Receiver<News>>,
    /// Has its own token and member, apart from the watcher's.
    writer: Client,
    is_reachable: bool,
    /// What is kept is not what is served.
    is_dirty: bool,
    kept_at: Moment,
    keeping: Option<JoinHandle<io::Result<()>>>,
    /// What other gateways have written beside the objects, until it is taken.
    on_shelf: Vec<OnShelf>,
}

/// What is to be seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) is_reachable: bool,
    pub(crate) revision: u64,
    pub(crate) missing: usize,
    pub(crate) indexes: Indexes,
}

impl Etcd {
    /// Reads what etcd has, and what was kept of it; `None`: it is not what holds the objects.
    ///
    /// # Errors
    /// When etcd does not answer and nothing is kept.
    pub fn open(settings: &Settings) -> io::Result<Option<Self>> {
        let Some(own) = &settings.etcd else { return Ok(None) };
        let mut dialer = Dialer::to_etcd(settings, own);
        if own.endpoints.iter().any(Endpoint::is_tls) {
            dialer.config().map_err(|error| io::Error::new(error.kind(), format!("TLS to etcd: {error}")))?;
        }
        let file = settings.state_dir.join(keep::FILE);
        let prefix = own.prefix.as_str();
        let mut seal = Seal::open(settings)?;
        let read =
            Kept::read(&file).and_then(|kept| kept.map(|kept| kept.uncovered(&seal, &file)).transpose());
        let (kept, damage) = match read {
            Ok(kept) => (kept, None),
            Err(error) => (None, Some(error)),
        };
        let kept = kept.filter(|kept| {
            let is_ours = kept.prefix == prefix;
            if !is_ours {
                log::warn(format!("{}: is of the prefix {}, and is not used", file.display(), kept.prefix));
            }
            is_ours
        });
        let span = Span::below(prefix);
        let listed = first_list(Client::new(own, dialer.clone()), own.startup_retry, &span, kept.is_some())?;
        let is_reachable = listed.is_ok();
        let listed = match (listed, &kept, damage) {
            (Ok(listed), _, damage) => {
                damage.into_iter().for_each(|error| log::error(error.to_string()));
                Some(listed)
            }
            (Err(trouble), Some(kept), _) => {
                let (path, revision) = (file.display(), kept.revision);
                log::error(format!("etcd: {trouble}; starting with revision {revision}, kept in {path}"));
                None
            }
            (Err(trouble), None, Some(damage)) => {
                return Err(io::Error::other(format!("etcd: {trouble}; {damage}")));
            }
            (Err(trouble), None, None) => {
                let path = file.display();
                let why = format!("etcd: {trouble}; and no earlier configuration is kept in {path}");
                return Err(io::Error::other(why));
            }
        };
        // What can not be written here is not kept at all.
        if let Err(error) = seal.keep_key() {
            log::warn(format!("{error}; secrets are not kept"));
        }
        Ok(Some(Self {
            settings: own.clone(),
            dialer: dialer.clone(),
            span,
            mirror: Mirror::sealing(seal),
            file,
            kept,
            listed,
            news: None,
            writer: Client::new(own, dialer).within(COMMIT_TIMEOUT),
            is_reachable,
            is_dirty: false,
            kept_at: Moment::ZERO,
            keeping: None,
            on_shelf: Vec::new(),
        }))
    }

    /// Compiles what was kept, then what etcd has.
    pub(crate) fn first(&mut self, store: &mut Store, compiler: &mut Compiler) -> Outcome {
        if let Some(kept) = self.kept.take() {
            self.mirror.begin(kept, store);
        }
        let first = compiler.compile(&store.resources());
        self.learn(&first, Step::default());
        let listed = self.listed.take();
        let newer = listed.and_then(|all| self.take(News::All(all), store, compiler));
        newer.unwrap_or(first)
    }

    /// Begins to watch. Needs a tokio runtime.
    pub(crate) fn start(&mut self) {
        let (tell, hear) = mpsc::channel(NEWS_MAX);
        let watcher = Watcher {
            client: Client::new(&self.settings, self.dialer.clone()),
            span: self.span.clone(),
            at: self.is_reachable.then_some(self.mirror.header),
            silence_max: self.settings.watch_timeout.get(),
            news: tell,
            is_away: !self.is_reachable,
        };
        tokio::spawn(watcher.run());
        self.news = Some(hear);
    }

    /// Waits for news, where there is one that may have any.
    pub(crate) async fn next(etcd: &mut Option<Self>) -> Option<News> {
        etcd.as_mut()?.news.as_mut()?.recv().await
    }

    /// Makes what etcd tells what is served; `None`: it is that already.
    pub(crate) fn take(&mut self, news: News, store: &mut Store, compiler: &mut Compiler) -> Option<Outcome> {
        self.on_shelf.extend(shelf::told(&news));
        let step = match news {
            News::Away(why) => {
                self.is_reachable = false;
                log::error(format!("etcd: {why}; revision {} is served on", self.mirror.header.revision));
                return None;
            }
            News::Back => {
                self.is_reachable = true;
                log::info("etcd: answers again");
                return None;
            }
            News::All(all) => self.mirror.take_all(all, store),
            News::Some(changes) => self.mirror.take_changes(changes, store),
        };
        self.is_dirty = true;
        self.tell(&step.told);
        if step.changes.is_empty() {
            return None;
        }
        let (changed, revision) = (step.changes.len(), self.mirror.header.revision);
        log::info(format!("etcd: revision {revision}; objects changed: {changed}"));
        let outcome = compiler.apply(&step.changes);
        self.learn(&outcome, step);
        Some(outcome)
    }

    /// Where gateways tell each other what is no object.
    pub(crate) fn shelf(&self) -> Shelf {
        let client = Client::new(&self.settings, self.dialer.clone()).within(COMMIT_TIMEOUT);
        Shelf::new(client, &self.span.from)
    }

    /// What they have told since this was last asked.
    pub(crate) fn take_on_shelf(&mut self) -> Vec<OnShelf> {
        std::mem::take(&mut self.on_shelf)
    }

    /// Has etcd take a change, all of it or nothing, and only if nobody else has written these objects since. What is put goes
    /// after `ttl`, if there is one: it is written under a lease.
    ///
    /// # Errors
    /// When it did not, or nobody knows whether it did: then the watch will tell.
    pub(crate) async fn commit(
        &mut self,
        changes: &[Change],
        ttl: Option<Duration>,
        store: &Shared,
    ) -> Result<u64, Refusal> {
        if changes.is_empty() {
            return Ok(held(store).revision());
        }
        let is_any = changes.iter().any(|change| matches!(change, Change::Put(_)));
        let lease = match ttl.filter(|_| is_any) {
            Some(ttl) => Some(self.lease(ttl).await?),
            None => None,
        };
        let asked = self.transaction(changes, lease.as_ref(), &held(store));
        let done: wire::Done =
            self.writer.ask("/v3/kv/txn", &asked, Again::WhenUnheard).await.map_err(not_taken)?;
        if !done.succeeded {
            if let Some(lease) = lease {
                // Nothing was written under it; where it can not be ended, it ends by itself.
                let _ = lease.end(&mut self.writer, Again::WhenUnheard).await;
            }
            let why = "another has just written the same object to etcd; read it again, then try again";
            return Err(Refusal::new(409, why));
        }
        let term = watch::term_of(lease.is_some());
        self.mirror.wrote(done.header.revision, changes, term, &mut held(store));
        self.is_dirty = true;
        Ok(done.header.revision)
    }

    /// A lease for what is about to be put.
    async fn lease(&mut self, ttl: Duration) -> Result<Lease, Refusal> {
        let granted = Lease::grant(&mut self.writer, ttl.as_secs(), Again::WhenUnheard).await;
        granted.map_err(|trouble| match trouble {
            Trouble::Unanswered(why) => {
                Refusal::new(503, format!("etcd gives no lease, and nothing was written: {why}"))
            }
            other => not_taken(other),
        })
    }

    /// A change as etcd takes it: each object as it is known here, and then each as it is to be.
    fn transaction(&self, changes: &[Change], lease: Option<&Lease>, store: &Store) -> Value {
        // Of one object only the last counts; etcd takes no key twice.
        let last: BTreeMap<(Kind, String), &Change> =
            changes.iter().map(|change| (change.key(), change)).collect();
        let (mut compare, mut success) = (Vec::new(), Vec::new());
        for ((kind, id), change) in last {
            let key = Bytes::of(&format!("{}{}", self.span.from, object_name(kind, &id)));
            compare.push(json!({
                "key": key,
                "target": "MOD",
                "result": "EQUAL",
                "mod_revision": self.mirror.modified(kind, &id, store).to_string(),
            }));
            success.push(match change {
                Change::Put(raw) => {
                    let mut put = json!({"key": key, "value": Bytes::of(&raw.value.to_string())});
                    if let Some(lease) = lease {
                        put["lease"] = json!(lease.id);
                    }
                    json!({"request_put": put})
                }
                Change::Delete(..) => json!({"request_delete_range": {"key": key}}),
            });
        }
        let term = watch::term_of(lease.is_some());
        if self.mirror.would_be_empty(changes, term, store) {
            // So that the others who watch know that it is meant.
            let key = Bytes::of(&format!("{}{}", self.span.from, mirror::MARKER));
            success.push(json!({"request_put": {"key": key, "value": Bytes::of("yes")}}));
        }
        json!({"compare": compare, "success": success})
    }

    /// Remembers what is in force of those that were set aside.
    fn learn(&mut self, outcome: &Outcome, step: Step) {
        let aside = outcome.quarantined.iter().filter(|object| object.last_good);
        let names: BTreeSet<String> = aside.map(|object| object_name(object.kind, &object.id)).collect();
        self.mirror.set_aside(&names, step.before);
    }

    fn tell(&self, told: &[Told]) {
        let mut strange = 0;
        for told in told {
            match told {
                Told::Wiped(objects) => {
                    let prefix = self.settings.prefix.as_str();
                    log::error(format!(
                        "etcd: no object is left below {prefix}: {objects} are served on until they are back; if it \
                         is meant, say so: etcdctl put {prefix}/{} yes",
                        mirror::MARKER
                    ));
                }
                Told::Accepted(objects) => log::warn(format!("etcd: it is meant, {objects} objects go")),
                Told::Restored => log::info("etcd: all objects that were missing are back"),
                Told::Another => log::warn("etcd: another one answers, or it was put back to an earlier day"),
                Told::Strange(why) => {
                    strange += 1;
                    if strange <= STRANGE_TOLD {
                        log::error(format!("etcd: {why}"));
                    }
                }
            }
        }
        if strange > STRANGE_TOLD {
            log::error(format!("etcd: and {} more of that sort", strange - STRANGE_TOLD));
        }
    }

    /// What is to be seen.
    pub(crate) fn sight(&self) -> Sight {
        let revision = self.mirror.header.revision;
        Sight {
            is_reachable: self.is_reachable,
            revision,
            missing: self.mirror.missing(),
            indexes: self.mirror.indexes,
        }
    }

    /// Writes what is served to the disk, when it is another than before and the last time is a while ago. Needs a
    /// tokio runtime, whose own threads wait for the disk.
    pub(crate) fn keep(&mut self, now: Moment, store: &Store) {
        if self.keeping.as_ref().is_some_and(|keeping| !keeping.is_finished()) {
            return;
        }
        if self.is_dirty && (self.kept_at == Moment::ZERO || now.since(self.kept_at) >= KEEP_EVERY) {
            self.is_dirty = false;
            self.kept_at = now;
            let kept = self.mirror.kept(self.settings.prefix.as_str(), store);
            let file = self.file.clone();
            self.keeping = Some(tokio::task::spawn_blocking(move || {
                kept.to_text().and_then(|text| whole_file::replace(&file, &text)).inspect_err(|error| {
                    let path = file.display();
                    log::error(format!("{path}: {error}; there is no start without etcd while this is so"));
                })
            }));
        }
    }

    /// The same, at once and at the end.
    pub(crate) async fn keep_last(&mut self, store: &Shared) {
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.await;
        }
        if self.is_dirty {
            self.keep(Moment::from_nanos(u64::MAX), &held(store));
        }
        if let Some(keeping) = self.keeping.take() {
            let _ = keeping.await;
        }
    }
}

/// Why etcd has not taken a change, or may not have.
fn not_taken(trouble: Trouble) -> Refusal {
    match trouble {
        Trouble::Unreachable(why) => Refusal::new(503, format!("etcd can not be reached: {why}")),
        Trouble::Refused(why) => Refusal::new(503, format!("etcd refuses the change: {why}")),
        Trouble::Unanswered(why) => {
            let why = format!("etcd may have taken the change and did not say so: {why}; read it again");
            Refusal::new(504, why)
        }
    }
}

/// Asks for all there is, more often where there is nothing else to start with.
fn first_list(
    mut client: Client,
    retries: u32,
    span: &Span,
    has_kept: bool,
) -> io::Result<Result<All, Trouble>> {
    let mut tries = 1 + retries;
    if has_kept {
        client = client.within(FIRST_PATIENCE);
        tries = 1;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        loop {
            let outcome = watch::list(&mut client, span).await;
            tries -= 1;
            match outcome {
                Err(trouble) if tries > 0 => {
                    log::warn(format!("etcd: {trouble}; trying again"));
                    tokio::time::sleep(TRY_EVERY).await;
                }
                outcome => return outcome,
            }
        }
    }))
}

//! The one watcher: reads all there is, then hears of every change, and begins anew where it left off.
//!
//! ```text
//! list ─▶ watch from the revision after ─▶ changes, gathered for a moment ─▶ the control loop
//!   ▲        ├─ broken off, or long silent: watch again from where it was
//!   └────────┴─ that revision is compacted, or it is another etcd: list again
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::client::{Again, Client, Lines, Trouble};
use super::wire::{self, Bytes, Header, KeyValue, Range, Span, Watched};
use crate::control::store::Term;

/// Objects a request for all of them.
const PAGE: usize = 500;
/// Objects that are read; beyond, something else was put below the prefix.
const KEYS_MAX: usize = 1_000_000;
/// A change waits so long for others that come with it, so that a burst is compiled once.
const GATHER_FOR: Duration = Duration::from_millis(20);
/// And so long at most, while they keep coming.
const GATHER_FOR_MAX: Duration = Duration::from_millis(200);
/// Pauses while it is away: doubled from the first to the last.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// News that wait for the control loop; the watcher waits when there are more.
pub(super) const NEWS_MAX: usize = 4;

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) value: Vec<u8>,
    pub(super) created: u64,
    pub(super) modified: u64,
    /// It goes with its lease.
    pub(super) is_leased: bool,
}

impl Item {
    pub(super) const fn term(&self) -> Term {
        term_of(self.is_leased)
    }
}

/// The term of an object of etcd.
pub(super) const fn term_of(is_leased: bool) -> Term {
    if is_leased { Term::Leased } else { Term::Lasting }
}

/// Keys without the prefix, and what they hold; `None`: no longer anything.
pub(super) type Items = BTreeMap<Vec<u8>, (u64, Option<Item>)>;

/// What the watcher tells.
#[derive(Debug)]
pub(crate) enum News {
    /// All there is, as of a revision.
    All(All),
    /// What has changed, up to a revision, all of it or nothing of a transaction.
    Some(Changes),
    /// It does not answer; told once.
    Away(String),
    /// It answers again.
    Back,
}

#[derive(Debug)]
pub(crate) struct All {
    pub(super) header: Header,
    pub(super) items: Vec<(Vec<u8>, Item)>,
}

#[derive(Debug)]
pub(crate) struct Changes {
    pub(super) revision: u64,
    pub(super) items: Items,
}

/// Reads all there is, page by page as of one revision.
pub(super) async fn list(client: &mut Client, span: &Span) -> Result<All, Trouble> {
    let mut all = All { header: Header::default(), items: Vec::new() };
    let mut from = Bytes::of(&span.from);
    loop {
        let asked = span.page(&from, PAGE, all.header.revision);
        let page: Range = client.ask("/v3/kv/range", &asked, Again::Always).await?;
        if all.header.revision == 0 {
            all.header = page.header;
        }
        if let Some(last) = page.kvs.last() {
            from = last.key.clone();
            from.0.push(0);
        }
        all.items.extend(page.kvs.into_iter().map(|kv| item_of(kv, span)));
        if !page.more {
            return Ok(all);
        }
        if all.items.len() > KEYS_MAX {
            return Err(Trouble::Refused(format!("more than {KEYS_MAX} keys below {}", span.from)));
        }
    }
}

fn item_of(kv: KeyValue, span: &Span) -> (Vec<u8>, Item) {
    let (created, modified) = (kv.create_revision, kv.mod_revision);
    let item = Item { value: kv.value.0, created, modified, is_leased: kv.is_leased };
    (below(kv.key, span), item)
}

/// A key without what all begin with.
fn below(mut key: Bytes, span: &Span) -> Vec<u8> {
    key.0.split_off(span.from.len().min(key.0.len()))
}

/// The watcher at work.
pub(super) struct Watcher {
    pub(super) client: Client,
    pub(super) span: Span,
    /// Up to where everything was told; `None`: nothing was.
    pub(super) at: Option<Header>,
    pub(super) silence_max: Duration,
    pub(super) news: mpsc::Sender<News>,
    pub(super) is_away: bool,
}

/// Why a watch has ended.
enum Ended {
    /// Go on from where it was.
    Broken(Trouble),
    /// It was silent for long; nothing speaks against etcd.
    Silent,
    /// What was told does not lead to the present: all must be read.
    Astray,
    /// Nobody listens any more.
    Unheard,
}

impl Watcher {
    /// Until nobody listens any more.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE;
        loop {
            let ended = match self.at {
                None => match list(&mut self.client, &self.span).await {
                    Ok(all) => {
                        self.at = Some(all.header);
                        self.tell_back().await;
                        if self.news.send(News::All(all)).await.is_err() {
                            Ended::Unheard
                        } else {
                            Ended::Silent
                        }
                    }
                    Err(trouble) => Ended::Broken(trouble),
                },
                Some(at) => self.watch(at, &mut pause).await,
            };
            match ended {
                Ended::Unheard => return,
                Ended::Silent => {}
                Ended::Astray => self.at = None,
                Ended::Broken(trouble) => {
                    self.client.forget_token();
                    if !self.is_away {
                        self.is_away = true;
                        let _ = self.news.send(News::Away(trouble.to_string())).await;
                    }
                    sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
            if self.news.is_closed() {
                return;
            }
        }
    }

    async fn tell_back(&mut self) {
        if std::mem::take(&mut self.is_away) {
            let _ = self.news.send(News::Back).await;
        }
    }

    async fn watch(&mut self, at: Header, pause: &mut Duration) -> Ended {
        let asked = self.span.watch(at.revision + 1);
        let mut lines = match self.client.open("/v3/watch", &asked, Again::Always).await {
            Ok(lines) => lines,
            Err(trouble) => return Ended::Broken(trouble),
        };
        loop {
            let watched = match timeout(self.silence_max, read(&mut lines)).await {
                Err(_) => return Ended::Silent,
                Ok(Err(ended)) => return ended,
                Ok(Ok(watched)) => watched,
            };
            // An etcd that was put back to an earlier day, or another at the same address, has revisions of its own.
            if watched.created
                && (watched.header.cluster_id != at.cluster_id || watched.header.revision < at.revision)
            {
                return Ended::Astray;
            }
            *pause = PAUSE;
            self.tell_back().await;
            let mut changes = Changes { revision: 0, items: Items::new() };
            let mut ended = None;
            if let Err(why) = self.gather(watched, &mut lines, &mut changes).await {
                ended = Some(why);
            }
            if changes.revision > 0 {
                self.at = Some(Header { revision: changes.revision, ..at });
                if self.news.send(News::Some(changes)).await.is_err() {
                    return Ended::Unheard;
                }
            }
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// Takes what came, and what comes right after it. `changes` has whole revisions only, whatever happens.
    async fn gather(&self, first: Watched, lines: &mut Lines, changes: &mut Changes) -> Result<(), Ended> {
        let until = Instant::now() + GATHER_FOR_MAX;
        let mut next = Some(first);
        // Of a revision that is not whole yet.
        let mut part = Vec::new();
        loop {
            if let Some(watched) = next.take() {
                if watched.canceled {
                    return Err(canceled(&watched, lines));
                }
                let is_whole = !watched.fragment;
                part.extend(watched.events);
                if is_whole {
                    for event in part.drain(..) {
                        self.take(event, changes);
                    }
                } else if part.len() > KEYS_MAX {
                    return Err(Ended::Astray);
                }
            }
            if changes.revision == 0 && part.is_empty() {
                return Ok(());
            }
            let deadline = if part.is_empty() {
                until.min(Instant::now() + GATHER_FOR)
            } else {
                Instant::now() + self.silence_max
            };
            match timeout_at(deadline, read(lines)).await {
                Ok(Ok(watched)) => next = Some(watched),
                Ok(Err(ended)) => return Err(ended),
                Err(_) if part.is_empty() => return Ok(()),
                Err(_) => return Err(Ended::Silent),
            }
        }
    }

    fn take(&self, event: wire::Event, changes: &mut Changes) {
        let revision = event.kv.mod_revision;
        let is_gone = event.kind == "DELETE";
        let (key, item) = item_of(event.kv, &self.span);
        changes.items.insert(key, (revision, (!is_gone).then_some(item)));
        changes.revision = changes.revision.max(revision);
    }
}

async fn read(lines: &mut Lines) -> Result<Watched, Ended> {
    let broken =
        |why: &str, lines: &Lines| Ended::Broken(Trouble::Unanswered(format!("{}: {why}", lines.member)));
    let text = match lines.next().await {
        Ok(Some(text)) => text,
        Ok(None) => return Err(broken("the watch has ended", lines)),
        Err(trouble) => return Err(Ended::Broken(trouble)),
    };
    let line: wire::Line =
        serde_json::from_slice(&text).map_err(|error| broken(&format!("a strange line: {error}"), lines))?;
    match line {
        wire::Line { result: Some(watched), error: None } => Ok(watched),
        wire::Line { error: Some(why), .. } => Err(broken(&format!("the watch has ended: {why}"), lines)),
        wire::Line { .. } => Err(broken("an empty line", lines)),
    }
}

fn canceled(watched: &Watched, lines: &Lines) -> Ended {
    if watched.compact_revision > 0 {
        return Ended::Astray;
    }
    let why = format!("{}: the watch was canceled: {}", lines.member, watched.cancel_reason);
    Ended::Broken(Trouble::Refused(why))
}

//! The keeper of names: which are asked when, and who hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::resolver::{Found, Resolver};
use super::tally::Trouble;
use super::{News, Order};
use crate::base::clock;
use crate::base::hash::{Map, Set};
use crate::control::lines::Lines;
use crate::control::log;

/// Names that are asked for at a time, each with a socket.
const AT_ONCE_MAX: usize = 64;
/// Names that are kept; those beyond have no address.
const NAMES_MAX: usize = 65_536;
/// After a failure: so long, then twice as long, up to the second.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

type Reply = Sender<(String, Result<Vec<IpAddr>, String>)>;

/// A name.
struct Entry {
    /// The last good ones, in an order that does not change.
    addresses: Option<Vec<IpAddr>>,
    /// In a row.
    failures: u32,
    /// Why it has no answer now.
    trouble: Option<Trouble>,
    /// Whether the log has told so.
    is_told: bool,
    waiting: Vec<Reply>,
}

/// See the module.
pub(super) struct Keeper {
    resolver: Arc<Resolver>,
    tell: mpsc::Sender<News>,
    entries: Map<String, Entry>,
    due: BTreeSet<(Instant, String)>,
    followed: Set<String>,
    news: BTreeMap<String, Vec<IpAddr>>,
    asked: JoinSet<(String, Result<Found<Vec<IpAddr>>, Trouble>)>,
    /// Before anything that is due: somebody waits.
    began: Instant,
    lines: Lines,
}

impl Keeper {
    pub(super) fn new(resolver: Arc<Resolver>, tell: mpsc::Sender<News>) -> Self {
        let began = Instant::now();
        Self {
            resolver,
            tell,
            entries: Map::default(),
            due: BTreeSet::new(),
            followed: Set::default(),
            news: BTreeMap::new(),
            asked: JoinSet::new(),
            began,
            lines: Lines::about("names"),
        }
    }

    /// Keeps names for as long as anybody may give orders.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            self.ask_what_is_due();
            let next = self.due.first().map(|(due, _)| *due).filter(|_| self.asked.len() < AT_ONCE_MAX);
            let tell = self.tell.clone();
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Ask(names, reply)) => names.into_iter().for_each(|name| self.answer(name, &reply)),
                    Some(Order::Follow(names)) => self.follow(names),
                    None => return,
                },
                Some(Ok((name, came))) = self.asked.join_next() => self.settle(&name, came),
                Ok(place) = tell.reserve(), if !self.news.is_empty() => {
                    place.send(std::mem::take(&mut self.news).into_iter().collect());
                }
                () = sleep_until(next.unwrap_or(self.began)), if next.is_some() => {}
            }
        }
    }

    /// Answers from what is known, else as soon as it is.
    fn answer(&mut self, name: String, reply: &Reply) {
        if !self.entries.contains_key(&name) && self.entries.len() >= NAMES_MAX {
            let _ = reply.send((name, Err(format!("more than {NAMES_MAX} names"))));
            return;
        }
        let began = self.began;
        let due = &mut self.due;
        let entry = self.entries.entry(name.clone()).or_insert_with(|| {
            due.insert((began, name.clone()));
            Entry::new()
        });
        match (&entry.addresses, &entry.trouble) {
            (Some(addresses), _) => drop(reply.send((name, Ok(addresses.clone())))),
            // Nobody waits for a name that just failed, however often it is asked for.
            (None, Some(trouble)) => drop(reply.send((name, Err(trouble.to_string())))),
            (None, None) => {
                // It is under way, or due before all that is known.
                entry.waiting.push(reply.clone());
            }
        }
    }

    fn follow(&mut self, names: Vec<String>) {
        self.followed = names.into_iter().collect();
        for name in &self.followed {
            if !self.entries.contains_key(name) && self.entries.len() < NAMES_MAX {
                self.entries.insert(name.clone(), Entry::new());
                self.due.insert((self.began, name.clone()));
            }
        }
    }

    fn ask_what_is_due(&mut self) {
        while self.asked.len() < AT_ONCE_MAX {
            match self.due.first() {
                Some((due, _)) if *due <= Instant::now() => {}
                _ => return,
            }
            let Some((_, name)) = self.due.pop_first() else { return };
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            if !self.followed.contains(&name) && entry.waiting.is_empty() {
                self.entries.remove(&name);
                continue;
            }
            let resolver = Arc::clone(&self.resolver);
            self.asked.spawn(async move {
                let came = resolver.addresses(&name).await;
                (name, came)
            });
        }
    }

    /// Takes in what came of a name.
    fn settle(&mut self, name: &str, came: Result<Found<Vec<IpAddr>>, Trouble>) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let now = Instant::now();
        let pause = match came {
            Ok(Found { mut held, valid }) => {
                held.sort_unstable();
                held.dedup();
                if std::mem::take(&mut entry.is_told) {
                    self.lines.write(
                        clock::now(),
                        log::Level::Info,
                        &format!("name {name}: it is answered again"),
                    );
                }
                (entry.failures, entry.trouble) = (0, None);
                if entry.addresses.as_ref() != Some(&held) {
                    entry.addresses = Some(held.clone());
                    self.news.insert(name.to_owned(), held);
                }
                valid
            }
            Err(trouble) => {
                if entry.trouble.as_ref() != Some(&trouble) || !entry.is_told {
                    let rest = entry
                        .addresses
                        .as_ref()
                        .map_or("it has no address yet", |_| "its last addresses stay");
                    let line = format!("name {name}: {trouble}; {rest}");
                    entry.is_told |= self.lines.write(clock::now(), log::Level::Warn, &line);
                }
                entry.trouble = Some(trouble);
                let pause = (RETRY * 2u32.saturating_pow(entry.failures.min(16))).min(RETRY_MAX);
                entry.failures += 1;
                pause
            }
        };
        for reply in entry.waiting.drain(..) {
            let told = match (&entry.addresses, &entry.trouble) {
                (Some(addresses), _) => Ok(addresses.clone()),
                (None, trouble) => Err(trouble.as_ref().map_or_else(String::new, Trouble::to_string)),
            };
            // Who asked may have gone on.
            let _ = reply.send((name.to_owned(), told));
        }
        self.due.insert((now + pause, name.to_owned()));
    }
}

impl Entry {
    const fn new() -> Self {
        Self { addresses: None, failures: 0, trouble: None, is_told: false, waiting: Vec::new() }
    }
}

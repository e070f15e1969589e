//! Certificates that look after themselves: they are asked for, kept, and renewed in time, of the authorities in `acme` of the
//! settings (RFC 8555), for ssls that name one of them.
//!
//! ```text
//! ssls in force ─▶ wishes ─▶ which are due? ─▶ an order, one at a time an authority (order.rs)
//!      ▲                                          ├─▶ proofs ─▶ snapshot ─▶ cores ─▶ shown
//!      └── what was issued ◀── kept.rs ◀──────────┘
//! ```
//!
//! An order is a task that changes nothing itself: it tells the control loop. A failure takes nothing away: what was issued
//! is shown for as long as it holds, and tries go on, each after a longer pause.

mod due;
mod fleet;
mod hook;
mod http;
mod kept;
mod order;
mod sight;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::dial::Dialer;
use super::signals::Stage;
use super::source::etcd::Etcd;
use super::{Control, log};
use crate::base::clock::{self, Moment, UnixMs, write_rfc3339};
use crate::base::rng::Rng;
use crate::model::Settings;
use crate::model::settings::AcmeIssuer;
use crate::snapshot::compile::{Issued, Outcome, Wish};
use crate::snapshot::{Challenges, Compiler, validity};

use fleet::Fleet;
use kept::{Certificate, Kept};
use order::{Ending, Failed, Job, News, Proof};
pub(crate) use sight::Sight;

/// Between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// News that wait for the loop; an order waits when there are more.
const NEWS_MAX: usize = 16;

/// See the module.
pub struct Acme {
    issuers: BTreeMap<String, Issuer>,
    /// `None`: no authority is named, and nothing is kept.
    kept: Option<Kept>,
    wishes: Vec<Wish>,
    /// Of which snapshot they are.
    at: u64,
    looked: Moment,
    /// By id of the ssl.
    cases: BTreeMap<String, Case>,
    /// What is shown, by the ssl whose order it is for.
    proofs: BTreeMap<String, Vec<Proof>>,
    /// Orders that go on when every core serves a generation.
    awaited: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Other gateways, if any share what is issued.
    fleet: Option<Fleet>,
    /// What they have shown, by ssl.
    others: BTreeMap<String, Vec<Proof>>,
    tell: mpsc::Sender<News>,
    hear: mpsc::Receiver<News>,
    dice: Rng,
    sight: Arc<Sight>,
}

/// An authority.
struct Issuer {
    settings: Arc<AcmeIssuer>,
    dialer: Dialer,
    under_way: Option<Running>,
}

/// An order under way; it ends with whoever holds this.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is known of a wish beside its certificate.
#[derive(Debug, Default)]
pub(super) struct Case {
    failures: u32,
    /// Not tried again before.
    not_before: UnixMs,
    trouble: Option<String>,
    /// When its certificate is to be renewed.
    renew_at: UnixMs,
    is_under_way: bool,
}

impl Acme {
    /// Reads what was kept, where there is an authority.
    ///
    /// # Errors
    /// When it can not be read, or its secrets not be opened.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let kept = if settings.acme.is_empty() { None } else { Some(Kept::open(settings)?) };
        let issuers = settings.acme.iter().map(|issuer| {
            let dialer = Dialer::believing(settings, issuer.trusted_certificate.as_ref());
            let name = issuer.name.as_str().to_owned();
            (name, Issuer { settings: Arc::new(issuer.clone()), dialer, under_way: None })
        });
        let (tell, hear) = mpsc::channel(NEWS_MAX);
        Ok(Self {
            issuers: issuers.collect(),
            kept,
            wishes: Vec::new(),
            at: 0,
            looked: Moment::ZERO,
            cases: BTreeMap::new(),
            proofs: BTreeMap::new(),
            awaited: VecDeque::new(),
            fleet: None,
            others: BTreeMap::new(),
            tell,
            hear,
            dice: Rng::seeded(clock::wall()),
            sight: Arc::default(),
        })
    }

    /// What was kept of the certificates that a first snapshot wishes for; the snapshot with them, if there are any.
    pub fn first(&mut self, compiler: &mut Compiler) -> Option<Outcome> {
        self.follow(compiler)
    }

    /// What is to be seen of it.
    pub(super) fn sight(&self) -> Arc<Sight> {
        Arc::clone(&self.sight)
    }

    /// Waits for what an order tells.
    pub(super) async fn next(&mut self) -> Option<News> {
        self.hear.recv().await
    }

    /// Notes what is wished for since the last snapshot; what was issued for it is given at once.
    fn follow(&mut self, compiler: &mut Compiler) -> Option<Outcome> {
        let kept = self.kept.as_ref()?;
        if self.at == compiler.generation() {
            return None;
        }
        self.at = compiler.generation();
        self.wishes = compiler.wishes();
        let mut before = std::mem::take(&mut self.cases);
        let mut issued = Vec::new();
        for wish in &self.wishes {
            let case = before.remove(&wish.ssl);
            let certificate = kept.state.certificates.get(&wish.ssl);
            if let Some(certificate) = certificate {
                issued.push((wish.ssl.clone(), given(certificate)));
            }
            let chance = self.dice.below(due::PARTS);
            let new = || Case {
                renew_at: certificate.map_or(0, |certificate| self.renew_at(certificate, chance)),
                ..Case::default()
            };
            let case = case.unwrap_or_else(new);
            self.cases.insert(wish.ssl.clone(), case);
        }
        let outcome = compiler.learn_issued(issued);
        self.at = compiler.generation();
        self.show();
        outcome
    }

    fn renew_at(&self, certificate: &Certificate, chance: u64) -> UnixMs {
        let share = self.issuers.get(&certificate.issuer).map_or(0, |own| own.settings.renew_before.u64());
        validity(&certificate.cert).map_or(0, |(from, to)| due::renew_at(from, to, share, chance))
    }

    /// Begins the orders that are due. Needs a tokio runtime.
    fn begin(&mut self, wall: UnixMs) {
        let Some(kept) = &self.kept else { return };
        let mut has_begun = false;
        let mut wishes: Vec<&Wish> = self.wishes.iter().collect();
        // Names without any certificate come first.
        wishes.sort_by_key(|wish| kept.state.certificates.contains_key(&wish.ssl));
        for wish in wishes {
            let (Some(issuer), Some(case)) =
                (self.issuers.get_mut(&wish.issuer), self.cases.get_mut(&wish.ssl))
            else {
                continue;
            };
            let certificate = kept.state.certificates.get(&wish.ssl);
            let is_right = certificate.is_some_and(|certificate| {
                certificate.issuer == wish.issuer && certificate.names == wish.names
            });
            let is_due = (!is_right || wall >= case.renew_at) && wall >= case.not_before;
            if !is_due || issuer.under_way.is_some() {
                continue;
            }
            let directory = issuer.settings.directory.as_str();
            let account = kept.state.accounts.get(&wish.issuer);
            let job = Job {
                issuer: Arc::clone(&issuer.settings),
                wish: wish.clone(),
                account: account.filter(|account| account.directory == directory).cloned(),
                held: certificate.cloned(),
                fleet: self.fleet.clone(),
                dialer: issuer.dialer.clone(),
                tell: self.tell.clone(),
            };
            case.is_under_way = true;
            issuer.under_way = Some(Running(tokio::spawn(job.run()).abort_handle()));
            has_begun = true;
        }
        if has_begun {
            self.show();
        }
    }

    /// All that is to be shown to authorities now.
    fn challenges(&self, compiler: &Compiler) -> Challenges {
        let mut challenges = Challenges::default();
        for proof in self.proofs.values().chain(self.others.values()).flatten() {
            match proof {
                Proof::Answer { token, answer } => challenges.put_answer(token, answer),
                Proof::Certificate { name, cert, key } => {
                    if let Err(why) = compiler.prove_by(&mut challenges, name, cert, key) {
                        log::error(format!("{name}: it can not be proven over TLS: {why}"));
                    }
                }
            }
        }
        challenges
    }

    /// An order is over. What is to be compiled for it.
    fn settle(&mut self, wish: &Wish, ending: Ending) -> Vec<(String, Issued)> {
        let chance = self.dice.below(due::PARTS);
        let first = self.issuers.get_mut(&wish.issuer).map_or(Duration::ZERO, |issuer| {
            issuer.under_way = None;
            issuer.settings.retry_interval.get()
        });
        let Some(kept) = &mut self.kept else { return Vec::new() };
        let wall = clock::wall();
        let issued = match ending {
            Ending::Elsewhere => {
                self.stand_back(&wish.ssl);
                return Vec::new();
            }
            Ending::Issued(certificate) | Ending::Found(certificate) => {
                let issued = given(&certificate);
                kept.state.certificates.insert(wish.ssl.clone(), certificate.clone());
                let (wishes, seconds) = (&self.wishes, i64::try_from(wall / 1000).unwrap_or(i64::MAX));
                kept.state.certificates.retain(|ssl, held| {
                    let is_wished = || wishes.iter().any(|wish| wish.ssl == *ssl);
                    validity(&held.cert).is_some_and(|(_, end)| end > seconds) || is_wished()
                });
                kept.save();
                let renew_at = self.renew_at(&certificate, chance);
                if let Some(case) = self.cases.get_mut(&wish.ssl) {
                    // Not at once again, even if it should be old already by our clock.
                    let not_before =
                        wall.saturating_add(u64::try_from(first.as_millis()).unwrap_or(u64::MAX));
                    *case = Case { renew_at, not_before, ..Case::default() };
                }
                issued
            }
            Ending::Failed(Failed { why, retry_after }) => {
                self.sight.failed();
                let mut told = why.clone();
                if let Some(case) = self.cases.get_mut(&wish.ssl) {
                    case.is_under_way = false;
                    case.failures = case.failures.saturating_add(1);
                    let pause = due::pause(first, case.failures, chance).max(retry_after);
                    case.not_before =
                        wall.saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
                    told = format!("{}: {why}; tried again at {}", wish.issuer, date(case.not_before));
                    case.trouble = Some(why);
                }
                log::warn(format!("ssls/{}: no certificate of {told}", wish.ssl));
                Issued::Awaited(told)
            }
        };
        self.show();
        vec![(wish.ssl.clone(), issued)]
    }

    fn show(&self) {
        let Some(kept) = &self.kept else { return };
        self.sight.show(self.wishes.iter().filter_map(|wish| {
            let case = self.cases.get(&wish.ssl)?;
            Some(sight::Seen::of(wish, case, kept.state.certificates.get(&wish.ssl)))
        }));
    }
}

fn given(certificate: &Certificate) -> Issued {
    let Certificate { cert, key, names, .. } = certificate.clone();
    Issued::Certificate { cert, key, names }
}

/// A moment as people read it.
fn date(at: UnixMs) -> String {
    let mut text = Vec::new();
    write_rfc3339(&mut text, at);
    String::from_utf8_lossy(&text).into_owned()
}

impl Control {
    /// Goes on with certificates that are asked for. Called every turn.
    pub(super) fn look_after_certificates(&mut self, now: Moment) {
        let served = self.board.stats.iter().map(|core| core.generation.get()).min().unwrap_or(0);
        while self.acme.awaited.front().is_some_and(|(generation, _)| *generation <= served) {
            if let Some((_, shown)) = self.acme.awaited.pop_front() {
                let _ = shown.send(());
            }
        }
        let told = self.etcd.as_mut().map(Etcd::take_on_shelf).unwrap_or_default();
        if !told.is_empty() {
            let (issued, is_other) = self.acme.hear(told);
            if let Some(outcome) = self.compiler.learn_issued(issued) {
                self.take_over(outcome, now);
            }
            if is_other {
                let outcome = self.compiler.prove(self.acme.challenges(&self.compiler));
                self.take_over(outcome, now);
            }
        }
        let is_idle = self.stage != Stage::Serving || !self.board.has_started();
        if is_idle || now.since(self.acme.looked) < LOOK_EVERY {
            return;
        }
        self.acme.looked = now;
        if let Some(outcome) = self.acme.follow(&mut self.compiler) {
            self.take_over(outcome, now);
        }
        self.acme.begin(clock::wall());
    }

    /// Takes in what an order tells.
    pub(super) fn on_acme(&mut self, news: News, now: Moment) {
        match news {
            News::Prove { ssl, proofs, shown } => {
                self.acme.proofs.insert(ssl, proofs);
                let outcome = self.compiler.prove(self.acme.challenges(&self.compiler));
                self.acme.awaited.push_back((outcome.snapshot.generation, shown));
                self.take_over(outcome, now);
            }
            News::Registered { issuer, account } => {
                log::info(format!("an account was made with {issuer}"));
                if let Some(kept) = &mut self.acme.kept {
                    kept.state.accounts.insert(issuer, account);
                    kept.save();
                }
            }
            News::Forgotten { issuer } => {
                log::warn(format!("{issuer} does not know the account any more; another is made"));
                if let Some(kept) = &mut self.acme.kept {
                    kept.state.accounts.remove(&issuer);
                    kept.save();
                }
            }
            News::Ended { wish, ending } => {
                if matches!(ending, Ending::Issued(_)) {
                    self.acme.sight.issued();
                    if let Some(audit) = &mut self.floor.audit {
                        audit.note_issued(clock::wall(), &wish.issuer, &wish.ssl, &wish.names);
                    }
                    log::info(format!("ssls/{}: {} has issued a certificate", wish.ssl, wish.issuer));
                }
                let issued = self.acme.settle(&wish, ending);
                if let Some(outcome) = self.compiler.learn_issued(issued) {
                    self.take_over(outcome, now);
                }
                if self.acme.proofs.remove(&wish.ssl).is_some() {
                    let outcome = self.compiler.prove(self.acme.challenges(&self.compiler));
                    self.take_over(outcome, now);
                }
            }
        }
    }
}

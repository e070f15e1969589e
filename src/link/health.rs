//! How a node fares, in words that all threads share: its health, the requests under way to it, and how quick it is.
//!
//! A node has a [`Cell`] only if its upstream has checks, or a balancer that asks. Cores tell how requests ended,
//! the control thread how its checks did, all into one record, so that there is one verdict and not one a core.
//!
//! The rules are those of APISIX's checker. News of one kind is counted until it reaches its threshold; good news
//! forgets the bad and bad news the good; what a node is already, nobody counts:
//!
//! ```text
//!            bad news             its threshold is reached
//! healthy ─────────────▶ mostly healthy ─────────────▶ unhealthy
//!    ▲                                                     │ good news
//!    └───────────────── mostly unhealthy ◀─────────────────┘
//!      its threshold
//! ```

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::outlier::Outlier;
use crate::base::clock::Moment;

/// A latency is forgotten to a third after so long.
const MEMORY: Duration = Duration::from_secs(5);

/// What a node is taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    Healthy,
    /// Healthy, and there was bad news.
    MostlyHealthy,
    /// Unhealthy, and there was good news.
    MostlyUnhealthy,
    Unhealthy,
}

impl Health {
    const ALL: [Self; 4] = [Self::Healthy, Self::MostlyHealthy, Self::MostlyUnhealthy, Self::Unhealthy];

    /// Whether it gets requests.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Healthy | Self::MostlyHealthy)
    }

    /// As APISIX writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::MostlyHealthy => "mostly_healthy",
            Self::MostlyUnhealthy => "mostly_unhealthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How a request or a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A status that is good.
    Success,
    /// A status that is bad.
    HttpFailure,
    /// No connection, or a broken one.
    TcpFailure,
    /// No answer in time.
    Timeout,
}

/// How often something must happen to count; 0 is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    pub successes: u8,
    pub http_failures: u8,
    pub tcp_failures: u8,
    pub timeouts: u8,
}

impl Thresholds {
    const fn of(&self, news: News) -> u8 {
        match news {
            News::Success => self.successes,
            News::HttpFailure => self.http_failures,
            News::TcpFailure => self.tcp_failures,
            News::Timeout => self.timeouts,
        }
    }
}

/// Statuses from 200 to 599, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statuses([u64; 7]);

impl Statuses {
    const FIRST: u16 = 200;

    pub fn contains(&self, status: u16) -> bool {
        let place = usize::from(status.wrapping_sub(Self::FIRST));
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

impl FromIterator<u16> for Statuses {
    /// Those below 200 and above 599 are left out.
    fn from_iter<I: IntoIterator<Item = u16>>(statuses: I) -> Self {
        let mut set = Self::default();
        for status in statuses.into_iter().filter(|status| (Self::FIRST..600).contains(status)) {
            let place = usize::from(status - Self::FIRST);
            set.0[place / 64] |= 1 << (place % 64);
        }
        set
    }
}

/// What makes news good or bad, and when it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub good: Statuses,
    pub bad: Statuses,
    pub thresholds: Thresholds,
}

impl Rules {
    /// What a status tells, if it tells anything. One that is in both lists is good, as in APISIX.
    pub fn news_of(&self, status: u16) -> Option<News> {
        if self.good.contains(status) {
            Some(News::Success)
        } else {
            self.bad.contains(status).then_some(News::HttpFailure)
        }
    }
}

/// A node's health, and what it is counted from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub health: Health,
    pub successes: u8,
    pub http_failures: u8,
    pub tcp_failures: u8,
    pub timeouts: u8,
}

impl Record {
    /// What becomes of it with some news.
    #[must_use]
    pub fn after(self, news: News, thresholds: &Thresholds) -> Self {
        let limit = thresholds.of(news);
        let is_good = news == News::Success;
        let is_known = self.health == if is_good { Health::Healthy } else { Health::Unhealthy };
        if limit == 0 || is_known {
            return self;
        }
        let mut next = if is_good {
            Self { health: self.health, successes: self.successes, ..Self::default() }
        } else {
            Self { successes: 0, ..self }
        };
        let count = match news {
            News::Success => &mut next.successes,
            News::HttpFailure => &mut next.http_failures,
            News::TcpFailure => &mut next.tcp_failures,
            News::Timeout => &mut next.timeouts,
        };
        *count = count.saturating_add(1);
        next.health = match (self.health, is_good) {
            _ if *count >= limit && is_good => Health::Healthy,
            _ if *count >= limit => Health::Unhealthy,
            (Health::Healthy, false) => Health::MostlyHealthy,
            (Health::Unhealthy, true) => Health::MostlyUnhealthy,
            (as_before, _) => as_before,
        };
        next
    }

    fn pack(self) -> u64 {
        let health = Health::ALL.iter().position(|health| *health == self.health).unwrap_or(0);
        let counts = [self.successes, self.http_failures, self.tcp_failures, self.timeouts];
        (health as u64) << 32 | u64::from(u32::from_le_bytes(counts))
    }

    fn unpack(word: u64) -> Self {
        let [successes, http_failures, tcp_failures, timeouts] = (word as u32).to_le_bytes();
        let health = Health::ALL[(word >> 32) as usize & 3];
        Self { health, successes, http_failures, tcp_failures, timeouts }
    }
}

/// What all threads know of one node. Aligned to a cache line, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Cell {
    record: AtomicU64,
    in_flight: AtomicU32,
    /// Microseconds as an `f32` (high half), and the milliseconds at which they were true (low half); 0 is unknown.
    latency: AtomicU64,
    /// In nanoseconds: since when it is there, or healthy again; 0 is from the next look at it.
    since: AtomicU64,
    /// On a line of its own, and untouched where nobody is to be ejected.
    pub outlier: Outlier,
}

impl Cell {
    pub fn record(&self) -> Record {
        Record::unpack(self.record.load(Ordering::Relaxed))
    }

    /// Whether the node gets requests.
    pub fn is_up(&self) -> bool {
        self.record().health.is_up()
    }

    /// Takes in some news. News that changes nothing, which is most, is not written.
    pub fn note(&self, news: News, thresholds: &Thresholds) {
        let step = |word| {
            let record = Record::unpack(word);
            let next = record.after(news, thresholds);
            (next != record).then(|| next.pack())
        };
        let changed = self.record.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        if let Ok(before) = changed.map(Record::unpack)
            && !before.health.is_up()
            && before.after(news, thresholds).health.is_up()
        {
            self.since.store(0, Ordering::Relaxed);
        }
    }

    /// Since when the node is there, or healthy again: as of the first look at it then.
    pub fn since(&self, now: Moment) -> Moment {
        let since = self.since.load(Ordering::Relaxed);
        if since != 0 {
            return Moment::from_nanos(since);
        }
        let first = now.as_nanos().max(1);
        let seen = self.since.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
        Moment::from_nanos(seen.map_or_else(|since| since, |_| first))
    }

    /// The node is as one that is new when it is next looked at.
    pub fn begin_anew(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// Requests under way, of all cores.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request as under way, for as long as what is returned lives.
    pub fn enter(&self) -> Visit<&Self> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Visit(self)
    }

    /// The same for a request that may outlast whatever it came by.
    pub fn enter_for_long(self: &Arc<Self>) -> Visit<Arc<Self>> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Visit(Arc::clone(self))
    }

    /// Takes in how long a node took to begin its answer. A slow one counts at once, a quick one by and by: a node
    /// that becomes slow must be left before many wait for it.
    pub fn note_latency(&self, latency: Duration, now: Moment) {
        let sample = latency.as_micros() as f32;
        let at = millis(now);
        let step = |word| {
            let before = decayed(word, at);
            let weight = 1.0 - share_left(word, at);
            let next = if sample > before { sample } else { before + (sample - before) * weight };
            Some(u64::from(next.max(1.0).to_bits()) << 32 | u64::from(at))
        };
        let _ = self.latency.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    /// Microseconds until the node begins an answer, the latest counting most; 0 where none is known. Fades with time,
    /// so that a node that is left alone is tried again.
    pub fn latency_us(&self, now: Moment) -> f32 {
        decayed(self.latency.load(Ordering::Relaxed), millis(now))
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Visit<C: Deref<Target = Cell>>(C);

impl<C: Deref<Target = Cell>> Drop for Visit<C> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Never 0, which is unknown; wraps after 49 days, which makes one latency look fresh.
fn millis(now: Moment) -> u32 {
    (now.as_nanos() / 1_000_000) as u32 | 1
}

/// How much of a latency is left after the time since.
fn share_left(word: u64, at: u32) -> f32 {
    let age = at.wrapping_sub(word as u32) as i32;
    (-(age.max(0) as f32) / MEMORY.as_millis() as f32).exp()
}

fn decayed(word: u64, at: u32) -> f32 {
    if word == 0 { 0.0 } else { f32::from_bits((word >> 32) as u32) * share_left(word, at) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    const THRESHOLDS: Thresholds =
        Thresholds { successes: 2, http_failures: 3, tcp_failures: 2, timeouts: 2 };
    const NEWS: [News; 4] = [News::Success, News::HttpFailure, News::TcpFailure, News::Timeout];

    /// The healths that news, one letter each, lead to.
    fn check(news: &str, expected: &[Health]) {
        let mut record = Record::default();
        let seen: Vec<Health> = news
            .chars()
            .map(|letter| {
                let at = "sht.".find(letter).expect("a letter");
                record = record.after(NEWS[at], &THRESHOLDS);
                record.health
            })
            .collect();
        assert_eq!(seen, expected, "{news}");
    }

    #[test]
    fn a_node_falls_and_rises_at_the_thresholds() {
        use Health::{Healthy, MostlyHealthy, MostlyUnhealthy, Unhealthy};
        check("ss", &[Healthy, Healthy]);
        check("hhh", &[MostlyHealthy, MostlyHealthy, Unhealthy]);
        check("ttss", &[MostlyHealthy, Unhealthy, MostlyUnhealthy, Healthy]);
        check("..", &[MostlyHealthy, Unhealthy]);
        // Good news forgets bad news, and the other way round.
        check("hhshhsh", &[MostlyHealthy; 7]);
        check(
            "ttstss",
            &[MostlyHealthy, Unhealthy, MostlyUnhealthy, MostlyUnhealthy, MostlyUnhealthy, Healthy],
        );
        // Kinds are counted apart.
        check("hth.", &[MostlyHealthy, MostlyHealthy, MostlyHealthy, MostlyHealthy]);
    }

    #[test]
    fn a_node_is_there_since_it_was_first_looked_at_and_anew_when_it_is_healthy_again() {
        let (cell, at) = (Cell::default(), |seconds| Moment::ZERO.plus(Duration::from_secs(seconds)));
        assert_eq!(cell.since(at(5)), at(5));
        assert_eq!(cell.since(at(9)), at(5));
        cell.note(News::Timeout, &THRESHOLDS);
        cell.note(News::Success, &THRESHOLDS);
        assert_eq!(cell.since(at(10)), at(5), "it was up all the time");
        for news in [News::Timeout, News::Timeout, News::Success, News::Success] {
            assert_eq!(cell.since(at(11)), at(5));
            cell.note(news, &THRESHOLDS);
        }
        assert_eq!(cell.since(at(12)), at(12));
    }

    #[test]
    fn a_threshold_of_zero_is_never_reached() {
        let off = Thresholds { successes: 0, http_failures: 0, tcp_failures: 0, timeouts: 0 };
        for news in NEWS {
            assert_eq!(Record::default().after(news, &off), Record::default(), "{news:?}");
        }
    }

    #[test]
    fn a_record_survives_being_one_word() {
        let seed = 0x0ea1;
        let mut rng = Rng::seeded(seed);
        let mut record = Record::default();
        for step in 0..10_000 {
            record = record.after(NEWS[rng.below(4) as usize], &THRESHOLDS);
            assert_eq!(Record::unpack(record.pack()), record, "seed {seed:#x} step {step}");
        }
        let full = Record {
            health: Health::MostlyUnhealthy,
            successes: 255,
            http_failures: 1,
            tcp_failures: 2,
            timeouts: 3,
        };
        assert_eq!(Record::unpack(full.pack()), full);
    }

    #[test]
    fn statuses_from_200_to_599_are_told_apart() {
        let set: Statuses = [199, 200, 302, 599, 600].into_iter().collect();
        let found: Vec<u16> = (0..1000).filter(|status| set.contains(*status)).collect();
        assert_eq!(found, [200, 302, 599]);
        let rules = Rules { good: set, bad: [302, 500].into_iter().collect(), thresholds: THRESHOLDS };
        assert_eq!(rules.news_of(302), Some(News::Success));
        assert_eq!((rules.news_of(500), rules.news_of(404)), (Some(News::HttpFailure), None));
    }

    #[test]
    fn news_of_many_threads_is_counted_once_each() {
        let cell = Cell::default();
        let never = Thresholds { successes: 255, http_failures: 255, tcp_failures: 255, timeouts: 255 };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| cell.note(News::Timeout, &never)));
            }
        });
        assert_eq!(cell.record().timeouts, 200);
    }

    #[test]
    fn requests_under_way_are_counted_while_they_are() {
        let cell = Cell::default();
        let (one, two) = (cell.enter(), cell.enter());
        assert_eq!(cell.in_flight(), 2);
        drop((one, two));
        assert_eq!(cell.in_flight(), 0);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fades() {
        let cell = Cell::default();
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        assert_eq!(cell.latency_us(at(1)), 0.0);
        cell.note_latency(Duration::from_millis(1), at(1));
        cell.note_latency(Duration::from_millis(100), at(1));
        assert_eq!(cell.latency_us(at(1)), 100_000.0);
        for second in 2..=4 {
            cell.note_latency(Duration::from_millis(1), at(second));
        }
        let soon = cell.latency_us(at(4));
        assert!((25_000.0..60_000.0).contains(&soon), "{soon}");
        let late = cell.latency_us(at(34));
        assert!(late < 1_000.0, "{late}");
    }
}

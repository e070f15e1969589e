//! What a run came to.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::options::Options;
use super::pauses::Kept;
use super::turns::{Done, Opened};

/// Three digits up to a minute, in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
const QUANTILES: [f64; 14] =
    [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 1.0];

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are constants in order")
}

pub(crate) struct Tally {
    from: Instant,
    until: Instant,
    began: Instant,
    ended: Instant,
    open: bool,
    latency: Histogram<u64>,
    late: Histogram<u64>,
    offered: u64,
    not_sent: u64,
    /// Answers that came while it was measured, for processor time by request.
    answered: u64,
    good: u64,
    within: Option<Duration>,
    /// Answers that would have been good, had they come in time.
    late_answers: u64,
    statuses: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    /// The same of the warm-up and the rest.
    outside: BTreeMap<String, u64>,
    bytes: u64,
    window: Option<Window>,
    /// Each latency, to tell apart what pauses have touched.
    kept: Option<Kept>,
    pub(crate) pauses: Vec<(Instant, Instant)>,
    pub(crate) unanswered: u64,
    pub(crate) busy_ns: u64,
    pub(crate) origin_served: u64,
    pub(crate) opened: Opened,
}

impl Tally {
    pub(crate) fn new(from: Instant, until: Instant, options: &Options) -> Self {
        Self {
            from,
            until,
            began: from,
            ended: until,
            open: options.rate.is_some(),
            window: options.window.map(Window::new),
            kept: (!options.without_pauses.is_empty()).then(Kept::default),
            pauses: Vec::new(),
            latency: histogram(),
            late: histogram(),
            offered: 0,
            not_sent: 0,
            answered: 0,
            good: 0,
            within: options.within,
            late_answers: 0,
            statuses: BTreeMap::new(),
            errors: BTreeMap::new(),
            outside: BTreeMap::new(),
            bytes: 0,
            unanswered: 0,
            busy_ns: 0,
            origin_served: 0,
            opened: Opened::default(),
        }
    }

    pub(crate) fn begins(&mut self, at: Instant) {
        self.began = at;
    }

    pub(crate) fn ends(&mut self, at: Instant) {
        self.ended = at;
        self.until = at.max(self.until);
    }

    fn is_measured(&self, at: Instant) -> bool {
        at >= self.from && at < self.until
    }

    pub(crate) fn offered(&mut self, due: Instant) {
        self.offered += u64::from(self.is_measured(due));
    }

    pub(crate) fn not_sent(&mut self, due: Instant) {
        self.not_sent += u64::from(self.is_measured(due));
    }

    fn count_good(&mut self, done: &Done) {
        if self.within.is_some_and(|within| done.at - done.due > within) {
            self.late_answers += 1;
            return;
        }
        self.good += 1;
        if let Some(window) = &mut self.window {
            window.count(done.at);
        }
    }

    pub(crate) fn done(&mut self, done: Done) {
        if self.is_measured(done.at) && done.outcome.is_ok() {
            self.answered += 1;
            self.bytes += done.bytes;
            if done.outcome.is_ok_and(|status| (200..300).contains(&status)) {
                self.count_good(&done);
            }
        }
        // In an open loop a request belongs to when it was due, otherwise to when it was answered.
        let measured = self.is_measured(if self.open { done.due } else { done.at });
        if !measured {
            let word = done.outcome.map_or_else(|fault| fault.word().to_owned(), |status| status.to_string());
            *self.outside.entry(word).or_default() += 1;
            return;
        }
        match done.outcome {
            Ok(status) => {
                *self.statuses.entry(status).or_default() += 1;
                self.latency.saturating_record((done.at - done.due).as_nanos() as u64);
                self.late.saturating_record((done.sent - done.due).as_nanos() as u64);
                if let Some(kept) = &mut self.kept {
                    kept.keep(done.due, done.at - done.due);
                }
            }
            Err(fault) => *self.errors.entry(fault.word()).or_default() += 1,
        }
    }
}

/// The most that came within any stretch of time of one length.
struct Window {
    length: Duration,
    within: VecDeque<Instant>,
    most: usize,
}

impl Window {
    fn new(length: Duration) -> Self {
        Self { length, within: VecDeque::new(), most: 0 }
    }

    /// Counts one; times are given in order.
    fn count(&mut self, at: Instant) {
        self.within.push_back(at);
        while self.within.front().is_some_and(|first| at - *first >= self.length) {
            self.within.pop_front();
        }
        self.most = self.most.max(self.within.len());
    }
}

/// The outcome, to be printed.
pub struct Report(Value);

fn microseconds(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

/// What wrk would say of the same latencies. It takes each connection to have been meant to ask once in the mean time of
/// an answer, and counts beside a latency of so many of those times those that would have waited meanwhile.
fn as_wrk(latency: &Histogram<u64>, connections: usize, seconds: f64) -> Value {
    let each = latency.len() / connections.max(1) as u64;
    if each == 0 {
        return Value::Null;
    }
    let corrected = latency.clone_correct((seconds * 1e9) as u64 / each);
    json!({"p50": microseconds(&corrected, 0.5), "p99": microseconds(&corrected, 0.99)})
}

impl Report {
    pub(crate) fn new(options: &Options, mut tally: Tally) -> Self {
        // Nothing, where this thread did not run for as long as was to be measured.
        let seconds = (tally.ended - tally.began).as_secs_f64().max(1e-6);
        let statuses: BTreeMap<String, u64> =
            tally.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect();
        let outside_pauses = tally.kept.as_mut().map(|kept| kept.report(&tally.pauses, histogram()));
        let latency = &tally.latency;
        let curve: Vec<_> =
            QUANTILES.iter().map(|quantile| json!([quantile, microseconds(latency, *quantile)])).collect();
        Self(json!({
            "mode": if tally.open { "open" } else { "saturation" },
            "connections": options.connections,
            "seconds": seconds,
            "offered": tally.open.then_some(tally.offered),
            "offered_rate": options.rate,
            "answered": tally.answered,
            "rate": tally.answered as f64 / seconds,
            "good": tally.good,
            "good_rate": tally.good as f64 / seconds,
            "late_answers": tally.late_answers,
            "good_in_window_max": tally.window.map(|window| window.most),
            "latency_us": {
                "mean": latency.mean() / 1000.0,
                "p50": microseconds(latency, 0.5),
                "p90": microseconds(latency, 0.9),
                "p99": microseconds(latency, 0.99),
                "p99.9": microseconds(latency, 0.999),
                "max": latency.max() as f64 / 1000.0,
            },
            "outside_pauses_us": outside_pauses,
            "as_wrk_us": if tally.open { Value::Null } else { as_wrk(latency, options.connections, seconds) },
            "late_us": {"p50": microseconds(&tally.late, 0.5), "p99": microseconds(&tally.late, 0.99)},
            "curve_us": curve,
            "statuses": statuses,
            "errors": tally.errors,
            "not_sent": tally.not_sent,
            "unanswered": tally.unanswered,
            "outside": tally.outside,
            "bytes": tally.bytes,
            "connections_opened": tally.opened.connections,
            "handshakes": {"full": tally.opened.full_handshakes, "resumed": tally.opened.resumed_handshakes},
            "origin_served": tally.origin_served,
            "busy": tally.busy_ns as f64 / 1e9 / seconds,
        }))
    }

    pub fn json(&self) -> &Value {
        &self.0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: &Value| value.as_f64().unwrap_or(0.0);
        let (all, latency) = (&self.0, &self.0["latency_us"]);
        let (answered, seconds) = (number(&all["answered"]), number(&all["seconds"]));
        writeln!(f, "{answered:.0} answers in {seconds:.2} s, {:.1}/s", number(&all["rate"]))?;
        if let Some(rate) = all["offered_rate"].as_f64() {
            writeln!(
                f,
                "offered {rate:.1}/s, not sent {}, unanswered {}",
                all["not_sent"], all["unanswered"]
            )?;
        }
        write!(f, "latency us: mean {:.1}", number(&latency["mean"]))?;
        for name in ["p50", "p90", "p99", "p99.9", "max"] {
            write!(f, "  {name} {:.1}", number(&latency[name]))?;
        }
        writeln!(f)?;
        let outside = &all["outside_pauses_us"];
        if outside.is_object() {
            write!(
                f,
                "outside of {} pauses, {:.1} % of requests:",
                outside["pauses"],
                number(&outside["share"]) * 100.0
            )?;
            for name in ["p50", "p90", "p99", "p99.9", "max"] {
                write!(f, "  {name} {:.1}", number(&outside[name]))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "statuses {}  errors {}", all["statuses"], all["errors"])?;
        writeln!(
            f,
            "connections opened {}  this thread was busy for {:.0} % of the time",
            all["connections_opened"],
            number(&all["busy"]) * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_would_have_asked_during_a_stall_counts_as_wrk_counts_it() {
        let mut latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).unwrap();
        latency.record_n(1_000_000, 98).unwrap();
        latency.record_n(10_000_000, 2).unwrap();
        // One connection, 100 answers in 0.1 s: the two that took 10 ms have nine more beside each.
        let corrected = as_wrk(&latency, 1, 0.1);
        assert!(microseconds(&latency, 0.9) < 1100.0);
        assert!((corrected["p50"].as_f64().unwrap() - 1000.0).abs() < 10.0, "{corrected}");
        let whole = latency.clone_correct(1_000_000);
        assert_eq!(whole.len(), 98 + 20);
    }

    #[test]
    fn a_window_is_any_stretch_of_its_length() {
        let (start, mut window) = (Instant::now(), Window::new(Duration::from_millis(100)));
        // Two at the end of a tenth of a second and three at the beginning of the next are five within one.
        for ms in [0, 90, 95, 100, 105, 110, 250, 260] {
            window.count(start + Duration::from_millis(ms));
        }
        assert_eq!(window.most, 5);
    }
}

//! Until when a request, and a try of it, must be over, where the upstream or the client says so.
//!
//! Clients say it in two ways: `X-Request-Deadline` has the milliseconds that they still wait, a whole number; `grpc-timeout`
//! the same as gRPC has it, up to eight digits and a unit. What can not be read bounds nothing.

use std::cell::Cell;
use std::time::Duration;

use super::pipeline::Run;
use super::proxy::Plan;
use super::respond::Fault;
use crate::base::clock::Moment;
use crate::exchange::Exchange;
use crate::link::health::News;
use crate::proto::head::HeaderList;
use crate::snapshot::{Backoff, Deadlines};

/// The header that says how many milliseconds are left.
const HEADER: &str = "X-Request-Deadline";
const GRPC: &str = "grpc-timeout";
/// Most digits of either.
const DIGITS_MAX: usize = 8;

/// See the module. `Moment::ZERO` is never.
#[derive(Debug, Default)]
pub(super) struct Until {
    request: Moment,
    /// Until the answer to the try under way begins.
    attempt: Cell<Moment>,
    /// Whether the last wait was bounded by the request's, and not by a shorter time.
    binds: Cell<bool>,
}

impl Until {
    pub(super) fn new(ex: &Exchange, deadlines: &Deadlines, started: Moment) -> Self {
        let own = deadlines.total;
        let client = if deadlines.from_client { told(&ex.request.headers) } else { None };
        let total = own.into_iter().chain(client).min();
        let request = total.map_or(Moment::ZERO, |total| started.plus(total));
        Self { request, ..Self::default() }
    }

    /// A try begins.
    pub(super) fn begin_try(&self, deadlines: &Deadlines, now: Moment) {
        self.attempt.set(deadlines.per_try.map_or(Moment::ZERO, |within| now.plus(within)));
    }

    /// The answer to it has begun.
    pub(super) fn end_try(&self) {
        self.attempt.set(Moment::ZERO);
    }

    /// Whether time is up for the request.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.request != Moment::ZERO && now >= self.request
    }

    /// No longer than what is left. The clock is read only where there is a deadline.
    pub(super) fn within(&self, time: Duration, now: impl FnOnce() -> Moment) -> Duration {
        let attempt = self.attempt.get();
        if self.request == Moment::ZERO && attempt == Moment::ZERO {
            return time;
        }
        let now = now();
        let left = |until: Moment| (until != Moment::ZERO).then(|| until.since(now));
        let other = left(attempt).map_or(time, |left| left.min(time));
        let own = left(self.request).filter(|own| *own <= other);
        self.binds.set(own.is_some());
        own.unwrap_or(other)
    }

    /// Whether it was the request's time that ended a wait. Clocks of waits are coarse: it may be up a moment later.
    pub(super) fn ended(&self, fault: Fault, now: Moment) -> bool {
        self.is_over(now) || self.binds.get() && fault.news() == Some(News::Timeout)
    }
}

impl Run<'_> {
    /// Tells the node what is left.
    pub(super) fn pass_deadline_on(&mut self, plan: &Plan<'_>) {
        let is_told = plan.upstream.additions.deadlines.as_ref().is_some_and(|of| of.from_client);
        if !is_told || plan.until.request == Moment::ZERO {
            return;
        }
        let left = plan.until.request.since(self.hall.core.now()).as_millis() as u64;
        let mut digits = itoa::Buffer::new();
        let headers = &mut self.ex.request.headers;
        headers.set(HEADER, digits.format(left).as_bytes());
        if headers.get(GRPC).is_some() {
            // Milliseconds have room for a day, and a day is long enough for what is given in hours.
            let text = format!("{}m", left.min(99_999_999));
            headers.set(GRPC, text.as_bytes());
        }
    }

    /// Waits before another try, by chance and longer with each; an error if time would be up before.
    pub(super) async fn back_off(&self, backoff: &Backoff, plan: &Plan<'_>) -> Result<(), Fault> {
        let core = &self.hall.core;
        let longest = backoff.longest(self.ex.attempts.len() as u32);
        let nanos = core.dice(|dice| dice.below((longest.as_nanos() as u64).max(1)));
        let wait = Duration::from_nanos(nanos);
        let then = core.now().plus(wait);
        if plan.until.is_over(then) {
            return Err(Fault::DeadlineExceeded);
        }
        if plan.end.is_some_and(|end| then >= end) {
            return Err(Fault::RetryTimeout);
        }
        core.sleep(wait).await;
        Ok(())
    }
}

/// What the client says.
fn told(headers: &HeaderList) -> Option<Duration> {
    let own = headers.get(HEADER).and_then(number).map(Duration::from_millis);
    let grpc = headers.get(GRPC).and_then(grpc_timeout);
    own.into_iter().chain(grpc).min()
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > DIGITS_MAX || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

fn grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let number = number(digits)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say_is_read_in_both_forms() {
        for (text, millis) in [("0", Some(0)), ("1500", Some(1500)), ("99999999", Some(99_999_999))] {
            assert_eq!(number(text.as_bytes()), millis, "{text}");
        }
        for text in ["", "1.5", "-1", "+1", " 1", "100000000", "1s"] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
        for (text, time) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("100m", Some(Duration::from_millis(100))),
            ("7u", Some(Duration::from_micros(7))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000n", None),
            ("1", None),
            ("m", None),
            ("1s", None),
            ("", None),
        ] {
            assert_eq!(grpc_timeout(text.as_bytes()), time, "{text}");
        }
    }

    #[test]
    fn the_nearest_deadline_bounds_a_wait() {
        let at = |millis| Moment::ZERO.plus(Duration::from_millis(millis));
        let minute = Duration::from_secs(60);
        let until = Until { request: at(1000), attempt: Cell::new(at(300)), ..Until::default() };
        assert_eq!(until.within(minute, || at(100)).as_millis(), 200);
        assert_eq!(until.within(Duration::from_millis(5), || at(100)).as_millis(), 5);
        until.end_try();
        assert_eq!(until.within(minute, || at(100)).as_millis(), 900);
        // A wait that ends a moment early was ended by it all the same; what is no matter of time was not.
        assert!(until.ended(Fault::ReadTimeout, at(990)) && !until.ended(Fault::NoResponse, at(990)));
        until.within(Duration::from_millis(5), || at(100));
        assert!(!until.ended(Fault::ReadTimeout, at(990)) && until.ended(Fault::NoResponse, at(1000)));
        assert_eq!(until.within(minute, || at(1100)).as_millis(), 0);
        assert!(until.is_over(at(1000)) && !until.is_over(at(999)));
        let never = Until::default();
        assert_eq!(never.within(minute, || panic!("nobody asks for the time")), minute);
        assert!(!never.is_over(at(u64::MAX / 2_000_000)));
    }
}

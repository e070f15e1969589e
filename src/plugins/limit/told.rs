//! What clients are told of limits: `RateLimit` and `RateLimit-Policy` as in the draft of the IETF
//! (draft-ietf-httpapi-ratelimit-headers-11), the older `X-RateLimit-*`, and problem details.

use std::time::Duration;

use super::config::Headers;
use super::meters::Desk;
use super::{Limit, Seen, Told, retry};
use crate::base::text::write_json_string;
use crate::exchange::{Exchange, Reply};
use crate::plugin::Env;
use crate::plugin::limits::{Begun, whole_seconds as whole, write_rate_limit};

/// The media type of RFC 9457.
const PROBLEM: &str = "application/problem+json";

impl Limit {
    /// Says what is left, and a refusal when to come again.
    pub(super) fn tell(&self, ex: &mut Exchange, env: Env<'_>) {
        let Exchange { slots, response, .. } = ex;
        let has_said = |seen: &Seen| seen.told.iter().any(|told| told.by == self.me);
        let tells = matches!(self.headers, Headers::Ietf) && slots.get::<Seen>(self.seen).is_some_and(has_said);
        let put = tells.then(|| slots.of::<Begun>(self.begun).put());
        let Some(seen) = slots.get::<Seen>(self.seen) else { return };
        let mut mine = seen.told.iter().filter(|told| told.by == self.me).peekable();
        let Some(first) = mine.peek() else { return };
        let tier = first.tier as usize;
        let headers = &mut response.headers;
        let refusing = seen.told.iter().filter(|told| told.by == self.me && !told.spent.admitted);
        if let Some(worst) = refusing.max_by_key(|told| told.spent.reset_in)
            && self.retry_of(worst).is_some()
        {
            headers.set("Retry-After", itoa::Buffer::new().format(whole(worst.spent.reset_in).max(1)).as_bytes());
        }
        match self.headers {
            Headers::None => {}
            Headers::Ietf => {
                let Some(put) = put else { return };
                put(headers, "RateLimit-Policy", self.tiers.all[tier].policy.as_bytes());
                let desk = env.core.local(self.desk, || Desk::new(env.core));
                desk.till.ask(|list| {
                    list.clear();
                    mine.for_each(|told| self.write_item(told, list));
                    put(headers, "RateLimit", list);
                });
            }
            Headers::XRatelimit => {
                let tightest = mine.min_by_key(|told| (told.spent.admitted, told.spent.remaining));
                let Some(told) = tightest else { return };
                let mut digits = itoa::Buffer::new();
                headers.set("X-RateLimit-Limit", digits.format(self.limit_of(told)).as_bytes());
                headers.set("X-RateLimit-Remaining", digits.format(told.spent.remaining).as_bytes());
                headers.set("X-RateLimit-Reset", digits.format(whole(told.spent.reset_in)).as_bytes());
            }
        }
    }

    /// Its part of a `RateLimit`.
    fn write_item(&self, told: &Told, out: &mut Vec<u8>) {
        let (limit, measure) = (usize::from(told.at.limit), usize::from(told.at.measure));
        let measure = &self.tiers.all[told.tier as usize].amounts[limit].measures[measure];
        let resets = told.spent.admitted || self.retry_of(told).is_some();
        write_rate_limit(&measure.label, told.spent.remaining, resets.then_some(told.spent.reset_in), out);
    }

    fn limit_of(&self, told: &Told) -> u64 {
        let (limit, measure) = (usize::from(told.at.limit), usize::from(told.at.measure));
        self.tiers.all[told.tier as usize].amounts[limit].measures[measure].gauge.limit()
    }

    /// When a refused request may come again, if ever.
    fn retry_of(&self, told: &Told) -> Option<Duration> {
        retry(self.limit_of(told), told.cost, told.spent)
    }
}

/// Whether the client asks for problem details.
pub(super) fn accepts_problems(ex: &Exchange) -> bool {
    ex.request.headers.all("Accept").any(|line| {
        line.windows(PROBLEM.len()).any(|part| part.eq_ignore_ascii_case(PROBLEM.as_bytes()))
    })
}

/// A refusal as problem details.
pub(super) fn problem(status: u16, message: Option<&str>, limit: &str) -> Reply {
    let mut body = br#"{"type":"https://iana.org/assignments/http-problem-types#quota-exceeded","title":"Request cannot be satisfied as assigned quota has been exceeded","status":"#.to_vec();
    body.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    if let Some(message) = message {
        body.extend_from_slice(b",\"detail\":");
        write_json_string(&mut body, message.as_bytes());
    }
    body.extend_from_slice(b",\"violated-policies\":[");
    write_json_string(&mut body, limit.as_bytes());
    body.extend_from_slice(b"]}\n");
    Reply::bytes(status, body).with("Content-Type", PROBLEM).of_limit()
}

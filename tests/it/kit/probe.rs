//! A bed for probes: many odd requests at one gateway, each judged by what the client got *and* what the origin
//! saw, with all failures told at once rather than the first.

use std::time::Duration;

use super::Raw;
use super::client::{Answer, request};
use super::gateway::Gateway;
use super::origin::Origin;
use super::wire::{Ended, Seen, shown};

/// How long a refused connection may stay; short, because a table that fails waits for each of its rows.
const CLOSING: Duration = Duration::from_millis(1500);

/// A gateway, the origin behind it and what went wrong so far.
pub(crate) struct Bed {
    pub(crate) gateway: Gateway,
    pub(crate) origin: Origin,
    faults: Vec<String>,
    probes: usize,
}

impl Bed {
    /// Everything goes to one origin that names what it was asked for.
    pub(crate) fn new() -> Self {
        let origin = Origin::naming();
        let gateway = Gateway::routing("/*", [&origin]).start();
        Self::of(gateway, origin)
    }

    pub(crate) fn of(gateway: Gateway, origin: Origin) -> Self {
        Self { gateway, origin, faults: Vec::new(), probes: 0 }
    }

    /// A request that must be refused with one of these statuses and the end of the connection, and of which the
    /// origin must see nothing that it could take for a whole request.
    pub(crate) fn refused(&mut self, name: &str, bytes: impl AsRef<[u8]>, statuses: &[u16]) {
        let judge = |bed: &Self| -> Result<(), String> {
            let mut raw = bed.gateway.raw();
            raw.send(bytes.as_ref());
            bed.is_refusal(&mut raw, statuses)
        };
        self.note(name, bytes.as_ref(), judge(self));
    }

    /// A request that must be answered with 200. `sees` says what is wrong with what the origin saw, if anything.
    /// Afterwards the same connection must serve another request with its own answer.
    pub(crate) fn served(
        &mut self,
        name: &str,
        bytes: impl AsRef<[u8]>,
        sees: impl FnOnce(&Seen) -> Result<(), String>,
    ) {
        let judge = |bed: &Self| -> Result<(), String> {
            let mut raw = bed.gateway.raw();
            let answer = raw.send(bytes.as_ref()).try_answer("GET")?;
            bed.is_service(&mut raw, &answer, sees)
        };
        self.note(name, bytes.as_ref(), judge(self));
    }

    /// A request that may be refused as by [`Self::refused`] or served as by [`Self::served`], nothing between.
    pub(crate) fn either(
        &mut self,
        name: &str,
        bytes: impl AsRef<[u8]>,
        statuses: &[u16],
        sees: impl FnOnce(&Seen) -> Result<(), String>,
    ) {
        let judge = |bed: &Self| -> Result<(), String> {
            let mut raw = bed.gateway.raw();
            let answer = raw.send(bytes.as_ref()).try_answer("GET")?;
            if answer.status == 200 {
                bed.is_service(&mut raw, &answer, sees)
            } else {
                bed.is_refused_by(&mut raw, &answer, statuses)
            }
        };
        self.note(name, bytes.as_ref(), judge(self));
    }

    /// Anything else about a probe.
    pub(crate) fn judge(
        &mut self,
        name: &str,
        bytes: &[u8],
        judge: impl FnOnce(&Self) -> Result<(), String>,
    ) {
        let outcome = judge(self);
        self.note(name, bytes, outcome);
    }

    /// Whether what was sent on this connection is refused.
    pub(crate) fn is_refusal(&self, raw: &mut Raw, statuses: &[u16]) -> Result<(), String> {
        let answer = raw.try_answer("GET")?;
        self.is_refused_by(raw, &answer, statuses)
    }

    fn is_refused_by(&self, raw: &mut Raw, answer: &Answer, statuses: &[u16]) -> Result<(), String> {
        let mut wrong = Vec::new();
        if !statuses.contains(&answer.status) {
            wrong.push(format!("expected one of {statuses:?}, got {}", shown(&answer.raw)));
        }
        if !answer.whole {
            wrong.push(format!("the refusal was cut: {}", shown(&answer.raw)));
        }
        raw.patience(CLOSING);
        let (rest, ended) = raw.rest();
        if !rest.is_empty() {
            wrong.push(format!("more came after the refusal: {}", shown(&rest)));
        }
        if ended == Ended::Open {
            wrong.push(format!("the connection stays open after {CLOSING:?}"));
        }
        // What the gateway had sent on would be there before the answer to a request that came later.
        self.canary(&mut self.gateway.raw()).map_err(|reason| format!("a new connection: {reason}"))?;
        let seen: Vec<Seen> =
            self.origin.seen().into_iter().filter(|seen| seen.complete && !is_canary(seen)).collect();
        if !seen.is_empty() {
            let seen: Vec<String> = seen.iter().map(|seen| shown(&seen.raw)).collect();
            wrong.push(format!("the origin saw {seen:?}"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
    }

    fn is_service(
        &self,
        raw: &mut Raw,
        answer: &Answer,
        sees: impl FnOnce(&Seen) -> Result<(), String>,
    ) -> Result<(), String> {
        if answer.status != 200 || !answer.whole {
            return Err(format!("expected 200, got {}", shown(&answer.raw)));
        }
        let seen = self.origin.seen();
        let [seen] = seen.as_slice() else {
            let seen: Vec<String> = seen.iter().map(|seen| shown(&seen.raw)).collect();
            return Err(format!("the origin saw {} requests: {seen:?}", seen.len()));
        };
        if seen.framings() > 1 {
            return Err(format!("more than one framing reached the origin: {}", shown(&seen.raw)));
        }
        sees(seen).map_err(|reason| format!("{reason}; the origin saw {}", shown(&seen.raw)))?;
        if answer.open {
            self.canary(raw).map_err(|reason| format!("the same connection: {reason}"))?;
        }
        Ok(())
    }

    /// A plain request must get its own answer.
    pub(crate) fn canary(&self, raw: &mut Raw) -> Result<(), String> {
        let path = format!("/canary-{}", self.probes);
        raw.send(request("GET", &path, &[], b""));
        let answer = raw.try_answer("GET").map_err(|reason| format!("the canary got no answer: {reason}"))?;
        if answer.status != 200 || answer.text() != format!("GET {path}") {
            return Err(format!("the canary got {}", shown(&answer.raw)));
        }
        Ok(())
    }

    fn note(&mut self, name: &str, bytes: &[u8], outcome: Result<(), String>) {
        if let Err(reason) = outcome {
            self.faults.push(format!("{name}: {reason}\n      sent {}", shown(bytes)));
        }
        self.probes += 1;
        self.origin.forget();
    }

    /// Fails with everything that went wrong.
    #[track_caller]
    pub(crate) fn verdict(self) {
        let count = self.faults.len();
        assert!(count == 0, "{count} of {} probes failed:\n  - {}", self.probes, self.faults.join("\n  - "));
    }
}

fn is_canary(seen: &Seen) -> bool {
    seen.target.starts_with("/canary-")
}

/// A POST with these header lines, with the body after them.
pub(crate) fn post(lines: &str, body: &str) -> Vec<u8> {
    bytes(&format!("POST /probe HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}"))
}

/// A GET with these header lines after `Host`.
pub(crate) fn get(lines: &str) -> Vec<u8> {
    bytes(&format!("GET /probe HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n"))
}

/// Text of which every character is a byte, so that `\u{ff}` is 0xff and not its UTF-8.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|character| u8::try_from(u32::from(character)).expect("a byte")).collect()
}

pub(crate) fn has_body(body: &'static str) -> impl Fn(&Seen) -> Result<(), String> {
    move |seen| if seen.body == body.as_bytes() { Ok(()) } else { Err(format!("expected the body {body:?}")) }
}

pub(crate) fn anything(_: &Seen) -> Result<(), String> {
    Ok(())
}

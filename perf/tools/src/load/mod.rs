//! The load generator: one thread, one epoll; HTTP/1.1 and HTTP/2, in clear and over TLS, gRPC, WebSocket, plain TCP.
//!
//! Two ways to ask. *Open loop*: requests are due at fixed or Poisson times whatever the answers do, and latency counts
//! from when a request was due, so that a server's pause is seen by all who would have asked meanwhile. *Saturation*:
//! each connection asks again as soon as it was answered. A run warms up, measures for a while, then waits for what is
//! still under way. An origin may live on the same loop.

mod client;
mod fields;
mod options;
mod pace;
mod pauses;
mod requests;
mod streams;
mod talk;
mod tally;
mod tls;
mod turns;
mod wire;

use std::io::{self, Write};
use std::time::{Duration, Instant};

pub use options::{Options, Orders};
pub use tally::Report;

use crate::machine;
use crate::origin::Origin;
use crate::poll::{Event, Interest, Kind, Poll, Token};
use client::Clients;
use pace::Pace;
use pauses::Watch;
use requests::{Protocol, Requests};
use streams::Streams;
use tally::Tally;
use tls::Tls;
use turns::{Opened, Turns};

/// How often connections are looked over for what takes too long.
const SWEEP: Duration = Duration::from_millis(50);
/// A wait shorter than this is not slept but spun: to be woken takes about as long.
const SPIN: Duration = Duration::from_micros(25);
/// How long answers are waited for after the last request was due, at most.
const DRAIN_MAX: Duration = Duration::from_secs(2);
/// Requests that are due but found no free connection; beyond, they are counted as not sent.
const QUEUE_MAX: usize = 1 << 20;

/// The loop, with what lives on it between runs.
pub struct Bench {
    poll: Poll,
    pub origin: Option<Origin>,
    events: Vec<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Measured,
    Drain,
}

/// Those who ask: places for requests on connections of their own kind.
trait Crowd {
    fn turns(&mut self) -> &mut Turns;
    fn opened(&self) -> Opened;
    /// A request that was due goes out at an idle place.
    fn ask(&mut self, place: u32, due: Instant, now: Instant, poll: &Poll);
    /// Ends what takes too long, and wakes those that rested.
    fn sweep(&mut self, now: Instant, poll: &Poll);
    fn on_event(&mut self, event: Event, poll: &Poll);
    /// Sends what was put together in a turn of the loop.
    fn flush(&mut self, poll: &Poll);
}

fn crowd(options: &Options, measured_from: Instant) -> Result<Box<dyn Crowd>, String> {
    let requests = Requests::of(options)?;
    let is_multiplexed = matches!(requests.protocol, Protocol::Http2 | Protocol::Grpc);
    let protocol = if is_multiplexed { "h2" } else { "http/1.1" };
    let tls = requests
        .over_tls
        .then(|| Tls::new(options.certificate.as_deref(), options.resume, protocol))
        .transpose()?;
    Ok(if is_multiplexed {
        Box::new(Streams::new(requests, tls, options))
    } else {
        Box::new(Clients::new(requests, tls, options, measured_from))
    })
}

impl Bench {
    /// Origins answer HTTP; those of `echo` send back what they get.
    pub fn new(origins: &[std::net::SocketAddr], echo: &[std::net::SocketAddr]) -> io::Result<Self> {
        let poll = Poll::new()?;
        let none = origins.is_empty() && echo.is_empty();
        let origin = if none { None } else { Some(Origin::bind(origins, echo, &poll)?) };
        Ok(Self { poll, origin, events: Vec::new() })
    }

    /// Serves the origin until standard input has something to say.
    pub fn idle(&mut self, orders: impl std::os::fd::AsFd) -> io::Result<()> {
        let token = Token { kind: Kind::Orders, generation: 0, slot: 0 };
        match self.poll.add(&orders, token, Interest::Read) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A file is always ready.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            other => other?,
        }
        loop {
            let asked = self.turn(Instant::now(), None, &mut |_, _| {})?;
            if asked {
                return Ok(());
            }
        }
    }

    /// Waits and serves the origin once; what is not the origin's goes to `other`. Whether there are orders.
    fn turn(
        &mut self,
        now: Instant,
        until: Option<Instant>,
        other: &mut dyn FnMut(Event, &Poll),
    ) -> io::Result<bool> {
        let mut until = until;
        if let Some(origin) = &mut self.origin {
            origin.on_time(now, &self.poll);
            until = [until, origin.next_deadline()].into_iter().flatten().min();
        }
        let wait = until.map(|at| at.saturating_duration_since(now));
        let wait = wait.map(|wait| if wait < SPIN { Duration::ZERO } else { wait - SPIN / 2 });
        self.poll.wait(wait, &mut self.events)?;
        let mut orders = false;
        for event in self.events.drain(..) {
            match (event.token.kind, &mut self.origin) {
                (Kind::OriginListener | Kind::OriginConnection, Some(origin)) => {
                    origin.on_event(event, &self.poll);
                }
                (Kind::Orders, _) => orders = true,
                _ => other(event, &self.poll),
            }
        }
        Ok(orders)
    }

    /// Asks what is due by then, at places that are free.
    fn offer(
        &self,
        pace: &mut Pace,
        by: Instant,
        now: Instant,
        crowd: &mut dyn Crowd,
        tally: &mut Tally,
        options: &Options,
    ) {
        while pace.due() < by {
            let due = pace.due();
            pace.advance();
            tally.offered(due);
            match crowd.turns().next_idle() {
                Some(place) => crowd.ask(place, due, now, &self.poll),
                None if options.within.is_none() && crowd.turns().wait(due, QUEUE_MAX).is_some() => {}
                None => tally.not_sent(due),
            }
        }
    }

    /// One run. With `told`, the beginning and the end of what is measured are told on it, a line each.
    pub fn run(&mut self, options: &Options, mut told: Option<&mut dyn Write>) -> io::Result<Report> {
        let watch = Watch::begin(&options.without_pauses)?;
        let begin = Instant::now();
        let measured_from = begin + options.warm_up;
        let mut crowd = crowd(options, measured_from).map_err(io::Error::other)?;
        let measured_until = measured_from + options.duration;
        let mut pace = options.rate.map(|rate| Pace::new(begin, rate, options.poisson, options.seed));
        let mut tally = Tally::new(measured_from, measured_until, options);
        let mut phase = Phase::WarmUp;
        let mut next_sweep = begin + SWEEP;
        let (mut origin_before, mut busy_before) = (0, 0);
        if pace.is_none() {
            while let Some(place) = crowd.turns().next_idle() {
                crowd.ask(place, begin, begin, &self.poll);
            }
        }
        loop {
            let now = Instant::now();
            if let (Some(pace), true) = (&mut pace, phase != Phase::Drain) {
                self.offer(pace, now.min(measured_until), now, crowd.as_mut(), &mut tally, options);
            }
            if phase == Phase::WarmUp && now >= measured_from {
                phase = Phase::Measured;
                origin_before = self.origin.as_ref().map_or(0, |origin| origin.served);
                busy_before = machine::own_processor_ns();
                tell(&mut told, "{\"event\":\"begin\"}")?;
                tally.begins(Instant::now());
            }
            if phase == Phase::Measured && now >= measured_until {
                phase = Phase::Drain;
                tally.ends(now);
                tell(&mut told, "{\"event\":\"end\"}")?;
                tally.busy_ns = machine::own_processor_ns() - busy_before;
                tally.origin_served = self.origin.as_ref().map_or(0, |origin| origin.served) - origin_before;
                crowd.turns().stop();
            }
            let over = crowd.turns().is_over() || now >= measured_until + DRAIN_MAX;
            if phase == Phase::Drain && over {
                break;
            }
            if now >= next_sweep {
                crowd.sweep(now, &self.poll);
                next_sweep = now + SWEEP;
            }
            crowd.flush(&self.poll);
            crowd.turns().report(&mut |done| tally.done(done));
            let mut until = next_sweep;
            match (phase, &pace) {
                (Phase::WarmUp, _) => until = until.min(measured_from),
                (Phase::Measured, _) => until = until.min(measured_until),
                (Phase::Drain, _) => {}
            }
            // Where no place is free nothing can be sent by the clock, and to look at it all the time would take the processor from the
            // origin: an overload is to find both as they are when saturated.
            if let (Some(pace), true) = (&pace, phase != Phase::Drain && crowd.turns().has_idle()) {
                until = until.min(pace.due());
            }
            self.turn(now, Some(until), &mut |event, poll| crowd.on_event(event, poll))?;
            crowd.turns().report(&mut |done| tally.done(done));
        }
        tally.unanswered = crowd.turns().under_way();
        tally.opened = crowd.opened();
        tally.pauses = watch.end();
        Ok(Report::new(options, tally))
    }
}

fn tell(told: &mut Option<&mut dyn Write>, line: &str) -> io::Result<()> {
    if let Some(told) = told {
        writeln!(told, "{line}")?;
        told.flush()?;
    }
    Ok(())
}

/// Why a request came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Connect,
    Reset,
    Closed,
    Malformed,
    Timeout,
    /// A handshake of TLS came to nothing.
    Tls,
    /// A session was to be resumed and was not.
    NotResumed,
    /// Answered, but not as it had to be: another status of gRPC than 0, a stream reset, no WebSocket.
    Refused,
    /// What came back is not what was sent.
    Mismatch,
}

impl Fault {
    pub fn word(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::NotResumed => "not resumed",
            Self::Refused => "refused",
            Self::Mismatch => "mismatch",
        }
    }
}

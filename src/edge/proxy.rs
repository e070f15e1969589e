//! One upstream attempt, and whether to make another: the request goes up while its answer may come down.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::deadline::Until;
use super::deliver::Relayed;
use super::pipeline::{After, Run};
use super::respond::{Fault, Retry};
use super::upload::{Ends, UploadFault};
use super::{download, forward_head, health, pace, pick};
use crate::balance::TriedSet;
use crate::base::clock::Moment;
use crate::exchange::{Attempt, Body};
use crate::plugin::Verdict;
use crate::runtime::Core;
use crate::runtime::deadline::Watch;
use crate::runtime::pool::Leased;
use crate::runtime::socket::ASK_BYTES_MAX;
use crate::snapshot::{Target, Timeouts, Upstream};

/// What all tries of one request have in common.
pub(super) struct Plan<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) timeouts: Timeouts,
    /// The client asks for a tunnel that the route allows.
    pub(super) tunnel: bool,
    started: Moment,
    /// When all tries together must be over, if ever.
    pub(super) end: Option<Moment>,
    /// When it must be over in all, if ever.
    pub(super) until: Until,
    /// The node that is answering, once one is.
    pub(super) served: Cell<usize>,
    /// The connection to another node that was asked for the same; closed once the answer has begun.
    pub(super) rival: Cell<Option<Box<Leased>>>,
}

impl Plan<'_> {
    /// No longer than the request has left.
    pub(super) fn within(&self, core: &Core, time: Duration) -> Duration {
        self.until.within(time, || core.now())
    }
}

/// A try that came to nothing.
struct Failed {
    fault: Fault,
    /// It was made on a connection that had carried requests before.
    reused: bool,
}

impl Run<'_> {
    /// Sends the request to a node of its upstream, and to others if that is safe; passes the answer on.
    pub(super) async fn forward(&mut self) -> Result<After, Fault> {
        let at = match self.target() {
            Target::Upstream(at) => at,
            Target::Nothing => return Err(Fault::NoUpstream),
            Target::Vanished => return Err(Fault::UpstreamVanished),
        };
        let view = self.view.clone();
        let upstream = &view.upstreams[at];
        if !upstream.serves_requests() {
            return Err(Fault::NoNodes);
        }
        if upstream.additions.is_guarded() {
            return Box::pin(self.forward_guarded(&view, upstream)).await;
        }
        self.try_nodes(upstream).await
    }

    /// Sends the request to one node after the other, as far as that is safe.
    pub(super) async fn try_nodes(&mut self, upstream: &Upstream) -> Result<After, Fault> {
        let plan = self.plan(upstream);
        if plan.until.is_over(plan.started) {
            return Err(Fault::DeadlineExceeded);
        }
        let mut tried = TriedSet::new();
        let core = &self.hall.core;
        let default = plan.upstream.other_nodes.min(core.limits.retries);
        let mut retries_left = plan.upstream.retries.unwrap_or(default);
        self.hall.retries.earn(core.limits.retry_budget_percent);
        let mut again = None;
        let mut last = Fault::NoNodes;
        loop {
            // A stale connection says nothing about its node: that one gets the request again, on a new one.
            let fresh = again.is_some();
            let Some(node) =
                again.take().or_else(|| pick::node(self.hall, plan.upstream, &tried, &self.ex, plan.started))
            else {
                return Err(last);
            };
            if let Verdict::Reply(reply) = self.before_proxy().await {
                return Ok(self.answer(reply).await);
            }
            let failed = match self.attempt(&plan, node, fresh).await {
                Ok(after) => return Ok(after),
                Err(failed) => failed,
            };
            last = failed.fault;
            let is_stale = failed.reused && !fresh && last.may_be_stale();
            if !is_stale {
                health::note_fault(self.hall, plan.upstream, node, last);
            }
            if !self.may_retry(failed.fault) {
                return Err(last);
            }
            if is_stale {
                again = Some(node);
                continue;
            }
            let now = core.now();
            pick::note_failure(self.hall, plan.upstream, node, now);
            if retries_left == 0 || !self.hall.retries.spend(now, core.limits.retry_budget_per_second) {
                return Err(last);
            } else if plan.end.is_some_and(|end| now >= end) {
                return Err(Fault::RetryTimeout);
            } else {
                retries_left -= 1;
                tried.insert(node);
            }
            core.stats.retries.add(1);
            if let Some(backoff) = &plan.upstream.additions.backoff {
                Box::pin(self.back_off(backoff, &plan)).await?;
            }
        }
    }

    fn plan<'u>(&self, upstream: &'u Upstream) -> Plan<'u> {
        let started = self.hall.core.now();
        let end = (!upstream.retry_timeout.is_zero()).then(|| started.plus(upstream.retry_timeout));
        let route = self.matched();
        let timeouts = route.and_then(|route| route.timeouts).unwrap_or(upstream.timeouts);
        let tunnel = route.is_some_and(|route| route.websocket) && forward_head::asks_for_websocket(&self.ex);
        let deadlines = upstream.additions.deadlines.as_ref();
        let until = deadlines.map_or_else(Until::default, |of| Until::new(&self.ex, of, started));
        Plan {
            upstream,
            timeouts,
            tunnel,
            started,
            end,
            until,
            served: Cell::default(),
            rival: Cell::default(),
        }
    }

    /// The rule of retries (docs/operations.md): never once the answer has begun or part of the body is gone;
    /// after bytes were sent, idempotent methods only.
    pub(super) fn may_retry(&mut self, fault: Fault) -> bool {
        let safe = match fault.retry() {
            Retry::Never => false,
            Retry::Unsent => true,
            Retry::Safe => self.ex.request.forward_method().is_idempotent(),
        };
        safe && !self.head_sent && self.upload.rewind()
    }

    /// One try at one node.
    async fn attempt(&mut self, plan: &Plan<'_>, node: usize, fresh: bool) -> Result<After, Failed> {
        let core = &self.hall.core;
        let _under_way = health::enter(plan.upstream, node);
        plan.served.set(node);
        let began = if self.ex.attempts.is_empty() { plan.started } else { core.now() };
        self.ex.attempts.push(Attempt::at(plan.upstream.nodes[node].address));
        if let Some(deadlines) = &plan.upstream.additions.deadlines {
            plan.until.begin_try(deadlines, began);
        }
        let connected = pick::connection(self.hall, &self.ex, plan, node, fresh).await;
        let mut result = match connected {
            Ok(mut leased) => {
                let reused = leased.reused;
                self.note_attempt(|attempt| attempt.reused = reused);
                if !reused {
                    let connect = core.now().since(began);
                    self.note_attempt(|attempt| attempt.connect = connect);
                }
                leased.requests += 1;
                let result = self.exchange_with(plan, node, leased, began).await;
                result.map_err(|fault| Failed { fault, reused })
            }
            Err(unreached) => Err(Failed { fault: unreached.into(), reused: false }),
        };
        let over = self.hall.core.now();
        self.note_attempt(|attempt| attempt.total = over.since(began));
        if let Err(failed) = &mut result
            && failed.fault.news().is_some()
        {
            if plan.until.ended(failed.fault, over) {
                // That says nothing about the node.
                failed.fault = Fault::DeadlineExceeded;
            }
            // As nginx counts it: what the client is told where it is the last.
            self.note_attempt(|attempt| attempt.status = failed.fault.status());
        }
        if result.as_ref().map_or_else(|failed| failed.fault == Fault::StatusCaught, |_| true) {
            health::note_answer(self.hall, plan.upstream, plan.served.get(), self.ex.last_attempt(), over);
        }
        self.ex.timing.upstream = over.since(plan.started);
        if result.is_ok() {
            self.ex.timing.finished = over;
        }
        result
    }

    pub(super) fn note_attempt(&mut self, note: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.ex.attempts.last_mut() {
            note(attempt);
        }
    }

    /// Sends the request on a connection and passes the answer on.
    async fn exchange_with(
        &mut self,
        plan: &Plan<'_>,
        node: usize,
        mut leased: Leased,
        began: Moment,
    ) -> Result<After, Fault> {
        let core = &self.hall.core;
        self.pass_deadline_on(plan);
        let mut out = core.buffers.large();
        forward_head::write(self, plan, node, &mut out);
        if self.ex.request.headers.overflowed() {
            core.buffers.give_back(out);
            return Err(Fault::HeadersOverflow);
        }
        if let Body::Held(body) = &self.ex.request.body {
            out.extend_from_slice(body);
        } else {
            self.upload.limit(self.ex.request.body_bound(core.limits.body_bytes_max));
            self.upload.keep(self.ex.request.kept_body_bytes_max, self.ex.request.logged_body_bytes_max);
            let received = self.ex.request.headers.received();
            if let Err(fault) = self.upload.take_received(core, received, &mut out) {
                core.buffers.give_back(out);
                return Err(upload_fault(&fault, false));
            }
        }
        let watch = Rc::clone(leased.socket.watch());
        watch.follow(&core.wheel, self.connection.socket.watch());
        if self.ex.paces.up.is_some() {
            Box::pin(self.await_first(plan, &watch)).await;
        }
        let may_hedge = self.may_hedge(plan);
        let (sent, out) = if self.upload.is_done() && out.len() <= ASK_BYTES_MAX && !may_hedge {
            watch.arm(&core.wheel, plan.within(core, plan.timeouts.read));
            leased.socket.ask(out, core.sending()).await
        } else {
            watch.arm(&core.wheel, plan.within(core, plan.timeouts.send));
            leased.socket.writer.send(out, 0, core.sending()).await
        };
        core.buffers.give_back(out);
        if sent.is_err() {
            // An origin that refuses a body may answer and close before it has read it: look for its answer.
            if watch.is_abandoned() {
                return Err(Fault::ClientGone);
            }
            // One that wants to know who we are says so before it looks at anything.
            let may_object = leased.key.tls != 0 && leased.requests == 1;
            if self.upload.is_done() && !may_object || watch.fired() {
                return Err(if watch.fired() { Fault::SendTimeout } else { Fault::SendFailed });
            }
        }
        if self.upload.is_done() && may_hedge {
            return Box::pin(self.hedged(plan, node, leased, began)).await;
        }
        if self.upload.is_done() {
            let relayed = self.converse(plan, &mut leased, &Cell::new(false), began).await?;
            return Ok(self.part(plan, leased, relayed));
        }
        self.exchange_both_ways(plan, leased, began).await
    }

    /// Waits until what is here of the body may go up with its head. Another try counts nothing: it is the same again.
    async fn await_first(&self, plan: &Plan<'_>, watch: &Rc<Watch>) {
        let core = &self.hall.core;
        let bytes = match &self.ex.request.body {
            Body::Held(body) => body.len(),
            Body::Empty | Body::Flowing => self.upload.bytes() as usize,
        };
        if let (Some(pace), 1) = (&self.ex.paces.up, self.ex.attempts.len()) {
            let client = self.connection.socket.watch();
            let quiet = [(client, core.limits.body_timeout), (watch, plan.timeouts.send)];
            pace::turn(core, &**pace, bytes, quiet).await;
        }
    }

    /// The request body still flows: it goes up while the answer is awaited, and may come down.
    async fn exchange_both_ways(
        &mut self,
        plan: &Plan<'_>,
        mut leased: Leased,
        began: Moment,
    ) -> Result<After, Fault> {
        let hall = self.hall;
        let uploading = Cell::new(true);
        let mut upload = std::mem::take(&mut self.upload);
        let mut from = self.connection.socket.reader.lend();
        let from_watch = Rc::clone(self.connection.socket.watch());
        let mut to = leased.socket.writer.lend();
        let to_watch = Rc::clone(leased.socket.watch());
        let (relayed, uploaded) = {
            let mut ends = Ends {
                core: &hall.core,
                from: &mut from,
                from_watch: &from_watch,
                to: &mut to,
                to_watch: &to_watch,
                plan,
                pace: self.ex.paces.up.clone(),
            };
            let up = pin!(upload.pump(&mut ends));
            let down = pin!(self.converse(plan, &mut leased, &uploading, began));
            both(up, down, &uploading).await
        };
        self.connection.socket.reader.take_back(from);
        leased.socket.writer.take_back(to);
        self.upload = upload;
        // A receive was given up on its way. Over TLS part of a record went with it, and nothing behind can be understood.
        if uploaded.is_none() && self.connection.security.is_some() {
            self.refused = true;
        }
        match (relayed, uploaded) {
            (Some(Ok(relayed)), _) => Ok(self.part(plan, leased, relayed)),
            // The client broke the body off, or broke its rules: whatever the upstream says is moot.
            (_, Some(Err(fault))) if !matches!(fault, UploadFault::Upstream) => {
                if self.head_sent {
                    self.ex.reason = upload_fault(&fault, from_watch.fired()).word();
                    return Ok(After::Close);
                }
                Err(upload_fault(&fault, from_watch.fired()))
            }
            (Some(Err(fault)), _) => Err(fault),
            (None, _) => Err(Fault::ClientGone),
        }
    }

    /// After the answer: keeps the connection if it can serve again, or turns it into a tunnel.
    pub(super) fn part(&mut self, plan: &Plan<'_>, leased: Leased, relayed: Relayed) -> After {
        let core = &self.hall.core;
        if relayed.tunnel {
            return self.join(plan, leased);
        }
        if relayed.reusable && self.upload.is_done() {
            leased.socket.watch().unfollow();
            core.pool.give_back(leased, &plan.upstream.keep, &core.wheel, || download::net(core));
        }
        if self.upload.is_done() || relayed.after == After::Close { relayed.after } else { After::Linger }
    }
}

/// A broken upload as a fault. `stalled`: the client's deadline ended it.
pub(super) fn upload_fault(fault: &UploadFault, stalled: bool) -> Fault {
    match fault {
        UploadFault::Client if stalled => Fault::BodyTimeout,
        UploadFault::Client => Fault::ClientGone,
        UploadFault::Malformed => Fault::BadBody,
        UploadFault::TooLarge => Fault::BodyTooLarge,
        UploadFault::Upstream => Fault::SendFailed,
    }
}

/// Runs both directions until the answer is through, or the client's side fails. Clears `uploading` as soon as
/// the whole body is up, so that the answer's head can promise another request.
async fn both<D>(
    mut up: Pin<&mut impl Future<Output = Result<(), UploadFault>>>,
    mut down: Pin<&mut impl Future<Output = Result<D, Fault>>>,
    uploading: &Cell<bool>,
) -> (Option<Result<D, Fault>>, Option<Result<(), UploadFault>>) {
    let mut uploaded = None;
    let relayed = poll_fn(|cx| {
        if uploaded.is_none()
            && let Poll::Ready(result) = up.as_mut().poll(cx)
        {
            uploading.set(result.is_err());
            let fatal = matches!(&result, Err(fault) if !matches!(fault, UploadFault::Upstream));
            uploaded = Some(result);
            if fatal {
                return Poll::Ready(None);
            }
        }
        down.as_mut().poll(cx).map(Some)
    })
    .await;
    (relayed, uploaded)
}

//! A second node is asked where the first is late with its answer: whoever begins first goes on, and the connection to the
//! other is closed as soon as the head of that answer is there. Boxed where it is taken.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::pipeline::{After, Run};
use super::proxy::Plan;
use super::respond::Fault;
use super::{forward_head, health, pick};
use crate::balance::TriedSet;
use crate::base::clock::Moment;
use crate::exchange::{Attempt, Body};
use crate::runtime::pool::Leased;
use crate::snapshot::{Hedge, HedgeTally};

/// What came first.
enum First {
    /// The node that was asked first.
    One,
    /// The other, or why it will not.
    Other(Result<Box<Leased>, Fault>),
}

impl Run<'_> {
    /// Whether another node may be asked for the same meanwhile: nothing can come of it twice, nothing would have to be
    /// sent again, and no cookie says where it belongs.
    pub(super) fn may_hedge(&self, plan: &Plan<'_>) -> bool {
        if plan.upstream.additions.hedge.is_none() {
            return false;
        }
        let request = &self.ex.request;
        let is_bodiless = match &request.body {
            Body::Held(body) => body.is_empty(),
            Body::Empty | Body::Flowing => !self.has_flowing_body(),
        };
        let sticky = plan.upstream.additions.sticky.as_ref();
        self.ex.attempts.len() == 1
            && is_bodiless
            && !plan.tunnel
            && request.forward_method().is_idempotent()
            && sticky.is_none_or(|sticky| sticky.node_of(&self.ex).is_none())
    }

    /// The request was sent to a node: waits for an answer, from another if it is late.
    pub(super) async fn hedged(
        &mut self,
        plan: &Plan<'_>,
        node: usize,
        mut leased: Leased,
        began: Moment,
    ) -> Result<After, Fault> {
        let Some(hedge) = &plan.upstream.additions.hedge else { return Err(Fault::NoNodes) };
        let core = &self.hall.core;
        let tally = core.local(hedge.tally, HedgeTally::default);
        let delay = tally.begin(hedge);
        leased.socket.watch().arm(&core.wheel, plan.within(core, plan.timeouts.read));
        let is_late = !heard_within(&mut leased, core.sleep(delay)).await;
        let mut other = None;
        if is_late {
            let mut tried = TriedSet::new();
            tried.insert(node);
            other = pick::node(self.hall, plan.upstream, &tried, &self.ex, core.now());
        }
        let Some(other) = other.filter(|_| tally.spend()) else {
            return self.end_hedged(plan, leased, began, (hedge, &tally)).await;
        };
        self.race(plan, (node, leased, began), other, (hedge, &tally)).await
    }

    /// Both are asked.
    async fn race(
        &mut self,
        plan: &Plan<'_>,
        (node, mut leased, began): (usize, Leased, Moment),
        other: usize,
        measured: (&Hedge, &HedgeTally),
    ) -> Result<After, Fault> {
        let core = &self.hall.core;
        core.stats.hedges.add(1);
        let other_began = core.now();
        self.ex.attempts.push(Attempt::at(plan.upstream.nodes[other].address));
        let _under_way = health::enter(plan.upstream, other);
        let first = {
            let mut one = pin!(leased.socket.heard());
            let mut second = pin!(self.ask_other(plan, other));
            poll_fn(|cx| {
                if one.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(First::One);
                }
                second.as_mut().poll(cx).map(First::Other)
            })
            .await
        };
        let fault = match first {
            First::One => None,
            First::Other(Err(fault)) => Some(fault),
            First::Other(Ok(second)) => {
                plan.rival.set(Some(Box::new(leased)));
                plan.served.set(other);
                let late = core.now().since(began);
                match self.end_hedged(plan, *second, other_began, measured).await {
                    Err(fault) if !self.head_sent => {
                        let Some(rival) = plan.rival.take() else { return Err(fault) };
                        leased = *rival;
                        plan.served.set(node);
                        Some(fault)
                    }
                    ended => {
                        core.stats.hedges_won.add(1);
                        health::note_late(plan.upstream, node, late, core.now());
                        return ended;
                    }
                }
            }
        };
        let over = core.now();
        self.note_attempt(|attempt| attempt.total = over.since(other_began));
        if let Some(fault) = fault {
            self.note_attempt(|attempt| attempt.status = fault.status());
            // A connection from the pool may have been closed meanwhile, which says nothing about the node.
            if !fault.may_be_stale() {
                health::note_fault(self.hall, plan.upstream, other, fault);
                pick::note_failure(self.hall, plan.upstream, other, over);
            }
        }
        // The last one is told of as the one that has answered.
        let last = self.ex.attempts.len().saturating_sub(1);
        self.ex.attempts.swap(last.saturating_sub(1), last);
        self.end_hedged(plan, leased, began, measured).await
    }

    /// Passes an answer on that has begun, or will.
    async fn end_hedged(
        &mut self,
        plan: &Plan<'_>,
        mut leased: Leased,
        began: Moment,
        (hedge, tally): (&Hedge, &HedgeTally),
    ) -> Result<After, Fault> {
        let relayed = self.converse(plan, &mut leased, &Cell::new(false), began).await?;
        if let Some(attempt) = self.ex.last_attempt() {
            tally.note(attempt.header, hedge);
        }
        Ok(self.part(plan, leased, relayed))
    }

    /// Sends the request to another node and waits until it says something.
    async fn ask_other(&self, plan: &Plan<'_>, node: usize) -> Result<Box<Leased>, Fault> {
        let core = &self.hall.core;
        let connected = pick::connection(self.hall, &self.ex, plan, node, false).await;
        let mut leased = connected?;
        leased.requests += 1;
        let mut out = core.buffers.large();
        forward_head::write(self, plan, node, &mut out);
        let watch = std::rc::Rc::clone(leased.socket.watch());
        watch.follow(&core.wheel, self.connection.socket.watch());
        watch.arm(&core.wheel, plan.within(core, plan.timeouts.send));
        let (sent, out) = leased.socket.writer.send(out, 0, core.sending()).await;
        core.buffers.give_back(out);
        if sent.is_err() {
            if watch.is_abandoned() {
                return Err(Fault::ClientGone);
            }
            return Err(if watch.fired() { Fault::SendTimeout } else { Fault::SendFailed });
        }
        watch.arm(&core.wheel, plan.within(core, plan.timeouts.read));
        leased.socket.heard().await;
        Ok(Box::new(leased))
    }
}

/// Whether a connection says something before a time is over.
async fn heard_within(leased: &mut Leased, time: impl Future<Output = ()>) -> bool {
    let mut heard = pin!(leased.socket.heard());
    let mut time = pin!(time);
    poll_fn(|cx| {
        if heard.as_mut().poll(cx).is_ready() {
            return Poll::Ready(true);
        }
        time.as_mut().poll(cx).map(|()| false)
    })
    .await
}

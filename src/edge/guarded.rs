//! The way of a request to an upstream that has something to go by when its nodes do not serve. Boxed where it is taken: few
//! upstreams have it.

use super::pipeline::{After, Run};
use super::respond::{Fault, Retry};
use super::{View, health, respond};
use crate::exchange::{Body, Source};
use crate::link::health::News;
use crate::link::throttle::{self, Pass};
use crate::proto::head::HeaderId;
use crate::snapshot::{Fallback, FallbackOn, Goal, Throttle, Upstream};

impl Run<'_> {
    /// Sends the request to the nodes; where they do not serve, to what there is in their place.
    pub(super) async fn forward_guarded(&mut self, view: &View, upstream: &Upstream) -> Result<After, Fault> {
        let pass = match &upstream.additions.throttle {
            None => None,
            Some(throttle) => match throttle.enter(&self.ex) {
                Some(pass) => Some(pass),
                None => return self.shed(view, upstream, throttle).await,
            },
        };
        let Some(fallback) = upstream.additions.fallback.as_deref() else {
            let tried = self.try_throttled(upstream).await;
            self.keep_pass(upstream, pass);
            return tried;
        };
        let is_hopeless =
            fallback.is_on(FallbackOn::Unhealthy) && health::are_all_down(upstream, self.hall.core.now());
        let tried = if is_hopeless { Err(Fault::NoNodes) } else { self.try_throttled(upstream).await };
        match tried {
            Err(fault) if is_for(fallback, fault) && !self.head_sent => {
                // What serves now is somebody else.
                drop(pass);
                self.fall_back(view, fallback, fault).await
            }
            other => {
                self.keep_pass(upstream, pass);
                other
            }
        }
    }

    /// A tunnel is under way for as long as it lasts.
    fn keep_pass(&mut self, upstream: &Upstream, pass: Option<Pass<&throttle::Throttle>>) {
        if let (Some(joined), Some(throttle), Some(pass)) =
            (&mut self.joined, &upstream.additions.throttle, pass)
        {
            joined.pass = Some(throttle.keep(pass));
        }
    }

    /// There is no room for it.
    async fn shed(&mut self, view: &View, upstream: &Upstream, throttle: &Throttle) -> Result<After, Fault> {
        if let Some(fallback) =
            upstream.additions.fallback.as_deref().filter(|of| of.is_on(FallbackOn::Overload))
            && !matches!(fallback.goal, Goal::Missing)
        {
            return self.fall_back(view, fallback, Fault::Shed).await;
        }
        let seconds = throttle.cell().retry_after(&throttle.rules);
        let reply = respond::to_fault(&mut self.ex, Fault::Shed);
        Ok(self.answer(reply.with("retry-after", seconds.to_string())).await)
    }

    /// Sends the request to the nodes, and learns from how long they took.
    async fn try_throttled(&mut self, upstream: &Upstream) -> Result<After, Fault> {
        let tried = self.try_nodes(upstream).await;
        if let (Some(throttle), Some(attempt)) = (&upstream.additions.throttle, self.ex.last_attempt()) {
            // What is refused quickly says nothing about how quick work is.
            let latency = match &tried {
                Ok(_) if attempt.status < 500 => Some(attempt.header),
                Err(fault) if fault.news() == Some(News::Timeout) => Some(attempt.total),
                _ => None,
            };
            if let Some(latency) = latency {
                throttle.cell().note(latency, &throttle.rules, self.hall.core.now());
            }
        }
        tried
    }

    async fn fall_back(&mut self, view: &View, fallback: &Fallback, fault: Fault) -> Result<After, Fault> {
        match &fallback.goal {
            Goal::Answer(reply) => {
                self.hall.core.stats.fallbacks.add(1);
                self.ex.reason = "fallback";
                self.ex.response.source = Source::Gateway;
                Ok(self.answer(reply.clone()).await)
            }
            Goal::Upstream(place) => {
                let Some(other) = view.upstreams.get(*place) else { return Err(fault) };
                if !self.may_go_elsewhere(fault) {
                    return Err(fault);
                }
                self.hall.core.stats.fallbacks.add(1);
                self.falls_back = true;
                self.try_nodes(other).await
            }
            Goal::Missing => Err(fault),
        }
    }

    /// The rule of retries, for another upstream.
    fn may_go_elsewhere(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::NoNodes | Fault::Shed => self.upload.rewind(),
            Fault::StatusCaught | Fault::RetryTimeout => {
                self.ex.request.forward_method().is_idempotent() && self.upload.rewind()
            }
            other => self.may_retry(other),
        }
    }

    /// Whether a node's answer gives way to the fallback: only where that can be had for certain.
    pub(super) fn gives_way(&self, fallback: &Fallback) -> bool {
        fallback.catches(self.ex.response.status)
            && (matches!(fallback.goal, Goal::Answer(_))
                || self.ex.request.forward_method().is_idempotent() && !self.has_flowing_body())
    }

    /// Whether the request has a body that is passed on as it comes, so that it is there once.
    pub(super) fn has_flowing_body(&self) -> bool {
        let request = &self.ex.request;
        let is_held = matches!(request.body, Body::Held(_));
        let has_length = request.content_length.is_some_and(|length| length > 0);
        !is_held && (has_length || request.headers.has(HeaderId::TransferEncoding))
    }
}

/// Whether it is for what has come of the tries.
fn is_for(fallback: &Fallback, fault: Fault) -> bool {
    match fault {
        Fault::StatusCaught => true,
        Fault::NoNodes => fallback.is_on(FallbackOn::Unhealthy),
        Fault::SendTimeout | Fault::ReadTimeout | Fault::RetryTimeout => fallback.is_on(FallbackOn::Timeout),
        other => {
            (other.news().is_some() || other.retry() != Retry::Never) && fallback.is_on(FallbackOn::Connect)
        }
    }
}

//! What is to be seen of certificates that are asked for: in metrics and in the control API.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::kept::Certificate;
use super::{Case, date};
use crate::snapshot::compile::Wish;
use crate::snapshot::validity;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    issued: AtomicU64,
    failed: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

/// A wish, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    ssl: String,
    shown: Value,
    is_awaited: bool,
}

impl Seen {
    pub(super) fn of(wish: &Wish, case: &Case, certificate: Option<&Certificate>) -> Self {
        let end = certificate.and_then(|certificate| validity(&certificate.cert)).map(|(_, end)| end);
        let moment = |at: u64| (at > 0).then(|| date(at));
        let state = match (certificate, case.is_under_way) {
            (_, true) => "ordering",
            (Some(_), false) => "issued",
            (None, false) => "awaited",
        };
        let shown = json!({
            "issuer": wish.issuer,
            "names": wish.names,
            "state": state,
            "not_after": end,
            "renew_at": certificate.and_then(|_| moment(case.renew_at)),
            "trouble": case.trouble,
            "next_try": case.trouble.as_ref().and_then(|_| moment(case.not_before)),
        });
        Self { ssl: wish.ssl.clone(), shown, is_awaited: certificate.is_none() }
    }
}

impl Sight {
    pub(super) fn issued(&self) {
        self.issued.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn show(&self, seen: impl Iterator<Item = Seen>) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen.collect();
    }

    /// Orders that are over, by how they went.
    pub(crate) fn orders(&self) -> [(&'static str, u64); 2] {
        [("issued", self.issued.load(Ordering::Relaxed)), ("failed", self.failed.load(Ordering::Relaxed))]
    }

    /// How many ssls have no certificate yet; `None`: none asks for any.
    pub(crate) fn awaited(&self) -> Option<usize> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (!seen.is_empty()).then(|| seen.iter().filter(|seen| seen.is_awaited).count())
    }

    /// What is wished for, by id of the ssl.
    pub(crate) fn all(&self) -> Vec<(String, Value)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().map(|seen| (seen.ssl.clone(), seen.shown.clone())).collect()
    }
}

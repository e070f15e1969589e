//! Stapling: what authorities say of whether our certificates were revoked is fetched in time, and sent along in handshakes, so
//! that clients need not ask (RFC 6066 8). A handshake never waits for it: an answer is learnt as the value of a reference is,
//! counts until the end it names, and is asked for again when half of that is over.

mod answer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::dial::{Dialer, words};
use super::{Control, log};
use crate::base::clock::{self, Moment, UnixMs};
use crate::base::rng::Rng;
use crate::model::Settings;
use crate::snapshot::Compiler;
use crate::snapshot::compile::Stapled;

use answer::{Span, Subject};

/// Questions under way at a time.
const UNDER_WAY_MAX: usize = 4;
/// How long an answer may take as a whole.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer that is read, and sent along.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Nobody is asked more often.
const AGAIN_MIN: Duration = Duration::from_secs(60);
/// After failures: doubled up to this.
const AGAIN_MAX: Duration = Duration::from_secs(3600);

/// An answer, or why there is none.
type Told = (Arc<str>, Result<(Vec<u8>, Span), String>);

/// See the module.
pub(super) struct Ocsp {
    is_on: bool,
    dialer: Dialer,
    /// By the certificate's fingerprint.
    cases: BTreeMap<Arc<str>, Case>,
    /// Of which snapshot they are.
    at: u64,
    under_way: BTreeSet<Arc<str>>,
    tell: mpsc::Sender<Told>,
    hear: mpsc::Receiver<Told>,
    dice: Rng,
}

struct Case {
    /// `None`: nobody can be asked about it.
    subject: Option<Arc<Subject>>,
    asked_again_at: UnixMs,
    /// Until when the answer counts that is sent along; 0: none is.
    ends_at: UnixMs,
    failures: u32,
}

impl Ocsp {
    pub(super) fn new(settings: &Settings) -> Self {
        let (tell, hear) = mpsc::channel(UNDER_WAY_MAX);
        Self {
            is_on: settings.ssl.stapling,
            dialer: Dialer::new(settings),
            cases: BTreeMap::new(),
            at: 0,
            under_way: BTreeSet::new(),
            tell,
            hear,
            dice: Rng::seeded(clock::wall()),
        }
    }

    /// What has been learnt: by fingerprint, an answer, or that there is none any more. Asks what is due. Needs a tokio runtime.
    fn advance(&mut self, wall: UnixMs, compiler: &Compiler) -> Vec<(Arc<str>, Option<Vec<u8>>)> {
        let mut learnt = Vec::new();
        if !self.is_on {
            return learnt;
        }
        self.follow(compiler);
        while let Ok((fingerprint, told)) = self.hear.try_recv() {
            self.under_way.remove(&fingerprint);
            learnt.extend(self.take(fingerprint, told, wall));
        }
        for (fingerprint, case) in &mut self.cases {
            if case.ends_at != 0 && case.ends_at <= wall {
                case.ends_at = 0;
                log::warn(format!("ocsp: no answer counts any more about certificate {fingerprint}"));
                learnt.push((Arc::clone(fingerprint), None));
            }
            let is_due = case.asked_again_at <= wall && !self.under_way.contains(fingerprint);
            let Some(subject) = case.subject.as_ref().filter(|_| is_due) else { continue };
            if self.under_way.len() >= UNDER_WAY_MAX {
                continue;
            }
            self.under_way.insert(Arc::clone(fingerprint));
            let (subject, dialer, tell) = (Arc::clone(subject), self.dialer.clone(), self.tell.clone());
            let fingerprint = Arc::clone(fingerprint);
            tokio::spawn(async move {
                let told = timeout(PATIENCE, ask(&subject, dialer)).await;
                let told = told.unwrap_or_else(|_| Err(format!("no whole answer within {PATIENCE:?}")));
                let told = told.map_err(|why| format!("{}: {why}", subject.url));
                let _ = tell.send((fingerprint, told)).await;
            });
        }
        learnt
    }

    /// Notes which certificates are shown since the last snapshot.
    fn follow(&mut self, compiler: &Compiler) {
        if self.at == compiler.generation() {
            return;
        }
        self.at = compiler.generation();
        let mut before = std::mem::take(&mut self.cases);
        for Stapled { fingerprint, certificate, issuer } in compiler.stapled() {
            let new = || {
                let subject = issuer.as_deref().and_then(|issuer| Subject::of(&certificate, issuer));
                if subject.is_none() {
                    log::info(format!("ocsp: certificate {fingerprint} names nobody who could be asked"));
                }
                Case { subject: subject.map(Arc::new), asked_again_at: 0, ends_at: 0, failures: 0 }
            };
            let case = before.remove(&fingerprint).unwrap_or_else(new);
            self.cases.insert(fingerprint, case);
        }
    }

    fn take(
        &mut self,
        fingerprint: Arc<str>,
        told: Result<(Vec<u8>, Span), String>,
        wall: UnixMs,
    ) -> Option<(Arc<str>, Option<Vec<u8>>)> {
        let case = self.cases.get_mut(&fingerprint)?;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match told {
            Ok((answer, Span { from, to })) => {
                case.failures = 0;
                case.ends_at = to.saturating_mul(1000);
                let half = from.saturating_mul(1000) / 2 + case.ends_at / 2;
                // Not all at once that were fetched at once.
                let sooner = self.dice.below(millis(AGAIN_MIN));
                case.asked_again_at = half.saturating_sub(sooner).max(wall + millis(AGAIN_MIN));
                log::debug(format!("ocsp: certificate {fingerprint} is good"));
                Some((fingerprint, Some(answer)))
            }
            Err(why) => {
                case.failures = case.failures.saturating_add(1);
                let doubled = 2_u32.saturating_pow(case.failures - 1);
                case.asked_again_at = wall + millis(AGAIN_MIN.saturating_mul(doubled).min(AGAIN_MAX));
                if case.failures == 1 {
                    log::warn(format!("ocsp: certificate {fingerprint}: {why}; what is known is sent on"));
                }
                None
            }
        }
    }
}

/// Asks, and judges the answer.
async fn ask(subject: &Subject, mut dialer: Dialer) -> Result<(Vec<u8>, Span), String> {
    let failed = |error: &dyn std::error::Error| words(error);
    let uri: Uri = subject.url.parse().map_err(|error| failed(&error))?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("expected an http:// URL".to_owned()),
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = dialer.dial(host, port, is_tls).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends with the answer, or with whoever waits for it.
    tokio::spawn(connection);
    let question = subject.question().ok_or("it can not be asked about")?;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/ocsp-request")
        .body(Full::new(Bytes::from(question)))
        .map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    if response.status() != StatusCode::OK {
        return Err(response.status().to_string());
    }
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let answer = body.map_err(|error| format!("no whole answer: {error}"))?.to_bytes().to_vec();
    let span = subject.judge(&answer, clock::wall())?;
    Ok((answer, span))
}

impl Control {
    /// Sends along from here on what authorities say of our certificates.
    pub(super) fn look_at_staples(&mut self, now: Moment) {
        let learnt = self.ocsp.advance(clock::wall(), &self.compiler);
        if let Some(outcome) = self.compiler.learn_staples(learnt) {
            log::info("answers about certificates have changed");
            self.take_over(outcome, now);
        }
    }
}

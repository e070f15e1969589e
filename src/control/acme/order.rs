//! One order, from the account to the certificate. It changes nothing itself: proofs are shown, and all else kept, by the
//! control loop, which is told.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier,
    NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::fleet::{Fleet, Turn};
use super::hook;
use super::http::{Http, Retry};
use super::kept;
use crate::control::dial::Dialer;
use crate::control::log;
use crate::model::settings::{AcmeChallenge, AcmeIssuer, AcmeKeyType};
use crate::snapshot::compile::Wish;

/// How long an order may take as a whole; programs that publish records take their time.
const WITHIN: Duration = Duration::from_secs(15 * 60);
/// How the authority is asked whether it has made up its mind.
const POLLS: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));
/// What an authority says when it has forgotten an account, or never knew it.
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// What proves that a name is ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::control) enum Proof {
    /// What is answered to a request with a token.
    Answer { token: String, answer: String },
    /// A certificate with its key, both in PEM, that is shown to who asks for the name as only authorities do.
    Certificate { name: String, cert: String, key: String },
}

/// What an order tells.
pub(in crate::control) enum News {
    /// This is to be shown by all cores; then it goes on.
    Prove {
        ssl: String,
        proofs: Vec<Proof>,
        shown: oneshot::Sender<()>,
    },
    /// The account that was made with an authority.
    Registered {
        issuer: String,
        account: kept::Account,
    },
    /// The authority does not know the account any more.
    Forgotten {
        issuer: String,
    },
    Ended {
        wish: Wish,
        ending: Ending,
    },
}

/// How an order has ended.
pub(in crate::control) enum Ending {
    Issued(kept::Certificate),
    /// Another gateway has had it already.
    Found(kept::Certificate),
    /// Another gateway is asking.
    Elsewhere,
    Failed(Failed),
}

/// Why there is no certificate.
#[derive(Debug)]
pub(in crate::control) struct Failed {
    pub(super) why: String,
    /// How long the authority wants to be left alone.
    pub(super) retry_after: Duration,
}

/// An order to be.
pub(super) struct Job {
    pub(super) issuer: Arc<AcmeIssuer>,
    pub(super) wish: Wish,
    pub(super) account: Option<kept::Account>,
    /// What is shown now.
    pub(super) held: Option<kept::Certificate>,
    /// The other gateways, if any share what is issued.
    pub(super) fleet: Option<Fleet>,
    pub(super) dialer: Dialer,
    pub(super) tell: mpsc::Sender<News>,
}

impl Job {
    /// Has it done, and tells how it went.
    pub(super) async fn run(mut self) {
        let ending = self.take_turn().await;
        let _ = self.tell.send(News::Ended { wish: self.wish, ending }).await;
    }

    /// Alone, as far as other gateways are concerned.
    async fn take_turn(&mut self) -> Ending {
        let Some(mut fleet) = self.fleet.take() else { return self.attempt(None).await };
        let failed = |why: String| Ending::Failed(Failed { why, retry_after: Duration::ZERO });
        let turn = match fleet.begin(&self.wish.issuer).await {
            Ok(Some(turn)) => turn,
            Ok(None) => return Ending::Elsewhere,
            Err(why) => return failed(why),
        };
        let ending = match self.catch_up(&mut fleet).await {
            Ok(Some(found)) => Ending::Found(found),
            Ok(None) => self.attempt(Some((&mut fleet, &turn))).await,
            Err(why) => failed(why),
        };
        if let Ending::Issued(certificate) = &ending
            && let Err(why) = fleet.keep_certificate(&self.wish.ssl, certificate).await
        {
            log::error(format!(
                "ssls/{}: {why}; other gateways will ask for a certificate, too",
                self.wish.ssl
            ));
        }
        fleet.end(turn).await;
        ending
    }

    /// What the others have had since we last heard of them: the account, and perhaps the certificate.
    async fn catch_up(&mut self, fleet: &mut Fleet) -> Result<Option<kept::Certificate>, String> {
        if let Some(account) = fleet.account(&self.wish.issuer).await?
            && account.directory == self.issuer.directory.as_str()
        {
            self.account = Some(account);
        }
        let found = fleet.certificate(&self.wish.ssl).await?;
        Ok(found.filter(|found| {
            let is_right = found.issuer == self.wish.issuer && found.names == self.wish.names;
            is_right && Some(found) != self.held.as_ref()
        }))
    }

    async fn attempt(&self, mut fleet: Option<(&mut Fleet, &Turn)>) -> Ending {
        let Wish { ssl, issuer, .. } = &self.wish;
        log::info(format!("ssls/{ssl}: a certificate is asked for of {issuer}"));
        let retry = Arc::new(Retry::default());
        let mut records = Vec::new();
        let ordered = timeout(WITHIN, self.order(&retry, &mut records, &mut fleet)).await;
        for record in &records {
            // It was told; the next order removes nothing of this one.
            let _ = hook::run(&self.issuer, hook::Act::Remove, record).await;
        }
        let why = match ordered {
            Ok(Ok(certificate)) => return Ending::Issued(certificate),
            Ok(Err(Stopped(why))) => why,
            Err(_) => format!("it is not over after {WITHIN:?}"),
        };
        Ending::Failed(Failed { why, retry_after: retry.after() })
    }

    async fn order(
        &self,
        retry: &Arc<Retry>,
        records: &mut Vec<hook::Record>,
        fleet: &mut Option<(&mut Fleet, &Turn)>,
    ) -> Result<kept::Certificate, Stopped> {
        let account = self.account(retry, fleet).await?;
        let names: Vec<Identifier> = self.wish.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = match account.new_order(&NewOrder::new(&names)).await {
            Ok(order) => order,
            Err(error) => {
                if matches!(&error, Error::Api(problem) if problem.r#type.as_deref() == Some(NO_ACCOUNT)) {
                    let _ = self.tell.send(News::Forgotten { issuer: self.wish.issuer.clone() }).await;
                }
                return Err(error.into());
            }
        };
        self.prove(&mut order, records, fleet).await?;
        if order.state().status != OrderStatus::Ready {
            let polled = order.poll_ready(&POLLS).await;
            if !matches!(polled, Ok(OrderStatus::Ready)) {
                let why = refusals(&mut order).await;
                return Err(Stopped(match polled {
                    Err(error) if why.is_empty() => words(&error),
                    _ => why,
                }));
            }
        }
        let key_type = self.issuer.key_type;
        // A key of RSA takes a processor for a while.
        let key =
            tokio::task::spawn_blocking(move || key_of(key_type)).await.map_err(other)?.map_err(other)?;
        let mut params = CertificateParams::new(self.wish.names.clone()).map_err(other)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(other)?;
        order.finalize_csr(request.der()).await?;
        let cert = order.poll_certificate(&POLLS).await?;
        let key = key.serialize_pem();
        crate::snapshot::check_pair(("certificate", &cert), ("certificate", &key)).map_err(|faults| {
            let words: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Stopped(format!("what was issued is not what was asked for: {}", words.join("; ")))
        })?;
        let (issuer, names) = (self.wish.issuer.clone(), self.wish.names.clone());
        Ok(kept::Certificate { issuer, names, cert, key })
    }

    /// The account that is known, or a new one.
    async fn account(
        &self,
        retry: &Arc<Retry>,
        fleet: &mut Option<(&mut Fleet, &Turn)>,
    ) -> Result<Account, Stopped> {
        let http = Box::new(Http::new(self.dialer.clone(), Arc::clone(retry)));
        let builder = Account::builder_with_http(http);
        if let Some(account) = &self.account {
            let known: AccountCredentials = serde_json::from_str(&account.credentials).map_err(other)?;
            return Ok(builder.from_credentials(known).await?);
        }
        let binding = match &self.issuer.external_account {
            None => None,
            Some(external) => {
                let text = external.key.expose().trim();
                let key = URL_SAFE_NO_PAD.decode(text).or_else(|_| URL_SAFE.decode(text));
                let key = key.map_err(|_| Stopped("external_account.key: expected base64".to_owned()))?;
                Some(ExternalAccountKey::new(external.id.as_str().to_owned(), &key))
            }
        };
        let contact = self.issuer.email.as_ref().map(|email| format!("mailto:{}", email.as_str()));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: self.issuer.terms_agreed,
            only_return_existing: false,
        };
        let directory = self.issuer.directory.as_str().to_owned();
        let (account, credentials) = builder.create(&wanted, directory.clone(), binding.as_ref()).await?;
        let credentials = serde_json::to_string(&credentials).map_err(other)?;
        let made = kept::Account { directory, credentials };
        if let Some((fleet, _)) = fleet {
            fleet.keep_account(&self.wish.issuer, &made).await.map_err(Stopped)?;
        }
        let told = News::Registered { issuer: self.wish.issuer.clone(), account: made };
        self.tell.send(told).await.map_err(|_| ending())?;
        Ok(account)
    }

    /// Shows what proves each name, and tells the authority to look.
    async fn prove(
        &self,
        order: &mut Order,
        records: &mut Vec<hook::Record>,
        fleet: &mut Option<(&mut Fleet, &Turn)>,
    ) -> Result<(), Stopped> {
        let kind = match self.issuer.challenge {
            AcmeChallenge::Http01 => ChallengeType::Http01,
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            AcmeChallenge::Dns01 => ChallengeType::Dns01,
        };
        let mut proofs = Vec::new();
        let mut pending = order.authorizations();
        while let Some(authorization) = pending.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let Identifier::Dns(name) = authorization.identifier().identifier.clone() else { continue };
            let challenge = authorization.challenge(kind.clone());
            let challenge = challenge.ok_or_else(|| {
                Stopped(format!("{name}: the authority offers no {kind:?}, so it can not be proven"))
            })?;
            let secret = challenge.key_authorization();
            match kind {
                ChallengeType::Http01 => proofs.push(Proof::Answer {
                    token: challenge.token.clone(),
                    answer: secret.as_str().to_owned(),
                }),
                ChallengeType::TlsAlpn01 => {
                    let (cert, key) = certificate_of_proof(&name, secret.digest().as_ref()).map_err(other)?;
                    proofs.push(Proof::Certificate { name, cert, key });
                }
                _ => {
                    let record =
                        hook::Record { name: format!("_acme-challenge.{name}"), value: secret.dns_value() };
                    records.push(record.clone());
                    hook::run(&self.issuer, hook::Act::Add, &record).await.map_err(Stopped)?;
                }
            }
        }
        if !proofs.is_empty() {
            if let Some((fleet, turn)) = fleet {
                fleet.prove(turn, &self.wish.ssl, &proofs).await.map_err(Stopped)?;
            }
            let (shown, is_shown) = oneshot::channel();
            let told = News::Prove { ssl: self.wish.ssl.clone(), proofs, shown };
            self.tell.send(told).await.map_err(|_| ending())?;
            is_shown.await.map_err(|_| ending())?;
        }
        let mut pending = order.authorizations();
        while let Some(authorization) = pending.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Pending
                && let Some(mut challenge) = authorization.challenge(kind.clone())
            {
                challenge.set_ready().await?;
            }
        }
        Ok(())
    }
}

/// Why nothing comes of an order, in words.
struct Stopped(String);

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self(words(&error))
    }
}

fn other(error: impl std::error::Error) -> Stopped {
    Stopped(error.to_string())
}

fn ending() -> Stopped {
    Stopped("the gateway is ending".to_owned())
}

/// An error with what the authority says of each name.
fn words(error: &Error) -> String {
    match error {
        Error::Api(problem) => {
            let detail = problem.detail.as_deref().unwrap_or_default();
            let kind = problem.r#type.as_deref().unwrap_or_default();
            format!("{detail} ({})", kind.rsplit(':').next().unwrap_or(kind))
        }
        other => crate::control::dial::words(other),
    }
}

/// What the authority has against each name that it refused.
async fn refusals(order: &mut Order) -> String {
    let mut told = Vec::new();
    let mut all = order.authorizations();
    while let Some(authorization) = all.next().await {
        let Ok(mut authorization) = authorization else { break };
        let Ok(state) = authorization.refresh().await else { break };
        for problem in state.challenges.iter().filter_map(|challenge| challenge.error.clone()) {
            told.push(format!("{}: {}", state.identifier(), words(&Error::Api(problem))));
        }
    }
    told.join("; ")
}

fn key_of(kind: AcmeKeyType) -> Result<KeyPair, rcgen::Error> {
    match kind {
        AcmeKeyType::Ecdsa => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        AcmeKeyType::Rsa2048 => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256),
    }
}

/// The certificate by which a name is proven over TLS (RFC 8737 3), and its key.
fn certificate_of_proof(name: &str, digest: &[u8]) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let cert = params.self_signed(&key)?;
    Ok((cert.pem(), key.serialize_pem()))
}

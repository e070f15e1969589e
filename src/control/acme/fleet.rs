//! Gateways that share an etcd share what is issued: one at a time asks an authority, under a lock that goes with its lease,
//! and the others take up what it wrote. All of them show its proofs, as the authority may come to any.
//!
//! | below `PREFIX/ringway/acme/` | |
//! |---|---|
//! | `lock/ISSUER` | whoever asks, for as long as it does |
//! | `proofs/SSL` | what is shown to the authority, as long |
//! | `accounts/ISSUER`, `certificates/SSL` | as in `acme.json`; secrets are sealed where all gateways have the key (`data_encryption.keyring`) |

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::kept::{Account, Certificate, NAME};
use super::order::Proof;
use super::{Acme, Case, Running, due, given};
use crate::base::clock;
use crate::control::log;
use crate::control::seal::Seal;
use crate::control::source::etcd::{Lease, OnShelf as Told, Shelf};
use crate::snapshot::compile::Issued;

/// How long the lock of a gateway that has gone stays.
const LEASE_SECONDS: u64 = 30;
/// Between two words that it is still there.
const KEEP_EVERY: Duration = Duration::from_secs(10);
/// What the others get to show proofs before the authority is told to look: a watch takes some tens of milliseconds.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Clone)]
pub(super) struct Fleet {
    shelf: Shelf,
    seal: Arc<Seal>,
}

/// Our turn to ask an authority.
pub(super) struct Turn {
    lease: Lease,
    _keeping: Running,
}

impl Fleet {
    pub(super) fn new(shelf: Shelf, seal: Arc<Seal>) -> Self {
        Self { shelf, seal }
    }

    /// Takes the turn to ask an authority; `None`: another has it.
    pub(super) async fn begin(&mut self, issuer: &str) -> Result<Option<Turn>, String> {
        let lease = self.shelf.lease(LEASE_SECONDS).await.map_err(told)?;
        if !self.shelf.claim(&format!("lock/{issuer}"), &lease).await.map_err(told)? {
            let _ = self.shelf.end(&lease).await;
            return Ok(None);
        }
        let (mut shelf, kept) = (self.shelf.clone(), lease.clone());
        let keeping = tokio::spawn(async move {
            loop {
                tokio::time::sleep(KEEP_EVERY).await;
                if let Err(trouble) = shelf.keep(&kept).await {
                    log::warn(format!("etcd: {trouble}; another gateway may ask for certificates as well"));
                }
            }
        });
        Ok(Some(Turn { lease, _keeping: Running(keeping.abort_handle()) }))
    }

    /// Leaves the turn to others, and takes back what was shown.
    pub(super) async fn end(&mut self, turn: Turn) {
        // Where that fails it goes with the lease.
        let _ = self.shelf.end(&turn.lease).await;
    }

    /// Has all gateways show proofs, for as long as the turn is ours.
    pub(super) async fn prove(&mut self, turn: &Turn, ssl: &str, proofs: &[Proof]) -> Result<(), String> {
        let text = serde_json::to_string(proofs).map_err(|error| error.to_string())?;
        self.shelf.put(&format!("proofs/{ssl}"), &text, Some(&turn.lease)).await.map_err(told)?;
        tokio::time::sleep(SHOWN_WITHIN).await;
        Ok(())
    }

    pub(super) async fn certificate(&mut self, ssl: &str) -> Result<Option<Certificate>, String> {
        let value = self.shelf.get(&format!("certificates/{ssl}")).await.map_err(told)?;
        Ok(value.and_then(|value| read(&self.seal, ssl, &value)))
    }

    pub(super) async fn account(&mut self, issuer: &str) -> Result<Option<Account>, String> {
        let value = self.shelf.get(&format!("accounts/{issuer}")).await.map_err(told)?;
        Ok(value.and_then(|value| read(&self.seal, issuer, &value)))
    }

    pub(super) async fn keep_certificate(
        &mut self,
        ssl: &str,
        certificate: &Certificate,
    ) -> Result<(), String> {
        let sealed = Certificate { key: self.sealed(&certificate.key), ..certificate.clone() };
        self.keep(&format!("certificates/{ssl}"), &sealed).await
    }

    pub(super) async fn keep_account(&mut self, issuer: &str, account: &Account) -> Result<(), String> {
        let sealed = Account { credentials: self.sealed(&account.credentials), ..account.clone() };
        self.keep(&format!("accounts/{issuer}"), &sealed).await
    }

    async fn keep(&mut self, name: &str, value: &impl Serialize) -> Result<(), String> {
        let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
        self.shelf.put(name, &text, None).await.map_err(told)
    }

    /// A key that only this gateway has would keep the others out.
    fn sealed(&self, text: &str) -> String {
        if self.seal.is_shared() { self.seal.close_text(NAME, text) } else { text.to_owned() }
    }
}

fn told(trouble: impl std::fmt::Display) -> String {
    format!("etcd: {trouble}")
}

/// What a gateway has written, with its secrets; what can not be read is told.
fn read<T: DeserializeOwned>(seal: &Seal, name: &str, text: &[u8]) -> Option<T> {
    let read = serde_json::from_slice::<Value>(text)
        .map_err(|error| error.to_string())
        .and_then(|value| seal.uncover(NAME, value))
        .and_then(|value| serde_json::from_value(value).map_err(|error| error.to_string()));
    read.map_err(|why| log::error(format!("etcd: ringway/acme, {name}: {why}"))).ok()
}

impl Acme {
    /// Shares with other gateways from here on what is issued.
    pub(in crate::control) fn join(&mut self, shelf: Shelf) {
        self.fleet = self.kept.as_ref().map(|kept| Fleet::new(shelf, Arc::clone(&kept.seal)));
    }

    /// Takes in what other gateways have written: what was issued, and whether there is something else to prove.
    pub(super) fn hear(&mut self, told: Vec<Told>) -> (Vec<(String, Issued)>, bool) {
        let (mut issued, mut is_other) = (Vec::new(), false);
        let mut has_news = false;
        for told in told {
            let items: Vec<(String, Option<Vec<u8>>)> = match told {
                Told::All(items) => {
                    is_other |= !self.others.is_empty();
                    self.others.clear();
                    items.into_iter().map(|(name, value)| (name, Some(value))).collect()
                }
                Told::Some(items) => items,
            };
            for (name, value) in items {
                match (name.split_once('/'), value) {
                    (Some(("proofs", ssl)), value) => {
                        let proofs = value.and_then(|value| serde_json::from_slice(&value).ok());
                        is_other = true;
                        match proofs {
                            Some(proofs) => drop(self.others.insert(ssl.to_owned(), proofs)),
                            None => drop(self.others.remove(ssl)),
                        }
                    }
                    (Some(("certificates", ssl)), Some(value)) => {
                        issued.extend(self.hear_certificate(ssl, &value));
                    }
                    (Some(("accounts", issuer)), Some(value)) => {
                        let Some(kept) = &mut self.kept else { continue };
                        if let Some(account) = read(&kept.seal, issuer, &value) {
                            has_news |= kept.state.accounts.get(issuer) != Some(&account);
                            kept.state.accounts.insert(issuer.to_owned(), account);
                        }
                    }
                    _ => {}
                }
            }
        }
        if let Some(kept) = self.kept.as_ref().filter(|_| has_news || !issued.is_empty()) {
            kept.save();
            self.show();
        }
        (issued, is_other)
    }

    fn hear_certificate(&mut self, ssl: &str, value: &[u8]) -> Option<(String, Issued)> {
        let chance = self.dice.below(due::PARTS);
        let kept = self.kept.as_mut()?;
        let certificate: Certificate = read(&kept.seal, ssl, value)?;
        if kept.state.certificates.get(ssl) == Some(&certificate) {
            return None;
        }
        log::info(format!("ssls/{ssl}: another gateway has had a certificate of {}", certificate.issuer));
        kept.state.certificates.insert(ssl.to_owned(), certificate.clone());
        let renew_at = self.renew_at(&certificate, chance);
        if let Some(case) = self.cases.get_mut(ssl) {
            *case = Case { renew_at, is_under_way: case.is_under_way, ..Case::default() };
        }
        Some((ssl.to_owned(), given(&certificate)))
    }

    /// What to do where another gateway is asking the authority: wait, and take up what comes of it.
    pub(super) fn stand_back(&mut self, ssl: &str) {
        let chance = u32::try_from(self.dice.below(due::PARTS)).unwrap_or(0);
        let pause = SHOWN_WITHIN + SHOWN_WITHIN * chance / due::PARTS as u32;
        if let Some(case) = self.cases.get_mut(ssl) {
            case.is_under_way = false;
            case.not_before = clock::wall().saturating_add(u64::try_from(pause.as_millis()).unwrap_or(0));
        }
    }
}

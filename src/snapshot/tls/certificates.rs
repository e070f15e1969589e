//! Which rules are for which name. A copy shares everything with its original.
//!
//! A name finds its own entry, then that of the wildcard over it (`*.example.com` is for one label), then that of `*`.
//! Of several ssls for one name the oldest counts.

use std::sync::Arc;

use rpds::HashTrieMapSync;

use super::forge::{ClientRules, ServerRules};
use crate::base::clock::UnixMs;
use crate::exchange::{Security, Verdict};
use crate::snapshot::intake::Refusal;

/// One ssl for one name.
#[derive(Clone, Debug)]
struct Entry {
    age: u64,
    id: Arc<str>,
    rules: Arc<ServerRules>,
}

/// Until when an ssl holds.
#[derive(Clone, Copy, Debug)]
pub struct CertificateEnd<'a> {
    pub ssl: &'a str,
    /// In seconds since 1970.
    pub not_after: i64,
    /// Nodes are shown it, rather than clients.
    pub to_nodes: bool,
}

impl CertificateEnd<'_> {
    /// The `type` of such an ssl.
    pub const fn kind(&self) -> &'static str {
        if self.to_nodes { "client" } else { "server" }
    }
}

/// All names.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    by_name: HashTrieMapSync<Box<str>, Arc<[Entry]>>,
    /// By the part behind `*.`.
    by_parent: HashTrieMapSync<Box<str>, Arc<[Entry]>>,
    any: Option<Arc<[Entry]>>,
    /// By id: for which names it is, and until when it holds.
    known: HashTrieMapSync<Arc<str>, (Arc<[String]>, i64)>,
    /// Of those that nodes are shown, by id, until when each holds.
    for_nodes: HashTrieMapSync<Arc<str>, i64>,
    /// How many of the ssls ask clients for something.
    asking: usize,
}

impl Certificates {
    /// Adds an ssl for these names.
    pub(crate) fn put(&mut self, age: u64, id: &str, names: Arc<[String]>, rules: Arc<ServerRules>) {
        self.remove(id);
        let id: Arc<str> = id.into();
        for name in &*names {
            let entry = Entry { age, id: Arc::clone(&id), rules: Arc::clone(&rules) };
            self.change(name, |entries| {
                let at = entries.partition_point(|other| other.age < age);
                entries.insert(at, entry);
            });
        }
        self.asking += usize::from(rules.client.is_some());
        self.known.insert_mut(id, (names, rules.not_after));
    }

    /// Notes an ssl by which nodes know us.
    pub(crate) fn put_for_nodes(&mut self, id: &str, not_after: i64) {
        self.for_nodes.insert_mut(id.into(), not_after);
    }

    /// Removes an ssl.
    pub(crate) fn remove(&mut self, id: &str) {
        self.for_nodes.remove_mut(id);
        let Some((names, _)) = self.known.get(id).cloned() else { return };
        let mut was_asking = false;
        for name in &*names {
            self.change(name, |entries| {
                was_asking |= entries.iter().any(|entry| *entry.id == *id && entry.rules.client.is_some());
                entries.retain(|entry| *entry.id != *id);
            });
        }
        self.asking -= usize::from(was_asking);
        self.known.remove_mut(id);
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Vec<Entry>)) {
        let name = name.to_ascii_lowercase();
        if name == "*" {
            let mut entries = self.any.as_deref().unwrap_or_default().to_vec();
            change(&mut entries);
            self.any = (!entries.is_empty()).then(|| entries.into());
            return;
        }
        let (map, key) = match name.strip_prefix("*.") {
            Some(parent) => (&mut self.by_parent, parent),
            None => (&mut self.by_name, name.as_str()),
        };
        let mut entries = map.get(key).map_or_else(Vec::new, |entries| entries.to_vec());
        change(&mut entries);
        if entries.is_empty() {
            map.remove_mut(key);
        } else {
            map.insert_mut(key.into(), entries.into());
        }
    }

    /// Until when each ssl holds.
    pub fn ends(&self) -> impl Iterator<Item = CertificateEnd<'_>> {
        let end = |ssl, not_after, to_nodes| CertificateEnd { ssl, not_after, to_nodes };
        let to_clients = self.known.iter().map(move |(id, (_, not_after))| end(&**id, *not_after, false));
        to_clients.chain(self.for_nodes.iter().map(move |(id, not_after)| end(id, *not_after, true)))
    }

    /// By which rules a client is answered that asks for this host, in lower case.
    pub fn find(&self, name: &str) -> Option<&Arc<ServerRules>> {
        let parent = || name.split_once('.').and_then(|(_, parent)| self.by_parent.get(parent));
        let entries = self.by_name.get(name).or_else(parent).or(self.any.as_ref())?;
        entries.first().map(|entry| &entry.rules)
    }

    /// Whether bytes may come over a connection that are passed on as they are, as far as clients' certificates go. `fallback` is
    /// the name that a client is taken to ask for which asks for none.
    pub fn admits_stream(&self, security: &Security, fallback: Option<&str>, now: UnixMs) -> bool {
        let asked = security.server_name.as_deref().or(fallback);
        let rules = asked.and_then(|name| self.find(name)).and_then(|rules| rules.client.as_ref());
        rules.is_none_or(|rules| is_trusted(security, rules, now))
    }

    /// Whether a request to `host` for `path` may come over a connection, as far as clients' certificates go.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admit(&self, security: &Security, host: &str, path: &[u8], now: UnixMs) -> Result<(), Refusal> {
        if self.asking == 0 {
            return Ok(());
        }
        let asked = security.server_name.as_deref();
        let own = asked.and_then(|name| self.find(name)).and_then(|rules| rules.client.as_ref());
        let wanted = self.find(host).and_then(|rules| rules.client.as_ref());
        if (own.is_some() || wanted.is_some()) && asked != Some(host) {
            // Whoever greeted one host must not be believed at another.
            return Err(if own.is_some() { Refusal::SNI_MISMATCH } else { Refusal::MISDIRECTED });
        }
        let Some(rules) = wanted else { return Ok(()) };
        if is_trusted(security, rules, now) || rules.lets_pass(path) {
            Ok(())
        } else {
            Err(Refusal::CLIENT_CERTIFICATE)
        }
    }
}

/// Whether a client has shown a certificate that is vouched for by these rules.
fn is_trusted(security: &Security, rules: &ClientRules, now: UnixMs) -> bool {
    security.certificate.as_ref().is_some_and(|certificate| {
        let mut verdict = certificate.verdict.get();
        if verdict.rules != rules.id {
            let is_trusted = rules.trusts(&certificate.chain, now);
            verdict = Verdict { rules: rules.id, is_trusted };
            certificate.verdict.set(verdict);
        }
        verdict.is_trusted
    })
}

//! References in the configuration of plugins, replaced by what they stand for before a plugin reads it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::streams::only_of_requests;
use super::work::{Work, both};
use crate::model::field::PluginMap;
use crate::model::reference::{Filled, Reference, beside_references, fill, has_reference};
use crate::model::schema::check;
use crate::model::ssl::Purpose;
use crate::model::{ConfigError, Kind, Ssl};
use crate::snapshot::merge::Mounts;
use crate::snapshot::tls::{Identity, Pair, check_client, check_pair, validity};

impl Work<'_> {
    /// A configuration with what its references stand for. Without it all that is wrong besides, and each reference
    /// that has no value yet; `schema` is of what is filled.
    pub(super) fn fill(&mut self, config: &Value, schema: fn() -> Value) -> Result<Filled, Vec<ConfigError>> {
        let (references, parts) = (&mut *self.references, &*self.parts);
        let mut stores = Vec::new();
        let filled = fill(config, &mut |text| {
            if let Ok(Reference::Secret { store, .. }) = Reference::of(text) {
                stores.push(store.to_owned());
            }
            references.value(text, |store| parts.secrets.contains_key(store))
        });
        for store in stores {
            self.need(Kind::Secret, &store);
        }
        filled.map_err(|mut faults| {
            let mut plain = config.clone();
            if let Some(fields) = plain.as_object_mut() {
                fields.shift_remove("_meta");
            }
            let besides = beside_references(&plain, check(&schema(), &plain));
            faults.extend(besides);
            faults
        })
    }

    /// The plugins of one object that is for requests, compiled, or every fault.
    pub(super) fn mounts(
        &mut self,
        owner: &str,
        plugins: Option<&PluginMap>,
    ) -> Result<Mounts, Vec<ConfigError>> {
        let fit = only_of_requests(plugins);
        both(fit, self.mounts_of_any(owner, plugins)).map(|((), mounts)| mounts)
    }

    /// The plugins of one object, compiled, or every fault.
    pub(super) fn mounts_of_any(
        &mut self,
        owner: &str,
        plugins: Option<&PluginMap>,
    ) -> Result<Mounts, Vec<ConfigError>> {
        if !plugins.into_iter().flatten().any(|(_, config)| has_reference(config)) {
            let (bench, mut upstreams) = self.desk(owner);
            return bench.mounts(owner, plugins, &mut upstreams);
        }
        let (mut ready, mut faults, mut discretion) = (PluginMap::new(), Vec::new(), Vec::new());
        for (name, config) in plugins.into_iter().flatten() {
            let is_off = config.pointer("/_meta/disable") == Some(&Value::Bool(true));
            let card = self.bench.card(name).ok().filter(|_| !is_off && has_reference(config));
            let Some(card) = card else {
                ready.insert(name.clone(), config.clone());
                continue;
            };
            let under = format!("plugins.{name}");
            match self.fill(config, card.schema) {
                Ok(mut filled) => {
                    ready.insert(name.clone(), std::mem::take(&mut filled.value));
                    discretion.push((under, filled));
                }
                Err(more) => faults.extend(more.into_iter().map(|fault| fault.under(&under))),
            }
        }
        let (bench, mut upstreams) = self.desk(owner);
        let mounts = bench.mounts(owner, Some(&ready), &mut upstreams).map_err(|more| {
            let discreet = |fault: ConfigError| {
                discretion.iter().fold(fault, |fault, (under, filled)| filled.discreet_under(under, fault))
            };
            more.into_iter().map(discreet).collect::<Vec<_>>()
        });
        match mounts {
            Ok(mounts) if faults.is_empty() => Ok(mounts),
            Ok(_) => Err(faults),
            Err(more) => {
                faults.extend(more);
                Err(faults)
            }
        }
    }

    /// Shows the certificates of an ssl from now on, if they and their keys are what they should be. One whose value is
    /// awaited is not shown, and neither is any where it is awaited who may vouch for clients.
    pub(super) fn add_ssl(&mut self, name: &str, id: &str, ssl: &Ssl) -> Result<(), Vec<ConfigError>> {
        let mut faults = Vec::new();
        let mut ca = None;
        if let Some(client) = &ssl.client {
            let mut written = json!({"client": {"ca": client.ca.as_str()}});
            if let Some(crl) = &client.crl {
                written["client"]["crl"] = json!(crl.as_str());
            }
            let filled = self.fill_ssl(name, written, &mut faults);
            ca = filled.map(|filled| {
                let text =
                    |field: &str| filled["client"].get(field).and_then(Value::as_str).map(str::to_owned);
                (text("ca").unwrap_or_default(), text("crl"))
            });
            let known = ca.as_ref().map(|(ca, crl)| (ca.as_str(), crl.as_deref()));
            faults.extend(check_client(client, known));
        }
        let pairs = match &ssl.acme {
            Some(acme) => self.issued(name, id, (ssl, acme), &mut faults),
            None => self.pairs(name, ssl, &mut faults),
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        if pairs.is_empty() || ssl.status.get() == 0 || ssl.client.is_some() && ca.is_none() {
            return Ok(());
        }
        match ssl.purpose {
            Purpose::Client => {
                let (cert, key) = &pairs[0];
                let identity = Identity::of(self.forge.provider(), cert, key)
                    .map_err(|problem| vec![ConfigError::at("key", problem)])?;
                self.parts.identities.insert_mut(id.into(), Arc::new(identity));
                let not_after = validity(cert).map_or(i64::MAX, |(_, end)| end);
                self.parts.certificates.put_for_nodes(id, not_after);
            }
            Purpose::Server => {
                let mut lacks = Vec::new();
                let known = ca.as_ref().map(|(ca, crl)| (ca.as_str(), crl.as_deref()));
                let staples = self.staples(&pairs);
                let rules = self.forge.rules(ssl, (&pairs, &staples), known, &mut lacks)?;
                self.lacks.extend(lacks.into_iter().map(|lack| lack.in_object(name)));
                let names = self.names_of(name, id, ssl);
                self.parts.certificates.put(self.age, id, names, Arc::new(rules));
            }
        }
        Ok(())
    }

    /// The certificates of an ssl with their keys, each checked; without those whose value is awaited.
    fn pairs(&mut self, name: &str, ssl: &Ssl, faults: &mut Vec<ConfigError>) -> Vec<Pair> {
        let mut pairs = Vec::new();
        let further = ssl.certs.iter().flatten().zip(ssl.keys.iter().flatten()).enumerate();
        let further =
            further.map(|(at, (cert, key))| (format!("certs[{at}]"), cert, format!("keys[{at}]"), key));
        let first =
            ssl.cert.iter().zip(&ssl.key).map(|(cert, key)| ("cert".to_owned(), cert, "key".to_owned(), key));
        for (cert_field, cert, key_field, key) in first.chain(further) {
            let written = json!({&*cert_field: cert.as_str(), &*key_field: key.expose()});
            let Some(filled) = self.fill_ssl(name, written, faults) else { continue };
            let (cert, key) = (text_of(&filled, &cert_field), text_of(&filled, &key_field));
            match check_pair((&cert_field, cert), (&key_field, key)) {
                Ok(lacks) => {
                    self.lacks.extend(lacks.into_iter().map(|lack| lack.in_object(name)));
                    pairs.push((cert.to_owned(), key.to_owned()));
                }
                // They tell nothing of what they are about.
                Err(more) => faults.extend(more),
            }
        }
        pairs
    }

    /// Fields of an ssl with what their references stand for; nothing where a value is awaited, which is told, or is
    /// wrong.
    fn fill_ssl(&mut self, name: &str, written: Value, faults: &mut Vec<ConfigError>) -> Option<Value> {
        match self.fill(&written, || Value::Bool(true)) {
            Ok(mut filled) => Some(std::mem::take(&mut filled.value)),
            Err(more) => {
                let (awaited, wrong): (Vec<_>, Vec<_>) = more.into_iter().partition(|fault| fault.may_pass);
                self.lacks.extend(awaited.into_iter().map(|fault| fault.in_object(name)));
                faults.extend(wrong);
                None
            }
        }
    }
}

fn text_of<'v>(filled: &'v Value, field: &str) -> &'v str {
    filled[field].as_str().unwrap_or_default()
}

//! Consumers, compiled: what they prove themselves with goes into the index, what acts on their requests is mounted.

use std::sync::Arc;

use serde_json::Value;

use super::work::{Work, both, dangling};
use crate::exchange::ConsumerLabels;
use crate::model::field::PluginMap;
use crate::model::reference::has_reference;
use crate::model::schema::check;
use crate::model::{self, ConfigError, Kind};
use crate::snapshot::Consumer;
use crate::snapshot::merge::lay_over;

/// A credential: of which plugin, what is shown, and what must match besides.
type Proof = (&'static str, (Vec<u8>, Vec<u8>));

impl Work<'_> {
    pub(super) fn add_consumer(
        &mut self,
        name: &str,
        consumer: &model::Consumer,
    ) -> Result<(), Vec<ConfigError>> {
        let username = consumer.username.as_str();
        let (auth, other) = self.split_auth(consumer.plugins.as_ref());
        let group = consumer.group_id.as_ref();
        if let Some(id) = group {
            self.need(Kind::ConsumerGroup, id.as_str());
        }
        let laid = group.map_or(Ok(Arc::default()), |id| {
            let found = self.parts.groups.get(id.as_str()).cloned();
            found.ok_or_else(|| vec![dangling("group_id", "a consumer_group", id)])
        });
        let mounts = both(laid, self.mounts(name, Some(&other))).map(|(group, own)| lay_over(&group, &own));
        let custom_id = consumer.labels.as_ref().and_then(|labels| labels.get("custom_id"));
        let custom_id = custom_id.map_or("", |text| text.as_str());
        let group_id = group.map_or("", |id| id.as_str());
        let labels = |credential: &str| ConsumerLabels::new(username, group_id, credential, custom_id);
        let (mounts, credentials) = both(mounts, self.read_credentials(name, auth))?;
        let at = self.parts.consumers.add(Consumer {
            labels: labels(""),
            mounts: mounts.list,
            disabled: mounts.disabled,
        });
        self.made.place = Some(at);
        self.insert_credentials(credentials, at, &labels(""));
        self.parts.index.insert_consumer(at, labels(""));
        self.parts.consumer_ids.insert_mut(username.into(), at);
        Ok(())
    }

    pub(super) fn add_group(
        &mut self,
        name: &str,
        id: &str,
        plugins: &PluginMap,
    ) -> Result<(), Vec<ConfigError>> {
        let (proofs, acting): (PluginMap, PluginMap) = plugins
            .iter()
            .map(|(plugin, config)| (plugin.clone(), config.clone()))
            .partition(|(plugin, config)| self.is_proof(plugin, config));
        let mounts = self.mounts(name, Some(&acting))?;
        for plugin in proofs.keys() {
            let problem = "expected what acts on requests, got what a consumer proves itself with; \
                           in a group it lets nobody in, and does nothing else";
            self.lacks.push(ConfigError::at(format!("plugins.{plugin}"), problem).in_object(name));
        }
        self.parts.groups.insert_mut(id.into(), Arc::new(mounts));
        Ok(())
    }

    /// Whether this is what a consumer writes under the name of an authentication plugin, and no route could.
    fn is_proof(&self, plugin: &str, config: &Value) -> bool {
        let Ok(card) = self.bench.card(plugin) else { return false };
        let of_consumer = card.credential.is_some_and(|kind| check(&(kind.schema)(), config).is_empty());
        of_consumer && !check(&(card.schema)(), config).is_empty()
    }

    /// Separates what a consumer proves itself with from what acts on its requests, or is no plugin at all.
    fn split_auth(&self, plugins: Option<&PluginMap>) -> (PluginMap, PluginMap) {
        let (mut auth, mut other) = (PluginMap::new(), PluginMap::new());
        for (name, config) in plugins.into_iter().flatten() {
            let is_auth = self.bench.card(name).is_ok_and(|card| card.credential.is_some());
            let kind = if is_auth { &mut auth } else { &mut other };
            kind.insert(name.clone(), config.clone());
        }
        (auth, other)
    }

    /// Reads credentials that nobody has yet. One that refers to a value that is not known opens nothing: the
    /// reference itself is no secret.
    fn read_credentials(&mut self, object: &str, auth: PluginMap) -> Result<Vec<Proof>, Vec<ConfigError>> {
        let (mut read, mut faults) = (Vec::new(), Vec::new());
        for (name, config) in auth {
            let under = format!("plugins.{name}");
            let Ok((card, Some(kind))) = self.bench.card(&name).map(|card| (card, card.credential)) else {
                continue;
            };
            let parts = if has_reference(&config) {
                match self.fill(&config, kind.schema) {
                    Ok(filled) => (kind.read)(filled.value.clone())
                        .map_err(|faults| faults.into_iter().map(|fault| filled.discreet(fault)).collect()),
                    Err(more) => {
                        let (awaited, wrong): (Vec<_>, Vec<_>) =
                            more.into_iter().partition(|fault| fault.may_pass);
                        faults.extend(wrong.into_iter().map(|fault| fault.under(&under)));
                        self.lacks
                            .extend(awaited.into_iter().map(|fault| opens_nothing(fault, &under, object)));
                        continue;
                    }
                }
            } else {
                (kind.read)(config)
            };
            match parts {
                Err(more) => faults.extend(more.into_iter().map(|fault| fault.under(&under))),
                Ok(parts) => match self.parts.index.find(card.name, &parts.0) {
                    Some(owner) => {
                        let (owner, credential) =
                            (owner.labels.name().to_owned(), owner.labels.credential_id().to_owned());
                        let problem = format!("duplicate key of plugin {name} found with consumer: {owner}");
                        // It may be given up some day.
                        match &*credential {
                            "" => self.need(Kind::Consumer, &owner),
                            id => self.need(Kind::Credential, &format!("{owner}/credentials/{id}")),
                        }
                        faults.push(ConfigError::at(under, problem));
                    }
                    None => read.push((card.name, parts)),
                },
            }
        }
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    }

    fn insert_credentials(&mut self, proofs: Vec<Proof>, at: u32, labels: &ConsumerLabels) {
        for (plugin, parts) in proofs {
            self.made.proofs.push((plugin, parts.0.clone()));
            // Found to be new when they were read; the index was not touched in between.
            let _ = self.parts.index.insert(plugin, parts, at, labels.clone());
        }
    }

    pub(super) fn add_credential(
        &mut self,
        name: &str,
        id: &str,
        plugins: Option<&PluginMap>,
    ) -> Result<(), Vec<ConfigError>> {
        let (username, credential) = id.split_once("/credentials/").unwrap_or((id, ""));
        self.need(Kind::Consumer, username);
        let Some(at) = self.parts.consumer_ids.get(username).copied() else {
            return Err(vec![ConfigError::new(format!("consumer not found: {username}"))]);
        };
        let (auth, other) = self.split_auth(plugins);
        let misplaced = |name: &String| match self.bench.card(name) {
            Ok(_) => ConfigError::at(format!("plugins.{name}"), "expected an authentication plugin"),
            Err(unknown) => unknown,
        };
        let misplaced: Vec<_> = other.keys().map(misplaced).collect();
        let misplaced = if misplaced.is_empty() { Ok(()) } else { Err(misplaced) };
        let of = &self.parts.consumers[at].labels;
        let labels = ConsumerLabels::new(of.name(), of.group_id(), credential, of.custom_id());
        let ((), proofs) = both(misplaced, self.read_credentials(name, auth))?;
        self.insert_credentials(proofs, at, &labels);
        Ok(())
    }
}

/// What becomes of a credential while a value it refers to is not known.
fn opens_nothing(fault: ConfigError, under: &str, object: &str) -> ConfigError {
    let problem = format!("{}; until then nobody gets in by this one", fault.problem);
    ConfigError { problem, ..fault }.under(under).in_object(object)
}

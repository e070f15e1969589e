//! From what a client shows to who it is: credentials of all consumers, by authentication plugin.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use crate::base::byte_map::ByteMap;
use crate::exchange::{ConsumerLabels, Exchange};
use crate::model::ConfigError;

/// What a consumer proves itself with, for one authentication plugin.
pub trait Credential: DeserializeOwned + JsonSchema + 'static {
    /// What the client shows to be found: a key, a user name.
    fn lookup(&self) -> &[u8];
    /// What must match besides; empty when being found is enough.
    fn secret(&self) -> &[u8];
}

/// A credential type, without its type.
#[derive(Clone, Copy)]
pub struct CredentialKind {
    /// The JSON schema of what a consumer writes.
    pub schema: fn() -> Value,
    /// Checks it and takes out lookup and secret.
    pub read: fn(Value) -> Result<(Vec<u8>, Vec<u8>), Vec<ConfigError>>,
}

impl CredentialKind {
    /// The kind of a type.
    pub const fn of<C: Credential>() -> Self {
        Self {
            schema: || schemars::schema_for!(C).to_value(),
            read: |value| {
                let credential: C = crate::model::schema::parse(value)?;
                Ok((credential.lookup().to_vec(), credential.secret().to_vec()))
            },
        }
    }
}

/// A credential's owner.
#[derive(Debug)]
pub struct Known {
    /// Place of the consumer in the snapshot.
    pub consumer: u32,
    /// The consumer's labels, with the credential's id.
    pub labels: ConsumerLabels,
    secret: Box<[u8]>,
}

impl Known {
    /// Whether `shown` is the secret; takes as long whatever it is.
    pub fn secret_is(&self, shown: &[u8]) -> bool {
        self.secret.ct_eq(shown).into()
    }
}

/// All credentials. A copy shares what has not changed with its original.
#[derive(Clone, Debug, Default)]
pub struct ConsumerIndex {
    /// Of the few plugins that have any.
    by_plugin: Vec<(&'static str, ByteMap<Arc<Known>>)>,
    by_name: ByteMap<Arc<Known>>,
}

impl ConsumerIndex {
    /// Notes a consumer by name, for `anonymous_consumer`.
    pub fn insert_consumer(&mut self, consumer: u32, labels: ConsumerLabels) {
        let known = Known { consumer, labels, secret: Box::default() };
        let known = Arc::new(known);
        self.by_name.insert(known.labels.name().as_bytes(), Arc::clone(&known));
    }

    /// Forgets a consumer's name.
    pub fn remove_consumer(&mut self, name: &str) {
        self.by_name.remove(name.as_bytes());
    }

    /// Notes a credential.
    ///
    /// # Errors
    /// Gives back the name of the consumer who has the same one already.
    pub fn insert(
        &mut self,
        plugin: &'static str,
        (lookup, secret): (Vec<u8>, Vec<u8>),
        consumer: u32,
        labels: ConsumerLabels,
    ) -> Result<(), String> {
        let at = self.by_plugin.iter().position(|(name, _)| *name == plugin).unwrap_or_else(|| {
            self.by_plugin.push((plugin, ByteMap::default()));
            self.by_plugin.len() - 1
        });
        let (_, credentials) = &mut self.by_plugin[at];
        if let Some(earlier) = credentials.get(&lookup) {
            return Err(earlier.labels.name().to_owned());
        }
        let known = Known { consumer, labels, secret: secret.into() };
        credentials.insert(&lookup, Arc::new(known));
        Ok(())
    }

    /// Forgets a credential.
    pub fn remove(&mut self, plugin: &str, lookup: &[u8]) {
        if let Some((_, credentials)) = self.by_plugin.iter_mut().find(|(name, _)| *name == plugin) {
            credentials.remove(lookup);
        }
    }

    /// The owner of what the client shows to `plugin`. The map's hash is seeded per process; comparing takes as long
    /// whatever the key is.
    pub fn find(&self, plugin: &str, shown: &[u8]) -> Option<&Known> {
        let (_, credentials) = self.by_plugin.iter().find(|(name, _)| *name == plugin)?;
        credentials.get_secret(shown).map(|known| &**known)
    }

    /// The consumer of that name.
    pub fn named(&self, name: &str) -> Option<&Known> {
        self.by_name.get(name.as_bytes()).map(|known| &**known)
    }
}

impl Exchange {
    /// Notes who the request comes from.
    pub fn attach(&mut self, known: &Known) {
        self.consumer.copy_from(&known.labels);
        self.consumer_at = Some(known.consumer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str) -> ConsumerLabels {
        ConsumerLabels::new(name, "", "", "")
    }

    #[test]
    fn a_credential_finds_its_owner_and_a_prefix_nobody() {
        let mut index = ConsumerIndex::default();
        index.insert("key-auth", (b"secret-one".to_vec(), vec![]), 3, labels("jack")).expect("new");
        assert_eq!(index.find("key-auth", b"secret-one").map(|known| known.consumer), Some(3));
        for wrong in ["secret-on", "secret-one ", "SECRET-ONE", ""] {
            assert!(index.find("key-auth", wrong.as_bytes()).is_none(), "{wrong:?}");
        }
        assert!(index.find("basic-auth", b"secret-one").is_none());
    }

    #[test]
    fn the_same_credential_twice_is_refused_with_its_owner() {
        let mut index = ConsumerIndex::default();
        index.insert("key-auth", (b"k".to_vec(), vec![]), 0, labels("jack")).expect("new");
        assert_eq!(
            index.insert("key-auth", (b"k".to_vec(), vec![]), 1, labels("jill")),
            Err("jack".to_owned())
        );
    }
}

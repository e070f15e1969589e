//! What references in configuration stand for. Asked on the control thread only, remembered between snapshots.
//!
//! The environment is asked at once, and so is a file that is not known yet. A store of secrets is asked by the control plane, which brings what it has
//! [learnt](Learnt): until then a reference has no value, and a value stays while the store fails.

use std::sync::Arc;

use serde_json::Value;

use super::compile::Stapled;
use crate::base::hash::Map;
use crate::model::reference::{Reference, of_env, usable};
use crate::model::{ConfigError, SecretStore};

/// What the name begins with by which it is learnt what was issued for an ssl; its id follows. No reference begins so.
pub(super) const ISSUED: &str = "acme:";

/// The same for what an authority says of a certificate; its fingerprint follows.
pub(super) const STAPLE: &str = "staple:";

/// How the environment is asked; the control plane brings it.
pub type ReadEnv = Box<dyn Fn(&str) -> Option<String> + Send>;

/// How a file is asked by its path; the control plane brings it, and what it finds there later.
pub type ReadFile = Box<dyn Fn(&str) -> Result<String, Unread> + Send>;

/// Why a file says nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not there.
    Missing(String),
    /// It is there, and not what it should be.
    Failed(String),
    /// It may never be read.
    Outside(String),
}

/// A reference that a store is to be asked about.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub reference: String,
    pub store: Arc<SecretStore>,
}

/// What came of asking a store.
pub enum Learnt {
    Value(Value),
    /// It has no such value, or has none any more.
    Absent(String),
    /// It did not say.
    Failed(String),
}

impl std::fmt::Debug for Learnt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(***)"),
            Self::Absent(why) => f.debug_tuple("Absent").field(why).finish(),
            Self::Failed(why) => f.debug_tuple("Failed").field(why).finish(),
        }
    }
}

/// What is wrong with a value that has nothing in it.
const EMPTY: &str = "its value is empty";

/// See the module. `Debug` tells no values.
pub(super) struct References {
    env: ReadEnv,
    files: ReadFile,
    known: Map<String, Value>,
    /// Why there is no value; never for one that is known.
    troubles: Map<String, String>,
    /// References to stores, since they were last taken.
    asked: Vec<String>,
    /// Certificates that are shown, by the names of what is said of them.
    stapled: Map<String, Stapled>,
}

impl References {
    /// Without an environment, and without files.
    pub(super) fn new() -> Self {
        Self {
            env: Box::new(|_| None),
            files: Box::new(|_| Err(Unread::Missing("no file is read here".to_owned()))),
            known: Map::default(),
            troubles: Map::default(),
            asked: Vec::new(),
            stapled: Map::default(),
        }
    }

    pub(super) fn read_env(&mut self, env: ReadEnv) {
        self.env = env;
    }

    pub(super) fn read_files(&mut self, files: ReadFile) {
        self.files = files;
    }

    /// What a reference stands for; `store` has the stores of secrets that are in force.
    pub(super) fn value(
        &mut self,
        text: &str,
        has_store: impl Fn(&str) -> bool,
    ) -> Result<Value, ConfigError> {
        let store = match Reference::of(text).map_err(ConfigError::new)? {
            Reference::Env { name, inner } => {
                return of_env(name, inner, &*self.env)
                    .map_err(|why| ConfigError::new(format!("{text}: {why}")).that_may_pass());
            }
            Reference::File { path } => return self.of_file(text, path),
            Reference::Secret { store, .. } => store,
        };
        self.asked.push(text.to_owned());
        let manager = store.split('/').next().unwrap_or_default();
        let why = if manager != "vault" {
            format!("secrets of the manager {manager} are not looked up yet")
        } else if !has_store(store) {
            format!("there is no secrets/{store}")
        } else if let Some(value) = self.known.get(text) {
            return Ok(value.clone());
        } else {
            self.troubles
                .get(text)
                .cloned()
                .unwrap_or_else(|| format!("secrets/{store} has not answered yet"))
        };
        Err(ConfigError::new(format!("{text}: {why}")).that_may_pass())
    }

    /// What a file says; of one that is known, what it said when it was last looked at.
    fn of_file(&mut self, text: &str, path: &str) -> Result<Value, ConfigError> {
        self.asked.push(text.to_owned());
        if let Some(value) = self.known.get(text) {
            return Ok(value.clone());
        }
        let why = match (self.files)(path).map(|content| usable(Value::String(content))) {
            Ok(Some(value)) => {
                self.know(text, value.clone());
                return Ok(value);
            }
            Ok(None) => EMPTY.to_owned(),
            Err(Unread::Missing(why) | Unread::Failed(why)) => why,
            Err(Unread::Outside(why)) => return Err(ConfigError::new(format!("{text}: {why}"))),
        };
        let fault = ConfigError::new(format!("{text}: {why}")).that_may_pass();
        self.troubles.insert(text.to_owned(), why);
        Err(fault)
    }

    /// The certificate with its key that an authority has issued for an ssl.
    pub(super) fn issued(&mut self, ssl: &str) -> Result<Value, ConfigError> {
        let key = format!("{ISSUED}{ssl}");
        self.asked.push(key.clone());
        let why = || self.troubles.get(&key).cloned().unwrap_or_else(|| "it is awaited".to_owned());
        self.known.get(&key).cloned().ok_or_else(|| ConfigError::at("acme", why()).that_may_pass())
    }

    /// What an authority says of a certificate that is shown, in base64.
    pub(super) fn staple(&mut self, stapled: Stapled) -> Option<String> {
        let key = format!("{STAPLE}{}", stapled.fingerprint);
        self.asked.push(key.clone());
        let answer = self.known.get(&key).and_then(Value::as_str).map(str::to_owned);
        self.stapled.insert(key, stapled);
        answer
    }

    /// The certificates that are shown, as far as what is said of them matters.
    pub(super) fn stapled(&self) -> impl Iterator<Item = &Stapled> {
        self.stapled.values()
    }

    /// The references to stores that were asked for since this was last called.
    pub(super) fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }

    /// Takes in what stores have said; the references of which something else is to be told now.
    pub(super) fn learn(&mut self, answers: Vec<(String, Learnt)>) -> Vec<String> {
        let mut changed = Vec::new();
        for (reference, learnt) in answers {
            let is_news = match learnt {
                Learnt::Value(value) => match usable(value) {
                    Some(value) => self.know(&reference, value),
                    None => self.miss(&reference, EMPTY.to_owned()),
                },
                Learnt::Absent(why) => self.miss(&reference, why),
                Learnt::Failed(_) if self.known.contains_key(&reference) => false,
                Learnt::Failed(why) => self.miss(&reference, why),
            };
            if is_news {
                changed.push(reference);
            }
        }
        changed
    }

    fn know(&mut self, reference: &str, value: Value) -> bool {
        self.troubles.remove(reference);
        let is_news = self.known.get(reference) != Some(&value);
        if is_news {
            self.known.insert(reference.to_owned(), value);
        }
        is_news
    }

    fn miss(&mut self, reference: &str, why: String) -> bool {
        let was_known = self.known.remove(reference).is_some();
        let is_news = self.troubles.get(reference) != Some(&why);
        if is_news {
            self.troubles.insert(reference.to_owned(), why);
        }
        was_known || is_news
    }

    /// Forgets what nobody refers to.
    pub(super) fn forget_unused(&mut self, is_used: impl Fn(&str) -> bool) {
        self.known.retain(|reference, _| is_used(reference));
        self.troubles.retain(|reference, _| is_used(reference));
        self.stapled.retain(|reference, _| is_used(reference));
    }
}

impl std::fmt::Debug for References {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("References").field("known", &self.known.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const KEY: &str = "$secret://vault/1/jack/key";

    fn ask(references: &mut References) -> Result<Value, String> {
        references.value(KEY, |store| store == "vault/1").map_err(|fault| fault.problem)
    }

    #[test]
    fn a_value_stays_while_its_store_fails_and_goes_when_the_store_has_none() {
        let mut references = References::new();
        assert_eq!(ask(&mut references), Err(format!("{KEY}: secrets/vault/1 has not answered yet")));
        let learn =
            |references: &mut References, learnt| references.learn(vec![(KEY.to_owned(), learnt)]).len();
        assert_eq!(learn(&mut references, Learnt::Failed("no connection".to_owned())), 1);
        assert_eq!(ask(&mut references), Err(format!("{KEY}: no connection")));
        assert_eq!(learn(&mut references, Learnt::Failed("no connection".to_owned())), 0, "no news");
        assert_eq!(learn(&mut references, Learnt::Value(json!("v"))), 1);
        assert_eq!(learn(&mut references, Learnt::Value(json!("v"))), 0, "no news");
        assert_eq!(learn(&mut references, Learnt::Failed("no connection".to_owned())), 0);
        assert_eq!(ask(&mut references), Ok(json!("v")));
        assert_eq!(learn(&mut references, Learnt::Absent("has none".to_owned())), 1);
        assert_eq!(ask(&mut references), Err(format!("{KEY}: has none")));
        assert_eq!(learn(&mut references, Learnt::Value(json!(""))), 1);
        assert_eq!(ask(&mut references), Err(format!("{KEY}: its value is empty")));
    }

    #[test]
    fn a_file_is_read_when_it_is_not_known_and_outside_of_its_folders_never_may_be() {
        const FILE: &str = "$file:///run/secrets/key";
        let mut references = References::new();
        references.read_files(Box::new(|path| match path {
            "/run/secrets/key" => Ok("first".to_owned()),
            "/run/secrets/empty" => Ok(String::new()),
            "/run/secrets/none" => Err(Unread::Missing("not there".to_owned())),
            _ => Err(Unread::Outside("not there either".to_owned())),
        }));
        let mut ask = |text: &str| references.value(text, |_| false).map_err(|fault| fault.may_pass);
        assert_eq!(ask(FILE), Ok(json!("first")));
        assert_eq!(ask("$file:///run/secrets/empty"), Err(true));
        assert_eq!(ask("$file:///run/secrets/none"), Err(true));
        assert_eq!(ask("$file:///etc/shadow"), Err(false));
        let learnt = |value: &str| vec![(FILE.to_owned(), Learnt::Value(json!(value)))];
        assert!(references.learn(learnt("first")).is_empty(), "no news");
        assert_eq!(references.learn(learnt("second")), [FILE]);
        assert_eq!(references.value(FILE, |_| false).ok(), Some(json!("second")));
        assert_eq!(references.take_asked().len(), 5);
    }

    #[test]
    fn only_stores_that_are_there_and_can_be_asked_have_values() {
        let mut references = References::new();
        let mut problem = |text: &str| references.value(text, |_| false).map_err(|fault| fault.problem);
        assert_eq!(problem(KEY), Err(format!("{KEY}: there is no secrets/vault/1")));
        let aws = "$secret://aws/1/jack/key";
        assert_eq!(problem(aws), Err(format!("{aws}: secrets of the manager aws are not looked up yet")));
        assert_eq!(references.take_asked(), [KEY, aws]);
        assert!(!format!("{references:?}").contains("jack"));
    }
}

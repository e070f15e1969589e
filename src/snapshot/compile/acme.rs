//! Ssls whose certificates an authority issues. What was issued is learnt as the value of a reference is: until then the ssl
//! is in force and shown to nobody, and what was issued before is shown for as long as nothing newer comes.

use std::sync::Arc;

use serde_json::Value;

use super::work::Work;
use super::{Compiler, Outcome};
use crate::model::ssl::{Acme, Ssl};
use crate::model::{ConfigError, Kind, ObjectId, Raw, typed};
use crate::snapshot::challenges::Challenges;
use crate::snapshot::references::{ISSUED, Learnt};
use crate::snapshot::tls::{Pair, check_pair};

/// A certificate that is wished for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The id of its ssl.
    pub ssl: String,
    /// The name of the authority.
    pub issuer: String,
    /// In order, in lower case.
    pub names: Vec<String>,
}

/// What became of a wish.
#[derive(Clone, Debug)]
pub enum Issued {
    Certificate {
        cert: String,
        key: String,
        /// The names it is for.
        names: Vec<String>,
    },
    /// None yet, and why.
    Awaited(String),
}

impl Compiler {
    /// The certificates that ssls in force wish for.
    pub fn wishes(&self) -> Vec<Wish> {
        let ids = self.state.references().filter_map(|name| name.strip_prefix(ISSUED));
        ids.filter_map(|id| self.wish_of(id)).collect()
    }

    fn wish_of(&self, id: &str) -> Option<Wish> {
        let text = self.in_force_of(Kind::Ssl, id)?;
        let value = serde_json::from_str(&text).ok()?;
        let raw = Raw { kind: Kind::Ssl, id: ObjectId::of_checked(id), value };
        let Ok(crate::model::Object::Ssl(ssl)) = typed(&raw) else { return None };
        let issuer = ssl.acme.as_ref()?.issuer.as_str().to_owned();
        let mut names: Vec<String> = ssl.names().map(|name| name.as_str().to_ascii_lowercase()).collect();
        names.sort_unstable();
        names.dedup();
        (ssl.status.get() == 1).then(|| Wish { ssl: id.to_owned(), issuer, names })
    }

    /// Takes in what authorities have issued. What differs for it, if anything does, is compiled again.
    pub fn learn_issued(&mut self, issued: Vec<(String, Issued)>) -> Option<Outcome> {
        let answers = issued.into_iter().map(|(ssl, issued)| {
            let learnt = match issued {
                Issued::Certificate { cert, key, names } => {
                    Learnt::Value(serde_json::json!({"cert": cert, "key": key, "names": names}))
                }
                Issued::Awaited(why) => Learnt::Failed(why),
            };
            (format!("{ISSUED}{ssl}"), learnt)
        });
        self.learn_secrets(answers.collect())
    }

    /// Adds that a name is proven over TLS by a certificate with its key.
    ///
    /// # Errors
    /// When TLS can not work with them.
    pub fn prove_by(&self, to: &mut Challenges, name: &str, cert: &str, key: &str) -> Result<(), String> {
        to.put_rules(name, self.forge.rules_of_proof(cert, key)?);
        Ok(())
    }

    /// Has every core prove this to authorities from here on.
    pub fn prove(&mut self, challenges: Challenges) -> Outcome {
        self.challenges = Arc::new(challenges);
        let attempt = super::Attempt::of(self.state.clone(), self.plugins.clone(), None);
        self.adopt(attempt)
    }
}

impl Work<'_> {
    /// The certificate that was issued for an ssl; none where it is awaited, which is told.
    pub(super) fn issued(
        &mut self,
        name: &str,
        id: &str,
        (ssl, acme): (&Ssl, &Acme),
        faults: &mut Vec<ConfigError>,
    ) -> Vec<Pair> {
        if let Some(problem) = self.forge.why_not_issued(ssl, acme) {
            self.lacks.push(ConfigError::at("acme", problem).in_object(name));
        }
        match self.references.issued(id) {
            Ok(value) => {
                let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
                let (cert, key) = (text("cert"), text("key"));
                if let Err(more) = check_pair(("acme", &cert), ("acme", &key)) {
                    faults.extend(more);
                    return Vec::new();
                }
                vec![(cert, key)]
            }
            Err(fault) => {
                self.lacks.push(fault.in_object(name));
                Vec::new()
            }
        }
    }

    /// The names that the certificate of an ssl is shown for. One that was issued is shown for no other names than its own:
    /// those that were added since are awaited.
    pub(super) fn names_of(&mut self, name: &str, id: &str, ssl: &Ssl) -> Arc<[String]> {
        let mut names: Vec<String> = ssl.names().map(|name| name.as_str().to_owned()).collect();
        if ssl.acme.is_none() {
            return names.into();
        }
        let issued = self.references.issued(id).unwrap_or_default();
        let has = |name: &String| {
            let own = issued["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
            own.into_iter().any(|own| own.eq_ignore_ascii_case(name))
        };
        let lacking: Vec<String> = names.extract_if(.., |name| !has(name)).collect();
        if !lacking.is_empty() {
            let problem = format!("a certificate for {} is awaited", lacking.join(", "));
            self.lacks.push(ConfigError::at("acme", problem).that_may_pass().in_object(name));
        }
        names.into()
    }
}

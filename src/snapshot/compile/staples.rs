//! What authorities say of certificates that are shown, learnt as the values of references are.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::work::Work;
use super::{Compiler, Outcome};
use crate::base::pem;
use crate::snapshot::references::{Learnt, STAPLE};
use crate::snapshot::tls::Pair;

/// A certificate that is shown, which its issuer may be asked about.
#[derive(Clone, Debug)]
pub struct Stapled {
    pub fingerprint: Arc<str>,
    /// In DER.
    pub certificate: Vec<u8>,
    /// Where the chain has it.
    pub issuer: Option<Vec<u8>>,
}

impl Compiler {
    /// The certificates that are shown to clients, where answers about them are to be sent along.
    pub fn stapled(&self) -> Vec<Stapled> {
        self.references.stapled().cloned().collect()
    }

    /// Takes in what authorities say of certificates, by fingerprint. What differs for it, if anything does, is compiled again.
    pub fn learn_staples(&mut self, learnt: Vec<(Arc<str>, Option<Vec<u8>>)>) -> Option<Outcome> {
        let answers = learnt.into_iter().map(|(fingerprint, answer)| {
            let learnt = match answer {
                Some(answer) => Learnt::Value(STANDARD.encode(answer).into()),
                None => Learnt::Absent("no answer counts any more".to_owned()),
            };
            (format!("{STAPLE}{fingerprint}"), learnt)
        });
        self.learn_secrets(answers.collect())
    }
}

impl Work<'_> {
    /// The answers that are sent along with certificates, in their order.
    pub(super) fn staples(&mut self, pairs: &[Pair]) -> Vec<Option<Vec<u8>>> {
        if !self.forge.staples() {
            return vec![None; pairs.len()];
        }
        pairs.iter().map(|(cert, _)| self.staple(cert)).collect()
    }

    fn staple(&mut self, cert: &str) -> Option<Vec<u8>> {
        let mut blocks = pem::read(cert).ok()?.into_iter();
        let certificate = blocks.next()?.der;
        let issuer = blocks.next().map(|block| block.der);
        let hash = digest(&SHA256, &certificate);
        let fingerprint: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let stapled = Stapled { fingerprint: fingerprint.into(), certificate, issuer };
        STANDARD.decode(self.references.staple(stapled)?).ok()
    }
}

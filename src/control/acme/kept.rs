//! What must not be lost: accounts with authorities, and certificates with their keys. One file of the state's folder, its
//! secrets sealed as those of objects are; or, where the folder can not be used, memory alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::log;
use crate::control::seal::Seal;
use crate::control::whole_file;
use crate::model::Settings;

/// The name of the file.
const FILE: &str = "acme.json";
/// What secrets are sealed for.
pub(super) const NAME: &str = "acme";

/// See the module.
pub(super) struct Kept {
    path: PathBuf,
    pub(super) seal: Arc<Seal>,
    pub(super) state: State,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// By name of the authority.
    pub(super) accounts: BTreeMap<String, Account>,
    /// By id of the ssl.
    pub(super) certificates: BTreeMap<String, Certificate>,
}

/// An account with an authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct Account {
    pub(super) directory: String,
    /// With the key, as text.
    pub(super) credentials: String,
}

/// What was issued for an ssl.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::control) struct Certificate {
    pub(super) issuer: String,
    /// In order, in lower case.
    pub(super) names: Vec<String>,
    pub(super) cert: String,
    pub(super) key: String,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("names", &self.names).finish_non_exhaustive()
    }
}

impl Kept {
    /// Reads what is there.
    ///
    /// # Errors
    /// When it can not be read, or a secret of it not be opened.
    pub(super) fn open(settings: &Settings) -> io::Result<Self> {
        let path = settings.state_dir.join(FILE);
        let mut seal = Seal::open(settings)?;
        let state = read(&path, &seal).map_err(|error| {
            let advice = "bring it or its key back, or remove the file to have all certificates issued anew";
            io::Error::new(error.kind(), format!("{}: {error}; {advice}", path.display()))
        })?;
        if let Err(error) = seal.keep_key() {
            log::warn(format!("{error}; certificates that are issued are lost with the next start"));
        }
        Ok(Self { path, seal: Arc::new(seal), state })
    }

    /// A secret as it is kept.
    pub(super) fn sealed(&self, text: &str) -> String {
        self.seal.close_text(NAME, text)
    }

    /// Writes it, or tells why what is new would be lost with the next start.
    pub(super) fn save(&self) {
        let mut state = self.state.clone();
        for account in state.accounts.values_mut() {
            account.credentials = self.sealed(&account.credentials);
        }
        for certificate in state.certificates.values_mut() {
            certificate.key = self.sealed(&certificate.key);
        }
        let written = serde_json::to_vec(&state).map_err(io::Error::other);
        if let Err(error) = written.and_then(|text| whole_file::replace(&self.path, &text)) {
            let path = self.path.display();
            log::error(format!("{path}: {error}; what is issued now is lost with the next start"));
        }
    }
}

fn read(path: &Path, seal: &Seal) -> io::Result<State> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(error) => return Err(error),
    };
    let value: Value = serde_json::from_slice(&text)?;
    let value = seal.uncover(NAME, value).map_err(io::Error::other)?;
    serde_json::from_value(value).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_sealed_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings { state_dir: folder.path().join("state"), ..Settings::default() };
        let mut kept = Kept::open(&settings).expect("nothing is there yet");
        let certificate = Certificate {
            issuer: "le".to_owned(),
            names: vec!["a.test".to_owned()],
            cert: "the certificate".to_owned(),
            key: "the key".to_owned(),
        };
        let account = Account { directory: "https://a/".to_owned(), credentials: "the account".to_owned() };
        kept.state.accounts.insert("le".to_owned(), account);
        kept.state.certificates.insert("site".to_owned(), certificate.clone());
        kept.save();
        let text = fs::read_to_string(&kept.path).expect("written");
        assert!(
            text.contains("the certificate") && !text.contains("the key") && !text.contains("the account")
        );
        let again = Kept::open(&settings).expect("readable").state;
        assert_eq!(again.certificates["site"], certificate);
        assert_eq!(again.accounts["le"].credentials, "the account");
        fs::remove_file(settings.state_dir.join("data.key")).expect("the key was there");
        let lost = Kept::open(&settings).map(drop).expect_err("nothing opens it");
        assert!(lost.to_string().contains("issued anew"), "{lost}");
        fs::write(&kept.path, "{").expect("written");
        assert!(Kept::open(&settings).is_err());
    }
}

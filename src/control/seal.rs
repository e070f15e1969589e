//! Secrets of objects, encrypted where they are kept: in the store, and in what is kept of an etcd.
//!
//! A secret is AES-256-GCM with a nonce of chance, bound to the object it is in, and written as text behind
//! [`MARK`]. What was sealed with another key, or changed, does not open, and then nothing of the file is served. The
//! key is derived from the first of `data_encryption.keyring`, and every key of the ring opens; without a ring it
//! is in a file of the state's folder, made at the first start. Values that are not sealed are taken as they are.
//!
//! APISIX encrypts in etcd with AES-128-CBC, key and initial vector being the same: that is read, never written, as
//! nobody notices when it was changed or when the key is another.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::log;
use super::mask::each_secret;
use crate::model::settings::DataEncryption;
use crate::model::{Kind, Settings};

/// What sealed text begins with, and no other text in an object may.
const MARK: &str = "ringway-sealed:1:";
/// Where the key is kept that was made here.
const FILE: &str = "data.key";
const KEY_BYTES: usize = 32;
/// Of a key of APISIX's.
const RING_KEY_BYTES: usize = 16;

/// Seals and opens. The default does neither.
#[derive(Default)]
pub struct Seal {
    /// The first seals, all open.
    keys: Vec<LessSafeKey>,
    /// For what APISIX has encrypted.
    ring: Vec<[u8; RING_KEY_BYTES]>,
    is_on: bool,
    /// The first key is one of the settings, which other gateways may have as well.
    is_shared: bool,
    /// A key of our own that is not in its file yet, and that file.
    fresh: Option<([u8; KEY_BYTES], PathBuf)>,
    /// Where keys come from, in words.
    origin: String,
}

impl Seal {
    /// By the settings. A key that is to be made is not written before it is needed.
    ///
    /// # Errors
    /// When the file of the key can not be read, or does not hold one.
    pub fn open(settings: &Settings) -> io::Result<Self> {
        let DataEncryption { enable, keyring } = &settings.data_encryption;
        let path = settings.state_dir.join(FILE);
        let mut seal = Self { is_on: *enable, is_shared: !keyring.is_empty(), ..Self::default() };
        for key in keyring.iter() {
            seal.keys.push(derived(key.expose().as_bytes())?);
            seal.ring.extend(<[u8; RING_KEY_BYTES]>::try_from(key.expose().as_bytes()));
        }
        let kept = read_key(&path)?;
        let file = path.display();
        seal.origin = match (keyring.is_empty(), kept.is_some()) {
            (true, true) => format!("the key in {file}"),
            (true, false) => {
                format!("data_encryption.keyring, which is not given, or {file}, which is not there")
            }
            (false, true) => format!("data_encryption.keyring and the key in {file}"),
            (false, false) => "data_encryption.keyring".to_owned(),
        };
        match kept {
            Some(key) => seal.keys.push(own(&key)?),
            None if keyring.is_empty() && *enable => {
                let mut key = [0_u8; KEY_BYTES];
                getrandom::fill(&mut key).map_err(io::Error::other)?;
                seal.keys.push(own(&key)?);
                seal.fresh = Some((key, path));
            }
            None => {}
        }
        Ok(seal)
    }

    /// Writes a key that was made, once what is kept has been opened: a key that was lost shall not be replaced.
    ///
    /// # Errors
    /// When it can not be written.
    pub(super) fn keep_key(&mut self) -> io::Result<()> {
        let Some((key, path)) = &self.fresh else { return Ok(()) };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        write_key(path, key).map_err(named)?;
        log::info(format!(
            "the key that secrets are kept under is in {}: what is kept is lost without it, so keep a copy apart",
            path.display()
        ));
        self.fresh = None;
        Ok(())
    }

    /// An object as it is kept.
    pub(super) fn close(&self, name: &str, kind: Kind, mut value: Value) -> Value {
        if let Some(key) = self.keys.first().filter(|_| self.is_on) {
            each_secret(kind, &mut value, &mut |secret| {
                if let Value::String(text) = secret
                    && !text.starts_with(MARK)
                    && let Some(sealed) = sealed(key, name, text)
                {
                    *text = sealed;
                }
            });
        }
        value
    }

    /// Whether others that have the same settings open what is sealed here.
    pub(super) const fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// A text that is secret as a whole, as it is kept for somebody of that name.
    pub(super) fn close_text(&self, name: &str, text: &str) -> String {
        let key = self.keys.first().filter(|_| self.is_on && !text.starts_with(MARK));
        key.and_then(|key| sealed(key, name, text)).unwrap_or_else(|| text.to_owned())
    }

    /// An object as it was before it was kept.
    ///
    /// # Errors
    /// Where something does not open.
    pub(super) fn uncover(&self, name: &str, mut value: Value) -> Result<Value, String> {
        let mut place = String::new();
        self.uncover_inside(name, &mut place, &mut value)?;
        Ok(value)
    }

    fn uncover_inside(&self, name: &str, place: &mut String, value: &mut Value) -> Result<(), String> {
        let length = place.len();
        match value {
            Value::String(text) => {
                if let Some(sealed) = text.strip_prefix(MARK) {
                    let opened = self.keys.iter().find_map(|key| unsealed(key, name, sealed));
                    *text = opened.ok_or_else(|| {
                        let from = &self.origin;
                        format!(
                            "{name}: {place}: expected a secret sealed with {from}, found one that none opens"
                        )
                    })?;
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    place.push_str(&format!("[{index}]"));
                    self.uncover_inside(name, place, item)?;
                    place.truncate(length);
                }
            }
            Value::Object(fields) => {
                for (field, value) in fields {
                    place.push_str(if length == 0 { "" } else { "." });
                    place.push_str(field);
                    self.uncover_inside(name, place, value)?;
                    place.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    /// An object of an etcd as it was before APISIX encrypted its secrets; what does not decrypt is taken as it is.
    pub(super) fn decrypt(&self, kind: Kind, mut value: Value) -> Value {
        if !self.ring.is_empty() {
            each_secret(kind, &mut value, &mut |secret| {
                if let Value::String(text) = secret
                    && let Some(plain) = self.ring.iter().find_map(|key| decrypted(key, text))
                {
                    *text = plain;
                }
            });
        }
        value
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("is_on", &self.is_on).finish_non_exhaustive()
    }
}

/// Whether any text of an object would be taken for sealed.
pub(super) fn looks_sealed(value: &Value) -> bool {
    match value {
        Value::String(text) => text.starts_with(MARK),
        Value::Array(items) => items.iter().any(looks_sealed),
        Value::Object(fields) => fields.values().any(looks_sealed),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn own(key: &[u8; KEY_BYTES]) -> io::Result<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(io::Error::other)
}

/// A key of the ring is short and may be used elsewhere, so it is not the key itself.
fn derived(key: &[u8]) -> io::Result<LessSafeKey> {
    let extracted = Salt::new(HKDF_SHA256, b"ringway data_encryption").extract(key);
    let expanded = extracted.expand(&[b"store"], &AES_256_GCM).map_err(io::Error::other)?;
    Ok(LessSafeKey::new(UnboundKey::from(expanded)))
}

/// Nothing where the system has no chance to give, which it always has: then the text stays.
fn sealed(key: &LessSafeKey, name: &str, text: &str) -> Option<String> {
    let mut nonce = [0_u8; NONCE_LEN];
    getrandom::fill(&mut nonce).ok()?;
    let mut bytes = text.as_bytes().to_vec();
    let bound = Aad::from(name.as_bytes());
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut bytes).ok()?;
    Some(format!("{MARK}{}", STANDARD.encode([nonce.as_slice(), &bytes].concat())))
}

fn unsealed(key: &LessSafeKey, name: &str, text: &str) -> Option<String> {
    let mut bytes = STANDARD.decode(text).ok()?;
    let (nonce, rest) = bytes.split_first_chunk_mut::<NONCE_LEN>()?;
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let plain = key.open_in_place(nonce, Aad::from(name.as_bytes()), rest).ok()?;
    String::from_utf8(plain.to_vec()).ok()
}

fn decrypted(key: &[u8; RING_KEY_BYTES], text: &str) -> Option<String> {
    let mut bytes = STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty())?;
    let cipher = UnboundCipherKey::new(&AES_128, key).ok()?;
    let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(cipher).ok()?;
    let plain = cipher.decrypt(&mut bytes, DecryptionContext::Iv128(FixedLength::from(key))).ok()?;
    String::from_utf8(plain.to_vec()).ok().filter(|plain| !plain.is_empty())
}

fn read_key(path: &Path) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let place = path.display();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io::Error::new(error.kind(), format!("{place}: {error}"))),
    };
    let key = STANDARD.decode(text.trim()).ok().and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok());
    let problem = format!("{place}: expected a key of {KEY_BYTES} bytes in base64, found something else");
    key.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, problem))
}

/// Whole or not at all, and on disk before anything is sealed with it.
fn write_key(path: &Path, key: &[u8; KEY_BYTES]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let aside = path.with_extension("key.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    writeln!(file, "{}", STANDARD.encode(key))?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    fn settings(dir: &Path, keyring: &str) -> Settings {
        let text = format!("state_dir: {}\ndata_encryption: {{keyring: {keyring}}}", dir.display());
        Settings::parse(&text, &|_| None).expect("settings")
    }

    fn jack(key: &str) -> Value {
        json!({"username": "jack", "plugins": {"key-auth": {"key": key}, "basic-auth": {"username": "j", "password": "p"}}})
    }

    const NAME: &str = "consumers/jack";

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_object_and_not_otherwise() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut seal = Seal::open(&settings(dir.path(), "[]")).expect("a key is made");
        let closed = seal.close(NAME, Kind::Consumer, jack("hunter2"));
        let text = closed.to_string();
        assert!(!text.contains("hunter2") && text.matches(MARK).count() == 2, "{text}");
        assert!(text.contains(r#""username":"j""#), "{text}");
        assert_eq!(seal.uncover(NAME, closed.clone()), Ok(jack("hunter2")));
        assert_ne!(seal.close(NAME, Kind::Consumer, jack("hunter2")), closed, "chance is in it");
        let problem = seal.uncover("consumers/jim", closed.clone()).expect_err("it is bound to jack");
        assert!(problem.starts_with("consumers/jim: plugins.key-auth.key: expected"), "{problem}");
        let mut changed = closed.clone();
        let sealed = changed["plugins"]["key-auth"]["key"].as_str().expect("text").to_owned();
        changed["plugins"]["key-auth"]["key"] = json!(sealed[..sealed.len() - 4].to_owned() + "AAAA");
        assert!(seal.uncover(NAME, changed).is_err());

        // Its key is kept, for its owner only.
        seal.keep_key().expect("written");
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let again = Seal::open(&settings(dir.path(), "[]")).expect("read");
        assert_eq!(again.uncover(NAME, closed.clone()), Ok(jack("hunter2")));
        fs::write(&path, "abc").expect("written");
        assert!(Seal::open(&settings(dir.path(), "[]")).is_err());
        fs::remove_file(&path).expect("removed");
        let other = Seal::open(&settings(dir.path(), "[]")).expect("another key is made");
        assert!(other.uncover(NAME, closed).expect_err("another").contains("which is not there"));
    }

    #[test]
    fn every_key_of_a_ring_opens_and_the_first_one_seals() {
        let dir = tempfile::tempdir().expect("a folder");
        let seal = |ring: &str| Seal::open(&settings(dir.path(), ring)).expect("keys");
        let old = seal("[qeddd145sfvddff3]").close(NAME, Kind::Consumer, jack("k"));
        let both = seal("[edd1c9f0985e76a2, qeddd145sfvddff3]");
        assert_eq!(both.uncover(NAME, old.clone()), Ok(jack("k")));
        let new = both.close(NAME, Kind::Consumer, jack("k"));
        assert_eq!(seal("[edd1c9f0985e76a2]").uncover(NAME, new), Ok(jack("k")));
        assert!(seal("[edd1c9f0985e76a2]").uncover(NAME, old).is_err());
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn references_and_plain_values_stay_as_they_are() {
        let dir = tempfile::tempdir().expect("a folder");
        let seal = Seal::open(&settings(dir.path(), "[]")).expect("a key");
        let jack = json!({"username": "jack", "plugins": {"key-auth": {"key": "$env://KEY"}}});
        assert_eq!(seal.close(NAME, Kind::Consumer, jack.clone()), jack);
        assert_eq!(seal.uncover(NAME, jack.clone()), Ok(jack.clone()));
        assert_eq!(Seal::default().close(NAME, Kind::Consumer, jack.clone()), jack);
        assert!(looks_sealed(&json!({"a": [format!("{MARK}x")]})) && !looks_sealed(&jack));
    }

    #[test]
    fn what_apisix_has_encrypted_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let seal = Seal::open(&settings(dir.path(), "[edd1c9f0985e76a2, qeddd145sfvddff3]")).expect("keys");
        // openssl enc -aes-128-cbc, key and vector qeddd145sfvddff3, in base64.
        let encrypted = jack("4y+JvURBE6ZwRbbgaryrhg==");
        assert_eq!(seal.decrypt(Kind::Consumer, encrypted.clone()), jack("auth-one"));
        assert_eq!(seal.decrypt(Kind::Consumer, jack("auth-one")), jack("auth-one"));
        assert_eq!(Seal::default().decrypt(Kind::Consumer, encrypted.clone()), encrypted);
    }
}

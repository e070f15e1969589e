//! Certificates and their keys, checked before anything is served with them: both can be read, belong together, and
//! come in the order in which TLS sends them. Nothing of a key is in what is told.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair,
};
use regex::Regex;

use crate::base::pem;
use crate::base::x509::{self, Certificate};
use crate::model::ConfigError;
use crate::model::ssl::ClientCertificates;

const CERTIFICATE: &str = "CERTIFICATE";
const LIST: &str = "X509 CRL";

/// Since when and until when the first certificate of a text holds, in seconds since 1970.
pub fn validity(cert: &str) -> Option<(i64, i64)> {
    let blocks = pem::read(cert).ok()?;
    let first = blocks.iter().find(|block| block.label == CERTIFICATE)?;
    x509::read(&first.der).map(|read| (read.not_before, read.not_after))
}

/// What is wrong with a certificate, its chain and its key, by the fields they stand in; and what is only not as it
/// should be.
pub(crate) fn check_pair(
    (cert_field, cert): (&str, &str),
    (key_field, key): (&str, &str),
) -> Result<Vec<ConfigError>, Vec<ConfigError>> {
    let chain = certificates(cert).map_err(|problem| ConfigError::at(cert_field, problem));
    let public = public_key(key).map_err(|problem| ConfigError::at(key_field, problem));
    let (chain, public) = match (chain, public) {
        (Ok(chain), Ok(public)) => (chain, public),
        (chain, public) => return Err(chain.err().into_iter().chain(public.err()).collect()),
    };
    let read: Vec<Certificate<'_>> = chain.iter().filter_map(|der| x509::read(der)).collect();
    match read.iter().position(|certificate| certificate.public_key == public) {
        Some(0) => {}
        Some(at) => {
            let problem = format!("expected the certificate of the key first, found it as number {}", at + 1);
            return Err(vec![ConfigError::at(cert_field, problem)]);
        }
        None => {
            let problem = format!("expected the key of {cert_field}, found the key of another certificate");
            return Err(vec![ConfigError::at(key_field, problem)]);
        }
    }
    let broken = read.windows(2).position(|pair| pair[0].issuer != pair[1].subject);
    let lack = broken.map(|at| {
        let (number, next) = (at + 1, at + 2);
        let problem = format!(
            "expected each certificate to be followed by its issuer's, found number {next} to be of another than \
             the issuer of number {number}; some clients refuse that"
        );
        ConfigError::at(cert_field, problem)
    });
    Ok(lack.into_iter().collect())
}

/// What is wrong with what is asked of a client's certificate; `known` are the texts of `client.ca` and `client.crl`, where they
/// are known.
pub(crate) fn check_client(
    client: &ClientCertificates,
    known: Option<(&str, Option<&str>)>,
) -> Vec<ConfigError> {
    let ca = known.and_then(|(ca, _)| certificates(ca).err());
    let ca = ca.map(|problem| ConfigError::at("client.ca", problem));
    let crl = known.and_then(|(_, crl)| lists_problem(crl?));
    let ca = ca.into_iter().chain(crl.map(|problem| ConfigError::at("client.crl", problem)));
    let paths = client.skip_mtls_uri_regex.iter().flatten().enumerate().filter_map(|(at, text)| {
        let problem = format!("expected a regular expression, got {text:?}");
        Regex::new(text).err().map(|_| ConfigError::at(format!("client.skip_mtls_uri_regex[{at}]"), problem))
    });
    ca.chain(paths).collect()
}

/// What is expected of a list of revoked certificates.
pub(super) const LIST_EXPECTED: &str =
    "expected lists of revoked certificates in PEM (X.509 CRL version 2, RFC 5280 5.1)";

/// What is wrong with lists of revoked certificates.
fn lists_problem(text: &str) -> Option<String> {
    let blocks = match pem::read(text) {
        Ok(blocks) => blocks,
        Err(why) => return Some(format!("{LIST_EXPECTED}: {why}")),
    };
    for (at, block) in blocks.iter().enumerate() {
        let number = at + 1;
        if block.label != LIST {
            return Some(format!("{LIST_EXPECTED}, found {} as number {number}", block.label));
        }
        // What else may be wrong is seen when rules are made of them.
        match x509::list_version(&block.der) {
            Some(2) => {}
            Some(version) => {
                return Some(format!("{LIST_EXPECTED}, found version {version} as number {number}"));
            }
            None => return Some(format!("{LIST_EXPECTED}, found what is none as number {number}")),
        }
    }
    blocks.is_empty().then(|| format!("{LIST_EXPECTED}, found none"))
}

/// The certificates of a text, each readable; at least one.
fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let blocks = pem::read(text).map_err(|why| format!("expected a certificate in PEM: {why}"))?;
    let mut found = Vec::new();
    for block in blocks {
        if block.label != CERTIFICATE {
            return Err(format!("expected certificates only, found {}", block.label));
        }
        if x509::read(&block.der).is_none() {
            return Err(format!("expected a certificate as number {}, found what is none", found.len() + 1));
        }
        found.push(block.der);
    }
    if found.is_empty() { Err("expected a certificate in PEM, found none".to_owned()) } else { Ok(found) }
}

/// The public key that belongs to a private one, as a certificate has it.
fn public_key(text: &str) -> Result<Vec<u8>, String> {
    const EXPECTED: &str = "expected a private key in PEM (PKCS 8, PKCS 1 or SEC 1)";
    let blocks = pem::read(text).map_err(|why| format!("{EXPECTED}: {why}"))?;
    // What openssl writes before a key on a curve is passed over.
    let block = blocks.into_iter().find(|block| block.label.ends_with("PRIVATE KEY"));
    let block = block.ok_or_else(|| format!("{EXPECTED}, found none"))?;
    let der = block.der.as_slice();
    let found = match block.label.as_str() {
        "PRIVATE KEY" => rsa(RsaKeyPair::from_pkcs8(der)).or_else(|| ec(der, true)).or_else(|| {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(|key| key.public_key().as_ref().to_vec())
        }),
        "RSA PRIVATE KEY" => rsa(RsaKeyPair::from_der(der)),
        "EC PRIVATE KEY" => ec(der, false),
        "ENCRYPTED PRIVATE KEY" => return Err(format!("{EXPECTED} without a passphrase, found one with")),
        other => return Err(format!("{EXPECTED}, found {other}")),
    };
    found.ok_or_else(|| {
        format!(
            "{EXPECTED} of RSA from 2048 bits, of the curves P-256, P-384, P-521 or Ed25519, found another"
        )
    })
}

fn rsa<E>(key: Result<RsaKeyPair, E>) -> Option<Vec<u8>> {
    key.ok().map(|key| key.public_key().as_ref().to_vec())
}

fn ec(der: &[u8], is_pkcs8: bool) -> Option<Vec<u8>> {
    let curves =
        [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];
    curves.into_iter().find_map(|curve| {
        let key = if is_pkcs8 {
            EcdsaKeyPair::from_pkcs8(curve, der)
        } else {
            EcdsaKeyPair::from_private_key_der(curve, der)
        };
        key.ok().map(|key| key.public_key().as_ref().to_vec())
    })
}

//! Questions whether a certificate was revoked, and answers, as RFC 6960 has them. An answer is believed only where the issuer has
//! signed it, or somebody whom the issuer has certified for that.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_cert::Certificate;
use x509_cert::der::asn1::{BitString, Null, ObjectIdentifier, OctetString};
use x509_cert::der::{Any, Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, ExtendedKeyUsage};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspRequest, OcspResponse, OcspResponseStatus, Request,
    TbsRequest, Version,
};

use crate::base::clock::UnixMs;

const SHA1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const OCSP_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9");
/// What clocks may differ by.
const SKEW_SECONDS: u64 = 300;
/// For how long an answer counts that does not say until when.
const UNBOUNDED_SECONDS: u64 = 3600;

/// A certificate that is asked about, and its issuer's.
pub(super) struct Subject {
    issuer: Certificate,
    id: CertId,
    /// Where the issuer says that it answers.
    pub(super) url: String,
}

/// For how long an answer counts, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Subject {
    /// `None`: the certificate names nobody who could be asked.
    pub(super) fn of(certificate: &[u8], issuer: &[u8]) -> Option<Self> {
        let own = Certificate::from_der(certificate).ok()?;
        let issuer = Certificate::from_der(issuer).ok()?;
        let (_, access) = own.tbs_certificate.get::<AuthorityInfoAccessSyntax>().ok()??;
        let url = access.0.into_iter().find_map(|described| match described.access_location {
            GeneralName::UniformResourceIdentifier(url) if described.access_method == OCSP => {
                Some(url.as_str().to_owned())
            }
            _ => None,
        })?;
        let hashed = |bytes: &[u8]| OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()).ok();
        let key = &issuer.tbs_certificate.subject_public_key_info.subject_public_key;
        let id = CertId {
            hash_algorithm: AlgorithmIdentifierOwned { oid: SHA1, parameters: Some(Any::from(Null)) },
            issuer_name_hash: hashed(&own.tbs_certificate.issuer.to_der().ok()?)?,
            issuer_key_hash: hashed(key.raw_bytes())?,
            serial_number: own.tbs_certificate.serial_number,
        };
        Some(Self { issuer, id, url })
    }

    /// The question.
    pub(super) fn question(&self) -> Option<Vec<u8>> {
        let asked = Request { req_cert: self.id.clone(), single_request_extensions: None };
        let tbs_request = TbsRequest {
            version: Version::V1,
            requestor_name: None,
            request_list: vec![asked],
            request_extensions: None,
        };
        OcspRequest { tbs_request, optional_signature: None }.to_der().ok()
    }

    /// For how long an answer says that the certificate is good.
    ///
    /// # Errors
    /// When it does not, or can not be believed.
    pub(super) fn judge(&self, answer: &[u8], now: UnixMs) -> Result<Span, String> {
        let strange = |error: x509_cert::der::Error| format!("a strange answer: {error}");
        let answer = OcspResponse::from_der(answer).map_err(strange)?;
        if answer.response_status != OcspResponseStatus::Successful {
            return Err(format!("it does not answer: {:?}", answer.response_status));
        }
        let bytes = answer.response_bytes.filter(|bytes| bytes.response_type == BASIC);
        let bytes = bytes.ok_or_else(|| "an answer of another kind".to_owned())?;
        let basic = BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(strange)?;
        let seconds = now / 1000;
        if !self.is_signed(&basic, seconds) {
            return Err("an answer that neither the issuer nor anybody it names has signed".to_owned());
        }
        let about = basic.tbs_response_data.responses.iter().find(|single| self.is_about(&single.cert_id));
        let about = about.ok_or_else(|| "an answer about another certificate".to_owned())?;
        let from = about.this_update.0.to_unix_duration().as_secs();
        let to = about.next_update.map_or_else(
            || from.saturating_add(UNBOUNDED_SECONDS),
            |next| next.0.to_unix_duration().as_secs(),
        );
        if from > seconds.saturating_add(SKEW_SECONDS) || to <= seconds {
            return Err("an answer that counts at another time".to_owned());
        }
        match about.cert_status {
            CertStatus::Good(_) => Ok(Span { from, to }),
            CertStatus::Revoked(_) => Err("the certificate was revoked".to_owned()),
            CertStatus::Unknown(_) => Err("the certificate is not known there".to_owned()),
        }
    }

    fn is_about(&self, id: &CertId) -> bool {
        // Parameters of the hash are written by some and left out by others.
        id.hash_algorithm.oid == SHA1
            && id.issuer_name_hash == self.id.issuer_name_hash
            && id.issuer_key_hash == self.id.issuer_key_hash
            && id.serial_number == self.id.serial_number
    }

    /// Whether the issuer has signed an answer, or somebody whom it has certified for that.
    fn is_signed(&self, basic: &BasicOcspResponse, now: u64) -> bool {
        let Ok(signed) = basic.tbs_response_data.to_der() else { return false };
        let by = |key: &SubjectPublicKeyInfoOwned| {
            verifies(key, &basic.signature_algorithm, &signed, &basic.signature)
        };
        let own = &self.issuer.tbs_certificate;
        let is_named = |delegate: &Certificate| {
            let inner = &delegate.tbs_certificate;
            let usage = inner.get::<ExtendedKeyUsage>().ok().flatten();
            let may_sign = usage.is_some_and(|(_, usage)| usage.0.contains(&OCSP_SIGNING));
            let from = inner.validity.not_before.to_unix_duration().as_secs();
            let to = inner.validity.not_after.to_unix_duration().as_secs();
            let certified = inner.to_der().is_ok_and(|signed| {
                let key = &own.subject_public_key_info;
                verifies(key, &delegate.signature_algorithm, &signed, &delegate.signature)
            });
            may_sign && (from..=to).contains(&now) && inner.issuer == own.subject && certified
        };
        let delegates = basic.certs.iter().flatten().take(DELEGATES_MAX);
        by(&own.subject_public_key_info)
            || delegates
                .filter(|delegate| is_named(delegate))
                .any(|delegate| by(&delegate.tbs_certificate.subject_public_key_info))
    }
}

/// Certificates in an answer that are looked at.
const DELEGATES_MAX: usize = 4;

/// Whether a signature is that of a key.
fn verifies(
    key: &SubjectPublicKeyInfoOwned,
    algorithm: &AlgorithmIdentifierOwned,
    signed: &[u8],
    signature: &BitString,
) -> bool {
    let bits = key.subject_public_key.raw_bytes();
    let fitting = algorithms(&algorithm.oid.to_string());
    fitting.iter().any(|algorithm| {
        UnparsedPublicKey::new(*algorithm, bits).verify(signed, signature.raw_bytes()).is_ok()
    })
}

/// What may be meant by the name of an algorithm: that of a curve is in the key.
fn algorithms(name: &str) -> &'static [&'static dyn VerificationAlgorithm] {
    match name {
        "1.2.840.10045.4.3.2" => &[&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA256_ASN1],
        "1.2.840.10045.4.3.3" => &[&ECDSA_P384_SHA384_ASN1, &ECDSA_P256_SHA384_ASN1],
        "1.2.840.113549.1.1.11" => &[&RSA_PKCS1_2048_8192_SHA256],
        "1.2.840.113549.1.1.12" => &[&RSA_PKCS1_2048_8192_SHA384],
        "1.2.840.113549.1.1.13" => &[&RSA_PKCS1_2048_8192_SHA512],
        "1.3.101.112" => &[&ED25519],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::base::rng::Rng;

    /// A certificate that names a URL, and its issuer's.
    fn subject() -> Subject {
        let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = Issuer::new(authority.clone(), key());
        let own_authority = authority.self_signed(issuer.key()).expect("signed");
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
        // One description: the way is OCSP, the place is a URL.
        let access = b"\x30\x18\x30\x16\x06\x08\x2b\x06\x01\x05\x05\x07\x30\x01\x86\x0ahttp://a/b";
        let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], access.to_vec());
        params.custom_extensions.push(extension);
        let certificate = params.signed_by(&key(), &issuer).expect("signed");
        Subject::of(certificate.der(), own_authority.der()).expect("it names a URL")
    }

    #[test]
    fn a_question_names_the_certificate() {
        let subject = subject();
        assert_eq!(subject.url, "http://a/b");
        let asked = OcspRequest::from_der(&subject.question().expect("a question")).expect("a request");
        assert!(subject.is_about(&asked.tbs_request.request_list[0].req_cert));
        assert!(Subject::of(b"no certificate", b"").is_none());
    }

    #[test]
    fn what_is_no_answer_is_refused_and_nothing_panics() {
        let subject = subject();
        let no = |answer: &[u8]| subject.judge(answer, 1_700_000_000_000).expect_err("no answer");
        assert!(no(b"\x30\x03\x0a\x01\x06").contains("Unauthorized"));
        let mut rng = Rng::seeded(3);
        for length in 0..2000 {
            let bytes: Vec<u8> = (0..length % 300).map(|_| rng.below(256) as u8).collect();
            no(&bytes);
            no(&[&[0x30, 0x82, 0x01, 0x00, 0x0a, 0x01, 0x00, 0xa0][..], &bytes].concat());
        }
    }
}

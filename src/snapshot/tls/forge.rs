//! From an ssl to the rules by which its clients are answered.

use std::sync::Arc;
use std::time::Duration;

use regex::bytes::RegexSet;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, VerifierBuilderError,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureAlgorithm,
    SignatureScheme, SupportedProtocolVersion,
};

use super::check::{LIST_EXPECTED, validity};
use super::identity::Identity;
use super::tickets::Secrets;
use crate::base::clock::UnixMs;
use crate::base::hash::stable;
use crate::base::pem;
use crate::model::ConfigError;
use crate::model::settings::{AcmeChallenge, AcmeIssuer, SslSettings};
use crate::model::ssl::{Acme, ClientCertificates, Ssl, TlsVersion};

/// A certificate and its key, both in PEM.
pub(crate) type Pair = (String, String);

/// Tickets sent after a handshake, each good for one more connection.
const TICKETS: usize = 1;

/// Bytes of a public key of RSA with 2048 bits, with what says so (RFC 5280 4.1): 294, and some more for a large exponent.
const RSA_SHORT_BYTES: usize = 300;

/// What authorities ask for in place of HTTP, to see whether a name is ours.
const ACME_PROTOCOL: &[u8] = b"acme-tls/1";

/// By which rules the clients of some names are answered.
#[derive(Debug)]
pub struct ServerRules {
    pub config: Arc<ServerConfig>,
    /// The same for streams, of which nobody says what is spoken in them.
    pub of_streams: Arc<ServerConfig>,
    /// Until when all of its certificates hold, in seconds since 1970.
    pub not_after: i64,
    /// What is asked of clients, if they are asked.
    pub client: Option<ClientRules>,
    /// A signature by one of its keys takes more than a core has time for.
    pub is_slow: bool,
}

/// What is asked of clients.
#[derive(Debug)]
pub struct ClientRules {
    /// The same as long as they say the same.
    pub id: u64,
    /// What that is of.
    id_text: Box<str>,
    verifier: Arc<dyn ClientCertVerifier>,
    /// Most certificates between the client's and one that is trusted, as OpenSSL counts them.
    depth: usize,
    /// Paths for which nothing is asked.
    free: RegexSet,
}

impl ClientRules {
    /// Whether a certificate, with those that came with it, is vouched for at that time.
    pub fn trusts(&self, chain: &[Box<[u8]>], now: UnixMs) -> bool {
        let chain: Vec<CertificateDer<'_>> = chain.iter().map(|der| CertificateDer::from(&**der)).collect();
        let Some((own, issuers)) = chain.split_first() else { return false };
        let issuers = &issuers[..issuers.len().min(self.depth)];
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now));
        self.verifier.verify_client_cert(own, issuers, now).is_ok()
    }

    /// Whether a path is open to everybody.
    pub fn lets_pass(&self, path: &[u8]) -> bool {
        self.free.is_match(path)
    }
}

/// Makes rules.
#[derive(Debug)]
pub(crate) struct Forge {
    provider: Arc<CryptoProvider>,
    versions: Vec<TlsVersion>,
    /// Of all rules that ask clients for nothing. Of the others each has its own, so that a ticket says no more of a client
    /// than the rules it was given by.
    tickets: Option<Arc<dyn ProducesTickets>>,
    has_tickets: bool,
    is_stapling: bool,
    /// Secrets of the tickets of a fleet, where there are any.
    fleet: Option<Secrets>,
    /// What is spoken over TLS, by preference (RFC 7301).
    spoken: Vec<Vec<u8>>,
    /// Authorities, by name, and whether they certify wildcards.
    issuers: Vec<(String, bool)>,
}

impl Forge {
    pub(crate) fn new(settings: &SslSettings, http2: bool) -> Self {
        let has_tickets = settings.session_tickets;
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            versions: settings.protocols.iter().copied().collect(),
            tickets: if has_tickets { aws_lc_rs::Ticketer::new().ok() } else { None },
            has_tickets,
            is_stapling: settings.stapling,
            fleet: None,
            spoken: [http2.then_some("h2"), Some("http/1.1")].into_iter().flatten().map(Into::into).collect(),
            issuers: Vec::new(),
        }
    }

    /// Gives tickets that whoever has the same secrets opens, from here on.
    pub(crate) fn share_tickets(&mut self, secrets: Secrets) {
        if self.has_tickets {
            self.tickets = Some(secrets.tickets(b""));
        }
        self.fleet = Some(secrets);
    }

    /// Whether what authorities say of certificates is sent along with them.
    pub(crate) const fn staples(&self) -> bool {
        self.is_stapling
    }

    /// The tickets of rules; those that ask clients have tickets of their own.
    fn tickets_of(&self, client: Option<&ClientRules>) -> Option<Arc<dyn ProducesTickets>> {
        match (client, &self.fleet) {
            (None, _) => self.tickets.clone(),
            (Some(_), _) if !self.has_tickets => None,
            (Some(client), Some(secrets)) => Some(secrets.tickets(client.id_text.as_bytes())),
            (Some(_), None) => aws_lc_rs::Ticketer::new().ok(),
        }
    }

    /// With authorities that issue certificates.
    pub(crate) fn issuing(mut self, issuers: &[AcmeIssuer]) -> Self {
        let known =
            |issuer: &AcmeIssuer| (issuer.name.as_str().to_owned(), issuer.challenge == AcmeChallenge::Dns01);
        self.issuers = issuers.iter().map(known).collect();
        self
    }

    /// Why no certificate will be asked for, where that is so.
    pub(crate) fn why_not_issued(&self, ssl: &Ssl, acme: &Acme) -> Option<String> {
        let issuer = acme.issuer.as_str();
        match self.issuers.iter().find(|(name, _)| name == issuer) {
            None => Some(format!("acme of the settings has no issuer {issuer}, so nothing is asked for")),
            Some((_, true)) => None,
            Some((_, false)) => ssl.names().find(|name| name.as_str().starts_with("*.")).map(|name| {
                format!("{} can be proven by dns-01 only, which {issuer} does not use", name.as_str())
            }),
        }
    }

    pub(crate) fn provider(&self) -> &CryptoProvider {
        &self.provider
    }

    /// The rules of an ssl with these certificates, and `ca` the certificates of those who vouch for its clients, with the
    /// lists of what they have revoked. `lacks` gets what it asks for and does not get.
    pub(crate) fn rules(
        &self,
        ssl: &Ssl,
        (pairs, staples): (&[Pair], &[Option<Vec<u8>>]),
        ca: Option<(&str, Option<&str>)>,
        lacks: &mut Vec<ConfigError>,
    ) -> Result<ServerRules, Vec<ConfigError>> {
        let at = |field: &str| {
            let field = field.to_owned();
            move |problem: String| vec![ConfigError::at(field, problem)]
        };
        let stapled = pairs.iter().zip(staples).map(|((cert, key), staple)| {
            Identity::of(&self.provider, cert, key).map(|identity| identity.stapled(staple.as_deref()))
        });
        let identities: Result<Vec<_>, _> = stapled.collect();
        let keys = Keys::new(identities.map_err(at("key"))?.into_iter().map(|identity| identity.key));
        let is_slow = keys.are_slow();
        let versions = self.versions(ssl, lacks).map_err(at("ssl_protocols"))?;
        let client = match (&ssl.client, ca) {
            (Some(client), Some((ca, crl))) => {
                Some(self.client_rules(client, ca, crl).map_err(|fault| vec![fault])?)
            }
            _ => None,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&versions)
            .map_err(|error| at("ssl_protocols")(error.to_string()))?;
        let builder = match &client {
            Some(rules) => {
                builder.with_client_cert_verifier(Arc::new(JudgedLater(Arc::clone(&rules.verifier))))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(keys));
        config.alpn_protocols.clone_from(&self.spoken);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match self.tickets_of(client.as_ref()) {
            Some(tickets) => (config.ticketer, config.send_tls13_tickets) = (tickets, TICKETS),
            None => config.send_tls13_tickets = 0,
        }
        let not_after = pairs.iter().filter_map(|(cert, _)| validity(cert)).map(|(_, end)| end).min();
        let mut of_streams = config.clone();
        of_streams.alpn_protocols.clear();
        Ok(ServerRules {
            config: Arc::new(config),
            of_streams: Arc::new(of_streams),
            not_after: not_after.unwrap_or(i64::MAX),
            client,
            is_slow,
        })
    }

    /// The rules by which an authority is answered that asks over TLS whether a name is ours (RFC 8737).
    pub(crate) fn rules_of_proof(&self, cert: &str, key: &str) -> Result<ServerRules, String> {
        let identity = Identity::of(&self.provider, cert, key)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Keys::new(std::iter::once(identity.key))));
        config.alpn_protocols = vec![ACME_PROTOCOL.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        let of_streams = Arc::clone(&config);
        Ok(ServerRules { of_streams, config, not_after: i64::MAX, client: None, is_slow: false })
    }

    /// The versions that are spoken: those of the ssl, else of the process.
    fn versions(
        &self,
        ssl: &Ssl,
        lacks: &mut Vec<ConfigError>,
    ) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
        let wanted: Vec<TlsVersion> = ssl
            .ssl_protocols
            .as_ref()
            .map_or_else(|| self.versions.clone(), |own| own.iter().copied().collect());
        if ssl.ssl_protocols.is_some() && wanted.contains(&TlsVersion::V1_1) {
            let problem =
                "expected TLSv1.2 or TLSv1.3, found TLSv1.1 as well, which is no longer safe and not spoken";
            lacks.push(ConfigError::at("ssl_protocols", problem));
        }
        let versions: Vec<_> = wanted.iter().filter_map(|version| version_of(*version)).collect();
        if versions.is_empty() {
            Err("expected TLSv1.2 or TLSv1.3, found neither".to_owned())
        } else {
            Ok(versions)
        }
    }

    fn client_rules(
        &self,
        client: &ClientCertificates,
        ca: &str,
        crl: Option<&str>,
    ) -> Result<ClientRules, ConfigError> {
        let at = |field: &'static str| move |problem: String| ConfigError::at(field, problem);
        let mut roots = RootCertStore::empty();
        for (number, block) in (1..).zip(pem::read(ca).map_err(at("client.ca"))?) {
            roots.add(CertificateDer::from(block.der)).map_err(|error| {
                let found = format!("found as number {number} one that can not be used: {error}");
                ConfigError::at("client.ca", format!("expected certificates of authorities, {found}"))
            })?;
        }
        let lists = crl.map(pem::read).transpose().map_err(at("client.crl"))?.unwrap_or_default();
        let lists = lists.into_iter().map(|block| CertificateRevocationListDer::from(block.der)).collect();
        let verifier = self.verifier(&Arc::new(roots), lists)?;
        let free = client.skip_mtls_uri_regex.iter().flatten();
        let id_text = format!("{}\0{ca}\0{}", client.depth, crl.unwrap_or_default());
        Ok(ClientRules {
            id: stable(id_text.as_bytes()),
            id_text: id_text.into(),
            verifier,
            depth: client.depth as usize,
            free: RegexSet::new(free)
                .map_err(|error| ConfigError::at("client.skip_mtls_uri_regex", error.to_string()))?,
        })
    }

    /// Who says whether a client's certificate is by one of those that vouch, and is not revoked.
    fn verifier(
        &self,
        roots: &Arc<RootCertStore>,
        lists: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
        let build = |lists: Vec<CertificateRevocationListDer<'static>>| {
            WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&self.provider))
                .with_crls(lists)
                .allow_unknown_revocation_status()
                .build()
        };
        build(lists.clone()).map_err(|error| match error {
            VerifierBuilderError::InvalidCrl(why) => {
                let fails = |list: &CertificateRevocationListDer<'static>| build(vec![list.clone()]).is_err();
                let number = lists.iter().position(fails).map_or(1, |at| at + 1);
                let found = format!("found as number {number} one that can not be read: {why:?}");
                ConfigError::at("client.crl", format!("{LIST_EXPECTED}, {found}"))
            }
            other => ConfigError::at("client.ca", format!("expected certificates of authorities: {other}")),
        })
    }
}

const fn version_of(version: TlsVersion) -> Option<&'static SupportedProtocolVersion> {
    match version {
        TlsVersion::V1_1 => None,
        TlsVersion::V1_2 => Some(&rustls::version::TLS12),
        TlsVersion::V1_3 => Some(&rustls::version::TLS13),
    }
}

/// Certificates for the same names, each of another kind of key.
#[derive(Debug)]
struct Keys(Vec<Arc<CertifiedKey>>);

impl Keys {
    /// Those that cost the least to sign with come first.
    fn new(keys: impl Iterator<Item = Arc<CertifiedKey>>) -> Self {
        let mut keys: Vec<_> = keys.collect();
        keys.sort_by_key(|key| key.key.algorithm() == SignatureAlgorithm::RSA);
        Self(keys)
    }

    /// Whether a signature by one of them may take longer than a millisecond or so: RSA with more than 2048 bits.
    fn are_slow(&self) -> bool {
        let is_slow = |key: &Arc<CertifiedKey>| {
            key.key.algorithm() == SignatureAlgorithm::RSA
                && key.key.public_key().is_none_or(|key| key.len() > RSA_SHORT_BYTES)
        };
        self.0.iter().any(is_slow)
    }
}

impl ResolvesServerCert for Keys {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fit = self.0.iter().find(|key| key.key.choose_scheme(schemes).is_some());
        // Where none fits, rustls says what it is that both do not have in common.
        fit.or_else(|| self.0.first()).map(Arc::clone)
    }
}

/// Lets every certificate through the handshake, so that who has none, or one that nobody vouches for, can be told by an
/// answer, and may see what is open to all. That a client has the key of its certificate is made sure of here.
#[derive(Debug)]
struct JudgedLater(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for JudgedLater {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

//! `ldap-auth`: a consumer is whoever a directory knows by name and password (LDAP, RFC 4511).
//!
//! ```yaml
//! plugins:
//!   ldap-auth:
//!     base_dn: ou=users,dc=example,dc=org
//!     ldap_uri: ldap.example.org:636
//!     use_tls: true
//!     tls_verify: true
//! ```
//!
//! User and password come as for basic-auth. The directory is asked to bind `uid=USER,base_dn` by the password; a consumer writes that
//! name as its `user_dn`. Nobody is asked about an empty password, which a directory would take for a bind of nobody.
//! Differs from APISIX: a directory that does not answer is 503, not 401; its certificate is checked as that of a node is.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::hash::stable;
use crate::exchange::{Exchange, Reply};
use crate::model::field::{InRange, ShortText, Text};
use crate::plugin::auth::{BASIC_BYTES_MAX, Realm, Refusals, basic};
use crate::plugin::{
    CompileCx, ConfigError, Credential, CredentialKind, Env, Gate, NoMetadata, Plugin, Step, Verdict,
};
use crate::proto::head::HeaderId;
use crate::proto::ldap::escaped;
use crate::runtime::LocalId;
use crate::runtime::ldap::{Lines, Target};

/// The port of a directory, in clear and over TLS.
const PORTS: (u16, u16) = (389, 636);

/// A consumer is whoever a directory knows by name and password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that users are below, such as `ou=users,dc=example,dc=org`.
    base_dn: Text<1, 1024>,
    /// Where the directory is: a host, with its port unless that is 389, or 636 with `use_tls`.
    #[schemars(
        regex(pattern = r"^(\[[0-9A-Fa-f:.]+\]|[^\[\]:/\s]+)(:[0-9]{1,5})?$"),
        extend("x-expected" = "a host with or without a port, such as ldap.example.org:389")
    )]
    ldap_uri: ShortText,
    /// Is TLS spoken with the directory, from the first byte?
    #[serde(default)]
    use_tls: bool,
    /// Is the certificate of the directory checked, by those who vouch for nodes?
    #[serde(default)]
    tls_verify: bool,
    /// Milliseconds that the directory may take for a request, connecting included. An addition to APISIX's attributes.
    #[serde(default = "default_timeout")]
    timeout: InRange<1, 60_000>,
    /// The attribute that names a user.
    #[serde(default = "default_uid")]
    #[schemars(
        regex(pattern = "^[0-9A-Za-z][0-9A-Za-z.-]*$"),
        extend("x-expected" = "the name of an attribute, such as cn or uid")
    )]
    uid: ShortText,
    /// The protection space named in the challenge.
    #[serde(default = "default_realm")]
    realm: Realm,
    /// Is `Authorization` removed before the upstream sees it?
    #[serde(default)]
    hide_credentials: bool,
}

/// A name in a directory.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name, which no other consumer has, as it comes from attribute, user and `base_dn`: `cn=jack,ou=users,dc=example,dc=org`.
    user_dn: Text<1, 4096>,
}

impl Credential for User {
    fn lookup(&self) -> &[u8] {
        self.user_dn.as_str().as_bytes()
    }

    fn secret(&self) -> &[u8] {
        b""
    }
}

/// What the core reads.
pub struct LdapAuth {
    directory: Target,
    /// The connections of each core to it.
    lines: LocalId,
    /// What a name is made of around a user: `cn=` and `,ou=users,dc=example,dc=org`.
    around: (String, String),
    hide: bool,
    missing: Reply,
    malformed: Reply,
    unknown: Reply,
    unavailable: Reply,
}

impl Plugin for LdapAuth {
    const NAME: &'static str = "ldap-auth";
    const PRIORITY: i32 = 2540;
    type Config = Config;
    type Metadata = NoMetadata;

    const CREDENTIAL: Option<CredentialKind> = Some(CredentialKind::of::<User>());
    const REWRITE: Gate<Self> = Some(Self::identify);

    fn compile(config: Config, _: NoMetadata, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        if !config.uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')) {
            let problem = format!("expected the name of an attribute, such as cn or uid, got \"{}\"", config.uid);
            return Err(ConfigError::at("uid", problem));
        }
        let usual = if config.use_tls { PORTS.1 } else { PORTS.0 };
        let (host, port) = host_and_port(&config.ldap_uri, usual).ok_or_else(|| {
            let expected = "a host with or without a port, such as ldap.example.org:389";
            ConfigError::at("ldap_uri", format!("expected {expected}, got \"{}\"", config.ldap_uri))
        })?;
        let told = |why| ConfigError::at("tls_verify", format!("expected to know who vouches for it: {why}"));
        let tls = config.use_tls.then(|| cx.tls(config.tls_verify).map_err(told)).transpose()?;
        let addresses = cx.addresses("ldap_uri", host);
        let directory = Target {
            name: format!("{host}:{port}"),
            host: host.to_owned(),
            addresses: addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect(),
            tls,
            within: Duration::from_millis(config.timeout.u64()),
        };
        let refusals = Refusals::new("Basic", &config.realm, None);
        Ok(Self {
            lines: cx.local_of("ldap", stable(format!("{directory:?}").as_bytes())),
            directory,
            around: (format!("{}=", config.uid), format!(",{}", config.base_dn.as_str())),
            hide: config.hide_credentials,
            missing: refusals.reply("Missing authorization in request"),
            malformed: refusals.reply("Invalid authorization in request"),
            unknown: refusals.reply("Invalid user authorization"),
            unavailable: Reply::message(503, "The directory does not answer"),
        })
    }
}

impl LdapAuth {
    fn identify<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        match self.shown(ex) {
            Err(refusal) => Step::Reply(refusal.clone()),
            Ok((name, password)) => Step::Wait(Box::pin(self.ask(ex, env, name, password))),
        }
    }

    /// The name of whoever asks, and the password they show.
    fn shown(&self, ex: &Exchange) -> Result<(String, Vec<u8>), &Reply> {
        let mut lines = ex.request.headers.all_id(HeaderId::Authorization);
        let line = lines.next().ok_or(&self.missing)?;
        if lines.next().is_some() {
            return Err(&self.malformed);
        }
        let mut decoded = [0; BASIC_BYTES_MAX];
        let (user, password) = basic(line, &mut decoded).ok_or(&self.malformed)?;
        // Names are UTF-8 there.
        let user = std::str::from_utf8(user).map_err(|_| &self.malformed)?;
        if user.is_empty() || password.is_empty() {
            return Err(&self.unknown);
        }
        let (before, behind) = &self.around;
        Ok((format!("{before}{}{behind}", escaped(user)), password.to_vec()))
    }

    async fn ask(&self, ex: &mut Exchange, env: Env<'_>, name: String, password: Vec<u8>) -> Verdict {
        let lines = env.core.local(self.lines, Lines::default);
        match lines.bind(env.core, &self.directory, (&name, &password)).await {
            Err(_) => return Verdict::Reply(self.unavailable.clone()),
            Ok(false) => return Verdict::Reply(self.unknown.clone()),
            Ok(true) => {}
        }
        let Some(known) = env.consumers.find(Self::NAME, name.as_bytes()) else {
            return Verdict::Reply(self.unknown.clone());
        };
        ex.attach(known);
        if self.hide {
            ex.request.headers.remove_id(HeaderId::Authorization);
        }
        Verdict::Next
    }
}

/// The parts of a host with or without a port; an address of IPv6 stands in brackets.
fn host_and_port(text: &str, usual: u16) -> Option<(&str, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port > 0)?),
        _ => (text, usual),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = |host: &str| !host.is_empty() && !host.contains([':', '/', '[', ']', ' ']);
    match inner {
        Some(address) => address.parse::<Ipv6Addr>().is_ok().then_some((address, port)),
        None => is_host(host).then_some((host, port)),
    }
}

fn default_uid() -> ShortText {
    ShortText::literal("cn")
}

/// As APISIX waits.
const fn default_timeout() -> InRange<1, 60_000> {
    InRange::literal(10_000)
}

fn default_realm() -> Realm {
    Realm::literal("ldap")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::plugin::testing::{Bench, Request, agree, check};

    const ROUTE: &str = r#"{"base_dn":"ou=users,dc=x","ldap_uri":"127.0.0.1:1"}"#;

    #[test]
    fn what_no_directory_needs_to_be_asked_about_is_refused_here() {
        let bench: Bench<LdapAuth> = check(ROUTE).unwrap();
        let line = |text: &[u8]| {
            Request::get("/").header("Authorization", &format!("Basic {}", STANDARD.encode(text)))
        };
        let challenge = "Basic realm=\"ldap\"";
        for (request, message) in [
            (Request::get("/"), "Missing authorization in request"),
            (line(b"jack:a").header("Authorization", "Basic eDp5"), "Invalid authorization in request"),
            (Request::get("/").header("Authorization", "Bearer eDp5"), "Invalid authorization in request"),
            (line(b"jack"), "Invalid authorization in request"),
            (line(b"\xff\xfe:a"), "Invalid authorization in request"),
            (line(b"jack:"), "Invalid user authorization"),
            (line(b":a"), "Invalid user authorization"),
        ] {
            let body = format!("{{\"message\":\"{message}\"}}\n");
            bench.request(request).replies(401, &body).header("WWW-Authenticate", challenge);
        }
    }

    #[test]
    fn a_host_stands_with_or_without_a_port() {
        for (text, expected) in [
            ("a.test", Some(("a.test", 389))),
            ("a.test:1", Some(("a.test", 1))),
            ("[::1]:65535", Some(("::1", 65535))),
            ("[::1]", Some(("::1", 389))),
            ("::1", None),
            ("ldap://a.test", None),
            ("[a.test]:1", None),
            (":1", None),
            ("a.test:0", None),
            ("a.test:65536", None),
        ] {
            assert_eq!(host_and_port(text, 389), expected, "{text}");
        }
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<LdapAuth>(
            &[
                ROUTE,
                r#"{"base_dn":"dc=x","ldap_uri":"[::1]","use_tls":false,"tls_verify":true,"timeout":60000,"uid":"2.5.4.3","realm":"a","hide_credentials":true}"#,
            ],
            &[
                ("{}", "base_dn is required"),
                (r#"{"base_dn":"dc=x"}"#, "ldap_uri is required"),
                (r#"{"base_dn":"","ldap_uri":"a"}"#, "base_dn"),
                (r#"{"base_dn":"dc=x","ldap_uri":"ldap://a"}"#, "a host with or without a port"),
                (r#"{"base_dn":"dc=x","ldap_uri":"a","uid":"cn="}"#, "the name of an attribute"),
                (r#"{"base_dn":"dc=x","ldap_uri":"a","timeout":0}"#, "timeout"),
                (r#"{"base_dn":"dc=x","ldap_uri":"a","user_dn":"x"}"#, "additional properties forbidden, found user_dn"),
            ],
        );
        let kind = LdapAuth::CREDENTIAL.unwrap();
        for refused in ["{}", r#"{"user_dn":""}"#, r#"{"user_dn":"a","password":"b"}"#] {
            assert!((kind.read)(serde_json::from_str(refused).unwrap()).is_err(), "{refused}");
        }
    }
}

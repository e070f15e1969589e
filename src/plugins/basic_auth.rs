//! `basic-auth`: a consumer is whoever knows its user name and password (RFC 7617).
//!
//! ```yaml
//! plugins:
//!   basic-auth:
//!     hide_credentials: true
//! ```
//!
//! A consumer writes `username` and `password` under the plugin's name. Anyone else gets 401 with a challenge, or
//! becomes `anonymous_consumer`. Differs from APISIX: the password is all behind the first `:`, with its colons
//! and spaces; two `Authorization` lines are refused.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::model::field::{Secret, ShortText};
use crate::plugin::auth::{BASIC_BYTES_MAX, Realm, Refusals, basic};
use crate::plugin::{
    CompileCx, ConfigError, Credential, CredentialKind, Env, Gate, Known, NoMetadata, Plugin, Step,
};
use crate::proto::head::HeaderId;

/// A consumer is whoever knows its user name and password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Is `Authorization` removed before the upstream sees it?
    #[serde(default)]
    hide_credentials: bool,
    /// The protection space named in the challenge.
    #[serde(default = "default_realm")]
    realm: Realm,
    /// The name of the consumer that stands in for a request without valid credentials. Absent: it is refused.
    anonymous_consumer: Option<ShortText>,
}

/// A user name and a password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The name, which no other consumer has; without `:`, which would end it.
    #[schemars(regex(pattern = "^[^:]+$"))]
    username: ShortText,
    /// The password.
    password: Secret,
}

impl Credential for User {
    fn lookup(&self) -> &[u8] {
        self.username.as_str().as_bytes()
    }

    fn secret(&self) -> &[u8] {
        self.password.expose().as_bytes()
    }
}

/// What the core reads.
pub struct BasicAuth {
    hide: bool,
    refusals: Refusals,
    missing: Reply,
    malformed: Reply,
    unknown: Reply,
}

impl Plugin for BasicAuth {
    const NAME: &'static str = "basic-auth";
    const PRIORITY: i32 = 2520;
    type Config = Config;
    type Metadata = NoMetadata;

    const CREDENTIAL: Option<CredentialKind> = Some(CredentialKind::of::<User>());
    const REWRITE: Gate<Self> = Some(Self::identify);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let refusals = Refusals::new("Basic", &config.realm, config.anonymous_consumer);
        Ok(Self {
            hide: config.hide_credentials,
            missing: refusals.reply("Missing authorization in request"),
            malformed: refusals.reply("Invalid authorization in request"),
            unknown: refusals.reply("Invalid user authorization"),
            refusals,
        })
    }
}

impl BasicAuth {
    fn identify<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        match self.judge(ex, env) {
            Ok(known) => {
                ex.attach(known);
                if self.hide {
                    ex.request.headers.remove_id(HeaderId::Authorization);
                }
                Step::Next
            }
            Err(refusal) => self.refusals.settle(ex, env, refusal),
        }
    }

    fn judge<'a>(&self, ex: &Exchange, env: Env<'a>) -> Result<&'a Known, &Reply> {
        let mut lines = ex.request.headers.all_id(HeaderId::Authorization);
        let line = lines.next().ok_or(&self.missing)?;
        if lines.next().is_some() {
            return Err(&self.malformed);
        }
        let mut decoded = [0; BASIC_BYTES_MAX];
        let (user, password) = basic(line, &mut decoded).ok_or(&self.malformed)?;
        env.consumers.find(Self::NAME, user).filter(|known| known.secret_is(password)).ok_or(&self.unknown)
    }
}

fn default_realm() -> Realm {
    Realm::literal("basic")
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::plugin::testing::{Bench, Request, agree, check};

    fn bench(config: &str) -> Bench<BasicAuth> {
        let bench = check::<BasicAuth>(config).unwrap();
        bench
            .consumer("jack", r#"{"username":"jack","password":"a: b:c"}"#)
            .consumer("jill", r#"{"username":"jill","password":"pw"}"#)
    }

    fn line(scheme: &str, credentials: &str) -> Request {
        Request::get("/").header("Authorization", &format!("{scheme} {}", STANDARD.encode(credentials)))
    }

    #[test]
    fn the_password_is_all_behind_the_first_colon() {
        let bench = bench("{}");
        for scheme in ["Basic", "basic", "BASIC", "Basic "] {
            let passed = bench.request(line(scheme, "jack:a: b:c")).passes();
            assert_eq!(passed.ex.consumer.name(), "jack");
            assert_eq!(passed.forwarded("authorization").len(), 1);
        }
        for wrong in ["jack:a", "jack:a: b", "jack:a:b:c", "jack:", "jack:pw", ":pw", "Jill:pw", "jill:pw "] {
            bench
                .request(line("Basic", wrong))
                .replies(401, "{\"message\":\"Invalid user authorization\"}\n")
                .header("WWW-Authenticate", "Basic realm=\"basic\"");
        }
    }

    #[test]
    fn an_absent_header_and_a_malformed_one_are_told_apart() {
        let bench = bench("{}");
        bench
            .request(Request::get("/"))
            .replies(401, "{\"message\":\"Missing authorization in request\"}\n")
            .header("WWW-Authenticate", "Basic realm=\"basic\"");
        let long = format!("jack:{}", "x".repeat(2000));
        let malformed = [
            line("Bearer", "jill:pw"),
            line("Basic", "jill"),
            line("Basic", &long),
            Request::get("/").header("Authorization", "Basic"),
            Request::get("/").header("Authorization", "Basic %%%"),
            Request::get("/").header("Authorization", ""),
            line("Basic", "jill:pw").header("Authorization", "Basic amlsbDpwdw=="),
        ];
        for request in malformed {
            bench.request(request).replies(401, "{\"message\":\"Invalid authorization in request\"}\n");
        }
    }

    #[test]
    fn hiding_realm_and_the_anonymous_consumer_are_honoured() {
        let bench = bench(r#"{"hide_credentials":true,"realm":"staff","anonymous_consumer":"jill"}"#);
        assert_eq!(bench.request(line("Basic", "jack:a: b:c")).passes().forwarded("authorization").len(), 0);
        assert_eq!(bench.request(line("Basic", "jack:no")).passes().ex.consumer.name(), "jill");
        let unknown = check::<BasicAuth>(r#"{"anonymous_consumer":"nobody","realm":"staff"}"#).unwrap();
        unknown
            .request(Request::get("/"))
            .replies(401, "Invalid user authorization")
            .header("WWW-Authenticate", "Basic realm=\"staff\"");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<BasicAuth>(
            &["{}", r#"{"hide_credentials":false,"realm":"a","anonymous_consumer":"x"}"#],
            &[
                (r#"{"hide_credentials":1}"#, "true or false"),
                (r#"{"realm":"\n"}"#, "printable ASCII"),
                (r#"{"anonymous_consumer":[]}"#, "anonymous_consumer"),
                (r#"{"header":"x"}"#, "additional properties forbidden, found header"),
            ],
        );
        let kind = BasicAuth::CREDENTIAL.unwrap();
        for refused in [
            r#"{"username":"a"}"#,
            r#"{"password":"a"}"#,
            r#"{"username":"","password":"a"}"#,
            r#"{"username":"a","password":""}"#,
            r#"{"username":"a:b","password":"a"}"#,
        ] {
            assert!((kind.read)(serde_json::from_str(refused).unwrap()).is_err(), "{refused}");
        }
    }
}

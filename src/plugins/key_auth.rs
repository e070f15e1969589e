//! `key-auth`: a consumer is whoever shows its key, in a header or else in a query argument.
//!
//! ```yaml
//! plugins:
//!   key-auth:
//!     header: apikey
//!     hide_credentials: true
//! ```
//!
//! A consumer writes `key` under the plugin's name. Anyone else gets 401 with a challenge, or becomes
//! `anonymous_consumer`. Differs from APISIX: a key header that comes twice is refused, as the gateway and the
//! upstream might each trust another one.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::expr::{Var, Vars as _};
use crate::model::field::{HeaderName, Secret, ShortText};
use crate::plugin::auth::{Realm, Refusals};
use crate::plugin::{
    CompileCx, ConfigError, Credential, CredentialKind, Env, Gate, NoMetadata, Plugin, Step,
};
use crate::proto::head::FieldName;

/// A consumer is whoever shows its key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The header that carries the key.
    #[serde(default = "apikey_header")]
    header: HeaderName,
    /// The query argument that carries the key when the header is absent.
    #[serde(default = "apikey_argument")]
    query: ShortText,
    /// Is the header or argument that carried the key removed before the upstream sees it?
    #[serde(default)]
    hide_credentials: bool,
    /// The protection space named in the challenge.
    #[serde(default = "default_realm")]
    realm: Realm,
    /// The name of the consumer that stands in for a request without a valid key. Absent: it is refused.
    anonymous_consumer: Option<ShortText>,
}

/// A key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// The key, which no other consumer has.
    key: Secret,
}

impl Credential for Key {
    fn lookup(&self) -> &[u8] {
        self.key.expose().as_bytes()
    }

    fn secret(&self) -> &[u8] {
        b""
    }
}

/// What the core reads.
pub struct KeyAuth {
    header: FieldName,
    argument: Var,
    argument_name: String,
    hide: bool,
    refusals: Refusals,
    missing: Reply,
    invalid: Reply,
}

impl Plugin for KeyAuth {
    const NAME: &'static str = "key-auth";
    const PRIORITY: i32 = 2500;
    type Config = Config;
    type Metadata = NoMetadata;

    const CREDENTIAL: Option<CredentialKind> = Some(CredentialKind::of::<Key>());
    const REWRITE: Gate<Self> = Some(Self::identify);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let refusals = Refusals::new("apikey", &config.realm, config.anonymous_consumer);
        Ok(Self {
            header: FieldName::new(config.header.as_str()),
            argument: Var::Arg(config.query.as_str().into()),
            argument_name: config.query.as_str().to_owned(),
            hide: config.hide_credentials,
            missing: refusals.reply("Missing API key in request"),
            invalid: refusals.reply("Invalid API key in request"),
            refusals,
        })
    }
}

impl KeyAuth {
    fn identify<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let (known, in_header) = match self.shown(ex) {
            Shown::Nothing => return self.refusals.settle(ex, env, &self.missing),
            Shown::Twice => (None, true),
            Shown::InHeader(key) => (env.consumers.find(Self::NAME, key), true),
            Shown::InQuery(key) => (env.consumers.find(Self::NAME, &key), false),
        };
        let Some(known) = known else { return self.refusals.settle(ex, env, &self.invalid) };
        ex.attach(known);
        if self.hide && in_header {
            ex.request.headers.remove(self.header.text());
        } else if self.hide {
            ex.request.remove_arg(self.argument_name.as_bytes());
        }
        Step::Next
    }

    fn shown<'a>(&'a self, ex: &'a Exchange) -> Shown<'a> {
        let mut lines = ex.request.headers.all_of(&self.header);
        match (lines.next(), lines.next()) {
            (Some(key), None) => Shown::InHeader(key),
            (Some(_), Some(_)) => Shown::Twice,
            (None, _) => ex.var(&self.argument).map_or(Shown::Nothing, Shown::InQuery),
        }
    }
}

/// What a request shows.
enum Shown<'a> {
    Nothing,
    Twice,
    InHeader(&'a [u8]),
    InQuery(Cow<'a, [u8]>),
}

fn apikey_header() -> HeaderName {
    HeaderName::literal("apikey")
}

fn apikey_argument() -> ShortText {
    ShortText::literal("apikey")
}

fn default_realm() -> Realm {
    Realm::literal("key")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Bench, Request, agree, check};

    const INVALID: &str = "{\"message\":\"Invalid API key in request\"}\n";

    fn bench(config: &str) -> Bench<KeyAuth> {
        check::<KeyAuth>(config).unwrap().consumer("jack", r#"{"key":"k y"}"#)
    }

    #[test]
    fn a_key_in_the_header_or_the_query_names_its_consumer() {
        let bench = bench("{}");
        let passed = bench.request(Request::get("/").header("APIKEY", "k y")).passes();
        assert_eq!((passed.ex.consumer.name(), passed.ex.consumer_at), ("jack", Some(1)));
        assert_eq!(passed.forwarded("apikey"), ["k y"]);
        let passed = bench.request(Request::get("/?a=1&apikey=k%20y")).passes();
        assert_eq!(passed.ex.consumer.name(), "jack");
        assert_eq!(passed.target(), "/?a=1&apikey=k%20y");
    }

    #[test]
    fn without_a_valid_key_the_answer_is_401_with_a_challenge() {
        let bench = bench("{}");
        bench
            .request(Request::get("/"))
            .replies(401, "{\"message\":\"Missing API key in request\"}\n")
            .header("WWW-Authenticate", "apikey realm=\"key\"");
        for wrong in ["", "k", "k yy", "K Y", "k y\0"] {
            let outcome = bench.request(Request::get("/").header("apikey", wrong)).replies(401, INVALID);
            assert!(outcome.ex.consumer.is_empty());
        }
        bench
            .request(Request::get("/?apikey=k%20y").header("apikey", "wrong"))
            .replies(401, INVALID)
            .header("WWW-Authenticate", "apikey realm=\"key\"");
    }

    #[test]
    fn two_key_headers_are_refused_even_if_both_are_right() {
        let twice = Request::get("/").header("apikey", "k y").header("apikey", "k y");
        bench("{}").request(twice).replies(401, INVALID);
    }

    #[test]
    fn names_of_header_argument_and_realm_can_be_chosen() {
        let bench = bench(r#"{"header":"X-Key","query":"k","realm":"my API"}"#);
        bench.request(Request::get("/").header("x-key", "k y")).passes();
        bench.request(Request::get("/?k=k+y")).passes();
        bench
            .request(Request::get("/?apikey=k%20y").header("apikey", "k y"))
            .replies(401, "Missing")
            .header("WWW-Authenticate", "apikey realm=\"my API\"");
    }

    #[test]
    fn hiding_removes_what_was_used_and_nothing_else() {
        let bench = bench(r#"{"hide_credentials":true}"#);
        let passed = bench.request(Request::get("/?apikey=other&b=1").header("apikey", "k y")).passes();
        assert_eq!((passed.forwarded("apikey").len(), passed.target().as_str()), (0, "/?apikey=other&b=1"));
        let passed = bench.request(Request::get("/?b=1&apikey=k%20y&c=2")).passes();
        assert_eq!(passed.target(), "/?b=1&c=2");
    }

    #[test]
    fn the_anonymous_consumer_stands_in_if_it_exists() {
        let with = |name: &str| bench(&format!(r#"{{"anonymous_consumer":"{name}"}}"#));
        let jack = with("jack");
        assert_eq!(jack.request(Request::get("/")).passes().ex.consumer.name(), "jack");
        jack.request(Request::get("/").header("apikey", "wrong")).passes();
        with("nobody")
            .request(Request::get("/"))
            .replies(401, "{\"message\":\"Invalid user authorization\"}\n")
            .header("WWW-Authenticate", "apikey realm=\"key\"");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<KeyAuth>(
            &[
                "{}",
                r#"{"header":"X-Key","query":"k","hide_credentials":true,"realm":"a b","anonymous_consumer":"x"}"#,
            ],
            &[
                (r#"{"header":"X Key"}"#, "header"),
                (r#"{"header":""}"#, "header"),
                (r#"{"query":""}"#, "query"),
                (r#"{"hide_credentials":"yes"}"#, "true or false"),
                (r#"{"realm":"a\"b"}"#, "printable ASCII"),
                (r#"{"realm":""}"#, "printable ASCII"),
                (r#"{"anonymous_consumer":""}"#, "anonymous_consumer"),
                (r#"{"headers":"x"}"#, "additional properties forbidden, found headers"),
            ],
        );
        let kind = KeyAuth::CREDENTIAL.unwrap();
        for refused in ["{}", r#"{"key":""}"#, r#"{"key":7}"#, r#"{"key":"a","secret":"b"}"#] {
            assert!((kind.read)(serde_json::from_str(refused).unwrap()).is_err(), "{refused}");
        }
    }
}

//! Counters in a Redis, for every plugin that limits: what a user writes of it, and how it is asked.
//!
//! A counter is changed by a script, so that looking and counting are one step for all gateways. Scripts are called by
//! their digest; a Redis that has not seen one is sent its text. Where there is no reply in time the plugin decides, by
//! its `allow_degradation`.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CompileCx, ConfigError};
use crate::base::hash::stable;
use crate::proto::resp::{self, Reply};
use crate::runtime::redis::{Failure, Line, Target};
use crate::runtime::{Core, LocalId};

/// Appends the fields of a Redis, and of a cluster of them, to a configuration. They are read for every policy, as APISIX
/// does, and mean something for those that keep counters outside of this process.
macro_rules! with_redis {
    ($(#[$of_struct:meta])* pub struct $name:ident { $($fields:tt)* }) => {
        $(#[$of_struct])*
        #[allow(dead_code)] // What belongs to other policies is read, and refused with them.
        pub struct $name {
            $($fields)*
            /// Where Redis is: an address or a name.
            redis_host: Option<$crate::model::field::ShortText>,
            /// The port of Redis.
            #[serde(default = "crate::plugin::redis::port")]
            redis_port: $crate::model::field::Port,
            /// The user of Redis.
            redis_username: Option<String>,
            /// The password of Redis.
            #[schemars(extend("minLength" = 0))]
            redis_password: Option<$crate::model::field::Secret>,
            /// The number of the database.
            #[serde(default)]
            redis_database: $crate::model::field::InRange<0, { $crate::plugin::limits::AMOUNT_MAX }>,
            /// Milliseconds that Redis may take, connecting included.
            #[serde(default = "crate::plugin::redis::timeout")]
            redis_timeout: $crate::plugin::redis::Millis,
            /// Is TLS spoken with Redis? It can not be yet.
            #[serde(default)]
            redis_ssl: bool,
            /// Is the certificate of Redis checked?
            #[serde(default)]
            redis_ssl_verify: bool,
            /// Milliseconds that an idle connection to Redis is kept.
            #[serde(default = "crate::plugin::redis::keepalive")]
            redis_keepalive_timeout: $crate::plugin::redis::Millis,
            /// Most idle connections to Redis. A core has one at most, whatever is written.
            #[serde(default = "crate::plugin::redis::pool")]
            redis_keepalive_pool: $crate::plugin::redis::Millis,
            /// Nodes of the cluster, as `host:port`.
            redis_cluster_nodes: Option<$crate::model::field::NonEmpty<$crate::model::field::ShortText>>,
            /// The name of the cluster.
            redis_cluster_name: Option<$crate::model::field::ShortText>,
            /// Is TLS spoken with the cluster?
            redis_cluster_ssl: Option<bool>,
            /// Are the certificates of the cluster checked?
            redis_cluster_ssl_verify: Option<bool>,
        }

        impl $name {
            /// What was written of a Redis.
            #[allow(dead_code)] // A plugin may count here only.
            pub(crate) fn redis(&self) -> $crate::plugin::redis::Written<'_> {
                $crate::plugin::redis::Written {
                    host: self.redis_host.as_deref(),
                    port: self.redis_port.get(),
                    username: self.redis_username.as_deref(),
                    password: self.redis_password.as_ref().map(|secret| secret.expose()),
                    database: self.redis_database.u64(),
                    timeout: self.redis_timeout,
                    ssl: self.redis_ssl,
                    keepalive: self.redis_keepalive_timeout,
                }
            }
        }
    };
}
pub(crate) use with_redis;

/// A positive number, of milliseconds as a rule.
pub type Millis = crate::model::field::InRange<1, { super::limits::AMOUNT_MAX }>;

pub const fn port() -> crate::model::field::Port {
    crate::model::field::Port::literal(6379)
}

/// A second, as APISIX has it.
pub const fn timeout() -> Millis {
    Millis::literal(1000)
}

pub const fn keepalive() -> Millis {
    Millis::literal(10_000)
}

pub const fn pool() -> Millis {
    Millis::literal(100)
}

/// Where counters are kept.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Policy {
    /// In this process, exactly over all cores.
    #[default]
    Local,
    /// In a Redis.
    Redis,
    /// In a cluster of Redis.
    RedisCluster,
}

impl Policy {
    /// The Redis that keeps the counters; `None` where they are kept here.
    ///
    /// # Errors
    /// What is wrong with what was written of it, or that there is no such policy yet.
    pub fn store(self, written: &Written<'_>, cx: &mut CompileCx<'_>) -> Result<Option<Store>, ConfigError> {
        match self {
            Self::Local => Ok(None),
            Self::Redis => Store::compile(written, cx).map(Some),
            Self::RedisCluster => Err(not_yet("redis-cluster")),
        }
    }

    /// Refuses policies that keep counters outside of this process.
    ///
    /// # Errors
    /// Any other policy than `local`.
    pub fn is_here(self) -> Result<(), ConfigError> {
        match self {
            Self::Local => Ok(()),
            Self::Redis => Err(not_yet("redis")),
            Self::RedisCluster => Err(not_yet("redis-cluster")),
        }
    }
}

/// The refusal of a policy that is known and not there.
pub fn not_yet(policy: &str) -> ConfigError {
    ConfigError::at("policy", format!("policy {policy} is not there yet"))
}

/// What was written of a Redis.
pub struct Written<'a> {
    pub host: Option<&'a str>,
    pub port: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub database: u64,
    pub timeout: Millis,
    pub ssl: bool,
    pub keepalive: Millis,
}

/// A Redis that keeps counters. Uses that write the same of it share a line on each core.
#[derive(Debug)]
pub struct Store {
    target: Target,
    line: LocalId,
}

impl Store {
    fn compile(written: &Written<'_>, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let Some(host) = written.host else { return Err(ConfigError::new("redis_host is required")) };
        if written.ssl {
            return Err(ConfigError::at("redis_ssl", "TLS is not spoken with Redis yet"));
        }
        let mut hello = Vec::new();
        let mut hello_count = 0;
        if let Some(password) = written.password.filter(|password| !password.is_empty()) {
            let words = [Some("AUTH"), written.username, Some(password)];
            let words: Vec<&[u8]> = words.into_iter().flatten().map(str::as_bytes).collect();
            resp::write_command(&mut hello, &words);
            hello_count += 1;
        }
        if written.database > 0 {
            resp::write_command(&mut hello, &[b"SELECT", written.database.to_string().as_bytes()]);
            hello_count += 1;
        }
        let addresses = cx.addresses("redis_host", host);
        let target = Target {
            name: format!("{host}:{}", written.port),
            addresses: addresses.into_iter().map(|ip| SocketAddr::new(ip, written.port)).collect(),
            hello,
            hello_count,
            within: Duration::from_millis(written.timeout.u64()),
            idle: Duration::from_millis(written.keepalive.u64()),
        };
        let line = cx.local_of("redis", stable(format!("{target:?}").as_bytes()));
        Ok(Self { target, line })
    }

    /// Runs a script on one key; the numbers it says.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn run(
        &self,
        core: &Core,
        script: &Script,
        key: &[u8],
        numbers: &[u64],
    ) -> Result<Vec<i64>, Failure> {
        let line = core.local(self.line, Line::default);
        let mut reply =
            line.ask(core, &self.target, script.call(b"EVALSHA", &script.digest, key, numbers)).await?;
        if matches!(&reply, Reply::Error(why) if why.starts_with("NOSCRIPT")) {
            let call = script.call(b"EVAL", script.text.as_bytes(), key, numbers);
            reply = line.ask(core, &self.target, call).await?;
        }
        let told = match reply {
            Reply::List(members) => members
                .into_iter()
                .map(|one| if let Reply::Number(number) = one { Some(number) } else { None })
                .collect(),
            Reply::Error(why) => return Err(line.misused(core, &self.target, Failure::Refused(why))),
            Reply::Text(_) | Reply::Number(_) | Reply::Nothing => None,
        };
        told.ok_or_else(|| line.misused(core, &self.target, Failure::Garbage))
    }
}

/// A program that Redis runs in one step.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    /// By which it is called, in hexadecimal digits.
    digest: Vec<u8>,
}

impl Script {
    pub fn new(text: &'static str) -> Self {
        let mut hex = Vec::with_capacity(40);
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
            hex.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        Self { text, digest: hex }
    }

    fn call(&self, how: &[u8], what: &[u8], key: &[u8], numbers: &[u64]) -> Vec<u8> {
        let texts: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let mut words = vec![how, what, b"1", key];
        words.extend(texts.iter().map(String::as_bytes));
        let mut out = Vec::new();
        resp::write_command(&mut out, &words);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_called_by_its_digest() {
        let script = Script::new("return 1");
        assert_eq!(script.digest, b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let called = script.call(b"EVALSHA", &script.digest, b"k", &[7, 30]);
        assert!(called.starts_with(b"*6\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9"), "{}", called.escape_ascii());
        assert!(
            called.ends_with(b"$1\r\n1\r\n$1\r\nk\r\n$1\r\n7\r\n$2\r\n30\r\n"),
            "{}",
            called.escape_ascii()
        );
    }
}

//! What a user writes of a Redis, and what it comes to.

use std::net::SocketAddr;
use std::time::Duration;

use super::{CompileCx, ConfigError, Millis, Store};
use crate::model::field::ShortText;
use crate::proto::resp;
use crate::runtime::dialogue::Tls;
use crate::runtime::redis::{Manner, Seeds, Sentinels, Target, Whereabouts};

/// What was written of a Redis.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    pub host: Option<&'a str>,
    pub port: u16,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub database: u64,
    pub timeout: Millis,
    /// Whether it is verified over TLS, where that is spoken.
    pub ssl: Option<bool>,
    pub keepalive: Millis,
    pub cluster: OfCluster<'a>,
}

/// What was written of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct OfCluster<'a> {
    pub nodes: Option<&'a [ShortText]>,
    pub name: Option<&'a str>,
    pub ssl: Option<bool>,
}

/// What was written of sentinels.
#[derive(Clone, Debug)]
pub struct OfSentinels<'a> {
    /// Host and port of each.
    pub at: Option<Vec<(&'a str, u16)>>,
    pub master: Option<&'a str>,
    /// Whether a replica is wanted rather than the master.
    pub is_for_slave: bool,
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
    pub connect: Millis,
    pub read: Millis,
}

impl Store {
    /// The one Redis that was written.
    pub(super) fn one(written: &Written<'_>, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let host = required(written.host, "redis_host")?;
        let tls = tls_of(written.ssl, "redis_ssl_verify", cx)?;
        let within = time(written.timeout);
        let addresses = cx.addresses("redis_host", host);
        let target = Target {
            name: format!("{host}:{}", written.port),
            host: host.to_owned(),
            at: Whereabouts::Written(with_port(addresses, written.port)),
            manner: written.manner(within, tls),
        };
        Ok(Self::single(target, within, cx))
    }

    /// The master that sentinels watch.
    ///
    /// # Errors
    /// What is wrong with what was written.
    pub fn watched(
        written: &Written<'_>,
        of: &OfSentinels<'_>,
        cx: &mut CompileCx<'_>,
    ) -> Result<Self, ConfigError> {
        let at = required(of.at.as_ref(), "redis_sentinels")?;
        let master = required(of.master, "redis_master_name")?;
        if of.is_for_slave {
            let problem = "expected master: counters are written, which a slave refuses";
            return Err(ConfigError::at("redis_role", problem));
        }
        let tls = tls_of(written.ssl, "redis_ssl_verify", cx)?;
        let mut addresses = Vec::with_capacity(at.len());
        for (number, (host, port)) in at.iter().enumerate() {
            let found = cx.addresses(&format!("redis_sentinels[{number}].host"), host);
            addresses.extend(with_port(found, *port).into_iter().map(|at| ((*host).to_owned(), at)));
        }
        let hello = hello(of.username, of.password, 0);
        let target = Target {
            name: master.to_owned(),
            // Where it is changes.
            host: String::new(),
            at: Whereabouts::Watched(Sentinels::new(addresses, hello, master)),
            manner: written.manner(time(of.connect), tls),
        };
        Ok(Self::single(target, time(of.connect) + time(of.read), cx))
    }

    /// The cluster that was written.
    pub(super) fn cluster(written: &Written<'_>, cx: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let of = &written.cluster;
        let written_nodes = required(of.nodes, "redis_cluster_nodes")?;
        let name = required(of.name, "redis_cluster_name")?;
        let tls = tls_of(of.ssl, "redis_cluster_ssl_verify", cx)?;
        let mut nodes = Vec::with_capacity(written_nodes.len());
        for (number, node) in written_nodes.iter().enumerate() {
            let field = format!("redis_cluster_nodes[{number}]");
            let Some((host, port)) = host_and_port(node) else {
                return Err(ConfigError::at(field, format!("expected host:port, got \"{node}\"")));
            };
            for address in with_port(cx.addresses(&field, host), port) {
                nodes.push((host.to_owned(), address));
            }
        }
        let within = time(written.timeout);
        // A cluster has one database.
        let manner = Written { database: 0, ..*written }.manner(within, tls);
        Ok(Self::of_many(Seeds { name: name.to_owned(), nodes, manner }, within, cx))
    }
}

impl Written<'_> {
    fn manner(&self, connect: Duration, tls: Option<Tls>) -> Manner {
        let (hello, hello_count) = hello(self.username, self.password, self.database);
        Manner { hello, hello_count, tls, connect, idle: time(self.keepalive) }
    }
}

fn time(millis: Millis) -> Duration {
    Duration::from_millis(millis.u64())
}

/// The commands that open a connection, and how many they are.
fn hello(username: Option<&str>, password: Option<&str>, database: u64) -> (Vec<u8>, usize) {
    let (mut hello, mut count) = (Vec::new(), 0);
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        let words = [Some("AUTH"), username, Some(password)];
        let words: Vec<&[u8]> = words.into_iter().flatten().map(str::as_bytes).collect();
        resp::write_command(&mut hello, &words);
        count += 1;
    }
    if database > 0 {
        resp::write_command(&mut hello, &[b"SELECT", database.to_string().as_bytes()]);
        count += 1;
    }
    (hello, count)
}

fn tls_of(verify: Option<bool>, field: &str, cx: &mut CompileCx<'_>) -> Result<Option<Tls>, ConfigError> {
    let told = |why| ConfigError::at(field, format!("expected to know who vouches for Redis: {why}"));
    verify.map(|verify| cx.tls(verify).map_err(told)).transpose()
}

fn required<T>(written: Option<T>, field: &str) -> Result<T, ConfigError> {
    written.ok_or_else(|| ConfigError::new(format!("{field} is required")))
}

fn with_port(addresses: Vec<std::net::IpAddr>, port: u16) -> Vec<SocketAddr> {
    addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

/// `host:port`, where an IPv6 address stands in brackets.
fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::host_and_port;

    #[test]
    fn a_node_is_a_host_and_a_port() {
        assert_eq!(host_and_port("a.test:1"), Some(("a.test", 1)));
        assert_eq!(host_and_port("[::1]:65535"), Some(("::1", 65535)));
        for text in ["a", "a:", ":1", "a:0", "a:65536", "::1:1", "[::1:1", "[]:1", ""] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
    }
}

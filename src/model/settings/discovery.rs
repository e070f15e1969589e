//! Registries that know the nodes of upstreams: which, where, and how they are asked. Keys are APISIX's.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DnsRegistry, Endpoint};
use crate::model::ConfigError;
use crate::model::field::{InRange, Seconds, Secret, Text};

/// The registries that upstreams may name in `discovery_type`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiscoverySettings {
    /// HashiCorp's Consul: its catalogue of healthy instances.
    pub consul: Option<ConsulSettings>,
    /// DNS: services with SRV records, or names with several addresses.
    pub dns: Option<DnsRegistry>,
    /// Netflix's Eureka.
    pub eureka: Option<EurekaSettings>,
    /// Alibaba's Nacos.
    pub nacos: Option<NacosSettings>,
}

/// Consul.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConsulSettings {
    /// Its agents or servers, as `http://HOST:PORT` or `https://HOST:PORT`; the next is asked when one does not answer.
    pub servers: Vec<Endpoint>,
    /// The token it is asked with.
    pub token: Option<Secret>,
    /// The weight of an instance that has none of its own.
    pub weight: InRange<1, 65535>,
    /// Are changes waited for (blocking queries)? Otherwise services are asked after every `fetch_interval`.
    pub keepalive: bool,
    /// Seconds between two questions, where changes are not waited for, and after a failure at most.
    pub fetch_interval: Seconds,
    /// How long questions may take.
    pub timeout: Timeouts,
}

impl Default for ConsulSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            token: None,
            weight: InRange::literal(1),
            keepalive: true,
            fetch_interval: Seconds::literal(3),
            timeout: Timeouts {
                connect: InRange::literal(2000),
                read: InRange::literal(2000),
                ..Timeouts::default()
            },
        }
    }
}

/// Eureka.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EurekaSettings {
    /// Its servers, as `http://HOST:PORT` or `https://HOST:PORT`; the next is asked when one does not answer.
    pub host: Vec<Endpoint>,
    /// What its paths begin with.
    pub prefix: Text<1, 256>,
    /// The weight of an instance whose metadata have none.
    pub weight: InRange<1, 65535>,
    /// Seconds between two questions.
    pub fetch_interval: Seconds,
    /// How long questions may take.
    pub timeout: Timeouts,
}

impl Default for EurekaSettings {
    fn default() -> Self {
        Self {
            host: Vec::new(),
            prefix: Text::literal("/eureka/"),
            weight: InRange::literal(100),
            fetch_interval: Seconds::literal(30),
            timeout: Timeouts::default(),
        }
    }
}

/// Nacos.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NacosSettings {
    /// Its servers, as `http://HOST:PORT` or `https://HOST:PORT`; the next is asked when one does not answer.
    pub host: Vec<Endpoint>,
    /// What its paths begin with.
    pub prefix: Text<1, 256>,
    /// The weight of an instance that has none of its own.
    pub weight: InRange<1, 65535>,
    /// Seconds between two questions.
    pub fetch_interval: Seconds,
    /// How long questions may take.
    pub timeout: Timeouts,
}

impl Default for NacosSettings {
    fn default() -> Self {
        Self {
            host: Vec::new(),
            prefix: Text::literal("/nacos/v1/"),
            weight: InRange::literal(100),
            fetch_interval: Seconds::literal(30),
            timeout: Timeouts::default(),
        }
    }
}

/// How long a question may take, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until the connection stands.
    pub connect: InRange<1, 600_000>,
    /// Until the question is sent.
    pub send: InRange<1, 600_000>,
    /// Until the answer is there.
    pub read: InRange<1, 600_000>,
    /// In seconds: how long a change is waited for, where that is done.
    pub wait: InRange<1, 600>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: InRange::literal(2000),
            send: InRange::literal(2000),
            read: InRange::literal(5000),
            wait: InRange::literal(60),
        }
    }
}

impl Timeouts {
    /// How long a question that waits for nothing may take as a whole.
    pub const fn whole(&self) -> Duration {
        Duration::from_millis((self.connect.get() + self.send.get() + self.read.get()) as u64)
    }
}

impl DiscoverySettings {
    /// The names by which upstreams may ask.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            ("consul", self.consul.is_some()),
            ("dns", self.dns.is_some()),
            ("eureka", self.eureka.is_some()),
            ("nacos", self.nacos.is_some()),
        ];
        kinds.into_iter().filter(|(_, is_there)| *is_there).map(|(kind, _)| kind).collect()
    }

    /// Rules between its fields.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let servers = [
            ("consul.servers", self.consul.as_ref().map(|consul| consul.servers.len())),
            ("eureka.host", self.eureka.as_ref().map(|eureka| eureka.host.len())),
            ("nacos.host", self.nacos.as_ref().map(|nacos| nacos.host.len())),
        ];
        let empty = servers.into_iter().filter(|(_, count)| *count == Some(0));
        empty
            .map(|(path, _)| ConfigError::at(format!("discovery.{path}"), "expected at least one, got none"))
            .collect()
    }
}

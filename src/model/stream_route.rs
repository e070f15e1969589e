//! A stream route: TCP, TLS or UDP passed on as it is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::field::{AddressRange, HostPattern, ObjectId, PluginMap, Port};
use super::upstream::Upstream;
use super::{ConfigError, stored};

stored! {
    /// Which connections are taken, and where they go.
    pub struct StreamRoute {
        /// The client's address, or a range of addresses it must be in. Absent: any.
        pub remote_addr: Option<AddressRange>,
        /// The address the connection came in on. Absent: any.
        pub server_addr: Option<AddressRange>,
        /// The port the connection came in on. Absent: any.
        pub server_port: Option<Port>,
        /// The server name that a TLS connection asks for. Absent: any.
        pub sni: Option<HostPattern>,
        /// The upstream to send to, written here rather than kept as an object.
        pub upstream: Option<Upstream>,
        /// The id of the upstream to send to.
        pub upstream_id: Option<ObjectId>,
        /// The id of the service to take the upstream from.
        pub service_id: Option<ObjectId>,
        /// Plugins by name, each with its configuration.
        #[schemars(with = "Option<super::field::PluginMapForm>")]
        pub plugins: Option<PluginMap>,
        /// A protocol spoken inside, which is looked into.
        pub protocol: Option<StreamProtocol>,
    }
}

/// A protocol spoken inside a stream.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamProtocol {
    /// Which one: `redis` or `dubbo`.
    pub name: String,
    /// The id of the stream route this one belongs to.
    pub superior_id: Option<ObjectId>,
    /// What the protocol is told.
    pub conf: Option<Map<String, Value>>,
    /// Who is told of each exchange.
    pub logger: Option<Vec<Value>>,
}

/// Those that APISIX knows.
const PROTOCOLS: [&str; 2] = ["redis", "dubbo"];

impl StreamRoute {
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Upstream::faults_within(self.upstream.as_ref());
        if let Some(protocol) = &self.protocol
            && !PROTOCOLS.contains(&protocol.name.as_str())
        {
            faults.push(ConfigError::at("protocol.name", format!("unknown protocol [{}]", protocol.name)));
        }
        faults
    }
}

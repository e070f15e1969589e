//! Consul: the healthy instances of a service, `GET /v1/health/service/NAME?passing`, waited for by blocking queries.
//!
//! An answer carries an index; asked with it, Consul answers when something has changed, or after a time. An index that
//! goes back means that Consul was set up anew: then the next question is asked without one, as its documentation says.

use std::time::Duration;

use serde_json::Value;

use super::http::{escaped, get};
use super::{Fetched, Registry, port_of};
use crate::control::dial::Dialer;
use crate::model::settings::Endpoint;
use crate::model::settings::discovery::ConsulSettings;
use crate::model::upstream::NodeSpec;
use crate::snapshot::Service;

/// Consul adds up to a sixteenth to the time it waits.
const WAIT_SLACK: Duration = Duration::from_secs(5);

impl Registry for ConsulSettings {
    fn servers(&self) -> &[Endpoint] {
        &self.servers
    }

    fn every(&self) -> Duration {
        self.fetch_interval.get()
    }

    async fn fetch(
        &self,
        server: &Endpoint,
        service: &Service,
        index: Option<u64>,
        dialer: Dialer,
    ) -> Result<Fetched, String> {
        let mut path = format!("/v1/health/service/{}?passing=true", escaped(&service.name));
        if !service.namespace.is_empty() {
            path.push_str(&format!("&ns={}", escaped(&service.namespace)));
        }
        let mut patience = self.timeout.whole();
        if let Some(index) = index {
            let wait = self.timeout.wait.get() as u64;
            path.push_str(&format!("&index={index}&wait={wait}s"));
            patience += Duration::from_secs(wait + wait / 16) + WAIT_SLACK;
        }
        let token = self.token.as_ref().map(|token| ("x-consul-token", token.expose()));
        let answer = get(server, &path, token.as_slice(), dialer, patience).await?;
        if answer.status != 200 {
            return Err(format!("{server}: status {}", answer.status));
        }
        let Value::Array(instances) = answer.body else { return Err(format!("{server}: expected a list")) };
        let told = answer.headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        let next =
            told.filter(|told| self.keepalive && *told > 0 && index.is_none_or(|index| *told >= index));
        let default = self.weight.u32();
        Ok(Fetched {
            nodes: instances.iter().filter_map(|instance| node(instance, default)).collect(),
            index: next,
        })
    }
}

fn node(instance: &Value, default: u32) -> Option<NodeSpec> {
    let service = instance.get("Service")?;
    let own = service.get("Address").and_then(Value::as_str).filter(|address| !address.is_empty());
    // An instance without an address of its own is at its node's.
    let host = own.or_else(|| instance.get("Node")?.get("Address")?.as_str())?;
    let weight = service.get("Weights").and_then(|weights| weights.get("Passing")?.as_u64());
    Some(NodeSpec {
        host: host.to_owned(),
        port: Some(port_of(service.get("Port")?.as_u64()?)?),
        weight: weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(default),
        priority: 0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_instance_is_at_its_own_address_or_at_its_nodes() {
        let own = json!({"Node": {"Address": "10.0.0.1"}, "Service": {"Address": "10.0.0.2", "Port": 80, "Weights": {"Passing": 7}}});
        let told = node(&own, 1).expect("a node");
        assert_eq!((told.host.as_str(), told.port, told.weight), ("10.0.0.2", Some(80), 7));
        let nodes = json!({"Node": {"Address": "10.0.0.1"}, "Service": {"Address": "", "Port": 80}});
        let told = node(&nodes, 3).expect("a node");
        assert_eq!((told.host.as_str(), told.weight), ("10.0.0.1", 3));
        for strange in [
            json!({}),
            json!({"Service": {"Address": "a", "Port": 0}}),
            json!({"Service": {"Address": "a", "Port": 70000}}),
        ] {
            assert_eq!(node(&strange, 1), None, "{strange}");
        }
    }
}

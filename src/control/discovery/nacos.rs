//! Nacos: the healthy instances of a service, `GET {prefix}ns/instance/list?serviceName=NAME&healthyOnly=true`.

use std::time::Duration;

use serde_json::Value;

use super::http::{escaped, get};
use super::{Fetched, Registry, port_of};
use crate::control::dial::Dialer;
use crate::model::settings::Endpoint;
use crate::model::settings::discovery::NacosSettings;
use crate::model::upstream::NodeSpec;
use crate::snapshot::Service;

/// Nacos has weights with fractions; so many of ours are one of them.
const UNIT: f64 = 100.0;

impl Registry for NacosSettings {
    fn servers(&self) -> &[Endpoint] {
        &self.host
    }

    fn every(&self) -> Duration {
        self.fetch_interval.get()
    }

    async fn fetch(
        &self,
        server: &Endpoint,
        service: &Service,
        _: Option<u64>,
        dialer: Dialer,
    ) -> Result<Fetched, String> {
        let (prefix, name) = (self.prefix.trim_matches('/'), escaped(&service.name));
        let mut path = format!("/{prefix}/ns/instance/list?serviceName={name}&healthyOnly=true");
        for (key, value) in [("namespaceId", &service.namespace), ("groupName", &service.group)] {
            if !value.is_empty() {
                path.push_str(&format!("&{key}={}", escaped(value)));
            }
        }
        let patience = self.timeout.whole();
        let answer = get(server, &path, &[], dialer, patience).await?;
        if answer.status != 200 {
            return Err(format!("{server}: status {}", answer.status));
        }
        let hosts = answer.body.get("hosts").and_then(Value::as_array);
        let hosts = hosts.ok_or_else(|| format!("{server}: expected hosts"))?;
        let default = self.weight.u32();
        Ok(Fetched { nodes: hosts.iter().filter_map(|host| node(host, default)).collect(), index: None })
    }
}

fn node(host: &Value, default: u32) -> Option<NodeSpec> {
    let is = |name: &str| host.get(name).is_none_or(|value| value != false);
    if !is("healthy") || !is("enabled") {
        return None;
    }
    let weight = host.get("weight").and_then(Value::as_f64).map(|weight| (weight * UNIT).round() as u32);
    Some(NodeSpec {
        host: host.get("ip")?.as_str()?.to_owned(),
        port: Some(port_of(host.get("port")?.as_u64()?)?),
        weight: weight.unwrap_or(default),
        priority: 0,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_instances_that_are_healthy_and_enabled_are_nodes() {
        let host = json!({"ip": "10.0.0.1", "port": 8080, "weight": 0.5, "healthy": true, "enabled": true});
        let told = node(&host, 100).expect("a node");
        assert_eq!((told.host.as_str(), told.port, told.weight), ("10.0.0.1", Some(8080), 50));
        for off in ["healthy", "enabled"] {
            let mut host = host.clone();
            host[off] = false.into();
            assert_eq!(node(&host, 100), None, "{off}");
        }
    }
}

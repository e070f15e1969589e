//! Eureka: the instances of an application that are up, `GET {prefix}apps/NAME`.

use std::time::Duration;

use serde_json::Value;

use super::http::{escaped, get};
use super::{Fetched, Registry, port_of};
use crate::control::dial::Dialer;
use crate::model::settings::Endpoint;
use crate::model::settings::discovery::EurekaSettings;
use crate::model::upstream::NodeSpec;
use crate::snapshot::Service;

impl Registry for EurekaSettings {
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
        let path = format!("/{}/apps/{}", self.prefix.trim_matches('/'), escaped(&service.name));
        let patience = self.timeout.whole();
        let answer = get(server, &path, &[], dialer, patience).await?;
        match answer.status {
            // An application without instances is not there.
            404 => return Ok(Fetched { nodes: Vec::new(), index: None }),
            200 => {}
            status => return Err(format!("{server}: status {status}")),
        }
        let instances =
            match answer.body.get("application").and_then(|application| application.get("instance")) {
                Some(Value::Array(instances)) => instances.clone(),
                // One by itself is no list.
                Some(one @ Value::Object(_)) => vec![one.clone()],
                _ => return Err(format!("{server}: expected application.instance")),
            };
        let default = self.weight.u32();
        Ok(Fetched {
            nodes: instances.iter().filter_map(|instance| node(instance, default)).collect(),
            index: None,
        })
    }
}

fn node(instance: &Value, default: u32) -> Option<NodeSpec> {
    let overridden = instance.get("overriddenStatus").and_then(Value::as_str);
    let is_up = instance.get("status")?.as_str()? == "UP"
        && overridden.is_none_or(|status| matches!(status, "UP" | "UNKNOWN"));
    let port = instance.get("port")?;
    let is_open = port.get("@enabled").is_none_or(|open| open == "true" || open == true);
    if !is_up || !is_open {
        return None;
    }
    let number = number(port.get("$")?)?;
    let weight = instance.get("metadata").and_then(|metadata| metadata.get("weight")).and_then(self::number);
    Some(NodeSpec {
        host: instance.get("ipAddr")?.as_str()?.to_owned(),
        port: Some(port_of(number)?),
        weight: weight.and_then(|weight| u32::try_from(weight).ok()).unwrap_or(default),
        priority: 0,
    })
}

/// A number, written as one or as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_instances_that_are_up_are_nodes() {
        let instance = |status: &str, enabled: &str| {
            json!({"ipAddr": "10.0.0.1", "status": status, "overriddenStatus": "UNKNOWN",
                   "port": {"$": 8761, "@enabled": enabled}, "metadata": {"weight": "5"}})
        };
        let told = node(&instance("UP", "true"), 100).expect("a node");
        assert_eq!((told.host.as_str(), told.port, told.weight), ("10.0.0.1", Some(8761), 5));
        assert_eq!(node(&instance("DOWN", "true"), 100), None);
        assert_eq!(node(&instance("UP", "false"), 100), None);
    }
}

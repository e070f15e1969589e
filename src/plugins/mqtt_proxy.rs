//! `mqtt-proxy`: looks at the first packet of an MQTT client in a stream route.
//!
//! ```yaml
//! stream_routes:
//!   - id: broker
//!     plugins:
//!       mqtt-proxy: {protocol_name: MQTT, protocol_level: 4}
//!     upstream: {type: chash, key: mqtt_client_id, nodes: {"127.0.0.1:1883": 1}}
//! ```
//!
//! The client must speak the named protocol at the given level (3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0), or its connection is
//! closed. Its id is `$mqtt_client_id` from then on, so that a consistent hash leads it to the same broker; without an id
//! there is no value. The packet is passed on untouched. Differs from APISIX: `upstream` is no field of the plugin; unknown
//! fields are refused.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Exchange, Reply};
use crate::model::field::{InRange, Text};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};
use crate::proto::mqtt as wire;

/// Looks at the first packet of an MQTT client.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name of the protocol in the packet: `MQTT`, or `MQIsdp` of MQTT 3.1.
    #[serde(default = "mqtt")]
    protocol_name: Text<1, 64>,
    /// Its level: 3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0.
    protocol_level: InRange<0, 255>,
}

/// What all but the oldest clients speak.
fn mqtt() -> Text<1, 64> {
    Text::literal("MQTT")
}

/// What the core reads.
pub struct MqttProxy {
    protocol: Box<[u8]>,
    level: u8,
    refusal: Reply,
}

impl Plugin for MqttProxy {
    const NAME: &'static str = "mqtt-proxy";
    const PRIORITY: i32 = 1000;
    type Config = Config;
    type Metadata = NoMetadata;

    const WITH_REQUESTS: bool = false;
    const PREREAD: Gate<Self> = Some(Self::look);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            protocol: config.protocol_name.as_str().as_bytes().into(),
            level: config.protocol_level.get() as u8,
            refusal: Reply::status(400),
        })
    }
}

impl MqttProxy {
    fn look<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        let stream = &mut *ex.stream;
        match wire::read(&stream.received) {
            Ok(None) => {
                stream.wants_more = true;
                Step::Next
            }
            Ok(Some(connect)) if connect.protocol == &*self.protocol && connect.level == self.level => {
                stream.mqtt_client_id.clear();
                stream.mqtt_client_id.extend_from_slice(connect.client_id);
                Step::Next
            }
            Ok(Some(_)) | Err(wire::NoConnect) => Step::Reply(self.refusal.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::{Var, Vars as _};
    use crate::plugin::testing::{agree, check};

    const V4: &[u8] = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04id-7";

    /// What becomes of these bytes: the id, or the status of a refusal; `None`: more is wanted.
    fn outcome(config: &str, bytes: &[u8]) -> Option<Result<Vec<u8>, u16>> {
        let plugin = check::<MqttProxy>(config).unwrap();
        let mut ex = Exchange::new();
        ex.stream.received = bytes.to_vec();
        let step = plugin.preread(&mut ex);
        if ex.stream.wants_more {
            return None;
        }
        let id = ex.var(&Var::MqttClientId).unwrap_or_default().into_owned();
        Some(step.map_or(Ok(id), |reply| Err(reply.status)))
    }

    #[test]
    fn the_id_is_known_once_it_has_come() {
        let config = r#"{"protocol_name": "MQTT", "protocol_level": 4}"#;
        assert_eq!(outcome(config, V4), Some(Ok(b"id-7".to_vec())));
        for at in 0..V4.len() {
            assert_eq!(outcome(config, &V4[..at]), None, "{at}");
        }
    }

    #[test]
    fn who_speaks_something_else_is_refused() {
        let config = |name, level| format!(r#"{{"protocol_name": "{name}", "protocol_level": {level}}}"#);
        assert_eq!(outcome(&config("MQTT", 5), V4), Some(Err(400)));
        assert_eq!(outcome(&config("MQIsdp", 4), V4), Some(Err(400)));
        assert_eq!(outcome(&config("MQTT", 4), b"GET /"), Some(Err(400)));
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<MqttProxy>(
            &[r#"{"protocol_name": "MQIsdp", "protocol_level": 3}"#, r#"{"protocol_level": 4}"#],
            &[
                (r#"{"protocol_name": "MQTT"}"#, "protocol_level is required"),
                (r#"{"protocol_name": "", "protocol_level": 4}"#, "protocol_name"),
                (r#"{"protocol_name": "MQTT", "protocol_level": 256}"#, "protocol_level"),
                (r#"{"protocol_name": "MQTT", "protocol_level": 4, "upstream": {}}"#, "upstream"),
            ],
        );
    }
}

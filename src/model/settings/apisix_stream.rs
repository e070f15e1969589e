//! APISIX's `apisix.stream_proxy`: where streams come in.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::apisix::Translated;
use crate::base::address;
use crate::model::ConfigError;

impl Translated {
    /// `proxied`: each connection begins with a PROXY header.
    pub(super) fn stream_proxy(
        &mut self,
        settings: &mut Value,
        fields: Map<String, Value>,
        proxied: bool,
        faults: &mut Vec<ConfigError>,
    ) {
        for (name, value) in fields {
            let theirs = format!("apisix.stream_proxy.{name}");
            match (name.as_str(), value) {
                ("tcp", Value::Array(places)) => {
                    let places = places.into_iter().map(|place| place_of(place, proxied)).collect();
                    self.place(settings, "stream_proxy.tcp", &theirs, Value::Array(places), faults);
                }
                ("tcp", value) => self.place(settings, "stream_proxy.tcp", &theirs, value, faults),
                ("udp", value) => self.place(settings, "stream_proxy.udp", &theirs, value, faults),
                // With listeners, stream routes are served without being asked for.
                ("only", _) => {}
                (_, value) => self.ignore(&theirs, &value),
            }
        }
    }
}

/// A port, an address with port, or `{addr, tls}` with either.
fn place_of(place: Value, proxied: bool) -> Value {
    let (addr, tls) = match place {
        Value::Object(mut fields) => match fields.shift_remove("addr") {
            Some(addr) => (addr, fields.shift_remove("tls").unwrap_or(Value::Bool(false))),
            None => return Value::Object(fields),
        },
        addr => (addr, Value::Bool(false)),
    };
    let port = addr.as_u64().or_else(|| addr.as_str().and_then(|text| text.parse().ok()));
    if let Some(port) = port {
        return json!({"port": port, "tls": tls, "proxy_protocol": proxied});
    }
    if let Some(path) = addr.as_str().and_then(|text| text.strip_prefix(address::UNIX)) {
        return json!({"unix": path, "tls": tls, "proxy_protocol": proxied});
    }
    match addr.as_str().and_then(|text| text.parse::<SocketAddr>().ok()) {
        Some(at) => {
            json!({"address": at.ip().to_string(), "port": at.port(), "tls": tls, "proxy_protocol": proxied})
        }
        // What is wrong with it is for those to say who read it.
        None => addr,
    }
}

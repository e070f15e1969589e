//! The nodes of an upstream, in the two forms they are written in, and the one form both come to.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::base::address;
use crate::model::ConfigError;
use crate::model::field::{Port, Text, Weight};
use crate::model::path::{Step, render};
use crate::model::schema::shown_text;

/// Nodes as written.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Nodes {
    /// `{"host:port": weight}`, `{"unix:/run/app.sock": weight}`.
    ByAddress(BTreeMap<String, Weight>),
    /// `[{host, port, weight, priority}]`.
    Listed(Vec<Node>),
}

/// A node as written in a list.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The node's name or address, IPv6 in brackets; or `unix:/run/app.sock`.
    pub host: Text<1, 256>,
    /// The node's port; a Unix socket has none. Absent: the scheme's own, 80 for http.
    pub port: Option<Port>,
    /// Its share against the other nodes'; 0 takes it out, whatever `type` says, unless it is the only node there is.
    pub weight: Weight,
    /// Nodes of a lower priority are used when none of a higher one is left.
    #[serde(default)]
    pub priority: i32,
    /// Remarks; kept and not read.
    pub metadata: Option<Map<String, Value>>,
}

/// A node, however it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// A name or an address, IPv6 without brackets; or `unix:` and a path.
    pub host: String,
    /// Absent: the scheme's own.
    pub port: Option<u16>,
    pub weight: u32,
    pub priority: i32,
}

impl Nodes {
    /// Both forms made one.
    pub fn specs(&self) -> Result<Vec<NodeSpec>, ConfigError> {
        self.each().collect()
    }

    /// Every node that cannot be understood.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        self.each().filter_map(Result::err).collect()
    }

    fn each(&self) -> Box<dyn Iterator<Item = Result<NodeSpec, ConfigError>> + '_> {
        match self {
            Self::ByAddress(nodes) => Box::new(nodes.iter().map(|(address, weight)| {
                let (host, port) =
                    split(address).map_err(|expected| fault(&[Step::Key(address)], expected, address))?;
                Ok(NodeSpec { host, port, weight: weight.get(), priority: 0 })
            })),
            Self::Listed(nodes) => Box::new(nodes.iter().enumerate().map(|(index, node)| {
                let place = [Step::Index(index), Step::Key("host")];
                if node.host.starts_with(address::UNIX) && node.port.is_some() {
                    let place = [Step::Index(index), Step::Key("port")];
                    return Err(fault(&place, "no port beside a Unix socket", &node.host));
                }
                if node.host.parse::<Ipv6Addr>().is_ok() {
                    return Err(fault(&place, "an IPv6 address in brackets", &node.host));
                }
                let host =
                    host(&node.host).ok_or_else(|| fault(&place, host_expected(&node.host), &node.host))?;
                let port = node.port.map(Port::get);
                Ok(NodeSpec { host, port, weight: node.weight.get(), priority: node.priority })
            })),
        }
    }
}

fn fault(place: &[Step<'_>], expected: &str, found: &str) -> ConfigError {
    let steps = std::iter::once(Step::Key("nodes")).chain(place.iter().copied());
    ConfigError::at(render(steps), format!("expected {expected}, got {}", shown_text(found)))
}

/// What was expected of a host that is none.
fn host_expected(host: &str) -> &'static str {
    if host.starts_with(address::UNIX) { address::FORM } else { "a host name or an address" }
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` or `unix:/path`; else says what was expected.
fn split(text: &str) -> Result<(String, Option<u16>), &'static str> {
    const ADDRESS: &str = "host or host:port";
    if text.parse::<Ipv6Addr>().is_ok() {
        // `::1:80` could be read either way.
        return Err("an IPv6 address in brackets");
    }
    if text.starts_with(address::UNIX) {
        return host(text).map(|host| (host, None)).ok_or(address::FORM);
    }
    let bracket = text.rfind(']').map_or(0, |at| at + 1);
    let (name, port) = match text.get(bracket..).and_then(|rest| rest.find(':')) {
        Some(colon) => {
            let (name, port) = text.split_at(bracket + colon);
            (name, Some(port.strip_prefix(':').unwrap_or(port)))
        }
        None => (text, None),
    };
    let port = match port {
        None => None,
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port| *port > 0).ok_or("a port from 1 to 65535")?)
        }
        Some(_) => return Err(ADDRESS),
    };
    Ok((host(name).ok_or(ADDRESS)?, port))
}

/// A name, an address without its brackets, or a Unix socket.
fn host(text: &str) -> Option<String> {
    if text.starts_with(address::UNIX) {
        return address::path_in(text).map(|_| text.to_owned());
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return inner.parse::<Ipv6Addr>().ok().map(|_| inner.to_owned());
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = !text.is_empty() && text.bytes().all(legal);
    is_name.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{NodeSpec, Nodes};

    fn specs(json: &str) -> Result<Vec<NodeSpec>, String> {
        let nodes: Nodes = serde_json::from_str(json).unwrap();
        nodes.specs().map_err(|error| error.to_string())
    }

    #[test]
    fn both_forms_come_to_the_same() {
        let check = |json: &str, host: &str, port: Option<u16>| {
            let expected = NodeSpec { host: host.to_owned(), port, weight: 1, priority: 0 };
            assert_eq!(specs(json), Ok(vec![expected]), "{json}");
        };
        check(r#"{"10.0.0.1:80": 1}"#, "10.0.0.1", Some(80));
        check(r#"{"origin.test": 1}"#, "origin.test", None);
        check(r#"{"my_service:8080": 1}"#, "my_service", Some(8080));
        check(r#"{"[::1]:80": 1}"#, "::1", Some(80));
        check(r#"{"[::1]": 1}"#, "::1", None);
        check(r#"[{"host": "10.0.0.1", "port": 80, "weight": 1}]"#, "10.0.0.1", Some(80));
        check(r#"[{"host": "[::1]", "weight": 1}]"#, "::1", None);
        check(r#"{"unix:/run/app.sock": 1}"#, "unix:/run/app.sock", None);
        check(r#"[{"host": "unix:/run/app.sock", "weight": 1}]"#, "unix:/run/app.sock", None);
        assert_eq!(specs("{}"), Ok(Vec::new()));
        assert_eq!(specs("[]"), Ok(Vec::new()));
    }

    #[test]
    fn a_node_that_cannot_be_reached_is_refused_by_place() {
        let check = |json: &str, problem: &str| assert_eq!(specs(json).unwrap_err(), problem, "{json}");
        check(r#"{"::1": 1}"#, r#"nodes["::1"]: expected an IPv6 address in brackets, got "::1""#);
        check(r#"{"a:0": 1}"#, r#"nodes["a:0"]: expected a port from 1 to 65535, got "a:0""#);
        check(r#"{"a:65536": 1}"#, r#"nodes["a:65536"]: expected a port from 1 to 65535, got "a:65536""#);
        check(r#"{"a:": 1}"#, r#"nodes["a:"]: expected host or host:port, got "a:""#);
        check(r#"{"a:+80": 1}"#, r#"nodes["a:+80"]: expected host or host:port, got "a:+80""#);
        check(r#"{"http://a": 1}"#, r#"nodes["http://a"]: expected host or host:port, got "http://a""#);
        check(r#"{"": 1}"#, r#"nodes[""]: expected host or host:port, got """#);
        check(r#"{"[a]:80": 1}"#, r#"nodes["[a]:80"]: expected host or host:port, got "[a]:80""#);
        check(
            r#"{"unix:run/app.sock": 1}"#,
            r#"nodes["unix:run/app.sock"]: expected unix: and an absolute path of at most 107 bytes, such as unix:/run/app.sock, got "unix:run/app.sock""#,
        );
        check(
            r#"[{"host": "unix:", "weight": 1}]"#,
            r#"nodes[0].host: expected unix: and an absolute path of at most 107 bytes, such as unix:/run/app.sock, got "unix:""#,
        );
        check(
            r#"[{"host": "unix:/a", "port": 80, "weight": 1}]"#,
            r#"nodes[0].port: expected no port beside a Unix socket, got "unix:/a""#,
        );
        check(
            r#"[{"host": "::1", "port": 80, "weight": 1}]"#,
            r#"nodes[0].host: expected an IPv6 address in brackets, got "::1""#,
        );
        check(
            r#"[{"host": "a", "weight": 1}, {"host": "b:80", "weight": 1}]"#,
            r#"nodes[1].host: expected a host name or an address, got "b:80""#,
        );
    }
}

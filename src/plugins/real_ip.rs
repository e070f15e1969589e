//! `real-ip`: takes the client's address from what a proxy in front says.
//!
//! ```yaml
//! plugins:
//!   real-ip:
//!     source: http_x_forwarded_for
//!     trusted_addresses: ["10.0.0.0/8"]
//!     recursive: true
//! ```
//!
//! Runs before all other plugins: they, limits, rules, logs and the upstream see the new address. What can not be read
//! as an address changes nothing. Who may vouch is judged by the other end of the connection, never by an address
//! that was vouched for. Differs from APISIX: several lines of X-Forwarded-For are one list; unknown fields are refused.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::base::cidr::{CidrSet, vouched};
use crate::exchange::Exchange;
use crate::expr::{Var, Vars as _};
use crate::model::field::{AddressRange, NonEmpty, Text};
use crate::plugin::{CompileCx, ConfigError, Env, Gate, NoMetadata, Plugin, Step};

/// Takes the client's address from what a proxy in front says.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The variable that has the address, with or without a port, such as `http_x_forwarded_for` or `arg_realip`. Of
    /// X-Forwarded-For it is the last.
    source: Text<1, 256>,
    /// Who is believed: the other end of the connection must be among these. Absent: anybody.
    trusted_addresses: Option<NonEmpty<AddressRange>>,
    /// Are trusted addresses at the end of X-Forwarded-For passed over, so that it is the last that is not trusted?
    #[serde(default)]
    recursive: bool,
}

/// What the core reads.
pub struct RealIp {
    source: Var,
    /// The source is a list, to which each proxy appends.
    is_list: bool,
    trusted: Option<CidrSet>,
    recursive: bool,
}

impl Plugin for RealIp {
    const NAME: &'static str = "real-ip";
    const PRIORITY: i32 = 23000;
    type Config = Config;
    type Metadata = NoMetadata;

    const REWRITE: Gate<Self> = Some(Self::replace);

    fn compile(config: Config, _: NoMetadata, _: &mut CompileCx<'_>) -> Result<Self, ConfigError> {
        let source = Var::parse(config.source.as_str());
        if source.needs_request_body() {
            return Err(ConfigError::at("source", "expected a variable that is known before the body"));
        }
        Ok(Self {
            is_list: source == Var::parse("http_x_forwarded_for"),
            source,
            trusted: config.trusted_addresses.map(|all| all.iter().map(AddressRange::cidr).collect()),
            recursive: config.recursive,
        })
    }
}

impl RealIp {
    fn replace<'a>(&'a self, ex: &'a mut Exchange, _: Env<'a>) -> Step<'a> {
        if self.trusted.as_ref().is_none_or(|trusted| trusted.contains(ex.client.peer.ip()))
            && let Some((ip, port)) = self.found(ex)
        {
            ex.client.ip = ip;
            ex.client.port = port.unwrap_or(ex.client.port);
            ex.client.replaced = true;
        }
        Step::Next
    }

    fn found(&self, ex: &Exchange) -> Option<(IpAddr, Option<u16>)> {
        let value = ex.var(&self.source)?;
        let text = if self.is_list { self.last(&value) } else { &value };
        // Nothing can come from port 0, so whoever writes it is not to be believed.
        vouched(text).filter(|(_, port)| *port != Some(0))
    }

    /// The last of a list, or the last that is not trusted; the first where all are.
    fn last<'v>(&self, list: &'v [u8]) -> &'v [u8] {
        let passed = self.trusted.as_ref().filter(|_| self.recursive);
        let is_client = |item: &&[u8]| match passed {
            Some(trusted) => vouched(item).is_none_or(|(ip, _)| !trusted.contains(ip)),
            None => true,
        };
        let mut from_right = list.rsplit(|byte| *byte == b',');
        from_right.find(is_client).or_else(|| list.split(|byte| *byte == b',').next()).unwrap_or(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::{Request, agree, check, refuses};

    /// Address and port of the client, who came from 192.0.2.1:1111, after the plugin.
    fn client(config: &str, request: Request) -> String {
        let bench = check::<RealIp>(config).unwrap();
        let from_peer = request.with(|ex| {
            ex.client.peer = "192.0.2.1:1111".parse().unwrap();
            ex.client.port = 1111;
        });
        let client = bench.request(from_peer).passes().ex.client;
        let unchanged = client.ip.to_string() == "192.0.2.1" && client.port == 1111;
        assert_eq!(client.replaced, !unchanged, "{config}");
        format!("{}-{}", client.ip, client.port)
    }

    fn forwarded(value: &str) -> Request {
        Request::get("/").header("X-Forwarded-For", value)
    }

    #[test]
    fn the_source_is_read_with_and_without_a_port() {
        let config = r#"{"source": "arg_realip"}"#;
        for (value, expected) in [
            ("10.1.1.1", "10.1.1.1-1111"),
            ("10.1.1.1:80", "10.1.1.1-80"),
            ("::1", "::1-1111"),
            ("[::1]", "::1-1111"),
            ("[::1]:65535", "::1-65535"),
            ("::ffff:10.1.1.1", "10.1.1.1-1111"),
            ("%2010.1.1.1%20", "10.1.1.1-1111"),
        ] {
            assert_eq!(client(config, Request::get(&format!("/?realip={value}"))), expected);
        }
    }

    #[test]
    fn what_is_no_address_changes_nothing() {
        let config = r#"{"source": "arg_realip"}"#;
        for query in [
            "", "x=1", "realip=", "realip=unknown", "realip=10.1.1", "realip=10.1.1.1:0", "realip=10.1.1.1:65536",
            "realip=10.1.1.1:x", "realip=[10.1.1.1]", "realip=010.1.1.1", "realip=10.1.1.1,10.1.1.2", "realip=::1]",
        ] {
            assert_eq!(client(config, Request::get(&format!("/?{query}"))), "192.0.2.1-1111", "{query}");
        }
        assert_eq!(client(r#"{"source": "nonsense"}"#, Request::get("/")), "192.0.2.1-1111");
    }

    #[test]
    fn only_a_trusted_peer_is_believed_whatever_was_vouched_for() {
        let trusting = |range: &str| format!(r#"{{"source": "arg_a", "trusted_addresses": ["{range}"]}}"#);
        let asked = || Request::get("/?a=10.1.1.1").from("10.9.9.9");
        assert_eq!(client(&trusting("192.0.2.0/24"), asked()), "10.1.1.1-1111");
        let bench = check::<RealIp>(&trusting("10.0.0.0/8")).unwrap();
        let outcome = bench.request(asked().with(|ex| ex.client.peer = "192.0.2.1:1".parse().unwrap()));
        assert_eq!(outcome.ex.client.ip.to_string(), "10.9.9.9", "the peer itself is not in the range");
    }

    #[test]
    fn of_a_list_the_last_counts_or_the_last_that_is_not_trusted() {
        let plain = r#"{"source": "http_x_forwarded_for", "trusted_addresses": ["192.0.2.0/24", "10.0.0.0/8"]}"#;
        let recursive = plain.replacen('{', r#"{"recursive": true, "#, 1);
        for (list, last, last_not_trusted) in [
            ("6.6.6.6", "6.6.6.6-1111", "6.6.6.6-1111"),
            ("6.6.6.6, 7.7.7.7, 10.1.1.1:9", "10.1.1.1-9", "7.7.7.7-1111"),
            ("6.6.6.6 ,7.7.7.7:5,10.1.1.1,   10.1.1.2", "10.1.1.2-1111", "7.7.7.7-5"),
            ("10.1.1.1, 10.1.1.2", "10.1.1.2-1111", "10.1.1.1-1111"),
            // What a stranger wrote in front of something unreadable is not believed.
            ("6.6.6.6, junk, 10.1.1.1", "10.1.1.1-1111", "192.0.2.1-1111"),
            ("6.6.6.6,", "192.0.2.1-1111", "192.0.2.1-1111"),
        ] {
            assert_eq!(client(plain, forwarded(list)), last, "{list}");
            assert_eq!(client(&recursive, forwarded(list)), last_not_trusted, "{list}");
        }
        let two_lines = forwarded("6.6.6.6").header("X-Forwarded-For", "10.1.1.1");
        assert_eq!(client(&recursive, two_lines), "6.6.6.6-1111");
        let nobody_trusted = r#"{"source": "http_x_forwarded_for", "recursive": true}"#;
        assert_eq!(client(nobody_trusted, forwarded("6.6.6.6, 7.7.7.7")), "7.7.7.7-1111");
    }

    #[test]
    fn schema_and_compile_agree() {
        agree::<RealIp>(
            &[r#"{"source": "arg_a", "trusted_addresses": ["::/0", "10.0.0.1"], "recursive": true}"#],
            &[
                ("{}", "source"),
                (r#"{"source": ""}"#, "source"),
                (r#"{"source": "arg_a", "trusted_addresses": []}"#, "trusted_addresses"),
                (r#"{"source": "arg_a", "trusted_addresses": ["10.0.0.0/33"]}"#, "trusted_addresses[0]"),
                (r#"{"source": "arg_a", "trusted_addresses": ["example.com"]}"#, "trusted_addresses[0]"),
                (r#"{"source": "arg_a", "recursive": 1}"#, "recursive"),
                (r#"{"source": "arg_a", "header": "x"}"#, "found header"),
            ],
        );
        refuses::<RealIp>(r#"{"source": "post_arg_ip"}"#, "source: expected a variable that is known before the body");
    }
}

//! The TLS handshake with a node: it shows who it is, and we do if it asks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::{DnsName, ServerName};

use super::Hall;
use super::pick::Unreached;
use crate::base::hash::Map;
use crate::link::outbox::Level;
use crate::runtime::socket::Socket;
use crate::runtime::tls::Session;
use crate::snapshot::NodeTls;

/// Ways to speak to nodes that a core keeps its own copy of, with the sessions to resume; beyond, the table starts over.
const CONFIGS_MAX: usize = 256;
/// Sessions to resume that each of them keeps.
const SESSIONS: usize = 256;

/// A core's own copies, so that cores do not share a lock over what may be resumed.
pub(super) type Configs = Map<u64, Arc<ClientConfig>>;

/// What tells connections over TLS apart: by which rules, and under which name. Names may be the client's choice, so the
/// hash is seeded.
pub(super) fn key(hall: &Hall, tls: &NodeTls, name: &[u8]) -> u64 {
    hall.core.pool.names().hash_one((tls.id, name)) | 1
}

/// Speaks TLS with a node from here on; whether HTTP/2 over it.
pub(super) async fn secure(
    hall: &Hall,
    socket: &mut Socket,
    tls: &NodeTls,
    name: &[u8],
    within: Duration,
) -> Result<bool, Unreached> {
    let core = &hall.core;
    let told = |why: String| {
        core.stats.upstream_tls_errors.add(1);
        let name = String::from_utf8_lossy(name).into_owned();
        hall.note_seldom(Level::Warn, || format!("no TLS with a node as {name}: {why}"));
        Unreached::Mistrusted
    };
    let asked = name_of(name).ok_or_else(|| told("expected the name of a host, or an address".to_owned()))?;
    let session = Session::client(config_of(hall, tls), asked, &core.tls_buffers)
        .map_err(|fault| told(fault.to_string()))?;
    socket.watch().arm(&core.wheel, within);
    let shaken = socket.shake(session, Vec::new(), &core.tls_buffers, &core.turnstile).await;
    if socket.watch().fired() {
        return Err(Unreached::Timeout);
    }
    socket.watch().disarm();
    shaken.map(|agreed| agreed.is_http2).map_err(|error| told(error.to_string()))
}

fn name_of(name: &[u8]) -> Option<ServerName<'static>> {
    let text = std::str::from_utf8(name).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(ServerName::IpAddress(address.into()));
    }
    DnsName::try_from(text.to_owned()).ok().map(ServerName::DnsName)
}

fn config_of(hall: &Hall, tls: &NodeTls) -> Arc<ClientConfig> {
    let mut configs = hall.node_configs.borrow_mut();
    if configs.len() >= CONFIGS_MAX && !configs.contains_key(&tls.id) {
        configs.clear();
    }
    let copied = || {
        let mut config = ClientConfig::clone(&tls.config);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Arc::new(config)
    };
    Arc::clone(configs.entry(tls.id).or_insert_with(copied))
}

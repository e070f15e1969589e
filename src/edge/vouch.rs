//! A connection from a load balancer that passes bytes on begins with the word of whose it is.

use std::net::SocketAddr;

use super::Hall;
use super::h1::Connection;
use crate::base::address::{Shown, is_none};
use crate::link::outbox::Level;
use crate::proto::proxy_protocol::{self, HEADER_BYTES_MAX};

/// What was heard.
pub(super) struct Heard {
    /// What the client has called, if that was said.
    pub(super) called: Option<SocketAddr>,
    /// What came behind.
    pub(super) behind: Vec<u8>,
}

/// Hears it, and takes the client for who it is said to be. `None`: nobody may be believed.
pub(super) async fn hear(hall: &Hall, connection: &mut Connection, is_tls: bool) -> Option<Heard> {
    let core = &hall.core;
    let balancer = connection.client.peer;
    let refuse = |why: &str| {
        core.stats.connections_refused.add(1);
        hall.note_seldom(Level::Warn, || format!("closed a connection of {}: {why}", Shown(balancer.ip())));
    };
    if !hall.view().house.balancers.contains(balancer.ip().to_canonical()) {
        refuse("expected a load balancer of proxy_protocol.from");
        return None;
    }
    connection.socket.watch().arm(&core.wheel, core.limits.head_timeout);
    // What follows is received on into the same buffer.
    let mut received = if is_tls { Vec::new() } else { core.buffers.small() };
    let header = loop {
        received = match connection.socket.receive_in_clear(received, &core.tls_buffers).await {
            Ok(received) => received,
            Err(_) => {
                if connection.socket.watch().fired() {
                    refuse("expected a PROXY header within limits.head_timeout");
                }
                return None;
            }
        };
        match proxy_protocol::read(&received) {
            Ok(Some(header)) => break header,
            Ok(None) if received.len() <= HEADER_BYTES_MAX => {}
            Ok(None) | Err(_) => {
                refuse("expected a PROXY header");
                return None;
            }
        }
    };
    // Of a Unix socket the kernel tells us, and nobody else.
    let client = header.client.filter(|client| !is_none(client.ip()));
    let called = header.called.filter(|_| client.is_some());
    if let Some(client) = client {
        connection.client.peer = client;
        (connection.client.ip, connection.client.port) = (client.ip().to_canonical(), client.port());
    }
    received.drain(..header.len);
    if received.is_empty() && !is_tls {
        core.buffers.give_back(std::mem::take(&mut received));
    }
    Some(Heard { called, behind: received })
}

//! The TLS handshake with a client: its hello says which host it asks for, that one's rules are looked up, and by them both
//! agree on how to speak.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::Hall;
use super::h1::Connection;
use crate::base::x509;
use crate::exchange::{ClientCertificate, Security, Verdict};
use crate::link::outbox::Level;
use crate::proto::hello::{self, HelloFault};
use crate::runtime::Core;
use crate::runtime::socket::Sending;
use crate::runtime::tls::{Agreement, Session};
use crate::snapshot::ServerRules;

/// Fatal: nobody here has a certificate for that name (RFC 6066 3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// Fatal: that is no hello.
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// What is spoken over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    Requests,
    /// What the client and the nodes know alone.
    Stream,
}

/// What came of it.
pub(super) enum Greeted {
    Agreed,
    /// The client speaks in clear, and has said so much.
    InClear(Vec<u8>),
    Gone,
}

/// Agrees with a client on how to speak TLS, within the time there is for that. `received` has come already.
pub(super) async fn greet(
    hall: &Hall,
    connection: &mut Connection,
    received: Vec<u8>,
    follows: Follows,
) -> Greeted {
    let core = &hall.core;
    connection.socket.watch().arm(&core.wheel, core.limits.handshake_timeout);
    // Large, and seldom: not a part of what serves requests.
    let greeted = Box::pin(agree(hall, connection, received, follows)).await;
    match greeted {
        Ok(greeted) => greeted,
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            core.stats.tls_handshakes_shed.add(1);
            Greeted::Gone
        }
        Err(_) => {
            core.stats.tls_handshake_errors.add(1);
            Greeted::Gone
        }
    }
}

async fn agree(
    hall: &Hall,
    connection: &mut Connection,
    mut received: Vec<u8>,
    follows: Follows,
) -> io::Result<Greeted> {
    let core = &hall.core;
    let socket = &mut connection.socket;
    let hello = loop {
        match hello::peek(&received) {
            Ok(Some(hello)) => break hello,
            Ok(None) => received = socket.receive_in_clear(received, &core.tls_buffers).await?,
            Err(HelloFault::PlainHttp) => {
                core.stats.tls_handshake_errors.add(1);
                return Ok(Greeted::InClear(received));
            }
            Err(fault) => {
                core.tls_buffers.give_back(received);
                refuse(socket, &DECODE_ERROR).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, fault.word()));
            }
        }
    };
    // By the time it is its turn there may be others.
    let is_slow = rules_for(hall, hello.server_name.as_deref()).is_some_and(|rules| rules.is_slow);
    let turnstile = if is_slow { &core.turnstile_beside } else { &core.turnstile };
    if let Err(error) = socket.line_up(turnstile).await {
        core.tls_buffers.give_back(received);
        return Err(error);
    }
    if hello.is_acme
        && let Some(rules) = hello.server_name.as_deref().and_then(|name| proof_for(hall, name))
    {
        let session = Session::server(Arc::clone(&rules.config), &core.tls_buffers)
            .map_err(|fault| io::Error::other(fault.to_string()))?;
        socket.shake(session, received, &core.tls_buffers, turnstile).await?;
        // Whoever asked has seen what it came for, and says nothing more.
        return Ok(Greeted::Gone);
    }
    let Some(rules) = rules_for(hall, hello.server_name.as_deref()) else {
        core.tls_buffers.give_back(received);
        let asked = hello.server_name.as_deref().unwrap_or("no host by name");
        hall.note_seldom(Level::Warn, || {
            format!("no certificate for {asked}, which {} asks for", connection.client.peer)
        });
        refuse(socket, &UNRECOGNIZED_NAME).await;
        return Err(io::ErrorKind::NotFound.into());
    };
    let config = match follows {
        Follows::Requests => &rules.config,
        Follows::Stream => &rules.of_streams,
    };
    let session = Session::server(Arc::clone(config), &core.tls_buffers)
        .map_err(|fault| io::Error::other(fault.to_string()))?;
    let agreement = socket.shake(session, received, &core.tls_buffers, turnstile).await?;
    core.stats.tls_handshakes.add(1);
    connection.is_http2 = agreement.is_http2;
    connection.security = Some(Rc::new(security_of(core, &rules, hello.server_name, agreement)));
    connection.client.https = true;
    Ok(Greeted::Agreed)
}

/// The rules for a host. Held by themselves: a handshake keeps no snapshot alive.
fn rules_for(hall: &Hall, asked: Option<&str>) -> Option<Arc<ServerRules>> {
    let view = hall.view();
    let name = asked.or(view.house.fallback_sni.as_deref());
    name.and_then(|name| view.certificates.find(name)).map(Arc::clone)
}

/// The rules that prove to an authority that a host is ours, while it asks.
fn proof_for(hall: &Hall, name: &str) -> Option<Arc<ServerRules>> {
    hall.view().challenges.rules(name).map(Arc::clone)
}

/// Says why nothing comes of it; whoever does not listen misses nothing.
async fn refuse(socket: &mut crate::runtime::socket::Socket, alert: &[u8]) {
    let _ = socket.writer.send(alert.to_vec(), 0, Sending::Alone).await;
}

fn security_of(
    core: &Core,
    rules: &ServerRules,
    server_name: Option<Box<str>>,
    agreement: Agreement,
) -> Security {
    let Agreement { protocol, cipher, certificates, .. } = agreement;
    let certificate = rules.client.as_ref().and_then(|client| {
        let verdict =
            Verdict { rules: client.id, is_trusted: client.trusts(&certificates, core.wall(core.now())) };
        certificate_of(certificates, verdict)
    });
    Security { server_name, protocol, cipher, certificate }
}

/// What is shown of a client's certificate.
fn certificate_of(chain: Vec<Box<[u8]>>, verdict: Verdict) -> Option<Box<ClientCertificate>> {
    let own = x509::read(chain.first()?)?;
    let (subject, issuer) = (x509::name_text(own.subject), x509::name_text(own.issuer));
    let mut serial = String::new();
    for byte in own.serial.strip_prefix(&[0]).unwrap_or(own.serial) {
        // Writing to a string can not fail.
        let _ = write!(serial, "{byte:02X}");
    }
    let fingerprint = crate::runtime::tls::sha1_text(&chain[0]);
    let verdict = Cell::new(verdict);
    let chain = chain.into();
    Some(Box::new(ClientCertificate { chain, subject, issuer, serial, fingerprint, verdict }))
}

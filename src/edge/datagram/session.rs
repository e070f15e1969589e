//! One session, from its first datagram to its log line.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;

use super::{BATCH, Session};
use crate::balance::TriedSet;
use crate::base::clock::Moment;
use crate::edge::accept::{Place, catch};
use crate::edge::respond::Fault;
use crate::edge::stream::{Pass, Refusal, finish};
use crate::edge::{Hall, health, pick};
use crate::exchange::{Attempt, Client, Source};
use crate::runtime::udp::Datagrams;
use crate::snapshot::Upstream;

/// What a node's first answer counts as where statuses tell of its health.
const ANSWERED: u16 = 200;

/// Serves a session. A panic ends it alone.
pub(super) async fn attend(hall: Rc<Hall>, session: Rc<Session>, port: Rc<Datagrams>, first: Vec<u8>) {
    let peer = session.key.1;
    let stats = &hall.core.stats;
    if let Some(_place) = Place::take(&hall, peer) {
        stats.streams.add(1);
        stats.streams_active.add(1);
        catch(&hall, peer, pin!(serve(&hall, &session, &port, first))).await;
        stats.streams_active.sub(1);
    } else {
        stats.connections_refused.add(1);
    }
    hall.datagrams.end(&session);
}

async fn serve(hall: &Hall, session: &Rc<Session>, port: &Rc<Datagrams>, first: Vec<u8>) {
    let core = &hall.core;
    let mut ex = core.exchange();
    let (peer, local) = (session.key.1, port.local());
    ex.timing.received = core.now();
    ex.timing.received_at = core.wall(ex.timing.received);
    ex.client = Client { ip: peer.ip().to_canonical(), port: peer.port(), peer, local, ..Client::unknown() };
    ex.core = core.id;
    ex.stream.protocol = "udp";
    ex.stream.listener = Some(local);
    ex.stream.received = first;
    let view = hall.view();
    let mut pass = Pass { hall, connection: None, ex };
    let route = pass.route(&view).await;
    let passed = match route {
        Ok(route) => match pass.upstream(&view, route).await {
            Ok(upstream) => exchange(&mut pass, upstream, session, port).await,
            Err(refusal) => Err(refusal),
        },
        Err(refusal) => Err(refusal),
    };
    core.give_back(finish(hall, &view, route.ok(), passed, pass.ex));
}

/// Passes datagrams both ways until nothing passes any more.
async fn exchange(
    pass: &mut Pass<'_>,
    upstream: &Upstream,
    session: &Rc<Session>,
    port: &Rc<Datagrams>,
) -> Result<(), Refusal> {
    let hall = pass.hall;
    let core = &hall.core;
    if !upstream.scheme.is_for_datagrams() {
        return Err(Fault::NoNodes.into());
    }
    let (node, at) = reach(pass, upstream)?;
    let _under_way = health::enter(upstream, at);
    if upstream.has_own_timeouts {
        session.idle.set(Some(upstream.timeouts.read));
    }
    let node = Rc::new(node);
    // Should the core stop, it is over as soon as nothing passes.
    node.watch().set_resting(true);
    *session.node.borrow_mut() = Some(Rc::clone(&node));
    let first = std::mem::take(&mut pass.ex.stream.received);
    session.pass(hall, &node, &first);
    for waiting in session.waiting.take() {
        session.pass(hall, &node, &waiting);
    }
    let began = core.now();
    let answered = Cell::new(Moment::ZERO);
    let ended = answers(hall, session, (&node, port), &answered).await;
    let ex = &mut pass.ex;
    (ex.bytes_in, ex.bytes_out) = (session.bytes_in.get(), session.bytes_out.get());
    ex.timing.upstream = core.now().since(began);
    let attempt = ex.attempts.last_mut().expect("one was noted when it began");
    attempt.total = ex.timing.upstream;
    if answered.get() != Moment::ZERO {
        attempt.header = answered.get().since(began);
        let told = Attempt { status: ANSWERED, ..*attempt };
        health::note_answer(hall, upstream, at, Some(&told), core.now());
    } else if ended.is_err() {
        attempt.status = Fault::ConnectRefused.status();
        health::note_fault(hall, upstream, at, Fault::ConnectRefused);
        pick::note_failure(hall, upstream, at, core.now());
        return Err(Fault::ConnectRefused.into());
    }
    ex.response.status = 200;
    ex.response.source = Source::Upstream;
    Ok(())
}

/// Passes the node's answers on until the session is over; an error where the node's machine says that nobody is there.
async fn answers(
    hall: &Hall,
    session: &Session,
    (node, port): (&Datagrams, &Datagrams),
    answered: &Cell<Moment>,
) -> io::Result<()> {
    let core = &hall.core;
    let client: SocketAddr = session.key.1;
    loop {
        node.readable().await?;
        if session.is_refused.get() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if node.watch().fired() || session.is_over.get() {
            // The loop of epoll does not wake for a fault alone.
            return node.fault();
        }
        let mut buffer = hall.datagrams.buffer.borrow_mut();
        buffer.resize(core.limits.datagram_bytes + 1, 0);
        for _ in 0..BATCH {
            match node.receive(&mut buffer) {
                Ok(count) if count > core.limits.datagram_bytes => core.stats.datagrams_dropped.add(1),
                Ok(count) => {
                    if answered.get() == Moment::ZERO {
                        answered.set(core.now());
                    }
                    session.stay(hall, node);
                    match port.send_to(&buffer[..count], client) {
                        Ok(()) => session.bytes_out.set(session.bytes_out.get() + count as u64),
                        Err(_) => core.stats.datagrams_dropped.add(1),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

/// A socket to a node; there is nothing to wait for, and hardly anything that can fail.
fn reach(pass: &mut Pass<'_>, upstream: &Upstream) -> Result<(Datagrams, usize), Refusal> {
    let core = &pass.hall.core;
    let mut tried = TriedSet::new();
    let mut last = Fault::NoNodes;
    for _ in 0..=core.limits.retries {
        let now = core.now();
        let Some(at) = pick::node(pass.hall, upstream, &tried, &pass.ex, now) else { break };
        let address = upstream.nodes[at].address;
        pass.ex.attempts.push(Attempt::at(address));
        // A Unix socket takes no datagrams; an upstream for them has none.
        let socket = address.ip().map(|address| Datagrams::to(address, &core.wheel));
        match socket {
            Some(Ok(node)) => return Ok((node, at)),
            Some(Err(_)) | None => {
                last = Fault::ConnectRefused;
                core.stats.upstream_connect_errors.add(1);
                pick::note_failure(pass.hall, upstream, at, now);
                tried.insert(at);
            }
        }
    }
    Err(last.into())
}

//! A cluster of Redis, as one core knows it: which node has which keys, and a line to each node that was asked.
//!
//! Keys fall into slots, and slots belong to nodes. The map is asked of the cluster, and asked again when it turns out to
//! be wrong: a node says that a key is elsewhere, which is followed at once, or does not answer. One question for the map is
//! under way at a time, and its time is part of the patience of whoever asks it; the others go by what is known.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::{Answer, Ask, Failure, Line, Manner, Target, Whereabouts};
use crate::base::clock::Moment;
use crate::proto::resp::{Reply, SLOTS, slot_of};
use crate::runtime::Core;

/// How often a command follows where it is sent.
const HOPS_MAX: usize = 5;
/// Nodes that a core knows of one cluster, replicas not counted. Further ones are not spoken to.
const NODES_MAX: usize = 512;
/// Nodes that are asked for the map, one after the other.
const ASKED_MAX: usize = 3;
/// Least time between two questions for the map.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often who waits for a map looks whether it is there.
const NAP: Duration = Duration::from_millis(10);
/// A slot of which it is not known where it is.
const NOWHERE: u16 = u16::MAX;
const MAP: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";

/// What was written of a cluster.
#[derive(Clone, Debug)]
pub struct Seeds {
    /// As it is called in the log.
    pub name: String,
    /// Hosts as they were written, and where they are.
    pub nodes: Vec<(String, SocketAddr)>,
    pub manner: Manner,
}

/// A cluster, as one core knows it.
#[derive(Debug, Default)]
pub struct Cluster {
    nodes: RefCell<Vec<Rc<Node>>>,
    /// For each slot a place in `nodes`; empty until the map is known.
    slots: RefCell<Vec<u16>>,
    /// Whether the map is known to be right, as far as that can be known.
    is_fresh: Cell<bool>,
    looking: Cell<bool>,
    /// When the last question for the map began.
    looked: Cell<Moment>,
    /// Which node is asked next, where any would do.
    turn: Cell<usize>,
}

/// One node.
#[derive(Debug)]
struct Node {
    address: SocketAddr,
    target: Target,
    line: Line,
}

/// That the map is being asked for.
struct Looking<'a>(&'a Cell<bool>);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Cluster {
    /// What the node that has `key` replies to a command.
    ///
    /// # Errors
    /// Why there is no reply, when `until` is over at the latest.
    pub async fn ask(&self, core: &Core, (seeds, key): (&Seeds, &[u8]), ask: Ask, until: Moment) -> Answer {
        let slot = slot_of(key);
        if !self.is_fresh.get() {
            self.look(core, seeds, until).await;
        }
        let lost = || Failure::Unreachable(io::ErrorKind::AddrNotAvailable);
        let mut node = self.node_for(slot, seeds).ok_or_else(lost)?;
        let (mut ask, mut has_failed) = (ask, false);
        for _ in 0..HOPS_MAX {
            match node.line.ask(core, &node.target, ask.clone(), until).await {
                Ok(Reply::Error(why)) => {
                    let Some(elsewhere) = Elsewhere::read(&why) else { return Ok(Reply::Error(why)) };
                    let Some(next) = self.follow(&elsewhere, &node, seeds) else {
                        return Err(node.line.misused(core, &node.target, Failure::Refused(why)));
                    };
                    if elsewhere.for_good {
                        self.assign(slot, &next);
                        self.is_fresh.set(false);
                    }
                    ask.asking = !elsewhere.for_good;
                    node = next;
                }
                Ok(reply) => return Ok(reply),
                Err(failure) => {
                    self.is_fresh.set(false);
                    let is_sure = !matches!(failure, Failure::Broken | Failure::Garbage) || !ask.once;
                    let is_busy = matches!(failure, Failure::Late | Failure::Crowded | Failure::Resting);
                    if has_failed && is_busy {
                        // What became of it the first time is not known: it may have been heard.
                        return Err(Failure::Broken);
                    }
                    if has_failed || !is_sure || is_busy {
                        return Err(failure);
                    }
                    // Somebody else may have its keys by now.
                    has_failed = true;
                    self.look_since(core, seeds, until).await;
                    match self.node_for(slot, seeds) {
                        Some(next) if next.address != node.address => node = next,
                        _ => return Err(failure),
                    }
                    ask.asking = false;
                }
            }
        }
        Err(node.line.misused(core, &node.target, Failure::Refused("it sends us in circles".to_owned())))
    }

    /// Takes note of a reply about `key` that was none; it.
    pub fn misused(&self, core: &Core, (seeds, key): (&Seeds, &[u8]), failure: Failure) -> Failure {
        match self.node_for(slot_of(key), seeds) {
            Some(node) => node.line.misused(core, &node.target, failure),
            None => failure,
        }
    }

    /// Waits for a map that was asked for after this moment.
    async fn look_since(&self, core: &Core, seeds: &Seeds, until: Moment) {
        let begun = core.now();
        loop {
            self.look(core, seeds, until).await;
            let is_done = self.looked.get() >= begun && !self.looking.get();
            if is_done || core.now() >= until {
                return;
            }
            core.sleep(NAP.min(until.since(core.now()))).await;
        }
    }

    /// Asks for the map, unless somebody does, or has just done so.
    async fn look(&self, core: &Core, seeds: &Seeds, until: Moment) {
        let (now, looked) = (core.now(), self.looked.get());
        if self.looking.get() || looked != Moment::ZERO && now.since(looked) < LOOK_EVERY {
            return;
        }
        self.looking.set(true);
        self.looked.set(now);
        let _looking = Looking(&self.looking);
        let count = seeds.nodes.len() + self.nodes.borrow().len();
        for left in (1..=count.min(ASKED_MAX)).rev() {
            let Some(node) = self.any(seeds) else { return };
            // One that hangs must leave time for the others, and for the command itself.
            let share = until.since(core.now()) / (left as u32 + 1);
            let until = core.now().plus(share);
            let map = node.line.ask(core, &node.target, Ask::new(MAP.to_vec()), until).await;
            if let Some(ranges) = map.ok().and_then(ranges) {
                self.take_over(&ranges, &node, seeds);
                return;
            }
            self.turn.set(self.turn.get().wrapping_add(1));
        }
    }

    /// The node of a slot, or any where that is not known.
    fn node_for(&self, slot: u16, seeds: &Seeds) -> Option<Rc<Node>> {
        let place = self.slots.borrow().get(usize::from(slot)).copied().unwrap_or(NOWHERE);
        let known = self.nodes.borrow().get(usize::from(place)).cloned();
        known.or_else(|| self.any(seeds))
    }

    /// A node whose turn it is: of those that are known, then of those that were written.
    fn any(&self, seeds: &Seeds) -> Option<Rc<Node>> {
        let known = self.nodes.borrow().len();
        let at = self.turn.get() % (known + seeds.nodes.len()).max(1);
        if at < known {
            return self.nodes.borrow().get(at).cloned();
        }
        let (host, address) = seeds.nodes.get(at - known)?;
        self.node_at((host, *address), seeds)
    }

    /// The node at an address, which is added where it is not known and there is room.
    fn node_at(&self, (host, address): (&str, SocketAddr), seeds: &Seeds) -> Option<Rc<Node>> {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(node) = nodes.iter().find(|node| node.address == address) {
            return Some(Rc::clone(node));
        }
        if nodes.len() >= NODES_MAX {
            return None;
        }
        let target = Target {
            name: format!("{} of {}", address, seeds.name),
            host: host.to_owned(),
            at: Whereabouts::Written(vec![address]),
            manner: seeds.manner.clone(),
        };
        let node = Rc::new(Node { address, target, line: Line::default() });
        nodes.push(Rc::clone(&node));
        Some(node)
    }

    fn assign(&self, slot: u16, node: &Rc<Node>) {
        let place = self.nodes.borrow().iter().position(|known| Rc::ptr_eq(known, node));
        let mut slots = self.slots.borrow_mut();
        slots.resize(usize::from(SLOTS), NOWHERE);
        if let (Some(place), Some(known)) = (place, slots.get_mut(usize::from(slot))) {
            *known = place as u16;
        }
    }

    /// Where a node says that a key is.
    fn follow(&self, elsewhere: &Elsewhere<'_>, from: &Node, seeds: &Seeds) -> Option<Rc<Node>> {
        let ip = place(elsewhere.host, from, seeds)?;
        self.node_at((elsewhere.host, SocketAddr::new(ip, elsewhere.port)), seeds)
    }

    /// Takes a map over; nodes that it does not name are forgotten.
    fn take_over(&self, ranges: &[Range], from: &Node, seeds: &Seeds) {
        let known = self.nodes.take();
        let mut slots = vec![NOWHERE; usize::from(SLOTS)];
        for range in ranges {
            let Some(ip) = range.ip.or_else(|| place(&range.host, from, seeds)) else { continue };
            let address = SocketAddr::new(ip, range.port);
            let is_new = !self.nodes.borrow().iter().any(|node| node.address == address);
            if is_new && let Some(node) = known.iter().find(|node| node.address == address) {
                self.nodes.borrow_mut().push(Rc::clone(node));
            }
            let Some(node) = self.node_at((&range.host, address), seeds) else { continue };
            let at = self.nodes.borrow().iter().position(|known| Rc::ptr_eq(known, &node));
            let Some(at) = at else { continue };
            if let Some(slots) = slots.get_mut(usize::from(range.first)..=usize::from(range.last)) {
                slots.fill(at as u16);
            }
        }
        self.slots.replace(slots);
        self.is_fresh.set(true);
    }
}

/// Where a host is that a node named: an address, what was written, or nothing, which is where the node itself is.
fn place(host: &str, from: &Node, seeds: &Seeds) -> Option<IpAddr> {
    if host.is_empty() || host == "?" {
        return Some(from.address.ip());
    }
    let written = || seeds.nodes.iter().find(|(written, _)| written == host).map(|(_, address)| address.ip());
    host.parse().ok().or_else(written)
}

/// That a key is at another node: `MOVED 3999 10.0.0.1:6381`, or for now only `ASK …`.
#[derive(Debug, PartialEq, Eq)]
struct Elsewhere<'a> {
    for_good: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Elsewhere<'a> {
    fn read(why: &'a str) -> Option<Self> {
        let mut words = why.split(' ');
        let for_good = match words.next() {
            Some("MOVED") => true,
            Some("ASK") => false,
            _ => return None,
        };
        let (host, port) = words.nth(1)?.rsplit_once(':')?;
        Some(Self { for_good, host, port: port.parse().ok()? })
    }
}

/// Slots and their master.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    first: u16,
    last: u16,
    host: String,
    /// Where the host is, when it is a name.
    ip: Option<IpAddr>,
    port: u16,
}

/// What a node says of the map; `None` when that is none.
fn ranges(reply: Reply) -> Option<Vec<Range>> {
    let Reply::List(ranges) = reply else { return None };
    ranges.into_iter().map(range).collect()
}

fn range(reply: Reply) -> Option<Range> {
    let Reply::List(parts) = reply else { return None };
    let mut parts = parts.into_iter();
    let slot = |part: Option<Reply>| match part {
        Some(Reply::Number(number)) => u16::try_from(number).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    };
    let (first, last) = (slot(parts.next())?, slot(parts.next())?);
    let Some(Reply::List(master)) = parts.next() else { return None };
    let mut master = master.into_iter();
    let host = match master.next()? {
        Reply::Text(host) => String::from_utf8(host).ok()?,
        Reply::Nothing => String::new(),
        _ => return None,
    };
    let Some(Reply::Number(port)) = master.next() else { return None };
    let ip = match master.nth(1) {
        Some(Reply::List(more)) => ip_among(&more),
        _ => None,
    };
    (first <= last).then_some(Range { first, last, host, ip, port: u16::try_from(port).ok()? })
}

/// The address among what else is said of a node, name by name.
fn ip_among(more: &[Reply]) -> Option<IpAddr> {
    more.chunks_exact(2).find_map(|pair| match pair {
        [Reply::Text(name), Reply::Text(value)] if name == b"ip" => {
            std::str::from_utf8(value).ok()?.parse().ok()
        }
        _ => None,
    })
}

#[cfg(test)]
#[path = "cluster/tests.rs"]
mod tests;

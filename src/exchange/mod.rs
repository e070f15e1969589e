//! One request with its response: what plugins see, and all they see.
//!
//! An exchange is lent from a per-core stock and returned when it is over, so everything in it that owns memory
//! is cleared, never dropped: a request costs no allocation. It knows routes and consumers by their labels
//! only; the objects themselves belong to the snapshot.

mod body;
pub mod graphql;
mod labels;
mod multipart;
mod pace;
mod posted;
mod reply;
mod request;
mod response;
mod security;
mod slots;
mod stream;
mod vars;

pub use body::{Body, Chunk};
pub use labels::{ConsumerLabels, Labels, RouteLabels};
pub use pace::{Pace, Paces, piece_bytes_max};
pub use posted::Read;
pub use reply::{Reply, ReplyBody};
pub use request::{Forward, Request};
pub use response::{Response, ResponseBody, Source};
pub use security::{ClientCertificate, Security, Verdict};
pub use slots::{SlotId, Slots};
pub use stream::{Passing, Stream};

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::clock::{Moment, UnixMs};
use crate::base::prefetch::Whereabouts;

/// Who sent the request.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The address rules and limits go by: the peer's, or the one a trusted proxy vouched for.
    pub ip: IpAddr,
    pub port: u16,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// Our end of the connection.
    pub local: SocketAddr,
    /// Whether the peer is listed in `trusted_addresses`.
    pub trusted: bool,
    /// Whether a plugin put `ip` in the place of what was found before, so that it is what is passed on.
    pub replaced: bool,
    pub https: bool,
    pub http2: bool,
}

impl Client {
    /// A client of which nothing is known yet.
    pub const fn unknown() -> Self {
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            ip: nowhere.ip(),
            port: 0,
            peer: nowhere,
            local: nowhere,
            trusted: false,
            replaced: false,
            https: false,
            http2: false,
        }
    }

    /// `http` or `https`.
    pub const fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// When things happened; `Moment::ZERO` stands for "not".
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// The head was complete.
    pub received: Moment,
    /// Wall time of `received`.
    pub received_at: UnixMs,
    /// The last byte of the response was handed to the kernel.
    pub finished: Moment,
    /// All the time attempts at nodes took, from picking to the last byte.
    pub upstream: Duration,
}

/// One try at one node, as logged.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub node: Address,
    /// The status the node answered with; 0 when it did not.
    pub status: u16,
    /// Time to connect; zero when the connection was reused.
    pub connect: Duration,
    /// Time until the head of the response.
    pub header: Duration,
    /// Time until the last byte, or until it failed.
    pub total: Duration,
    pub reused: bool,
}

impl Attempt {
    /// A try at a node that has just begun.
    pub const fn at(node: Address) -> Self {
        let none = Duration::ZERO;
        Self { node, status: 0, connect: none, header: none, total: none, reused: false }
    }
}

/// One request with its response.
#[derive(Debug)]
pub struct Exchange {
    pub client: Client,
    /// Of the client's connection, where it speaks TLS.
    pub security: Option<Rc<Security>>,
    /// What is of interest where it is no request.
    pub stream: Stream,
    pub request: Request,
    pub response: Response,
    pub route: RouteLabels,
    /// Who the request was found to come from; set by an authentication plugin.
    pub consumer: ConsumerLabels,
    /// Place of that consumer in the snapshot.
    pub consumer_at: Option<u32>,
    /// Plugins whose gates are passed over from here on, because another plugin has run them.
    pub passed_over: Vec<&'static str>,
    /// Place of the upstream that a plugin chose over the route's.
    pub upstream_at: Option<u32>,
    pub timing: Timing,
    /// Tries at nodes, oldest first.
    pub attempts: Vec<Attempt>,
    pub slots: Slots,
    /// How fast its bodies pass, where a plugin says so.
    pub paces: Paces,
    /// The request's own id once a plugin or an error needed one; empty before.
    pub request_id: Vec<u8>,
    /// The account that a limit of it was counted in last: where it is looked for when the connection's next request comes.
    pub counted_at: Cell<Whereabouts>,
    /// How many requests the connection has carried, this one included.
    pub connection_requests: u32,
    /// Number of the core that serves it.
    pub core: u16,
    /// Why the answer is not the upstream's, a word of the table in `edge/respond.rs`; empty if it is.
    pub reason: &'static str,
    /// The limit that would have refused the request, if it did more than tell; empty if none would.
    pub would_reject: Vec<u8>,
    /// Bytes received and sent for this exchange, heads included.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Exchange {
    /// The version of HTTP that the client speaks, such as `HTTP/1.1`.
    pub const fn protocol(&self) -> &'static str {
        if self.client.http2 { "HTTP/2.0" } else { self.request.line.version.text() }
    }

    /// An empty exchange; memory comes with use.
    pub fn new() -> Self {
        Self {
            client: Client::unknown(),
            security: None,
            stream: Stream::default(),
            request: Request::default(),
            response: Response::default(),
            route: RouteLabels::default(),
            consumer: ConsumerLabels::default(),
            consumer_at: None,
            passed_over: Vec::new(),
            upstream_at: None,
            timing: Timing::default(),
            attempts: Vec::new(),
            paces: Paces::default(),
            slots: Slots::default(),
            request_id: Vec::new(),
            counted_at: Cell::default(),
            connection_requests: 0,
            core: 0,
            reason: "",
            would_reject: Vec::new(),
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Makes it as new but for the memory it keeps. Receive buffers still held are dropped: take them first.
    pub fn clear(&mut self) {
        self.client = Client::unknown();
        self.security = None;
        self.stream.clear();
        self.request.clear();
        self.response.clear();
        self.route.clear();
        self.consumer.clear();
        self.consumer_at = None;
        self.passed_over.clear();
        self.upstream_at = None;
        self.timing = Timing::default();
        self.attempts.clear();
        self.slots.clear();
        self.paces.clear();
        self.request_id.clear();
        self.counted_at = Cell::default();
        self.connection_requests = 0;
        self.reason = "";
        self.would_reject.clear();
        self.bytes_in = 0;
        self.bytes_out = 0;
    }

    /// Holds what is here in no more memory than it needs, for an exchange that lasts long and changes little. Receive
    /// buffers are given back.
    pub fn compact(&mut self, give_back: impl Fn(Vec<u8>)) {
        give_back(self.request.compact());
        give_back(self.response.compact());
        self.stream.compact();
        self.route.compact();
        self.consumer.compact();
        self.passed_over.shrink_to_fit();
        self.attempts.shrink_to_fit();
        self.slots.compact();
        self.request_id.shrink_to_fit();
        self.would_reject.shrink_to_fit();
    }

    /// Whether the gates of any plugin are passed over; hardly ever.
    pub fn passes_over_some(&self) -> bool {
        !self.passed_over.is_empty()
    }

    /// Whether the gates of that plugin are.
    pub fn passes_over(&self, plugin: &str) -> bool {
        self.passed_over.contains(&plugin)
    }

    /// The last try at a node.
    pub fn last_attempt(&self) -> Option<&Attempt> {
        self.attempts.last()
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new()
    }
}

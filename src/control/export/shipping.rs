//! Lines of logs to where they go: a task for each destination, on the control thread's runtime.
//!
//! What waits for one that is slow or away is bounded by its own limit, in bytes; what finds no room, and what was given up, is
//! counted. A task ends when nothing came for a while, and with it its connection.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::base::clock::{self, Moment};
use crate::base::hash::Map;
use crate::control::dial::{Dialer, Stream};
use crate::control::log;
use crate::link::lines::{Carrier, Destination, LOGGERS};

use super::posting::Poster;

/// Destinations at a time; lines for others are dropped.
const DESTINATIONS_MAX: usize = 256;
/// How long a connection is kept without a line.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long is waited for the end of a connection that may be over, before a batch.
const LOOK: Duration = Duration::from_millis(1);

/// How long nothing more is said of lines that are dropped.
const QUIET: Duration = Duration::from_secs(1);

/// What became of lines of one kind.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    pub(crate) sent: AtomicU64,
    /// No room was left for them.
    pub(crate) dropped: AtomicU64,
    /// All tries failed.
    pub(crate) failed: AtomicU64,
}

/// What became of lines.
#[derive(Debug, Default)]
pub(crate) struct Shipped {
    /// By whose they are.
    pub(crate) of: [Fate; LOGGERS.len()],
    /// What waits for each destination that is being sent to.
    waiting: Mutex<Vec<(Arc<Destination>, Arc<Waiting>)>>,
    /// Tasks under way.
    tasks: AtomicUsize,
    /// The process is about to end: nobody waits before a try any more, which is the last.
    is_ending: AtomicBool,
    ending: Notify,
}

impl Shipped {
    /// How many entries wait, by whose they are and where they go.
    pub(crate) fn waiting(&self) -> BTreeMap<(&'static str, String), u64> {
        let mut all = BTreeMap::new();
        for (to, waiting) in &*self.roads() {
            *all.entry((to.logger.name(), place(to))).or_default() += waiting.lines.load(Relaxed);
        }
        all
    }

    fn roads(&self) -> MutexGuard<'_, Vec<(Arc<Destination>, Arc<Waiting>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, but not for ever, until all that was taken is sent or given up.
    pub(crate) async fn settle(&self, within: Duration) {
        self.is_ending.store(true, Relaxed);
        self.ending.notify_waiters();
        let done = async {
            while self.tasks.load(Relaxed) > 0 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let _ = timeout(within, done).await;
    }
}

/// See the module.
pub(crate) struct Shipping {
    runtime: Handle,
    dialer: Dialer,
    shipped: Arc<Shipped>,
    roads: Map<Arc<Destination>, Road>,
    /// When it was last said that something was dropped.
    told: Option<Moment>,
}

/// The way to one destination.
struct Road {
    batches: UnboundedSender<Batch>,
    waiting: Arc<Waiting>,
}

/// What waits for one destination, what is being sent included.
#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    lines: AtomicU64,
}

impl Waiting {
    /// Whether so much more had room.
    fn add(&self, bytes: usize, lines: u64, to: &Destination) -> bool {
        let has_room = self.bytes.fetch_add(bytes, Relaxed) + bytes <= to.waiting_bytes_max;
        (self.lines.fetch_add(lines, Relaxed) + lines <= to.waiting_entries_max) & has_room
    }

    fn sub(&self, bytes: usize, lines: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.lines.fetch_sub(lines, Relaxed);
    }
}

struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl Shipping {
    /// Sends from the runtime it is made in.
    pub(crate) fn new(dialer: Dialer, shipped: Arc<Shipped>) -> Self {
        Self {
            runtime: Handle::current(),
            dialer: dialer.saying_nothing(),
            shipped,
            roads: Map::default(),
            told: None,
        }
    }

    /// Takes a batch of so many lines, each with its end, or counts it as dropped.
    pub(crate) fn take(&mut self, to: &Arc<Destination>, bytes: Vec<u8>, lines: u64) {
        if self.roads.get(to).is_none_or(|road| road.batches.is_closed()) && !self.open(to) {
            return self.drop(to, lines);
        }
        let Some(road) = self.roads.get(to) else { return };
        let size = bytes.len();
        if !road.waiting.add(size, lines, to) || road.batches.send(Batch { bytes, lines }).is_err() {
            road.waiting.sub(size, lines);
            self.drop(to, lines);
        }
    }

    /// Counts lines that have no room, and says so now and then.
    fn drop(&mut self, to: &Destination, lines: u64) {
        let dropped = &self.shipped.of[to.logger as usize].dropped;
        let all = dropped.fetch_add(lines, Relaxed) + lines;
        let now = clock::now();
        if self.told.is_none_or(|told| now.since(told) >= QUIET) {
            self.told = Some(now);
            let (name, place) = (to.logger.name(), place(to));
            log::warn(format!(
                "{name}: no room for what waits for {place}; {all} entries were dropped so far"
            ));
        }
    }

    /// Begins to send to another destination; false where there are too many.
    fn open(&mut self, to: &Arc<Destination>) -> bool {
        if self.roads.len() >= DESTINATIONS_MAX {
            self.roads.retain(|_, road| !road.batches.is_closed());
        }
        if self.roads.len() >= DESTINATIONS_MAX && !self.roads.contains_key(to) {
            return false;
        }
        let (batches, coming) = unbounded_channel();
        let waiting: Arc<Waiting> = Arc::default();
        let carter = Carter {
            to: Arc::clone(to),
            dialer: match &to.carrier {
                Carrier::Http(post) => self.dialer.clone().verifying(post.is_verified),
                Carrier::Tcp | Carrier::Tls | Carrier::Udp | Carrier::File => self.dialer.clone(),
            },
            waiting: Arc::clone(&waiting),
            shipped: Arc::clone(&self.shipped),
            open: None,
            is_told: false,
        };
        self.shipped.tasks.fetch_add(1, Relaxed);
        self.shipped.roads().push((Arc::clone(to), Arc::clone(&waiting)));
        self.runtime.spawn(carter.work(coming));
        self.roads.insert(Arc::clone(to), Road { batches, waiting });
        true
    }
}

enum Open {
    Stream(Box<dyn Stream>),
    Datagrams(UdpSocket),
    Posts(Poster),
}

/// Where lines go, in words.
fn place(to: &Destination) -> String {
    match &to.carrier {
        Carrier::Http(post) => format!("{}://{}", if post.is_tls { "https" } else { "http" }, post.authority),
        Carrier::Tcp | Carrier::Tls | Carrier::Udp => format!("{}:{}", to.host, to.port),
        Carrier::File => to.host.to_string(),
    }
}

/// Who sends to one destination.
struct Carter {
    to: Arc<Destination>,
    dialer: Dialer,
    waiting: Arc<Waiting>,
    shipped: Arc<Shipped>,
    open: Option<Open>,
    /// It was said that it can not be reached, and not yet that it can.
    is_told: bool,
}

impl Drop for Carter {
    fn drop(&mut self) {
        self.shipped.tasks.fetch_sub(1, Relaxed);
        self.shipped.roads().retain(|(_, waiting)| !Arc::ptr_eq(waiting, &self.waiting));
    }
}

impl Carter {
    async fn work(mut self, mut coming: UnboundedReceiver<Batch>) {
        loop {
            match timeout(IDLE_MAX, coming.recv()).await {
                Ok(Some(batch)) => self.deliver(batch).await,
                Ok(None) => return,
                Err(_) => break,
            }
        }
        // Whatever came in this moment is sent, and no more comes.
        coming.close();
        while let Some(batch) = coming.recv().await {
            self.deliver(batch).await;
        }
    }

    async fn deliver(&mut self, batch: Batch) {
        let (size, lines) = (batch.bytes.len(), batch.lines);
        let bytes = Bytes::from(batch.bytes);
        let mut tries = 0;
        let outcome = loop {
            match self.send(&bytes).await {
                Ok(()) => break Ok(()),
                Err(error) if tries >= self.to.retries || self.shipped.is_ending.load(Relaxed) => {
                    break Err(error);
                }
                Err(_) => {
                    tries += 1;
                    let ending = self.shipped.ending.notified();
                    if !self.shipped.is_ending.load(Relaxed) {
                        let _ = timeout(self.to.retry_delay, ending).await;
                    }
                }
            }
        };
        self.waiting.sub(size, lines);
        let fate = &self.shipped.of[self.to.logger as usize];
        let count = if outcome.is_ok() { &fate.sent } else { &fate.failed };
        count.fetch_add(lines, Relaxed);
        let (name, place) = (self.to.logger.name(), || place(&self.to));
        match outcome {
            Err(error) if !self.is_told => {
                log::warn(format!("{name}: {} can not be reached: {error}; lines are lost", place()));
                self.is_told = true;
            }
            Ok(()) if self.is_told => {
                log::info(format!("{name}: {} is reached again", place()));
                self.is_told = false;
            }
            _ => {}
        }
    }

    async fn send(&mut self, bytes: &Bytes) -> io::Result<()> {
        let is_over = match &mut self.open {
            Some(Open::Stream(stream)) => is_over(stream).await,
            Some(Open::Posts(poster)) => poster.is_over().await,
            Some(Open::Datagrams(_)) | None => false,
        };
        if is_over {
            self.open = None;
        }
        let within = self.to.timeout;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => timeout(within, self.connect()).await.map_err(|_| io::ErrorKind::TimedOut)??,
        };
        let sent = async {
            match &mut open {
                Open::Stream(stream) => {
                    stream.write_all(bytes).await?;
                    stream.flush().await
                }
                Open::Posts(poster) => poster.post(bytes.clone()).await,
                Open::Datagrams(socket) => {
                    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                        match socket.send(line).await {
                            // It says what became of one before.
                            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                                socket.send(line).await?;
                            }
                            sent => drop(sent?),
                        }
                    }
                    Ok(())
                }
            }
        };
        timeout(within, sent).await.map_err(|_| io::ErrorKind::TimedOut)??;
        self.open = Some(open);
        Ok(())
    }

    async fn connect(&mut self) -> io::Result<Open> {
        let to = Arc::clone(&self.to);
        match &to.carrier {
            Carrier::Tcp | Carrier::Tls => {
                let is_tls = to.carrier == Carrier::Tls;
                return self.dialer.dial(&to.host, to.port, is_tls).await.map(Open::Stream);
            }
            Carrier::Http(post) => {
                let stream = self.dialer.dial(&to.host, to.port, post.is_tls).await?;
                return Poster::over(stream, post.clone()).await.map(Open::Posts);
            }
            Carrier::File => return Err(io::ErrorKind::Unsupported.into()),
            Carrier::Udp => {}
        }
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in tokio::net::lookup_host((&*to.host, to.port)).await? {
            let from = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(from).await?;
            match socket.connect(address).await {
                Ok(()) => return Ok(Open::Datagrams(socket)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Whether the other side has ended a connection on which nothing is expected: what is written to it would be lost. The
/// runtime learns of an end when it next looks at its sockets, so it is given a moment to.
async fn is_over(stream: &mut Box<dyn Stream>) -> bool {
    let end = poll_fn(|cx| {
        let mut bytes = [0; 256];
        let mut said = ReadBuf::new(&mut bytes);
        Pin::new(&mut *stream).poll_read(cx, &mut said).map(|read| read.is_err() || said.filled().is_empty())
    });
    timeout(LOOK, end).await.unwrap_or(false)
}

//! Lines of logs to where they go: a task for each destination, on the control thread's runtime.
//!
//! What waits for one that is slow or away is bounded by its own limit, in bytes; what finds no room, and what was given up, is
//! counted. A task ends when nothing came for a while, and with it its connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::base::hash::Map;
use crate::control::dial::{Dialer, Stream};
use crate::control::log;
use crate::link::lines::{Carrier, Destination};

/// Destinations at a time; lines for others are dropped.
const DESTINATIONS_MAX: usize = 256;
/// How long a connection is kept without a line.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long is waited for the end of a connection that may be over, before a batch.
const LOOK: Duration = Duration::from_millis(1);

/// What became of lines.
#[derive(Debug, Default)]
pub(crate) struct Shipped {
    pub(crate) sent: AtomicU64,
    /// No room was left for them.
    pub(crate) dropped: AtomicU64,
    /// All tries failed.
    pub(crate) failed: AtomicU64,
    /// Tasks under way.
    tasks: AtomicUsize,
}

impl Shipped {
    /// Waits, but not for ever, until all that was taken is sent or given up.
    pub(crate) async fn settle(&self, within: Duration) {
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
}

/// The way to one destination.
struct Road {
    batches: UnboundedSender<Batch>,
    waiting_bytes: Arc<AtomicUsize>,
}

struct Batch {
    bytes: Vec<u8>,
    lines: u64,
}

impl Shipping {
    /// Sends from the runtime it is made in.
    pub(crate) fn new(dialer: Dialer, shipped: Arc<Shipped>) -> Self {
        Self { runtime: Handle::current(), dialer: dialer.saying_nothing(), shipped, roads: Map::default() }
    }

    /// Takes a batch of so many lines, each with its end, or counts it as dropped.
    pub(crate) fn take(&mut self, to: &Arc<Destination>, bytes: Vec<u8>, lines: u64) {
        if self.roads.get(to).is_none_or(|road| road.batches.is_closed()) && !self.open(to) {
            self.shipped.dropped.fetch_add(lines, Relaxed);
            return;
        }
        let Some(road) = self.roads.get(to) else { return };
        let size = bytes.len();
        if road.waiting_bytes.fetch_add(size, Relaxed) + size > to.waiting_bytes_max
            || road.batches.send(Batch { bytes, lines }).is_err()
        {
            road.waiting_bytes.fetch_sub(size, Relaxed);
            self.shipped.dropped.fetch_add(lines, Relaxed);
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
        let waiting_bytes = Arc::default();
        let carter = Carter {
            to: Arc::clone(to),
            dialer: self.dialer.clone(),
            waiting_bytes: Arc::clone(&waiting_bytes),
            shipped: Arc::clone(&self.shipped),
            open: None,
            is_told: false,
        };
        self.shipped.tasks.fetch_add(1, Relaxed);
        self.runtime.spawn(carter.work(coming));
        self.roads.insert(Arc::clone(to), Road { batches, waiting_bytes });
        true
    }
}

enum Open {
    Stream(Box<dyn Stream>),
    Datagrams(UdpSocket),
}

/// Who sends to one destination.
struct Carter {
    to: Arc<Destination>,
    dialer: Dialer,
    waiting_bytes: Arc<AtomicUsize>,
    shipped: Arc<Shipped>,
    open: Option<Open>,
    /// It was said that it can not be reached, and not yet that it can.
    is_told: bool,
}

impl Drop for Carter {
    fn drop(&mut self) {
        self.shipped.tasks.fetch_sub(1, Relaxed);
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
        let mut tries = 0;
        let outcome = loop {
            match self.send(&batch.bytes).await {
                Ok(()) => break Ok(()),
                Err(error) if tries >= self.to.retries => break Err(error),
                Err(_) => {
                    tries += 1;
                    sleep(self.to.retry_delay).await;
                }
            }
        };
        self.waiting_bytes.fetch_sub(batch.bytes.len(), Relaxed);
        let count = if outcome.is_ok() { &self.shipped.sent } else { &self.shipped.failed };
        count.fetch_add(batch.lines, Relaxed);
        let place = || format!("{}:{}", self.to.host, self.to.port);
        match outcome {
            Err(error) if !self.is_told => {
                log::warn(format!("syslog: {} can not be reached: {error}; lines are lost", place()));
                self.is_told = true;
            }
            Ok(()) if self.is_told => {
                log::info(format!("syslog: {} is reached again", place()));
                self.is_told = false;
            }
            _ => {}
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(Open::Stream(stream)) = &mut self.open
            && is_over(stream).await
        {
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
                Open::Datagrams(socket) => {
                    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                        socket.send(line).await?;
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
        if to.carrier != Carrier::Udp {
            let is_tls = to.carrier == Carrier::Tls;
            return self.dialer.dial(&to.host, to.port, is_tls).await.map(Open::Stream);
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

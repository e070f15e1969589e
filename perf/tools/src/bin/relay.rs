//! The floor: a relay on io_uring that knows nothing of HTTP.
//!
//! A connection to the origin for each client's; bytes are copied both ways, a receive and then a send in each
//! direction. What a gateway costs beyond this is HTTP, its features and its runtime.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use clap::Parser;
use ringway_perf::machine;
use ringway_perf::ring::{Completion, Ring};
use socket2::{Domain, Socket, Type};

/// Accepts under way at once.
const ACCEPTS: usize = 8;
const BACKLOG: i32 = 4096;

/// Copies bytes between clients and an origin
#[derive(Parser)]
struct Options {
    listen: SocketAddr,
    origin: SocketAddr,
    /// Processor to run on
    #[arg(long)]
    cpu: Option<usize>,
    /// Bytes of each of a connection's two buffers
    #[arg(long, default_value_t = 65536)]
    buffer_bytes: usize,
}

/// A client's connection and the origin's. Direction 0 copies from the client, 1 from the origin; each uses the buffer
/// of its number.
struct Pair {
    sockets: [TcpStream; 2],
    buffers: [usize; 2],
    ways: [Way; 2],
}

#[derive(Clone, Copy)]
enum Way {
    Receiving,
    Sending { from: usize, to: usize },
    Ended,
}

struct Relay {
    ring: Ring,
    listener: TcpListener,
    origin: SocketAddr,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    /// Buffers of pairs that are gone.
    spare: Vec<[usize; 2]>,
}

impl Relay {
    fn new(options: &Options) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(options.listen), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit it.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&options.listen.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            ring: Ring::new(options.buffer_bytes)?,
            listener: socket.into(),
            origin: options.origin,
            pairs: Vec::new(),
            free: Vec::new(),
            spare: Vec::new(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS {
            self.ring.accept(self.listener.as_fd())?;
        }
        let mut completions = Vec::new();
        loop {
            self.ring.wait(&mut completions)?;
            for completion in completions.drain(..) {
                match completion {
                    Completion::Accepted(socket) => {
                        self.ring.accept(self.listener.as_fd())?;
                        if let Ok(socket) = socket {
                            self.open(socket.into())?;
                        }
                    }
                    Completion::Moved(token, result) => {
                        self.moved((token >> 1) as usize, (token & 1) as usize, result)?;
                    }
                }
            }
        }
    }

    fn open(&mut self, client: TcpStream) -> io::Result<()> {
        // Blocking: on loopback a connection is made before the call returns.
        let Ok(origin) = TcpStream::connect(self.origin) else { return Ok(()) };
        origin.set_nodelay(true)?;
        let ring = &mut self.ring;
        let buffers = self.spare.pop().unwrap_or_else(|| [ring.add_buffer(), ring.add_buffer()]);
        let pair = Pair { sockets: [client, origin], buffers, ways: [Way::Receiving; 2] };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pairs.push(None);
            self.pairs.len() - 1
        });
        for way in 0..2 {
            let token = (slot << 1 | way) as u64;
            self.ring.receive(pair.sockets[way].as_raw_fd(), pair.buffers[way], token)?;
        }
        self.pairs[slot] = Some(pair);
        Ok(())
    }

    /// An operation of a pair ended: do the next. A pair goes when both ways have ended, so none is under way then.
    fn moved(&mut self, slot: usize, way: usize, result: io::Result<usize>) -> io::Result<()> {
        let Some(Some(pair)) = self.pairs.get_mut(slot) else { return Ok(()) };
        let next = match (pair.ways[way], result) {
            (Way::Receiving, Ok(0)) => {
                // The other side may already be gone.
                let _ = pair.sockets[1 - way].shutdown(Shutdown::Write);
                Way::Ended
            }
            (Way::Receiving, Ok(count)) => Way::Sending { from: 0, to: count },
            (Way::Sending { from, to }, Ok(count)) if from + count < to => {
                Way::Sending { from: from + count, to }
            }
            (Way::Sending { .. }, Ok(_)) => Way::Receiving,
            (_, Err(_)) | (Way::Ended, Ok(_)) => {
                for socket in &pair.sockets {
                    let _ = socket.shutdown(Shutdown::Both);
                }
                Way::Ended
            }
        };
        pair.ways[way] = next;
        let token = (slot << 1 | way) as u64;
        let buffer = pair.buffers[way];
        match next {
            Way::Receiving => self.ring.receive(pair.sockets[way].as_raw_fd(), buffer, token)?,
            Way::Sending { from, to } => {
                self.ring.send(pair.sockets[1 - way].as_raw_fd(), buffer, from..to, token)?;
            }
            Way::Ended => {
                if pair.ways.iter().all(|way| matches!(way, Way::Ended)) {
                    self.spare.push(pair.buffers);
                    self.pairs[slot] = None;
                    self.free.push(slot);
                }
            }
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    if let Some(processor) = options.cpu {
        machine::pin(processor)?;
    }
    machine::prepare()?;
    let mut relay = Relay::new(&options)?;
    eprintln!("relay: {}", relay.ring.flags);
    relay.run()
}

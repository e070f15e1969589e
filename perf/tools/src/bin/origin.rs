//! The origin alone in its process.

use std::net::SocketAddr;
use std::time::Instant;

use clap::Parser;
use ringway_perf::machine;
use ringway_perf::origin::Origin;
use ringway_perf::poll::Poll;

/// Answers with fixed bodies: /128, /1k, /64k, /1m, /stall?ms=1000, /echo; takes HTTP/2 in clear and WebSockets, too
#[derive(Parser)]
struct Options {
    /// Where to listen
    #[arg(default_value = "127.0.0.1:1980")]
    addresses: Vec<SocketAddr>,
    /// Where to send back whatever bytes come
    #[arg(long)]
    echo: Vec<SocketAddr>,
    /// Processor to run on
    #[arg(long)]
    cpu: Option<usize>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    if let Some(processor) = options.cpu {
        machine::pin(processor)?;
    }
    machine::prepare()?;
    let mut poll = Poll::new()?;
    let mut origin = Origin::bind(&options.addresses, &options.echo, &poll)?;
    let mut events = Vec::new();
    loop {
        let now = Instant::now();
        origin.on_time(now, &poll);
        let wait = origin.next_deadline().map(|at| at.saturating_duration_since(now));
        poll.wait(wait, &mut events)?;
        for event in events.drain(..) {
            origin.on_event(event, &poll);
        }
    }
}

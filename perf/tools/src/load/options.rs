//! What a run is asked to do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("expected more than 0".to_owned()) }
}

/// Asks over HTTP/1.1, HTTP/2, gRPC, WebSocket or plain TCP, and tells how long the answers took
#[derive(Clone, Debug, Parser)]
#[command(name = "loadgen")]
pub struct Options {
    /// What to ask for: http://HOST:PORT/PATH, or WEIGHT@http://...; all of one host. Or https (TLS 1.3), h2c and h2
    /// (HTTP/2 in clear and over TLS), grpc (a call of one message, in clear), ws and tcp (echoed messages)
    #[arg(required = true)]
    pub urls: Vec<String>,
    #[arg(short = 'c', long, default_value_t = 64)]
    pub connections: usize,
    /// Requests under way at once on each connection of HTTP/2
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub streams: u16,
    /// Bytes of each message of gRPC, WebSocket and TCP
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(8..=16_000))]
    pub message_bytes: u16,
    /// The certificate that must be shown, a file of PEM
    #[arg(long)]
    pub certificate: Option<PathBuf>,
    /// Resume sessions of TLS. Once measuring has begun, a full handshake is an error
    #[arg(long)]
    pub resume: bool,
    /// Requests a second, whatever the answers do; absent: each connection asks again once it was answered
    #[arg(short = 'r', long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Requests at random times (Poisson), not evenly spaced
    #[arg(long)]
    pub poisson: bool,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds that are measured
    #[arg(short = 'd', long, default_value = "5", value_parser = seconds)]
    pub duration: Duration,
    /// Seconds before that
    #[arg(short = 'w', long, default_value = "1", value_parser = seconds)]
    pub warm_up: Duration,
    #[arg(short = 'X', long)]
    pub method: Option<String>,
    /// Bytes of the request's body
    #[arg(short = 'b', long, default_value_t = 0)]
    pub body_bytes: usize,
    /// A file of bodies, one a line: each request has one of them, by chance. HTTP/1.1 only
    #[arg(long, conflicts_with = "body_bytes")]
    pub bodies_file: Option<PathBuf>,
    /// A header, as "Name: value"
    #[arg(short = 'H', long)]
    pub header: Vec<String>,
    /// A file of headers, one a line
    #[arg(long)]
    pub headers_file: Option<PathBuf>,
    /// A connection for each request; of HTTP/1.1 only
    #[arg(long)]
    pub new_connections: bool,
    /// Seconds after which an answer is given up
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Seconds from when a request is due within which its answer is good. Later it is given up and its connection closed,
    /// and one that finds no connection free is not sent at all: nobody waits in line before they ask. HTTP/1.1 only
    #[arg(long, value_parser = seconds)]
    pub within: Option<Duration>,
    /// Seconds of which to tell how many good answers came within any so many of the measured time, at most
    #[arg(long, value_parser = seconds)]
    pub window: Option<Duration>,
    /// Processors to watch for pauses by the host, such as 0,1. What was due outside of them is told apart as well. Needs --rate and root
    #[arg(long, value_delimiter = ',', requires = "rate")]
    pub without_pauses: Vec<usize>,
    /// Processor to run on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Addresses of an origin on the same thread
    #[arg(long)]
    pub origin: Vec<SocketAddr>,
    /// Addresses where that origin sends back whatever bytes it gets
    #[arg(long)]
    pub echo: Vec<SocketAddr>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Takes runs from standard input: a JSON array of arguments a line, each answered by lines of JSON
#[derive(Debug, Parser)]
#[command(name = "loadgen serve")]
pub struct Orders {
    /// Processor to run on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Addresses of an origin on the same thread
    #[arg(long)]
    pub origin: Vec<SocketAddr>,
    /// Addresses where that origin sends back whatever bytes it gets
    #[arg(long)]
    pub echo: Vec<SocketAddr>,
}

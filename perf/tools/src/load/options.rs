//! What a run is asked to do, and the requests it sends, made once.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

/// Asks over HTTP/1.1 and tells how long the answers took
#[derive(Clone, Debug, Parser)]
#[command(name = "loadgen")]
pub struct Options {
    /// What to ask for: http://HOST:PORT/PATH, or WEIGHT@http://...; all of one host
    #[arg(required = true)]
    pub urls: Vec<String>,
    #[arg(short = 'c', long, default_value_t = 64)]
    pub connections: usize,
    /// Requests a second, whatever the answers do; absent: each connection asks again once it was answered
    #[arg(short = 'r', long)]
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
    /// A header, as "Name: value"
    #[arg(short = 'H', long)]
    pub header: Vec<String>,
    /// A file of headers, one a line
    #[arg(long)]
    pub headers_file: Option<PathBuf>,
    /// A connection for each request
    #[arg(long)]
    pub new_connections: bool,
    /// Seconds after which an answer is given up
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
    /// Processor to run on
    #[arg(long)]
    pub cpu: Option<usize>,
    /// Addresses of an origin on the same thread
    #[arg(long)]
    pub origin: Vec<SocketAddr>,
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
}

/// The requests of a run, as they go out.
pub(crate) struct Requests {
    pub(crate) address: SocketAddr,
    pub(crate) texts: Vec<Rc<[u8]>>,
    /// Indices of texts, each as often as its weight says.
    pub(crate) wheel: Vec<usize>,
    /// Answers to HEAD have no body.
    pub(crate) bodiless: bool,
}

struct Url<'a> {
    weight: usize,
    host: &'a str,
    path: &'a str,
}

const WEIGHT_MAX: usize = 10_000;

fn parse(url: &str) -> Result<Url<'_>, String> {
    let (weight, rest) = match url.split_once('@') {
        Some((weight, rest)) if !weight.is_empty() && weight.bytes().all(|byte| byte.is_ascii_digit()) => {
            (weight.parse().unwrap_or(usize::MAX), rest)
        }
        _ => (1, url),
    };
    if weight > WEIGHT_MAX {
        return Err(format!("{url}: expected a weight up to {WEIGHT_MAX}"));
    }
    let rest = rest.strip_prefix("http://").ok_or_else(|| format!("{url}: expected http://"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Ok(Url { weight, host, path: if path.is_empty() { "/" } else { path } })
}

impl Requests {
    pub(crate) fn of(options: &Options) -> Result<Self, String> {
        let mut headers = options.header.clone();
        if let Some(path) = &options.headers_file {
            let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            headers.extend(text.lines().filter(|line| line.contains(':')).map(str::to_owned));
        }
        let method = options.method.as_deref().unwrap_or(if options.body_bytes > 0 { "POST" } else { "GET" });
        let mut texts: Vec<Rc<[u8]>> = Vec::new();
        let (mut wheel, mut host) = (Vec::new(), None);
        for url in &options.urls {
            let Url { weight, host: this, path } = parse(url)?;
            if *host.get_or_insert(this) != this {
                return Err(format!("{url}: all requests of a run go to one host"));
            }
            let mut text = format!("{method} {path} HTTP/1.1\r\n");
            if !headers.iter().any(|header| header.to_ascii_lowercase().starts_with("host:")) {
                text += &format!("Host: {this}\r\n");
            }
            for header in &headers {
                text += &format!("{}\r\n", header.trim());
            }
            if options.new_connections {
                text += "Connection: close\r\n";
            }
            if options.body_bytes > 0 {
                text += &format!("Content-Length: {}\r\n", options.body_bytes);
            }
            text += "\r\n";
            let mut bytes = text.into_bytes();
            bytes.resize(bytes.len() + options.body_bytes, b'b');
            wheel.extend(std::iter::repeat_n(texts.len(), weight));
            texts.push(bytes.into());
        }
        let host = host.ok_or("expected an address")?;
        if wheel.is_empty() {
            return Err("expected a weight above 0".to_owned());
        }
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let address = host.to_socket_addrs().map_err(|error| format!("{host}: {error}"))?.next();
        let address = address.ok_or_else(|| format!("{host}: no address"))?;
        Ok(Self { address, texts, wheel, bodiless: method == "HEAD" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(arguments: &str) -> Result<Requests, String> {
        let options =
            Options::try_parse_from(std::iter::once("loadgen").chain(arguments.split_whitespace())).unwrap();
        Requests::of(&options)
    }

    #[test]
    fn requests_are_written_once_with_weights() {
        let made = requests("3@http://127.0.0.1:80/a http://127.0.0.1:80 -b 2 -H X:1").unwrap();
        assert_eq!(made.wheel, [0, 0, 0, 1]);
        assert_eq!(
            std::str::from_utf8(&made.texts[0]),
            Ok("POST /a HTTP/1.1\r\nHost: 127.0.0.1:80\r\nX:1\r\nContent-Length: 2\r\n\r\nbb")
        );
        assert!(made.texts[1].starts_with(b"POST / HTTP/1.1\r\n"));
    }

    #[test]
    fn what_can_not_be_asked_for_is_told() {
        for wrong in [
            "https://127.0.0.1/",
            "http://127.0.0.1/ http://127.0.0.2/",
            "0@http://127.0.0.1/",
            "99999@http://a/",
        ] {
            assert!(requests(wrong).is_err(), "{wrong}");
        }
    }
}

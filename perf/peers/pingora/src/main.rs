//! The least proxy on Pingora: one thread, keep-alive to one origin, the headers every peer adds. With a log also what is
//! compared with plugins: a key, a limit that is never met, a JSON record a request. Or with TLS, with HTTP/2 in clear,
//! or with calls of gRPC.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::ALPN;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_http::RequestHeader;
use pingora_limits::rate::Rate;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

const IDLE_CONNECTIONS: usize = 128;
const RATE_MAX: isize = 1_000_000_000;
/// Calls under way at once on a connection to the origin.
const STREAMS_MAX: usize = 100;

struct Proxy {
    origin: String,
    port: String,
    guard: Option<Guard>,
    /// HTTP/2 with the origin.
    calls: bool,
}

struct Guard {
    consumers: HashMap<&'static str, &'static str>,
    rate: Rate,
    requests: AtomicU64,
    log: Mutex<BufWriter<File>>,
}

struct Exchange {
    begun: Instant,
    consumer: &'static str,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange { begun: Instant::now(), consumer: "" }
    }

    async fn request_filter(&self, session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
        let Some(guard) = &self.guard else { return Ok(false) };
        let key = session.req_header().headers.get("apikey").and_then(|key| key.to_str().ok());
        let Some(consumer) = key.and_then(|key| guard.consumers.get(key)) else {
            session.respond_error(401).await?;
            return Ok(true);
        };
        exchange.consumer = consumer;
        if guard.rate.observe(consumer, 1) > RATE_MAX {
            session.respond_error(429).await?;
            return Ok(true);
        }
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut Exchange) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.origin.as_str(), false, String::new());
        peer.options.idle_timeout = Some(Duration::from_secs(600));
        if self.calls {
            peer.options.alpn = ALPN::H2;
            peer.options.max_h2_streams = STREAMS_MAX;
        }
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut Exchange,
    ) -> Result<()> {
        let client = session.client_addr().and_then(|address| address.as_inet());
        let client = client.map(|address| address.ip().to_string()).unwrap_or_default();
        let head = session.req_header();
        // In HTTP/2 it is a part of the address.
        let authority = || head.uri.authority().map(|authority| authority.as_str());
        let host = head.headers.get("host").and_then(|host| host.to_str().ok()).or_else(authority);
        let host = host.map(str::to_owned);
        request.insert_header("X-Real-IP", &client)?;
        request.insert_header("X-Forwarded-For", &client)?;
        let over_tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        request.insert_header("X-Forwarded-Proto", if over_tls { "https" } else { "http" })?;
        if let Some(host) = host {
            request.insert_header("X-Forwarded-Host", host)?;
        }
        request.insert_header("X-Forwarded-Port", &self.port)?;
        Ok(())
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, exchange: &mut Exchange) {
        let Some(guard) = &self.guard else { return };
        guard.requests.fetch_add(1, Ordering::Relaxed);
        let head = session.req_header();
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        let client = session.client_addr().map(ToString::to_string).unwrap_or_default();
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let Ok(mut log) = guard.log.lock() else { return };
        // A log that can not be written is no reason to fail a request.
        let _ = writeln!(
            log,
            "{{\"time\":{:.3},\"remote_addr\":\"{client}\",\"method\":\"{}\",\"host\":\"{}\",\"uri\":\"{}\",\
             \"status\":{status},\"request_time\":{:.6},\"bytes_sent\":{},\"upstream_addr\":\"{}\",\
             \"user_agent\":\"{}\",\"consumer\":\"{}\"}}",
            now.as_secs_f64(),
            head.method,
            header("host"),
            head.uri,
            exchange.begun.elapsed().as_secs_f64(),
            session.body_bytes_sent(),
            self.origin,
            header("user-agent"),
            exchange.consumer,
        );
    }
}

/// LISTEN ORIGIN, and what is to be different.
#[derive(Default)]
struct Options {
    addresses: Vec<String>,
    log: Option<String>,
    h2c: bool,
    calls: bool,
    /// Where TLS is spoken, the certificate, its key.
    tls: Option<[String; 3]>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--log" => options.log = Some(words.next()?),
                "--h2c" => options.h2c = true,
                "--grpc" => options.calls = true,
                "--tls" => options.tls = Some([words.next()?, words.next()?, words.next()?]),
                _ => options.addresses.push(word),
            }
        }
        (options.addresses.len() == 2).then_some(options)
    }
}

fn main() {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprintln!("usage: pingora-peer LISTEN ORIGIN [--log FILE] [--h2c] [--grpc] [--tls LISTEN CERTIFICATE KEY]");
        std::process::exit(64);
    };
    let [listen, origin] = &options.addresses[..] else { unreachable!("two were counted") };
    let guard = options.log.map(|path| Guard {
        consumers: HashMap::from([("key-of-alice", "alice"), ("key-of-bob", "bob")]),
        rate: Rate::new(Duration::from_secs(60)),
        requests: AtomicU64::new(0),
        log: Mutex::new(BufWriter::with_capacity(
            65536,
            File::create(path).expect("the folder of the log exists"),
        )),
    });
    let shown = options.tls.as_ref().map_or(listen, |[address, ..]| address);
    let port = shown.rsplit(':').next().unwrap_or("").to_owned();
    let settings =
        ServerConf { threads: 1, upstream_keepalive_pool_size: IDLE_CONNECTIONS, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let proxy = Proxy { origin: origin.clone(), port, guard, calls: options.calls };
    let mut service = http_proxy_service(&server.configuration, proxy);
    if options.h2c {
        let mut server_options = HttpServerOptions::default();
        server_options.h2c = true;
        service.app_logic_mut().expect("the service has not begun").server_options = Some(server_options);
    }
    service.add_tcp(listen);
    if let Some([address, certificate, key]) = &options.tls {
        service.add_tls(address, certificate, key).expect("the certificate can be read");
    }
    server.add_service(service);
    server.run_forever();
}

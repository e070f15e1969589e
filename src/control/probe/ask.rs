//! One check of one node: a connection, and with HTTP or gRPC one request on it.

use std::net::SocketAddr;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::grpc;
use crate::base::address::Address;
use crate::control::dial::Dialer;
use crate::link::health::News;
use crate::snapshot::{ActiveCheck, CheckScheme, Node};

/// What the node's answer tells, if it tells anything.
pub(super) async fn ask(check: &ActiveCheck, node: &Node, dialer: Dialer) -> Option<News> {
    let asked = async {
        match check.scheme {
            CheckScheme::Tcp => connect(check, node, dialer).await.map(|_| Some(News::Success)),
            CheckScheme::Http | CheckScheme::Https => {
                status(check, node, dialer).await.map(|status| check.rules.news_of(status))
            }
            CheckScheme::Grpc | CheckScheme::Grpcs => {
                let stream = connect(check, node, dialer.speaking_http2()).await?;
                let is_tls = check.scheme == CheckScheme::Grpcs;
                grpc::ask(check, &host_of(check, node), is_tls, stream).await.map(Some)
            }
        }
    };
    match timeout(check.timeout, asked).await {
        Ok(Ok(news)) => news,
        Ok(Err(Broken)) => Some(News::TcpFailure),
        Err(_) => Some(News::Timeout),
    }
}

/// No connection, or no answer on it that can be read.
pub(super) struct Broken;

pub(super) type Stream = Box<dyn crate::control::dial::Stream>;

async fn connect(check: &ActiveCheck, node: &Node, mut dialer: Dialer) -> Result<Stream, Broken> {
    let address = match (node.address, check.port) {
        (Address::Ip(node), Some(port)) => SocketAddr::new(node.ip(), port).into(),
        // A Unix socket has no other port that could be asked.
        (node, _) => node,
    };
    let is_tls = matches!(check.scheme, CheckScheme::Https | CheckScheme::Grpcs);
    let name = is_tls.then(|| check.host.as_deref().map_or_else(|| name_of(node), without_port));
    dialer.dial_node(address, name, check.is_verified).await.map_err(|_| Broken)
}

async fn status(check: &ActiveCheck, node: &Node, dialer: Dialer) -> Result<u16, Broken> {
    let stream = connect(check, node, dialer).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Broken)?;
    // Ends with the answer's head, when the sender goes.
    tokio::spawn(connection);
    let host = host_of(check, node);
    let mut request = Request::builder().method(check.method).uri(&*check.path).header(CONNECTION, "close");
    let is_given = |name: &str| check.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    if !is_given("host") {
        request = request.header(HOST, host);
    }
    if !is_given("user-agent") {
        request = request.header(USER_AGENT, "ringway-health-check");
    }
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(check.body.clone()))).map_err(|_| Broken)?;
    let response = sender.send_request(request).await.map_err(|_| Broken)?;
    Ok(response.status().as_u16())
}

/// Whom the certificate of a node must name.
fn name_of(node: &Node) -> &str {
    if node.address.is_unix() { "localhost" } else { &node.name }
}

/// The `Host` sent.
fn host_of(check: &ActiveCheck, node: &Node) -> String {
    check.host.clone().unwrap_or_else(|| String::from_utf8_lossy(&node.host).into_owned())
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::link::health::{Rules, Thresholds};
    use crate::model::Settings;

    fn check(scheme: CheckScheme) -> ActiveCheck {
        ActiveCheck {
            scheme,
            timeout: Duration::from_millis(200),
            concurrency: 1,
            host: Some("app.test".to_owned()),
            port: None,
            method: "GET",
            path: "/status?x=1".to_owned(),
            body: String::new(),
            grpc_service: String::new(),
            headers: vec![("X-Probe".to_owned(), "yes".to_owned())],
            is_verified: true,
            healthy_every: Duration::from_secs(1),
            unhealthy_every: Duration::from_secs(1),
            rules: Rules {
                good: [200].into_iter().collect(),
                bad: [500].into_iter().collect(),
                thresholds: Thresholds { successes: 1, http_failures: 1, tcp_failures: 1, timeouts: 1 },
            },
        }
    }

    fn node(address: SocketAddr) -> Node {
        Node { address: address.into(), host: b"127.0.0.1"[..].into(), name: "127.0.0.1".into(), cell: None }
    }

    /// What is told of a node that answers so (`None`: not at all), and what the node was asked.
    async fn told(check: ActiveCheck, answer: Option<&'static str>) -> (Option<News>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let node = node(listener.local_addr().expect("bound"));
        let (end, ended) = channel::<()>();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut asked = vec![0; 4096];
            let read = stream.read(&mut asked).unwrap_or(0);
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).expect("sent"),
                // Silent until the check is over.
                None => drop(ended.recv()),
            }
            String::from_utf8_lossy(&asked[..read]).into_owned()
        });
        let news = ask(&check, &node, Dialer::new(&Settings::default())).await;
        drop(end);
        (news, served.join().expect("it served"))
    }

    #[tokio::test]
    async fn a_node_is_asked_as_configured_and_its_status_counts() {
        let (news, asked) =
            told(check(CheckScheme::Http), Some("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(news, Some(News::Success));
        let head = asked.to_lowercase();
        assert!(head.starts_with("get /status?x=1 http/1.1\r\n"), "{asked}");
        assert!(head.contains("host: app.test\r\n") && head.contains("x-probe: yes\r\n"), "{asked}");
        let (news, _) =
            told(check(CheckScheme::Http), Some("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(news, Some(News::HttpFailure));
        let (news, _) =
            told(check(CheckScheme::Http), Some("HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(news, None);
    }

    #[tokio::test]
    async fn silence_is_a_timeout_and_nonsense_a_broken_connection() {
        assert_eq!(told(check(CheckScheme::Http), None).await.0, Some(News::Timeout));
        assert_eq!(told(check(CheckScheme::Http), Some("SSH-2.0\r\n")).await.0, Some(News::TcpFailure));
    }

    #[tokio::test]
    async fn with_tcp_a_connection_is_enough_and_none_is_a_failure() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let node = node(listener.local_addr().expect("bound"));
        let dialer = Dialer::new(&Settings::default());
        assert_eq!(ask(&check(CheckScheme::Tcp), &node, dialer.clone()).await, Some(News::Success));
        drop(listener);
        assert_eq!(ask(&check(CheckScheme::Tcp), &node, dialer).await, Some(News::TcpFailure));
    }
}

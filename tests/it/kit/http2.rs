//! HTTP/2 as a client and as an origin of a test speak it: the `h2` crate over plain sockets or TLS; and frames by hand,
//! for what that crate would never say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use super::{Caller, Gateway, PATIENCE};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A client's connection.
pub(crate) struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    /// Ends with the connection.
    served: Option<tokio::task::JoinHandle<Result<(), h2::Error>>>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct H2Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: HeaderMap,
}

impl H2Answer {
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str) -> &Self {
        assert_eq!((self.status, &*self.text()), (status, body), "{:?}", self.headers);
        self
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Http2 {
    /// Begins with it in clear (RFC 9113 3.3).
    pub(crate) fn to(gateway: &Gateway) -> Self {
        Self::connect(gateway.address())
    }

    pub(crate) fn connect(to: SocketAddr) -> Self {
        let runtime = runtime();
        let stream = runtime.block_on(TcpStream::connect(to)).unwrap();
        Self::over(runtime, stream)
    }

    /// Agrees on it over TLS.
    pub(crate) fn over_tls(caller: &Caller, to: SocketAddr, name: &str) -> Self {
        let runtime = runtime();
        let mut config = rustls::ClientConfig::clone(&caller.config);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = runtime.block_on(async {
            let stream = TcpStream::connect(to).await.unwrap();
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
        });
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::over(runtime, stream)
    }

    fn over(runtime: Runtime, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = runtime.block_on(h2::client::handshake(stream)).unwrap();
        let served = Some(runtime.spawn(connection));
        Self { runtime, sender, served }
    }

    /// Runs what talks on the connection, for no longer than anybody's patience lasts.
    pub(crate) fn run<R>(&mut self, talk: impl AsyncFnOnce(SendRequest<Bytes>) -> R) -> R {
        let sender = self.sender.clone();
        self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, talk(sender)).await.expect("an end within anybody's patience")
        })
    }

    pub(crate) fn get(&mut self, path: &str) -> H2Answer {
        self.ask(get(path), b"").unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    pub(crate) fn ask(&mut self, request: Request<()>, body: &[u8]) -> Result<H2Answer, h2::Error> {
        let body = body.to_vec();
        self.run(async |sender| ask(sender, request, body, None).await)
    }

    /// Waits for the end of the connection.
    pub(crate) fn ended(&mut self) -> Result<(), h2::Error> {
        let served = self.served.take().expect("asked once");
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, served).await })
            .expect("an end")
            .expect("no panic")
    }
}

/// A request for a path of a.test.
pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.test{path}")).body(()).unwrap()
}

/// The same with a body to come.
pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://a.test{path}")).body(()).unwrap()
}

/// A request for a WebSocket (RFC 8441).
pub(crate) fn asks_websocket(path: &str) -> Request<()> {
    let mut request =
        Request::connect(format!("http://a.test{path}")).version(http::Version::HTTP_2).body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request
}

/// One request, its body and trailers, and all of the answer.
pub(crate) async fn ask(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
) -> Result<H2Answer, h2::Error> {
    let ends = body.is_empty() && trailers.is_none();
    let (answer, mut stream) = sender.ready().await?.send_request(request, ends)?;
    let sending = tokio::spawn(async move {
        if !ends {
            send(&mut stream, body.into(), trailers.is_none()).await;
            if let Some(trailers) = trailers {
                let _ = stream.send_trailers(trailers);
            }
        }
    });
    let answer = whole(answer.await?).await;
    sending.abort();
    answer
}

/// All of an answer.
pub(crate) async fn whole(answer: Response<RecvStream>) -> Result<H2Answer, h2::Error> {
    let (parts, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?.unwrap_or_default();
    Ok(H2Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// Sends as the window allows; a stream that broke takes no more.
pub(crate) async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, ends: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| match stream.capacity() {
            0 => stream.poll_capacity(cx),
            room => std::task::Poll::Ready(Some(Ok(room))),
        });
        let Some(Ok(room)) = room.await else { return };
        let piece = data.split_to(room.min(data.len()));
        if stream.send_data(piece, ends && data.is_empty()).is_err() {
            return;
        }
        if ends && data.is_empty() {
            return;
        }
    }
    if ends {
        let _ = stream.send_data(Bytes::new(), true);
    }
}

/// An origin that speaks HTTP/2 only, in clear or over TLS.
pub(crate) struct Http2Origin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    /// Dropped, it ends the thread that serves.
    _stop: tokio::sync::oneshot::Sender<()>,
}

type Respond = h2::server::SendResponse<Bytes>;

impl Http2Origin {
    /// Answers every request by `serve`, which gets its number on its connection.
    pub(crate) fn serving<F>(
        serve: impl Fn(Request<RecvStream>, Respond, usize) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::serving_over(None, serve)
    }

    pub(crate) fn serving_over<F>(
        tls: Option<rustls::ServerConfig>,
        serve: impl Fn(Request<RecvStream>, Respond, usize) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let (counted, serve) = (Arc::clone(&accepted), Arc::new(serve));
        let tls = tls.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            tokio_rustls::TlsAcceptor::from(Arc::new(config))
        });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let accept = async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (serve, tls) = (Arc::clone(&serve), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => speak(stream, serve).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                speak(stream, serve).await;
                            }
                        }
                    }
                });
            }
        };
        std::thread::spawn(move || {
            runtime.block_on(async move {
                tokio::select! { () = accept => {}, _ = stopped => {} }
            });
        });
        Self { address, accepted, _stop: stop }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn speak<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    serve: Arc<impl Fn(Request<RecvStream>, Respond, usize) -> F>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut count = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        count += 1;
        if request.uri().path() == "/last" {
            connection.graceful_shutdown();
        }
        tokio::spawn(serve(request, respond, count));
    }
}

/// Frames by hand (RFC 9113 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Headers in the simplest form there is (RFC 7541 6.2.2): literal, never compressed.
pub(crate) fn block(headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    let text = |block: &mut Vec<u8>, text: &[u8]| {
        let length = text.len();
        if length < 127 {
            block.push(length as u8);
        } else {
            block.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                block.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            block.push(rest as u8);
        }
        block.extend_from_slice(text);
    };
    for (name, value) in headers {
        block.push(0);
        text(&mut block, name.as_bytes());
        text(&mut block, value);
    }
    block
}

/// What a client says first, with settings that change nothing.
pub(crate) fn hello() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, b"")[..]].concat()
}

/// The frames in what was received, as `(kind, flags, stream, payload)`.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while bytes.len() >= 9 {
        let length = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        if bytes.len() < 9 + length {
            break;
        }
        let stream = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]);
        frames.push((bytes[3], bytes[4], stream, bytes[9..9 + length].to_vec()));
        bytes = &bytes[9 + length..];
    }
    frames
}

/// A moment for things that must not happen to happen.
pub(crate) const MOMENT: Duration = Duration::from_millis(50);

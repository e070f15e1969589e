//! How authorities are asked: a connection a request over HTTP/1.1, as there are few of them. What an authority says of when
//! it may be asked again is kept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::time::timeout;

use crate::base::clock;
use crate::control::dial::{Dialer, words};

/// How long an answer may take as a whole.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer that is read: a directory, an order, a chain of certificates.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
const HTTPS_PORT: u16 = 443;

/// Asks one authority.
pub(super) struct Http {
    dialer: Dialer,
    retry: Arc<Retry>,
}

/// How long an authority has asked to be left alone, in seconds; 0: it has not.
#[derive(Debug, Default)]
pub(super) struct Retry(AtomicU64);

impl Retry {
    pub(super) fn after(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn note(&self, headers: &HeaderMap) {
        let text = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        if let Some(after) =
            text.and_then(|text| seconds(text, SystemTime::UNIX_EPOCH + Duration::from_millis(clock::wall())))
        {
            self.0.store(after, Ordering::Relaxed);
        }
    }
}

/// Seconds from now, as `Retry-After` has them (RFC 9110 10.2.3).
fn seconds(text: &str, now: SystemTime) -> Option<u64> {
    let text = text.trim();
    text.parse().ok().or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?;
        Some(at.duration_since(now).map_or(0, |wait| wait.as_secs() + 1))
    })
}

impl Http {
    pub(super) fn new(dialer: Dialer, retry: Arc<Retry>) -> Self {
        Self { dialer, retry }
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (dialer, retry) = (self.dialer.clone(), Arc::clone(&self.retry));
        Box::pin(async move {
            let uri = request.uri().clone();
            let failed = |why: String| Error::Other(format!("{}: {why}", host_of(&uri)).into());
            let answer = timeout(PATIENCE, ask(dialer, request))
                .await
                .map_err(|_| failed(format!("no whole answer within {PATIENCE:?}")))?
                .map_err(|error| failed(error.to_string()))?;
            if matches!(answer.parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
            {
                retry.note(&answer.parts.headers);
            }
            Ok(answer)
        })
    }
}

fn host_of(uri: &Uri) -> &str {
    uri.authority().map_or("an authority without a name", |authority| authority.as_str())
}

async fn ask(mut dialer: Dialer, request: Request<BodyWrapper<Bytes>>) -> io::Result<BytesResponse> {
    let failed = |why: &dyn std::error::Error| io::Error::other(words(why));
    let (mut parts, body) = request.into_parts();
    let (uri, authority) = (parts.uri.clone(), host_of(&parts.uri).to_owned());
    if uri.scheme_str() != Some("https") {
        return Err(io::Error::other("expected an https:// URL, which an authority must have"));
    }
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse().map_err(|error| failed(&error))?;
    parts.headers.insert(HOST, HeaderValue::from_str(&authority).map_err(|error| failed(&error))?);
    let stream = dialer.dial(host, uri.port_u16().unwrap_or(HTTPS_PORT), true).await?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    // Ends with the answer, or with whoever waits for it.
    tokio::spawn(connection);
    let response =
        sender.send_request(Request::from_parts(parts, body)).await.map_err(|error| failed(&error))?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
    Ok(BytesResponse { parts, body: Box::new(body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_come_again_is_told_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        assert_eq!(seconds(" 120 ", now), Some(120));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:47 GMT", now), Some(11));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(0));
        assert_eq!(seconds("soon", now), None);
    }
}

//! One question to a registry over HTTP, answered in JSON.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use crate::base::text::push_percent;
use crate::control::dial::{Dialer, words};
use crate::model::settings::Endpoint;

/// Largest answer that is read: some ten thousand instances.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// An answer that came.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// Null where it is no JSON.
    pub(super) body: Value,
}

/// Asks a server for a path.
///
/// # Errors
/// When there is no whole answer in time; the message names the server and tells no token.
pub(super) async fn get(
    server: &Endpoint,
    path: &str,
    headers: &[(&'static str, &str)],
    mut dialer: Dialer,
    patience: Duration,
) -> Result<Answer, String> {
    let failed = |why: String| format!("{server}: {why}");
    let asked = async {
        let stream = dialer
            .dial(server.host(), server.port(), server.is_tls())
            .await
            .map_err(|error| failed(error.to_string()))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(error.to_string()))?;
        // Ends with the answer, or with whoever waits for it.
        tokio::spawn(connection);
        let mut request =
            Request::get(path).header(HOST, server.authority()).header(ACCEPT, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // The library's words could show the token.
        let request =
            request.body(Empty::<Bytes>::new()).map_err(|_| failed("not fit to be sent".to_owned()))?;
        let response = sender.send_request(request).await.map_err(|error| failed(words(&error)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| failed(format!("no whole answer: {error}")))?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    timeout(patience, asked)
        .await
        .unwrap_or_else(|_| Err(failed(format!("no whole answer within {patience:?}"))))
}

/// A value as a part of a path or a query.
pub(super) fn escaped(value: &str) -> String {
    let mut out = Vec::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            push_percent(&mut out, byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_would_end_a_path_is_escaped() {
        assert_eq!(super::escaped("a-b.c/d?e&f g"), "a-b.c%2Fd%3Fe%26f%20g");
    }
}

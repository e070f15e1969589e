//! One check of one node by gRPC's own protocol (github.com/grpc/grpc, doc/health-checking.md): one call of
//! `grpc.health.v1.Health/Check`, asking for a service by name.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::task::Poll;

use h2::client::SendRequest;
use http::{HeaderMap, Request};
use hyper::body::Bytes;

use super::ask::{Broken, Stream};
use crate::link::health::News;
use crate::snapshot::ActiveCheck;

/// The only good status of a service.
const SERVING: u8 = 1;
/// Most bytes of an answer; one has four, or what later versions add.
const ANSWER_BYTES_MAX: usize = 4096;
/// Most bytes of its headers, and of its trailers.
const HEADER_BYTES_MAX: u32 = 16 * 1024;

/// What the node says of the service.
pub(super) async fn ask(
    check: &ActiveCheck,
    host: &str,
    is_tls: bool,
    stream: Stream,
) -> Result<News, Broken> {
    let mut builder = h2::client::Builder::new();
    builder.enable_push(false).max_concurrent_streams(0).max_header_list_size(HEADER_BYTES_MAX);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.map_err(|_| Broken)?;
    let request = request(check, host, is_tls).ok_or(Broken)?;
    let mut connection = pin!(connection);
    let mut answer = pin!(call(sender, request, message(&check.grpc_service)));
    let mut is_over = false;
    // The connection ends with the check, however that ends: none is left to a node that says nothing.
    poll_fn(|cx| {
        is_over = is_over || connection.as_mut().poll(cx).is_ready();
        match answer.as_mut().poll(cx) {
            Poll::Pending if is_over => answer.as_mut().poll(cx),
            said => said,
        }
    })
    .await
}

fn request(check: &ActiveCheck, host: &str, is_tls: bool) -> Option<Request<()>> {
    let scheme = if is_tls { "https" } else { "http" };
    let mut request = Request::post(format!("{scheme}://{host}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let is_given = |name: &str| check.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    if !is_given("user-agent") {
        request = request.header("user-agent", "ringway-health-check");
    }
    for (name, value) in &check.headers {
        request = request.header(name, value);
    }
    request.body(()).ok()
}

/// The message `HealthCheckRequest` in its frame: the name is its field 1, and left out where it is empty.
fn message(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

async fn call(sender: SendRequest<Bytes>, request: Request<()>, frame: Vec<u8>) -> Result<News, Broken> {
    let mut sender = sender.ready().await.map_err(|_| Broken)?;
    let (answer, mut stream) = sender.send_request(request, false).map_err(|_| Broken)?;
    // It waits in the stream for the node's window, should that be too small.
    stream.send_data(frame.into(), true).map_err(|_| Broken)?;
    let (head, mut body) = answer.await.map_err(|_| Broken)?.into_parts();
    if head.status != 200 {
        return Ok(News::HttpFailure);
    }
    if let Some(is_fine) = status_in(&head.headers) {
        // All there is of an answer, and no good one: it lacks the message.
        return Ok(if is_fine { News::TcpFailure } else { News::HttpFailure });
    }
    let mut said = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|_| Broken)?;
        said.extend_from_slice(&data);
        if said.len() > ANSWER_BYTES_MAX {
            return Err(Broken);
        }
        // Only of a stream that has ended, where it does not matter.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let trailers = body.trailers().await.map_err(|_| Broken)?.unwrap_or_default();
    match status_in(&trailers) {
        Some(true) => {
            serving(&said).map(|is_so| if is_so { News::Success } else { News::HttpFailure }).ok_or(Broken)
        }
        Some(false) => Ok(News::HttpFailure),
        None => Err(Broken),
    }
}

/// Whether the call went well, if that is said.
fn status_in(headers: &HeaderMap) -> Option<bool> {
    headers.get("grpc-status").map(|status| status.as_bytes() == b"0")
}

/// Whether the message `HealthCheckResponse` in its frame says that the service is served: its field 1, the last one
/// where there are several. `None` where it is none.
fn serving(frame: &[u8]) -> Option<bool> {
    let (prefix, message) = frame.split_first_chunk::<5>()?;
    let [is_compressed, length @ ..] = *prefix;
    if is_compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    let (mut left, mut status) = (message, 0);
    while !left.is_empty() {
        let key = varint(&mut left)?;
        match key & 7 {
            0 => {
                let value = varint(&mut left)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => left = left.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut left)?).ok()?;
                left = left.get(length..)?;
            }
            5 => left = left.get(4..)?,
            _ => return None,
        }
    }
    Some(status == u64::from(SERVING))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_the_service_is_served() {
        for (message, expect) in [
            (&b"\x08\x01"[..], Some(true)),
            (b"", Some(false)),
            (b"\x08\x02", Some(false)),
            (b"\x08\x03\x08\x01", Some(true)),
            (b"\x12\x03abc\x1d1234\x1112345678\x08\x01", Some(true)),
            (b"\x08", None),
            (b"\x12\x7fabc", None),
            (b"\x0b", None),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            let mut frame = vec![0, 0, 0, 0, message.len() as u8];
            frame.extend_from_slice(message);
            assert_eq!(serving(&frame), expect, "{message:?}");
            frame[0] = 1;
            assert_eq!(serving(&frame), None);
            frame[0] = 0;
            frame.push(0);
            assert_eq!(serving(&frame), None);
        }
        assert_eq!(serving(b"\0\0\0"), None);
    }

    #[test]
    fn a_service_is_asked_for_by_name() {
        assert_eq!(message(""), b"\0\0\0\0\0");
        assert_eq!(message("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = "x".repeat(300);
        assert_eq!(message(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }
}

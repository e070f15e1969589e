//! The head of a request as an upstream gets it: re-serialised from parsed parts, with one framing header.

use super::pipeline::Run;
use super::proxy::Plan;
use crate::base::address::{Shown, is_none};
use crate::base::decimal::ipv4;
use crate::exchange::{Body, Exchange};
use crate::proto::h1::framing::{self, Upgrade};
use crate::proto::head::{HeaderId, HeaderSet, Omit, Version};
use crate::snapshot::host_for;

/// Lines that are replaced unless a plugin set them.
const VOUCHED: HeaderSet = HeaderSet::of(&[
    HeaderId::XForwardedFor,
    HeaderId::XForwardedHost,
    HeaderId::XForwardedPort,
    HeaderId::XForwardedProto,
    HeaderId::XRealIp,
]);
/// Lines that `Connection` can not take away: others rely on them.
const PROTECTED: HeaderSet = HeaderSet::of(&[
    HeaderId::Forwarded,
    HeaderId::XForwardedFor,
    HeaderId::XForwardedHost,
    HeaderId::XForwardedPort,
    HeaderId::XForwardedProto,
    HeaderId::XRealIp,
    HeaderId::Authorization,
    HeaderId::Cookie,
    HeaderId::XRequestId,
]);

/// Whether the client asks for a WebSocket.
pub(super) fn asks_for_websocket(ex: &Exchange) -> bool {
    framing::upgrade(&ex.request.headers) == Some(Upgrade::WebSocket)
        && ex.request.line.version == Version::Http11
        && ex.request.method() == crate::proto::head::Method::Get
}

/// Appends the head.
pub(super) fn write(run: &Run<'_>, plan: &Plan<'_>, node: usize, out: &mut Vec<u8>) {
    let ex = &*run.ex;
    let request = &ex.request;
    out.extend_from_slice(request.forward_method().text().as_bytes());
    out.push(b' ');
    request.write_forward_target(out);
    out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
    out.extend_from_slice(host_for(plan.upstream, &plan.upstream.nodes[node], request));
    out.extend_from_slice(b"\r\n");
    let headers = &request.headers;
    let listed = |id: HeaderId, name: &[u8]| {
        !PROTECTED.contains(id)
            && (framing::connection_lists(headers, name)
                || id == HeaderId::Other && name.len() > 6 && name[..6].eq_ignore_ascii_case(b"proxy-"))
    };
    // Asked only where it can matter: for most requests `Connection` is absent and no name is unknown.
    let ask = headers.has(HeaderId::Connection) || headers.has_unknown();
    let named: Option<&dyn Fn(HeaderId, &[u8]) -> bool> = if ask { Some(&listed) } else { None };
    headers.write(out, &Omit { always: framing::WRITTEN_ANEW, received: VOUCHED, named });
    write_vouching(run, out);
    if run.view.house.via {
        out.extend_from_slice(b"Via: 1.1 ringway\r\n");
    }
    write_framing(run, plan, out);
    out.extend_from_slice(b"\r\n");
}

/// Says for whom the request is made. A trusted proxy's word is kept and added to; anybody else's is gone by now, but for the
/// list of proxies where that is wanted.
fn write_vouching(run: &Run<'_>, out: &mut Vec<u8>) {
    let ex = &*run.ex;
    let (client, headers) = (&ex.client, &ex.request.headers);
    if headers.has_any(VOUCHED) || client.ip != client.peer.ip().to_canonical() {
        return write_vouching_over(ex, out);
    }
    // The usual case: nobody has vouched before us, and no plugin has written one of the lines.
    out.extend_from_slice(b"X-Real-IP: ");
    let at = out.len();
    write_ip(out, client.ip);
    let end = out.len();
    out.extend_from_slice(b"\r\nX-Forwarded-For: ");
    out.extend_from_within(at..end);
    out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
    out.extend_from_slice(client.scheme().as_bytes());
    out.extend_from_slice(b"\r\nX-Forwarded-Host: ");
    out.extend_from_slice(received_host(ex));
    out.extend_from_slice(b"\r\nX-Forwarded-Port: ");
    out.extend_from_slice(itoa::Buffer::new().format(port_of(ex)).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// [`write_vouching`] where some of the lines are there already.
fn write_vouching_over(ex: &Exchange, out: &mut Vec<u8>) {
    let (client, headers) = (&ex.client, &ex.request.headers);
    let line = |out: &mut Vec<u8>, id: HeaderId, name: &str, write: &dyn Fn(&mut Vec<u8>)| {
        if headers.was_added(id) {
            return;
        }
        out.extend_from_slice(name.as_bytes());
        // An empty line says nothing: what was seen is written in its place.
        let vouched = || headers.all_id(id).find(|value| !value.is_empty());
        match (client.trusted && id != HeaderId::XForwardedFor).then(vouched).flatten() {
            Some(vouched) => out.extend_from_slice(vouched),
            None => write(out),
        }
        out.extend_from_slice(b"\r\n");
    };
    line(out, HeaderId::XRealIp, "X-Real-IP: ", &|out| write_ip(out, client.ip));
    line(out, HeaderId::XForwardedFor, "X-Forwarded-For: ", &|out| {
        for value in headers.all_id(HeaderId::XForwardedFor).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        let last = if client.replaced { client.ip } else { client.peer.ip().to_canonical() };
        write_ip(out, last);
    });
    line(out, HeaderId::XForwardedProto, "X-Forwarded-Proto: ", &|out| {
        out.extend_from_slice(client.scheme().as_bytes());
    });
    line(out, HeaderId::XForwardedHost, "X-Forwarded-Host: ", &|out| {
        out.extend_from_slice(received_host(ex));
    });
    line(out, HeaderId::XForwardedPort, "X-Forwarded-Port: ", &|out| {
        out.extend_from_slice(itoa::Buffer::new().format(port_of(ex)).as_bytes());
    });
}

/// The port that the client named, else the one it came in by; the scheme's own where that was a Unix socket.
fn port_of(ex: &Exchange) -> u16 {
    if let Some(named) = ex.request.host_port {
        return named;
    }
    match (is_none(ex.client.local.ip()), ex.client.https) {
        (false, _) => ex.client.local.port(),
        (true, true) => 443,
        (true, false) => 80,
    }
}

fn received_host(ex: &Exchange) -> &[u8] {
    ex.request.headers.get_id(HeaderId::Host).unwrap_or(ex.request.host.as_bytes())
}

/// Exactly one statement of where the body ends, and what concerns this connection only.
fn write_framing(run: &Run<'_>, plan: &Plan<'_>, out: &mut Vec<u8>) {
    let ex = &*run.ex;
    let length = match &ex.request.body {
        Body::Held(body) => Some(body.len() as u64),
        Body::Empty | Body::Flowing => ex.request.content_length,
    };
    if let Some(length) = length {
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
        out.extend_from_slice(b"\r\n");
    } else if run.upload.is_chunked() {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if run.upload.awaits_continue() {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    if ex.request.headers.all_id(HeaderId::Te).any(crate::proto::h1::chunked::accepts_trailers) {
        out.extend_from_slice(b"TE: trailers\r\n");
    }
    if plan.tunnel {
        out.extend_from_slice(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
    }
}

/// Appends an address.
pub(super) fn write_ip(out: &mut Vec<u8>, ip: std::net::IpAddr) {
    match ip {
        std::net::IpAddr::V4(v4) => {
            let (text, count) = ipv4(v4);
            out.extend_from_slice(&text);
            out.truncate(out.len() - text.len() + count);
        }
        std::net::IpAddr::V6(v6) => {
            use std::io::Write as _;
            // Writing to a Vec can not fail.
            let _ = write!(out, "{}", Shown(v6.into()));
        }
    }
}

//! The head of a response as the client gets it: re-serialised from parsed parts, with one framing header.

use super::pipeline::Run;
use super::respond::phrase;
use crate::exchange::Source;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::head::{HeaderId, HeaderSet, Method, Omit, Version};

/// Lines of a response that the gateway writes itself or that concern one hop only.
const OURS: HeaderSet = HeaderSet::of(&[
    HeaderId::Connection,
    HeaderId::ContentLength,
    HeaderId::KeepAlive,
    HeaderId::ProxyAuthenticate,
    HeaderId::ProxyConnection,
    HeaderId::Te,
    HeaderId::Trailer,
    HeaderId::TransferEncoding,
    HeaderId::Upgrade,
]);

/// How the client learns where the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// There is none; a length that the upstream declared is passed on.
    Bodyless,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Run<'_> {
    /// Whether the client expects no body. Plugins may have changed the method that was sent, and the status that came: so it is
    /// not the same as whether the upstream has sent one.
    pub(super) fn is_bodyless(&self) -> bool {
        matches!(self.ex.response.status, 204 | 304) || self.ex.request.method() == Method::Head
    }

    /// How the end of the body is told, given how the upstream told it and whether it may change on its way.
    pub(super) fn outgoing(&self, framing: Framing, filters: bool) -> Outgoing {
        match framing {
            Framing::None if self.is_bodyless() => Outgoing::Bodyless,
            // A client that expects a body would wait for it: it gets an empty one.
            Framing::None => Outgoing::Length(0),
            Framing::Length(length) if !filters => Outgoing::Length(length),
            _ if self.ex.request.line.version == Version::Http11 => Outgoing::Chunked,
            _ => Outgoing::UntilClose,
        }
    }

    /// Appends the head.
    pub(super) fn write_head(&self, out: &mut Vec<u8>, outgoing: Outgoing, keep: bool) {
        let ex = &*self.ex;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(ex.response.status).as_bytes());
        out.push(b' ');
        self.write_reason(out);
        out.extend_from_slice(b"\r\n");
        self.write_lines(out);
        match outgoing {
            Outgoing::Bodyless => {
                // Of HEAD and 304 the length says what a GET would have brought (RFC 9110 8.6).
                if ex.response.status != 204
                    && let Some(length) = ex.response.headers.get_id(HeaderId::ContentLength)
                {
                    out.extend_from_slice(b"Content-Length: ");
                    out.extend_from_slice(length);
                    out.extend_from_slice(b"\r\n");
                }
            }
            Outgoing::Length(length) => {
                out.extend_from_slice(b"Content-Length: ");
                out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Outgoing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Outgoing::UntilClose => {}
        }
        if !keep {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if ex.request.line.version == Version::Http10 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    fn write_reason(&self, out: &mut Vec<u8>) {
        let response = &self.ex.response;
        if response.source == Source::Upstream && response.line.status == response.status {
            out.extend_from_slice(response.line.reason.of(response.headers.received()));
        } else {
            out.extend_from_slice(phrase(response.status).as_bytes());
        }
    }

    /// Appends the head of an interim answer.
    pub(super) fn write_interim(&self, out: &mut Vec<u8>, status: u16) {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(phrase(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        self.write_lines_that_go_on(out);
        out.extend_from_slice(b"\r\n");
    }

    /// The header lines that are not for one hop only.
    fn write_lines_that_go_on(&self, out: &mut Vec<u8>) {
        const SERVER: HeaderSet = HeaderSet::of(&[HeaderId::Server]);
        let headers = &self.ex.response.headers;
        let listed = |_: HeaderId, name: &[u8]| framing::connection_lists(headers, name);
        let named: Option<&dyn Fn(HeaderId, &[u8]) -> bool> =
            if headers.has(HeaderId::Connection) { Some(&listed) } else { None };
        headers.write(out, &Omit { always: OURS, received: SERVER, named });
    }

    /// The header lines that go on, and those every answer has.
    pub(super) fn write_lines(&self, out: &mut Vec<u8>) {
        self.write_lines_that_go_on(out);
        let headers = &self.ex.response.headers;
        if !headers.has(HeaderId::Date) {
            out.extend_from_slice(b"Date: ");
            self.hall.core.write_date(self.ex.timing.received, out);
            out.extend_from_slice(b"\r\n");
        }
        if !headers.was_added(HeaderId::Server) {
            out.extend_from_slice(b"Server: ");
            out.extend_from_slice(self.view.house.server.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if self.view.house.via {
            out.extend_from_slice(b"Via: 1.1 ringway\r\n");
        }
    }
}

//! The response of an exchange.

use bytes::Bytes;

use crate::proto::h1::chunked::fields_of;
use crate::proto::head::{HeaderList, StatusLine};

/// Who made the response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// The gateway itself: no route, limits, errors.
    #[default]
    Gateway,
    /// A plugin, by name.
    Plugin(&'static str),
    Upstream,
}

impl Source {
    /// The word in logs and metrics.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Gateway | Self::Plugin(_) => "gateway",
            Self::Upstream => "upstream",
        }
    }
}

/// What becomes of the body.
#[derive(Debug, Default)]
pub enum ResponseBody {
    /// It is passed on as it comes (or made from the reply).
    #[default]
    AsIs,
    /// It is gathered up to so many bytes, then `BODY_FILTER` sees it whole, once.
    Hold { bytes_max: usize },
    /// The upstream's is thrown away and this is sent.
    Replace(Bytes),
}

/// A response: its head, and what plugins want done with its body.
#[derive(Debug, Default)]
pub struct Response {
    /// The status to send; plugins may change it.
    pub status: u16,
    /// The start line as received from upstream.
    pub line: StatusLine,
    pub headers: HeaderList,
    pub source: Source,
    pub body: ResponseBody,
    /// A plugin has put another body in place of the one that came.
    pub is_replaced: bool,
    /// The trailer section, a line `name:value` each, once `BODY_FILTER` sees the end of the body: what it leaves of it
    /// goes out.
    pub trailers: Vec<u8>,
    /// A plugin has said which pages may read the answer: nobody else is to.
    pub is_shared: bool,
    /// It says that a limit is spent.
    pub is_of_limit: bool,
    /// A plugin says behind the messages of gRPC in the body what trailers would.
    pub tells_status: bool,
    /// Bytes of body sent.
    pub body_bytes: u64,
}

impl Response {
    /// Replaces the body. Whatever describes the old one goes: length, coding, validators.
    pub fn replace_body(&mut self, body: impl Into<Bytes>) {
        self.forget_body_headers();
        self.body = ResponseBody::Replace(body.into());
        self.is_replaced = true;
    }

    /// Asks for the whole body in one piece. The larger of two wishes wins.
    pub fn hold_body(&mut self, bytes_max: usize) {
        match &mut self.body {
            ResponseBody::AsIs => self.body = ResponseBody::Hold { bytes_max },
            ResponseBody::Hold { bytes_max: wish } => *wish = bytes_max.max(*wish),
            ResponseBody::Replace(_) => {}
        }
    }

    /// Removes the headers that describe a body which is about to change.
    pub fn forget_body_headers(&mut self) {
        use crate::proto::head::HeaderId;
        for id in [HeaderId::ContentLength, HeaderId::ContentEncoding, HeaderId::Etag, HeaderId::LastModified]
        {
            self.headers.remove_id(id);
        }
    }

    /// The value of a trailer.
    pub fn trailer(&self, name: &str) -> Option<&[u8]> {
        let mut fields = fields_of(&self.trailers);
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
    }

    /// Holds what is here in no more memory than it needs. The receive buffer, to be given back.
    pub(super) fn compact(&mut self) -> Vec<u8> {
        self.trailers.shrink_to_fit();
        self.headers.compact(self.line.head)
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.status = 0;
        self.line = StatusLine::default();
        self.headers.clear();
        self.source = Source::Gateway;
        self.body = ResponseBody::AsIs;
        self.is_replaced = false;
        self.trailers.clear();
        self.is_shared = false;
        self.is_of_limit = false;
        self.tells_status = false;
        self.body_bytes = 0;
    }
}

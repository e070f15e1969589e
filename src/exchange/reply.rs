//! A response made here rather than upstream.

use bytes::Bytes;

/// What a gate answers instead of going on. A bare status costs no allocation.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub body: ReplyBody,
    /// Lines beyond those every answer has, in order; `None` is the common case.
    pub headers: Option<Box<Vec<(String, Bytes)>>>,
    /// A limit is spent, whatever the status: clients of gRPC are told so.
    pub is_of_limit: bool,
}

/// The body of a [`Reply`].
#[derive(Clone, Debug)]
pub enum ReplyBody {
    /// None was given: an error status gets a small page that names it.
    Default,
    /// Nothing, whatever the status.
    Empty,
    Text(&'static str),
    Bytes(Bytes),
}

impl Reply {
    /// Just a status.
    pub const fn status(status: u16) -> Self {
        Self { status, body: ReplyBody::Default, headers: None, is_of_limit: false }
    }

    /// A status with no body, whatever it is.
    pub const fn empty(status: u16) -> Self {
        Self { status, body: ReplyBody::Empty, headers: None, is_of_limit: false }
    }

    /// A fixed body.
    pub const fn text(status: u16, body: &'static str) -> Self {
        Self { status, body: ReplyBody::Text(body), headers: None, is_of_limit: false }
    }

    /// A body made when configuration was compiled, or now.
    pub fn bytes(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, body: ReplyBody::Bytes(body.into()), headers: None, is_of_limit: false }
    }

    /// `{"message": …}` and a line feed, as APISIX's plugins answer.
    pub fn message(status: u16, message: &str) -> Self {
        Self::json_field(status, "message", message)
    }

    /// `{"error_msg": …}` and a line feed.
    pub fn error_msg(status: u16, message: &str) -> Self {
        Self::json_field(status, "error_msg", message)
    }

    fn json_field(status: u16, field: &str, text: &str) -> Self {
        let mut body = Vec::with_capacity(text.len() + field.len() + 8);
        body.extend_from_slice(b"{\"");
        body.extend_from_slice(field.as_bytes());
        body.extend_from_slice(b"\":");
        crate::base::text::write_json_string(&mut body, text.as_bytes());
        body.extend_from_slice(b"}\n");
        Self::bytes(status, body)
    }

    /// Says that a limit is spent.
    #[must_use]
    pub const fn of_limit(mut self) -> Self {
        self.is_of_limit = true;
        self
    }

    /// Adds a header line.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.headers.get_or_insert_default().push((name.to_owned(), value.into()));
        self
    }

    /// The bytes of the body as far as they are given here.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            ReplyBody::Default | ReplyBody::Empty => b"",
            ReplyBody::Text(text) => text.as_bytes(),
            ReplyBody::Bytes(bytes) => bytes,
        }
    }
}

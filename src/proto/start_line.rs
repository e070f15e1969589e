//! The first line of a message: method, target and version, or status.

use super::head::Span;

/// The version in a start line; anything else is refused while parsing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    Http10,
    #[default]
    Http11,
}

impl Version {
    /// As written on the wire.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

macro_rules! methods {
    ($($variant:ident = $text:literal,)*) => {
        /// A request method. Names other than these are refused with 501 (RFC 9110 9.1).
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Method { #[default] $($variant,)* }

        impl Method {
            /// Every method there is.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As written on the wire.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The method of an exact, case-sensitive name.
            pub fn of(name: &[u8]) -> Option<Self> {
                $(if name == $text.as_bytes() { return Some(Self::$variant); })*
                None
            }

            /// Its place in a set of methods.
            pub const fn bit(self) -> u32 {
                1 << (self as u8)
            }
        }
    };
}

methods! {
    Get = "GET", Post = "POST", Put = "PUT", Delete = "DELETE", Patch = "PATCH", Head = "HEAD",
    Options = "OPTIONS", Connect = "CONNECT", Trace = "TRACE", Purge = "PURGE", Mkcol = "MKCOL",
    Copy = "COPY", Move = "MOVE", Propfind = "PROPFIND", Proppatch = "PROPPATCH", Lock = "LOCK", Unlock = "UNLOCK",
    Report = "REPORT", Search = "SEARCH",
}

impl Method {
    /// Whether sending it twice does no more than once (RFC 9110 9.2.2).
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace | Self::Put | Self::Delete)
    }
}

/// The start line of a request; its header lines are in a [`super::head::HeaderList`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLine {
    pub method: Method,
    pub version: Version,
    /// The request target as received.
    pub target: Span,
    /// Where the head begins and how many bytes it has, the empty line included.
    pub head: Span,
}

/// The start line of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatusLine {
    pub status: u16,
    pub version: Version,
    /// The reason phrase as received, possibly empty.
    pub reason: Span,
    /// Where the head begins and how many bytes it has, the empty line included.
    pub head: Span,
}

//! HTTP/1.1 (RFC 9112), strictly: what is doubtful is refused, never repaired.
//!
//! [`parse`] finds the lines of a head, [`framing`] decides which bytes behind it are its body (the only place
//! that does), [`chunked`] takes chunks apart. None of them reads, waits or keeps time.

pub mod chunked;
pub mod framing;
pub mod parse;

#[cfg(test)]
mod tests_chunked;
#[cfg(test)]
mod tests_parse;

macro_rules! faults {
    ($($(#[$note:meta])* $variant:ident = $status:literal $word:literal,)*) => {
        /// Why a head is refused. The connection it came on is of no more use: where it ends is in doubt.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum HeadFault { $($(#[$note])* $variant,)* }

        impl HeadFault {
            /// The status that tells a client. For a response of an upstream, it is always 502.
            pub const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// One stable word for logs and metrics.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

faults! {
    /// Spaces or line ends where the request line has none, or a byte that no method has.
    BadRequestLine = 400 "bad_request_line",
    BadStatusLine = 400 "bad_status_line",
    MethodUnknown = 501 "method_unknown",
    /// A control byte in the request target; its syntax is looked at in [`crate::proto::uri`].
    BadTarget = 400 "bad_target",
    UriTooLong = 414 "uri_too_long",
    /// Not `HTTP/`, digit, dot, digit.
    BadVersion = 400 "bad_version",
    /// A well-formed version whose major number is not 1.
    VersionUnsupported = 505 "version_unsupported",
    BareLf = 400 "bare_lf",
    BareCr = 400 "bare_cr",
    /// A byte that is not of a token, white space before the colon included, or no name at all.
    BadHeaderName = 400 "bad_header_name",
    /// `x_y` passes for `x-y` behind CGI-like origins, so it could stand in for a header that we guard.
    UnderscoreInName = 400 "underscore_in_header_name",
    HeaderWithoutColon = 400 "header_without_colon",
    /// A control byte in a value.
    BadHeaderValue = 400 "bad_header_value",
    /// A line that begins with white space: folded (RFC 9112 5.2), or before the first header.
    FoldedLine = 400 "folded_line",
    HeadTooLarge = 431 "head_too_large",
    TooManyHeaders = 431 "too_many_headers",
    HostMissing = 400 "host_missing",
    HostRepeated = 400 "host_repeated",
    AuthorizationRepeated = 400 "authorization_repeated",
    ContentTypeRepeated = 400 "content_type_repeated",
    /// `Content-Length` is not one number of digits that fits 63 bits.
    LengthInvalid = 400 "length_invalid",
    LengthRepeated = 400 "length_repeated",
    /// `Content-Length` and `Transfer-Encoding` at once.
    LengthConflict = 400 "length_conflict",
    TransferEncodingInvalid = 400 "transfer_encoding_invalid",
    /// A coding other than `chunked`.
    TransferEncodingUnknown = 501 "transfer_encoding_unknown",
    /// HTTP/1.0 knows no `Transfer-Encoding`.
    TransferEncodingTooNew = 400 "transfer_encoding_in_http_1_0",
    ExpectationUnknown = 417 "expectation_unknown",
}

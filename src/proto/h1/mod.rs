//! HTTP/1.1 (RFC 9112), strictly.

pub mod parse;

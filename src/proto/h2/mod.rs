//! HTTP/2 (RFC 9113), without sockets or a runtime: bytes in, bytes out.
//!
//! With clients it is our own: [`conversation`] is a connection, built of frames, [`hpack`], streams and [`tally`];
//! [`request`] and [`answer`] make messages of HTTP/1 of its messages, and the other way round. Nodes are spoken to by the
//! `h2` crate: [`wire`] is what that takes for a connection, [`message`] what it knows of HTTP/1.

pub mod answer;
pub mod code;
pub mod conversation;
mod frames;
pub mod hpack;
pub mod message;
pub mod request;
mod streams;
pub mod tally;
pub mod wire;

#[cfg(test)]
mod tests;

/// What a client of HTTP/2 says first (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether bytes may be the beginning of it, and are enough to be nothing else.
pub fn is_preface(bytes: &[u8]) -> bool {
    let count = bytes.len().min(PREFACE.len());
    count >= b"PRI ".len() && bytes[..count] == PREFACE[..count]
}

/// How much a connection may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2Limits {
    /// Streams at a time.
    pub streams_max: u32,
    /// Bytes of a stream, and of all of them, that may be under way unread.
    pub stream_window: u32,
    pub connection_window: u32,
    /// Bytes of all headers of a message, as RFC 9113 6.5.2 counts them.
    pub header_bytes_max: u32,
    /// Streams a client may reset before they were looked at, and those we may have to reset for what it does wrong.
    pub resets_unseen_max: usize,
    pub resets_owed_max: usize,
}

impl H2Limits {
    /// Largest frame that is taken: the least that must be (RFC 9113 6.5.2).
    const FRAME_BYTES_MAX: u32 = 16 * 1024;
    /// Bytes of headers remembered for compression, in each direction.
    const TABLE_BYTES: u32 = 4096;
    /// Bytes of requests that are kept for a node's window, a stream.
    const SEND_BYTES_MAX: usize = 64 * 1024;
    /// Streams with nodes that were reset are remembered so that what still comes for them is known as such: more than
    /// streams of a connection that is left after some (`edge/h2/node.rs`).
    const RESET_REMEMBERED: usize = 200;
    /// What a node's short frames of DATA may cost beside their bytes while nobody takes them, at 256 bytes a frame less what is in
    /// it: those of many streams that are read slowly. Beyond, the connection is ended.
    const SHORT_FRAMES_COST_MAX: usize = 64 * 1024 * 1024;

    /// How we open connections to nodes.
    pub fn client(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_frame_size(Self::FRAME_BYTES_MAX)
            .max_header_list_size(self.header_bytes_max)
            .header_table_size(Self::TABLE_BYTES)
            .max_concurrent_streams(0)
            .max_concurrent_reset_streams(Self::RESET_REMEMBERED)
            .max_local_error_reset_streams(Some(self.resets_owed_max))
            .data_frame_budget(Self::SHORT_FRAMES_COST_MAX)
            .max_send_buffer_size(Self::SEND_BYTES_MAX)
            .initial_max_send_streams(self.streams_max as usize)
            .enable_push(false);
        builder
    }
}

impl Default for H2Limits {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window: 64 * 1024 - 1,
            connection_window: 1024 * 1024,
            header_bytes_max: 32 * 1024,
            resets_unseen_max: 50,
            resets_owed_max: 200,
        }
    }
}

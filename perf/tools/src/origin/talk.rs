//! What an origin says on connections that are not of HTTP/1.1: bytes come in, bytes go out.

use crate::websocket::{self, Frame};

/// A connection that can not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonsense;

pub(super) trait Talk {
    /// Takes all that is whole of the bytes, adds what is to be sent, and says how many bytes were taken and how many
    /// requests answered.
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, u64), Nonsense>;
}

/// Bytes go back as they came. Each read counts as a request.
pub(super) struct Mirror;

impl Talk for Mirror {
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, u64), Nonsense> {
        out.extend_from_slice(bytes);
        Ok((bytes.len(), 1))
    }
}

/// Messages of a WebSocket go back as they came.
pub(super) struct WebSocket;

impl Talk for WebSocket {
    fn take(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, u64), Nonsense> {
        let (mut at, mut served) = (0, 0);
        while let Some((frame, length)) = Frame::first(&bytes[at..]).map_err(|_| Nonsense)? {
            at += length;
            match frame.opcode {
                websocket::CLOSE => return Err(Nonsense),
                websocket::PING => websocket::write(out, websocket::PONG, &frame.payload),
                websocket::PONG => {}
                opcode => {
                    websocket::write(out, opcode, &frame.payload);
                    served += 1;
                }
            }
        }
        Ok((at, served))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_go_back_unmasked_and_pings_are_answered() {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        websocket::write_masked(&mut bytes, websocket::BINARY, b"one", [1, 2, 3, 4]);
        websocket::write_masked(&mut bytes, websocket::PING, b"", [1, 2, 3, 4]);
        let whole = bytes.len();
        websocket::write_masked(&mut bytes, websocket::BINARY, b"two", [1, 2, 3, 4]);
        assert_eq!(WebSocket.take(&bytes[..bytes.len() - 1], &mut out), Ok((whole, 1)));
        assert_eq!(out, *b"\x82\x03one\x8a\x00");
        bytes.clear();
        websocket::write_masked(&mut bytes, websocket::CLOSE, b"", [0; 4]);
        assert_eq!(WebSocket.take(&bytes, &mut out), Err(Nonsense));
    }
}

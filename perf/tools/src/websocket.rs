//! Frames of WebSocket (RFC 6455) of up to 125 bytes, which is what is measured, and the handshake with one fixed key.

/// The sample of RFC 6455 1.3. Whoever changes the key on the way must answer for it: the origin knows no other.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// A longer frame has a longer head.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 125;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const MASK_BYTES: usize = 4;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A frame of a client: its opcode and the payload, unmasked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The first frame of a client's bytes and how many it takes; none before it is whole.
    pub(crate) fn first(bytes: &[u8]) -> Result<Option<(Self, usize)>, Malformed> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let length = usize::from(second & !MASKED);
        // RFC 6455 5.1: what a client sends is masked.
        if first & FINAL == 0 || second & MASKED == 0 || length > PAYLOAD_BYTES_MAX {
            return Err(Malformed);
        }
        let Some(rest) = rest.get(..MASK_BYTES + length) else { return Ok(None) };
        let (mask, payload) = rest.split_at(MASK_BYTES);
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        Ok(Some((Self { opcode: first & 0xf, payload }, 2 + MASK_BYTES + length)))
    }
}

/// Adds a frame of a server.
pub(crate) fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.extend_from_slice(&[FINAL | opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
}

/// Adds a frame of a client.
pub(crate) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: [u8; MASK_BYTES]) {
    out.extend_from_slice(&[FINAL | opcode, MASKED | payload.len() as u8]);
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_frame_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        write_masked(&mut bytes, BINARY, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        // RFC 6455 5.7 has it as text.
        assert_eq!(bytes, [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        for end in 0..bytes.len() {
            assert_eq!(Frame::first(&bytes[..end]), Ok(None), "{end}");
        }
        let whole = Frame { opcode: BINARY, payload: b"Hello".to_vec() };
        assert_eq!(Frame::first(&bytes), Ok(Some((whole, bytes.len()))));
    }

    #[test]
    fn what_no_client_may_send_is_malformed() {
        let mut unmasked = Vec::new();
        write(&mut unmasked, BINARY, b"Hello");
        assert_eq!(unmasked, *b"\x82\x05Hello");
        assert_eq!(Frame::first(&unmasked), Err(Malformed));
        assert_eq!(Frame::first(&[0x02, 0x80, 0, 0, 0, 0]), Err(Malformed));
        assert_eq!(Frame::first(&[0x82, 0xfe, 1, 0]), Err(Malformed));
    }
}

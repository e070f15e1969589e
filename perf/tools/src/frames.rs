//! Frames of HTTP/2 (RFC 9113), as far as load and origin need them: heads, windows, and pings, for whoever connects and
//! whoever is connected to.

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const HEAD_BYTES: usize = 9;
/// Nobody here allows longer ones.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 16_384;
pub(crate) const WINDOW_DEFAULT: i64 = 65_535;
pub(crate) const WINDOW_MAX: i64 = (1 << 31) - 1;
/// What a connection's window is opened by at its beginning, and again whenever half of that was used.
pub(crate) const WINDOW_MORE: u32 = 1 << 30;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

const INITIAL_WINDOW_SIZE: u16 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    Goaway,
    WindowUpdate,
    Continuation,
    /// Nobody here may push.
    PushPromise,
    /// To be passed over: priorities, and what is not known.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

/// A connection that can not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Kind {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Data,
            1 => Self::Headers,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::Goaway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Other,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Reset => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::Goaway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Other => 0xff,
        }
    }
}

impl<'a> Frame<'a> {
    /// The first frame of the bytes and how many it takes; none before it is whole.
    pub(crate) fn first(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, Broken> {
        let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) else { return Ok(None) };
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if length > PAYLOAD_BYTES_MAX {
            return Err(Broken);
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Some((Self { kind: Kind::of(head[3]), flags: head[4], stream, payload }, HEAD_BYTES + length)))
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload of HEADERS or DATA without padding and priority.
    pub(crate) fn content(&self) -> Result<&'a [u8], Broken> {
        let mut payload = self.payload;
        let mut padding = 0;
        if self.has(PADDED) {
            let (length, rest) = payload.split_first().ok_or(Broken)?;
            (padding, payload) = (usize::from(*length), rest);
        }
        if self.kind == Kind::Headers && self.has(PRIORITY) {
            payload = payload.get(5..).ok_or(Broken)?;
        }
        payload.get(..payload.len().checked_sub(padding).ok_or(Broken)?).ok_or(Broken)
    }
}

/// Adds a frame.
pub(crate) fn write(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX);
    let length = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&[length[1], length[2], length[3], kind.number(), flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Adds settings.
pub(crate) fn write_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    let payload: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect();
    write(out, Kind::Settings, 0, 0, &payload);
}

/// The windows of a connection, and the frames that are about the connection alone.
pub(crate) struct Windows {
    /// Bytes that may be sent.
    pub(crate) send: i64,
    /// Bytes that may be sent on a stream that begins.
    pub(crate) stream: i64,
    /// Bytes received since the other side was last told that more may come.
    received: u32,
}

impl Windows {
    pub(crate) fn new() -> Self {
        Self { send: WINDOW_DEFAULT, stream: WINDOW_DEFAULT, received: 0 }
    }

    /// Counts what came, and lets more come.
    pub(crate) fn on_data(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) {
        self.received += frame.payload.len() as u32;
        if self.received >= WINDOW_MORE / 2 {
            write(out, Kind::WindowUpdate, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
    }

    /// SETTINGS, PING and WINDOW_UPDATE of the connection. Updates of streams are passed over: what is sent on a stream
    /// fits into the window it begins with.
    pub(crate) fn on_control(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), Broken> {
        match frame.kind {
            Kind::Settings if !frame.has(ACK) => {
                for setting in frame.payload.chunks(6) {
                    let [n0, n1, v0, v1, v2, v3] = *setting else { return Err(Broken) };
                    if u16::from_be_bytes([n0, n1]) == INITIAL_WINDOW_SIZE {
                        self.stream = i64::from(u32::from_be_bytes([v0, v1, v2, v3]));
                    }
                }
                write(out, Kind::Settings, ACK, 0, &[]);
            }
            Kind::Ping if !frame.has(ACK) => write(out, Kind::Ping, ACK, 0, frame.payload),
            Kind::WindowUpdate if frame.stream == 0 => {
                let more: [u8; 4] = frame.payload.try_into().map_err(|_| Broken)?;
                self.send += i64::from(u32::from_be_bytes(more));
                if self.send > WINDOW_MAX {
                    return Err(Broken);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: Kind, flags: u8, payload: &[u8]) -> Frame<'_> {
        Frame { kind, flags, stream: 1, payload }
    }

    #[test]
    fn a_frame_is_read_as_it_was_written_and_not_before_it_is_whole() {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Headers, END_HEADERS, 0x0102_0304, b"abc");
        write(&mut bytes, Kind::Ping, 0, 0, &[7; 8]);
        for end in 0..HEAD_BYTES + 3 {
            assert_eq!(Frame::first(&bytes[..end]), Ok(None), "{end}");
        }
        let (first, taken) = Frame::first(&bytes).unwrap().unwrap();
        let expected =
            Frame { kind: Kind::Headers, flags: END_HEADERS, stream: 0x0102_0304, payload: b"abc" };
        assert_eq!((first, taken), (expected, HEAD_BYTES + 3));
        assert_eq!(Frame::first(&bytes[taken..]).unwrap().unwrap().0.kind, Kind::Ping);
        assert_eq!(Frame::first(&[0, 0x40, 1, 0, 0, 0, 0, 0, 1]), Err(Broken));
    }

    #[test]
    fn padding_and_priority_are_no_content() {
        assert_eq!(frame(Kind::Data, PADDED, &[2, b'a', 0, 0]).content(), Ok(&b"a"[..]));
        assert_eq!(
            frame(Kind::Headers, PADDED | PRIORITY, &[1, 0, 0, 0, 0, 9, b'a', 0]).content(),
            Ok(&b"a"[..])
        );
        assert_eq!(frame(Kind::Data, PADDED, &[4, b'a', 0]).content(), Err(Broken));
        assert_eq!(frame(Kind::Data, PADDED, &[]).content(), Err(Broken));
    }

    #[test]
    fn the_other_side_is_acknowledged_and_its_windows_kept() {
        let (mut windows, mut out) = (Windows::new(), Vec::new());
        let settings = [0, 4, 0, 0, 0, 50, 0, 3, 0, 0, 0, 1];
        windows.on_control(frame(Kind::Settings, 0, &settings), &mut out).unwrap();
        assert_eq!((windows.stream, &out[3..5]), (50, &[4, ACK][..]));
        let more = Frame { stream: 0, ..frame(Kind::WindowUpdate, 0, &[0, 0, 0, 9]) };
        windows.on_control(more, &mut out).unwrap();
        assert_eq!(windows.send, WINDOW_DEFAULT + 9);
        let most = Frame { stream: 0, ..frame(Kind::WindowUpdate, 0, &[0x7f, 0xff, 0xff, 0xff]) };
        assert_eq!(windows.on_control(most, &mut out), Err(Broken));
        assert_eq!(windows.on_control(frame(Kind::Settings, 0, &[0, 4, 0]), &mut out), Err(Broken));
    }

    #[test]
    fn more_may_come_once_half_of_the_window_was_used() {
        let (mut windows, mut out) = (Windows::new(), Vec::new());
        let data = vec![0; PAYLOAD_BYTES_MAX];
        for _ in 0..(WINDOW_MORE as usize / 2 / PAYLOAD_BYTES_MAX) {
            assert!(out.is_empty());
            windows.on_data(frame(Kind::Data, 0, &data), &mut out);
        }
        assert_eq!((out[3], &out[9..]), (8, &(WINDOW_MORE / 2).to_be_bytes()[..]));
    }
}

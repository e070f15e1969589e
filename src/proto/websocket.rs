//! Where the frames of a WebSocket lie in what passes (RFC 6455 5.2), and the frame that ends one. A frame's head is looked at,
//! what is in it is not.

/// Bytes of a head without its masking key, which is counted with what is in the frame.
const HEAD_BYTES_MAX: usize = 10;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0F;
const CLOSE: u8 = 8;
const FINAL: u8 = 0x80;
/// Bytes of a masking key.
const KEY_BYTES: usize = 4;

/// Which side frames come from: a client masks its own, a server does not (RFC 6455 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Client,
    Server,
}

/// A place in a flow of frames from one side.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Bytes of the frame at hand that are still to come behind its head.
    left: u64,
    head: [u8; HEAD_BYTES_MAX],
    /// Bytes of the head that have come.
    head_len: u8,
    from: From,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A Close frame has passed: nothing behind it counts.
    Closed,
    /// These are no frames, so nobody knows where one begins.
    Lost,
}

impl Frames {
    /// At the beginning.
    pub const fn new(from: From) -> Self {
        Self { left: 0, head: [0; HEAD_BYTES_MAX], head_len: 0, from, state: State::Open }
    }

    /// Goes on behind these bytes.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() && self.state == State::Open {
            at += self.step(&bytes[at..]);
        }
    }

    /// Goes on to the end of the frame at hand, if there is one; how many of these bytes belong to it.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        if self.is_between() || bytes.is_empty() {
            return 0;
        }
        if self.state == State::Open { self.step(bytes) } else { bytes.len() }
    }

    /// Whether a frame may be put in here.
    pub fn is_between(&self) -> bool {
        self.state == State::Open && self.left == 0 && self.head_len == 0
    }

    /// Whether a Close frame has passed.
    pub fn has_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether more frames may follow.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Goes on to the end of the frame at hand, or of the next; how many bytes that takes, at least one.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        if self.left == 0 {
            while !self.has_head() {
                let Some(byte) = bytes.get(at) else { return at };
                self.head[usize::from(self.head_len)] = *byte;
                self.head_len += 1;
                at += 1;
            }
            self.read_head();
            if self.state == State::Lost {
                return bytes.len();
            }
        }
        let own = self.left.min((bytes.len() - at) as u64);
        self.left -= own;
        if self.left == 0 {
            self.head_len = 0;
            if self.head[0] & OPCODE == CLOSE {
                self.state = State::Closed;
            }
        }
        at + own as usize
    }

    const fn has_head(&self) -> bool {
        let needed = match self.head[1] & !MASKED {
            _ if self.head_len < 2 => 2,
            126 => 4,
            127 => 10,
            _ => 2,
        };
        self.head_len >= needed
    }

    fn read_head(&mut self) {
        let is_masked = self.head[1] & MASKED != 0;
        let length = match self.head[1] & !MASKED {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let mut long = [0; 8];
                long.copy_from_slice(&self.head[2..]);
                u64::from_be_bytes(long)
            }
            short => u64::from(short),
        };
        if is_masked != (self.from == From::Client) || length >> 63 != 0 {
            self.state = State::Lost;
        }
        self.left = length.saturating_add(if is_masked { KEY_BYTES as u64 } else { 0 });
    }
}

/// A Close frame with a code and a reason of at most 123 bytes, masked by a key if it is from a client.
pub fn close(code: u16, reason: &str, key: Option<[u8; KEY_BYTES]>) -> Vec<u8> {
    let mut content = code.to_be_bytes().to_vec();
    content.extend_from_slice(&reason.as_bytes()[..reason.len().min(123)]);
    let mut frame = vec![FINAL | CLOSE, content.len() as u8];
    if let Some(key) = key {
        frame[1] |= MASKED;
        frame.extend_from_slice(&key);
        content.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    }
    frame.append(&mut content);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Neither open nor closed.
    fn is_lost(frames: &Frames) -> bool {
        !frames.is_open() && !frames.has_closed()
    }

    /// A frame with so much in it.
    fn frame(from: From, opcode: u8, length: usize) -> Vec<u8> {
        let mask = if from == From::Client { MASKED } else { 0 };
        let mut frame = vec![FINAL | opcode];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..0x1_0000 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if from == From::Client {
            frame.extend_from_slice(&[0x88, 0x02, 0, 0]);
        }
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    #[test]
    fn ends_of_frames_are_found_however_they_are_cut() {
        let seed = 61;
        let mut rng = Rng::seeded(seed);
        for round in 0..400 {
            let from = if round % 2 == 0 { From::Client } else { From::Server };
            let lengths = [0, 1, 125, 126, 127, 4000, 0xFFFF, 0x1_0000, 70_000];
            let mut ends = Vec::new();
            let mut bytes = Vec::new();
            for _ in 0..5 {
                bytes.extend_from_slice(&frame(from, 2, lengths[rng.below(9) as usize]));
                ends.push(bytes.len());
            }
            let (mut frames, mut at) = (Frames::new(from), 0);
            while at < bytes.len() {
                let most = [1, 9, 100_000][round % 3];
                let piece = (1 + rng.below(most) as usize).min(bytes.len() - at);
                frames.pass(&bytes[at..at + piece]);
                at += piece;
                assert_eq!(frames.is_between(), ends.contains(&at), "seed {seed}, round {round}, at {at}");
            }
            // Stopped anywhere, it goes on to the next end and no further.
            let stop = rng.below(bytes.len() as u64) as usize;
            let mut frames = Frames::new(from);
            frames.pass(&bytes[..stop]);
            let own = frames.finish(&bytes[stop..]);
            let next = ends.iter().copied().find(|end| *end >= stop);
            let is_at_end = stop == 0 || ends.contains(&stop);
            assert_eq!(
                own,
                if is_at_end { 0 } else { next.expect("the last") - stop },
                "seed {seed}, round {round}"
            );
            assert!(frames.is_between());
        }
    }

    #[test]
    fn a_close_frame_is_seen_when_it_has_passed_whole() {
        for from in [From::Client, From::Server] {
            let mut frames = Frames::new(from);
            let close = close(1001, "so long", (from == From::Client).then_some([1, 2, 3, 4]));
            frames.pass(&frame(from, 1, 300));
            frames.pass(&close[..close.len() - 1]);
            assert!(!frames.has_closed() && !frames.is_between());
            frames.pass(&close[close.len() - 1..]);
            assert!(frames.has_closed() && !frames.is_between());
            frames.pass(b"whatever follows");
            assert!(frames.has_closed());
            assert_eq!(frames.finish(b"more"), 4);
        }
    }

    #[test]
    fn what_is_no_frame_is_known_as_such() {
        let mut frames = Frames::new(From::Client);
        frames.pass(&frame(From::Server, 1, 5));
        assert!(is_lost(&frames) && !frames.is_between());
        let mut frames = Frames::new(From::Server);
        frames.pass(&frame(From::Client, 1, 5));
        assert!(is_lost(&frames));
        let mut frames = Frames::new(From::Server);
        frames.pass(&[0x82, 127, 0xFF, 0, 0, 0, 0, 0, 0, 0]);
        assert!(is_lost(&frames), "longer than any may be");
        frames.pass(&[0; 100]);
        assert_eq!(frames.finish(&[0; 9]), 9);
        let mut frames = Frames::new(From::Client);
        frames.pass(&[0x82, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert!(is_lost(&frames), "and longer than can be counted with its key");
    }

    #[test]
    fn a_close_frame_says_why() {
        assert_eq!(close(1001, "", None), [0x88, 2, 0x03, 0xE9]);
        assert_eq!(
            close(1012, "hi", Some([0xFF, 0, 0xFF, 0])),
            [0x88, 0x84, 0xFF, 0, 0xFF, 0, 0xFC, 0xF4, 0x97, b'i']
        );
        assert_eq!(close(1001, &"x".repeat(200), None).len(), 2 + 125);
    }
}

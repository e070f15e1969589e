//! Origins that misbehave, each in one way.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::origin::{Origin, reply};

impl Origin {
    /// Accepts and closes.
    pub(crate) fn that_closes_at_once() -> Self {
        Self::serving(|_| {})
    }

    /// Reads the request, then closes without an answer.
    pub(crate) fn that_closes_instead_of_answering() -> Self {
        Self::serving(|conn| {
            conn.request();
        })
    }

    /// Reads the request, then resets the connection.
    pub(crate) fn that_resets() -> Self {
        Self::serving(|conn| {
            conn.request();
            conn.reset();
        })
    }

    /// Reads the request and says nothing.
    pub(crate) fn that_stalls() -> Self {
        Self::serving(|conn| {
            conn.request();
            conn.wait_for_the_end();
        })
    }

    /// Promises ten bytes, sends four and stalls.
    pub(crate) fn that_stalls_in_the_body() -> Self {
        Self::serving(|conn| {
            conn.request();
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfour");
            conn.wait_for_the_end();
        })
    }

    /// Sends a good answer one byte at a time.
    pub(crate) fn that_trickles(body: &str) -> Self {
        let bytes = reply("200 OK", body);
        Self::serving(move |conn| while conn.request().is_some() && conn.trickle(&bytes) {})
    }

    /// Sends so many interim responses, then a good answer.
    pub(crate) fn with_interims(count: usize, body: &str) -> Self {
        let mut bytes = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n".repeat(count);
        bytes.extend_from_slice(&reply("200 OK", body));
        Self::sending(bytes)
    }

    /// Answers as soon as it has the head, without reading the body, and leaves the connection open.
    pub(crate) fn that_answers_before_the_body(body: &str) -> Self {
        let bytes = reply("200 OK", body);
        Self::serving(move |conn| {
            if conn.head().is_some() && conn.send(&bytes) {
                conn.wait_for_the_end();
            }
        })
    }

    /// Answers a request and closes, though it let the gateway believe in a next one.
    pub(crate) fn that_closes_after_one_answer(body: &str) -> Self {
        Self::sending_and_closing(reply("200 OK", body))
    }

    /// Closes connections that carried a request and then nothing for so long.
    pub(crate) fn that_closes_when_idle_for(idle: Duration, body: &str) -> Self {
        let bytes = reply("200 OK", body);
        Self::serving(move |conn| {
            while conn.request().is_some() && conn.send(&bytes) {
                conn.wire().stream().set_read_timeout(Some(idle)).unwrap();
            }
        })
    }

    /// Serves the first request of a connection, reads the second and closes on it.
    pub(crate) fn that_closes_on_the_second_request(body: &str) -> Self {
        let bytes = reply("200 OK", body);
        Self::serving(move |conn| {
            if conn.request().is_some() && conn.send(&bytes) {
                conn.request();
            }
        })
    }

    /// Counts bodies rather than keeping them; see [`Origin::swallowed`].
    pub(crate) fn that_counts_bodies() -> Self {
        Self::serving(|conn| {
            while let Some(seen) = conn.head() {
                if !conn.swallow(&seen) || !conn.send(&reply("200 OK", "counted")) {
                    return;
                }
            }
        })
    }

    /// Takes the head of a request and reads no further until the gateway goes.
    pub(crate) fn that_never_reads_the_body() -> Self {
        Self::serving(|conn| {
            if conn.head().is_some() {
                conn.hold();
            }
        })
    }

    /// Sends a body of so many bytes, which it makes up as it goes.
    pub(crate) fn with_body_of(bytes: usize) -> Self {
        Self::serving(move |conn| {
            while conn.request().is_some() {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                let piece = [b'x'; 32 * 1024];
                let mut left = bytes;
                if !conn.send(head.as_bytes()) {
                    return;
                }
                while left > 0 {
                    let take = left.min(piece.len());
                    if !conn.send(&piece[..take]) {
                        return;
                    }
                    left -= take;
                }
            }
        })
    }

    /// A port on which nobody listens, and which nobody else can take meanwhile.
    pub(crate) fn refusing() -> Self {
        let socket = bound();
        let mut origin = Self::at(address(&socket));
        origin.held.push(socket);
        origin
    }

    /// A listener whose queue is full: connecting to it takes for ever.
    pub(crate) fn that_never_accepts() -> Self {
        let socket = bound();
        socket.listen(0).unwrap();
        let mut origin = Self::at(address(&socket));
        let to = origin.address().into();
        origin.held.push(socket);
        // A queue of length 0 still holds one; what does not fit stays half-open and keeps it full.
        for _ in 0..4 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&to);
            origin.held.push(filler);
        }
        origin
    }
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().expect("an address of the internet")
}

//! What an exchange has where nothing of HTTP is in it: a connection that is passed on as it is.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

/// A stream. Of a request it is empty, and takes no more room than a pointer: a request that has become a tunnel may last for
/// days.
#[derive(Debug, Default)]
pub struct Stream(Option<Box<Passing>>);

/// What there is of a stream.
#[derive(Debug)]
pub struct Passing {
    /// `tcp` or `tls`, by what is spoken with the client; empty: the exchange is a request.
    pub protocol: &'static str,
    /// Where it came in, as it is listened at.
    pub listener: Option<SocketAddr>,
    /// What the client has called, where a load balancer says so; else it is our end of the connection.
    pub called: Option<SocketAddr>,
    /// What the client has said that nobody has passed on yet; plugins look at it before the stream goes on.
    pub received: Vec<u8>,
    /// A plugin can not decide before more of it has come: then its gate is asked again.
    pub wants_more: bool,
    /// The server name in a hello that is passed on, in lower case; empty if there is none.
    pub server_name: String,
    /// The id that a client of MQTT goes by, once a plugin has found it.
    pub mqtt_client_id: Vec<u8>,
}

/// Of a request.
static NOTHING: Passing = Passing::nothing();

impl Deref for Stream {
    type Target = Passing;

    fn deref(&self) -> &Passing {
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

/// For who is about to make it one.
impl DerefMut for Stream {
    fn deref_mut(&mut self) -> &mut Passing {
        self.0.get_or_insert_with(|| Box::new(Passing::nothing()))
    }
}

impl Stream {
    /// Forgets it, and keeps the memory.
    pub(super) fn clear(&mut self) {
        if let Some(passing) = &mut self.0 {
            passing.clear();
        }
    }

    /// Holds it in no more memory than it needs.
    pub(super) fn compact(&mut self) {
        match &mut self.0 {
            Some(passing) if passing.is_on() => passing.received.shrink_to_fit(),
            _ => self.0 = None,
        }
    }
}

impl Passing {
    const fn nothing() -> Self {
        Self {
            protocol: "",
            listener: None,
            called: None,
            received: Vec::new(),
            wants_more: false,
            server_name: String::new(),
            mqtt_client_id: Vec::new(),
        }
    }

    /// Whether there is one.
    pub const fn is_on(&self) -> bool {
        !self.protocol.is_empty()
    }

    fn clear(&mut self) {
        self.protocol = "";
        self.listener = None;
        self.called = None;
        self.received = Vec::new();
        self.wants_more = false;
        self.server_name.clear();
        self.mqtt_client_id.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_none_and_sees_none_of_the_one_before() {
        let mut stream = Stream::default();
        assert_eq!(size_of::<Stream>(), 8);
        assert!(!stream.is_on() && stream.server_name.is_empty() && stream.0.is_none());
        stream.protocol = "tcp";
        stream.server_name.push_str("a.test");
        stream.received = Vec::with_capacity(100);
        stream.compact();
        assert!(stream.is_on() && stream.received.capacity() == 0);
        stream.clear();
        assert!(!stream.is_on() && stream.server_name.is_empty() && stream.listener.is_none());
        stream.compact();
        assert!(stream.0.is_none());
    }
}

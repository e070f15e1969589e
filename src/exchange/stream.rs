//! What an exchange has where nothing of HTTP is in it: a connection that is passed on as it is.

use std::net::SocketAddr;

/// A stream. Of a request it is empty.
#[derive(Debug, Default)]
pub struct Stream {
    /// `tcp` or `tls`, by what is spoken with the client; empty: the exchange is a request.
    pub protocol: &'static str,
    /// Where it came in, as it is listened at.
    pub listener: Option<SocketAddr>,
    /// What the client has said that nobody has passed on yet; plugins look at it before the stream goes on.
    pub received: Vec<u8>,
    /// A plugin can not decide before more of it has come: then its gate is asked again.
    pub wants_more: bool,
    /// The server name in a hello that is passed on, in lower case; empty if there is none.
    pub server_name: String,
    /// The id that a client of MQTT goes by, once a plugin has found it.
    pub mqtt_client_id: Vec<u8>,
}

impl Stream {
    /// Whether there is one.
    pub const fn is_on(&self) -> bool {
        !self.protocol.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.protocol = "";
        self.listener = None;
        self.received = Vec::new();
        self.wants_more = false;
        self.server_name.clear();
        self.mqtt_client_id.clear();
    }
}

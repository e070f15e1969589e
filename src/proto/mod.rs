//! Wire formats: bytes in, values out, and back. No sockets, no clock.

pub mod h1;
pub mod head;
pub mod uri;

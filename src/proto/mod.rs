//! Wire formats: bytes in, values out, and back. No sockets, no clock.

pub mod h1;
pub mod head;
mod names;
pub mod resp;
mod start_line;
pub mod uri;

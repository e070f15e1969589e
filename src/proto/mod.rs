//! Wire formats: bytes in, values out, and back. No sockets, no clock.

pub mod grpc;
pub mod grpc_web;
pub mod h1;
pub mod h2;
pub mod head;
pub mod hello;
pub mod ldap;
pub mod mqtt;
mod names;
pub mod protobuf;
pub mod proxy_protocol;
pub mod resp;
mod start_line;
#[cfg(test)]
mod tests_head;
pub mod uri;
pub mod websocket;

//! Nodes of an upstream, found by name.

pub mod dns;
pub mod lookup;

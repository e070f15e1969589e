//! What plugins share that tell others of requests: what an entry says, bodies for it, and the batches it leaves in.
//!
//! A core collects entries and hands batches over; the control thread sends them (`control/export/shipping.rs`). Nothing
//! that is asked for waits for it: what finds no room is dropped and counted. An entry, and a body that is kept for one,
//! costs memory of the heap: only routes with such a plugin pay it.

pub mod batch;
pub mod bodies;
pub mod config;
pub mod entry;

pub use batch::{Batches, Shape};
pub use bodies::{Bodies, Kept};
pub use entry::{Entry, Format, Logged};

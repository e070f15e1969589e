//! What the harness measures with. `loadgen` asks, `origin` answers, `relay` is the floor between them.
//!
//! All three are one thread each. Load and origin may share a loop and so a processor, which leaves the other one to
//! the gateway under test.

mod frames;
pub mod framing;
pub mod load;
pub mod machine;
pub mod origin;
pub mod poll;
pub mod ring;
mod websocket;

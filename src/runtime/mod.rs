//! What every core owns. With `edge`, the only room that knows monoio.

pub mod buffers;
pub mod core;
pub mod limits;
pub mod local;

pub use self::core::Core;
pub use limits::Limits;
pub use local::LocalId;

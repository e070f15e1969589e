//! What every core owns. With `edge`, the only room that knows monoio.

pub mod affinity;
pub mod buffers;
pub mod chore;
pub mod connect;
pub mod core;
pub mod deadline;
pub mod dialogue;
pub mod driver;
mod ear;
pub mod errand;
pub mod event;
pub mod inquiry;
pub mod ldap;
pub mod limits;
pub mod listener;
pub mod loan;
pub mod local;
pub mod pipe;
pub mod pool;
pub mod redis;
pub mod socket;
pub mod sys;
pub mod tls;
pub mod turn;
pub mod udp;
pub mod unix;

pub use self::core::Core;
pub use limits::Limits;
pub use local::LocalId;

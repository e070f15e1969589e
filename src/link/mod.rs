//! The wall, with two hatches: the only place where threads meet. Elsewhere in the hot path there is no atomic
//! and no lock. What travels is a type parameter or plain data.

pub mod breaker;
pub mod handover;
pub mod health;
pub mod inquiry;
pub mod ledger;
pub mod lines;
pub mod mailbox;
pub mod outbox;
pub mod outlier;
pub mod shelf;
pub mod stats;
pub mod throttle;

//! Ringway: an API gateway and edge proxy with one pinned, shared-nothing io_uring event loop per core.
//!
//! Walk it as a house. Below are the rooms in the order a visitor meets them; which room may open a door to
//! which other is written in `docs/architecture.md` and kept by `tests/tidy.rs`.

// ---- words and pure machinery: no sockets, no clock, no threads -------------------------------
pub mod balance;
pub mod base;
pub mod expr;
pub mod model;
pub mod proto;
pub mod router;

// ---- the wall, with two hatches: the only place where threads meet ----------------------------
pub mod link;

// ---- the hot path: one pinned loop a core -----------------------------------------------------
pub mod edge;
pub mod exchange;
pub mod plugin;
pub mod plugins;
pub mod runtime;
pub mod snapshot;

// ---- the control plane: one tokio thread ------------------------------------------------------
pub mod control;

// ---- who starts whom --------------------------------------------------------------------------
pub mod boot;
pub mod cli;

//! What leaves the process beside responses: logs and metrics.

pub(crate) mod access_log;
mod counters;
pub(crate) mod exposition;
mod files;
mod posting;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod reports;
pub(crate) mod shipping;
mod upstreams;

//! Where objects come from.

pub mod etcd;
pub mod file;

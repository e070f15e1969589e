//! Things with no opinion about gateways. Imports nothing of ours.

pub mod address;
pub mod byte_map;
pub mod cidr;
pub mod clock;
pub mod decimal;
pub mod few;
pub mod hash;
pub mod pem;
pub mod prefetch;
pub mod rng;
pub mod slots;
pub mod text;
pub mod window;
pub mod x509;

//! TLS as cores need it: by which rules a client is answered, which certificate is for which name, and how nodes are
//! spoken to. All of it is made when an object changes; a handshake only looks up.

mod certificates;
mod check;
mod forge;
mod identity;
mod outward;
mod tickets;

pub use certificates::{CertificateEnd, Certificates};
pub use check::validity;
pub(crate) use check::{check_client, check_pair};
pub use forge::ServerRules;
pub(super) use forge::{Forge, Pair};
pub(super) use identity::Identity;
pub(super) use outward::Outward;
pub use outward::{Anyone, NodeTls, ReadRoots};
pub(super) use tickets::Secrets;

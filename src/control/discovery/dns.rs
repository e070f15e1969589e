//! Names by the system's resolver. It may block: never on a core.

#![allow(clippy::disallowed_methods)] // The control thread may wait for a resolver.

use std::net::{IpAddr, ToSocketAddrs as _};

/// The addresses of a name.
///
/// # Errors
/// What the resolver says.
pub fn resolve(name: &str) -> Result<Vec<IpAddr>, String> {
    let found = (name, 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

#[cfg(test)]
mod tests {
    #[test]
    fn localhost_has_an_address_and_nonsense_has_none() {
        assert!(
            super::resolve("localhost").expect("it resolves").iter().all(|address| address.is_loopback())
        );
        assert!(super::resolve("no-such-name.invalid").is_err());
    }
}

//! The control thread's own ports. They are bound before the cores accept: whoever finds a request answered finds them open,
//! and one that can not be had ends the start before anybody was served.

use std::io;
use std::net::{SocketAddr, TcpListener};

use super::{Holdings, log};
use crate::model::Settings;

/// Bound, and not served yet: who connects waits a moment.
#[derive(Debug, Default)]
pub struct Ports {
    pub(super) status: Option<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
    pub(super) admin: Option<TcpListener>,
    pub(super) control: Option<TcpListener>,
}

impl Ports {
    /// Binds those that are wanted.
    ///
    /// # Errors
    /// Names the setting whose address can not be had.
    pub fn bind(settings: &Settings, holdings: &Holdings) -> io::Result<Self> {
        let Settings { status, metrics, admin, .. } = settings;
        let offers_metrics = metrics.enabled && settings.exports_metrics();
        Ok(Self {
            status: status.enabled.then(|| bind("status", status.listen.address())).transpose()?,
            metrics: offers_metrics.then(|| bind("metrics", metrics.listen.address())).transpose()?,
            admin: holdings.offers_admin().then(|| bind("admin", admin.listen.address())).transpose()?,
            control: bind_control(settings)?,
        })
    }
}

/// The control API's; where nobody asked for it by name and its port is taken, we go on without.
fn bind_control(settings: &Settings) -> io::Result<Option<TcpListener>> {
    let wanted = settings.control.enabled;
    if wanted == Some(false) {
        return Ok(None);
    }
    match bind("control", settings.control.listen.address()) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if wanted.is_none() => {
            log::warn(format!("{error}; the control API is off"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn bind(name: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|error| io::Error::new(error.kind(), format!("{name}.listen {address}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_and_only_the_control_api_can_be_done_without() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound");
        let error = bind("status", address).expect_err("it is taken");
        assert!(error.to_string().starts_with(&format!("status.listen {address}: ")), "{error}");
        let with = |enabled: &str| {
            Settings::parse(&format!("control: {{enabled: {enabled}, listen: '{address}'}}"), &|_| None)
                .expect("valid")
        };
        assert!(bind_control(&with("null")).expect("not asked for").is_none());
        assert!(bind_control(&with("true")).is_err());
        assert!(bind_control(&with("false")).expect("not wanted").is_none());
    }
}

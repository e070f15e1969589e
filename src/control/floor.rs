//! What must be had before anything goes on: the reports thread, the listeners, and the audit log. All that can fail
//! at start fails here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;

use super::admin::{self, Admin};
use super::api::{self, Api};
use super::ask::Booth;
use super::audit::Audit;
use super::board::Board;
use super::export::access_log::Sink;
use super::export::prometheus;
use super::export::reports::Reports;
use super::write::Desk;
use super::{Parts, discovery, log, status};
use crate::model::Settings;
use crate::model::resources::Resources;
use crate::snapshot::Compiler;

/// What must be had before anything goes on: all that can fail at start.
pub(super) struct Floor {
    pub(super) reports: Reports,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) status: Option<SocketAddr>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) control: Option<SocketAddr>,
    pub(super) audit: Option<Audit>,
}

impl Floor {
    pub(super) async fn build(
        parts: &mut Parts,
        board: &Arc<Board>,
        desk: Desk,
        booth: Booth,
    ) -> io::Result<Self> {
        let settings = &parts.settings;
        let sink = Sink::open(&settings.access_log)
            .map_err(|error| named(format!("access_log.output {}", settings.access_log.output), &error))?;
        let reports = Reports::start(parts.inbox.clone(), sink, Arc::clone(board))?;
        let (status, metrics) = (&settings.status, &settings.metrics);
        let status = if status.enabled {
            Some(serve("status", status.listen.address(), status::router(Arc::clone(board))).await?)
        } else {
            None
        };
        let metrics = if metrics.enabled {
            Some(serve("metrics", metrics.listen.address(), prometheus::router(Arc::clone(board))).await?)
        } else {
            None
        };
        let api = Api { board: Arc::clone(board), booth, store: Arc::clone(&parts.holdings.store) };
        let control = serve_control(settings, api).await?;
        let (mut admin, mut audit) = (None, None);
        if let Some(keys) = parts.holdings.keys.take() {
            if parts.holdings.read_only.is_none() {
                audit = Audit::open(parts.settings.admin.audit_log.as_deref(), &parts.settings.state_dir)?;
            }
            admin = Some(serve_admin(parts, keys, desk).await?);
        }
        Ok(Self { reports, metrics, status, admin, control, audit })
    }
}

/// Opens the control API; where nobody asked for it by name and its port is taken, we go on without.
async fn serve_control(settings: &Settings, api: Api) -> io::Result<Option<SocketAddr>> {
    let (wanted, address) = (settings.control.enabled, settings.control.listen.address());
    if wanted == Some(false) {
        return Ok(None);
    }
    match serve("control", address, api::router(api)).await {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if wanted.is_none() => {
            log::warn(format!("{error}; the control API is off"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Opens the Admin API.
async fn serve_admin(parts: &Parts, keys: admin::Keys, desk: Desk) -> io::Result<SocketAddr> {
    let (settings, holdings) = (&parts.settings, &parts.holdings);
    if let Some(path) = &holdings.key_file {
        log::info(format!("the key of the Admin API is in {}", path.display()));
    }
    let own = settings.clone();
    let check = Box::new(move |resources: &Resources| {
        Compiler::new(&own, Box::new(discovery::dns::resolve)).compile(resources).faults
    });
    let store = Arc::clone(&holdings.store);
    let admin = Admin::new(&settings.admin, keys, store, desk, holdings.read_only.clone(), check);
    serve("admin", settings.admin.listen.address(), admin::router(Arc::new(admin))).await
}

fn named(what: String, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Serves a router from here to the end of the runtime.
async fn serve(name: &str, address: SocketAddr, router: Router) -> io::Result<SocketAddr> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    let (listener, bound) = bound.await.map_err(|error| named(format!("{name}.listen {address}"), &error))?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(bound)
}

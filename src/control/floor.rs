//! What must be had before anything goes on: the reports thread, what is served on the ports, and the audit log. All that can fail
//! at start fails here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UnixListener;

use super::admin::bridge::{self, Bridge, Caller};
use super::admin::{self, Admin};
use super::api::{self, Api};
use super::ask::Booth;
use super::audit::Audit;
use super::board::Board;
use super::dial::Dialer;
use super::dial::roots_of_nodes;
use super::export::access_log::Sink;
use super::export::prometheus;
use super::export::reports::Reports;
use super::export::shipping::Shipping;
use super::helm::Helm;
use super::port::{Secured, serve};
use super::secrets::{Files, environment};
use super::secured::Identity;
use super::socket::ControlSocket;
use super::write::Desk;
use super::{Parts, Waiting, log, names, status};
use crate::model::resources::Resources;
use crate::model::settings::AdminTls;
use crate::snapshot::Compiler;

/// Where those who come in over HTTP bring to the control loop what they want of it.
pub(super) struct Doors {
    desk: Desk,
    booth: Booth,
    helm: Helm,
}

impl Doors {
    /// Doors, and their other side.
    pub(super) fn new() -> (Self, Waiting) {
        let (desk, writes) = Desk::new();
        let (booth, questions) = Booth::new();
        let (helm, wishes) = Helm::new();
        (Self { desk, booth, helm }, Waiting { writes, questions, wishes })
    }
}

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
    pub(super) fn build(parts: &mut Parts, board: &Arc<Board>, doors: Doors) -> io::Result<Self> {
        let Doors { desk, booth, helm } = doors;
        let settings = &parts.settings;
        let sink = Sink::open(&settings.access_log)
            .map_err(|error| named(format!("access_log.output {}", settings.access_log.output), &error))?;
        let shipping = Shipping::new(Dialer::new(settings), Arc::clone(&board.shipped));
        let reports = Reports::start(parts.inbox.clone(), sink, Arc::clone(board), Some(shipping))?;
        let ports = std::mem::take(&mut parts.ports);
        let status = serve("status", ports.status, status::router(Arc::clone(board)), None)?;
        board.begin_metrics_with(settings.metric_prefix());
        let exported = prometheus::router(Arc::clone(board), settings.metrics_uri());
        let metrics = serve("metrics", ports.metrics, exported, None)?;
        let store = Arc::clone(&parts.holdings.store);
        let api = Api {
            board: Arc::clone(board),
            booth: booth.clone(),
            store,
            registries: settings.discovery.kinds(),
            id: api::id_of(&settings.state_dir),
        };
        let control = serve("control", ports.control, api::router(api), None)?;
        let (keys, socket) = (parts.holdings.keys.take(), parts.holdings.socket.as_mut());
        let listener = socket.and_then(ControlSocket::take_listener);
        let (mut admin, mut audit) = (None, None);
        if keys.is_some() || listener.is_some() {
            if parts.holdings.read_only.is_none() {
                audit = Audit::open(parts.settings.admin.audit_log.as_deref(), &parts.settings.state_dir)?;
                for revision in std::mem::take(&mut parts.holdings.went) {
                    audit.iter_mut().for_each(|audit| audit.note(&revision));
                }
            }
            let api = Arc::new(admin_of(parts, keys, desk));
            if let (Some(path), Some(_)) = (&parts.holdings.key_file, &ports.admin) {
                log::info(format!("the key of the Admin API is in {}", path.display()));
            }
            let secured = ports.admin.as_ref().and(parts.settings.admin.tls.as_ref());
            let secured = secured.map(|tls| secured_by(tls, &api)).transpose()?;
            admin = serve("admin", ports.admin, admin::router(Arc::clone(&api)), secured)?;
            if let Some(listener) = listener {
                let listener = UnixListener::from_std(listener)?;
                let bridge = Bridge {
                    admin: api,
                    helm,
                    booth,
                    board: Arc::clone(board),
                    objects: objects_of(parts),
                    listeners: parts.listeners.iter().map(|(_, address)| address.to_string()).collect(),
                };
                let service = bridge::router(bridge).into_make_service_with_connect_info::<Caller>();
                tokio::spawn(async move { axum::serve(listener, service).await });
            }
        }
        Ok(Self { reports, metrics, status, admin, control, audit })
    }
}

/// How the Admin API speaks TLS.
fn secured_by(tls: &AdminTls, api: &Admin) -> io::Result<Secured> {
    let identity = Identity::open(tls).map_err(|error| named("admin.tls".to_owned(), &error))?;
    Ok(Secured { identity, allow: api.allow().clone() })
}

/// The Admin API, wherever it is served.
fn admin_of(parts: &Parts, keys: Option<admin::Keys>, desk: Desk) -> Admin {
    let (settings, holdings) = (&parts.settings, &parts.holdings);
    let own = settings.clone();
    let names = parts.names.asker();
    let check = Box::new(move |resources: &Resources| {
        let compiler =
            Compiler::new(&own, names.resolve_within(names::CHANGE)).trusting(roots_of_nodes(&own));
        let compiler = compiler.reading_files(Files::new(&own).reader());
        let mut faults = compiler.reading_env(Box::new(environment)).compile(resources).faults;
        // What is only awaited would be taken all the same.
        faults.retain(|fault| !fault.may_pass);
        faults
    });
    let store = Arc::clone(&holdings.store);
    let mut offered = settings.admin.clone();
    offered.stream_routes |= settings.stream_proxy.is_on();
    Admin::new(&offered, keys, store, desk, holdings.read_only.clone(), check)
}

/// Where the objects are, as people read it.
fn objects_of(parts: &Parts) -> String {
    match (&parts.resources, &parts.etcd) {
        (Some(source), _) => source.0.path().display().to_string(),
        (None, Some(_)) => "etcd".to_owned(),
        (None, None) => "store".to_owned(),
    }
}

fn named(what: String, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

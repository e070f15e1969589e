//! The Admin API: objects over HTTP, with the paths, codes and bodies of Apache APISIX's, and a few more.
//!
//! ```text
//! request ─▶ keys.rs (who?) ─▶ objects.rs (what?) ─▶ write.rs ─▶ the control loop: compile, keep, publish
//!                                   └▶ catalog.rs: schemas, plugins          └─▶ answered when all cores serve it
//! ```
//!
//! The control socket leads here as well, without a key: see [`bridge`].

mod answer;
mod batch;
pub(crate) mod bridge;
mod catalog;
mod configs;
mod decorations;
mod form;
mod history;
mod keys;
mod listing;
mod objects;
mod openapi;
mod references;
mod shown;
mod validate;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use axum::{Extension, Router};
use serde_json::json;
use tokio::time::timeout;

use super::port::Peer;
use super::store::{Author, Store};
use super::write::{Desk, Refusal};
use crate::base::cidr::{Cidr, CidrSet};
use crate::model::ConfigError;
use crate::model::resources::Resources;
use crate::model::settings::{AdminApiVersion, AdminRole, AdminSecrets, AdminSettings};

use answer::Answer;
pub(crate) use catalog::all_schemas;
use configs::Sheet;
pub(crate) use keys::Keys;
pub(crate) use objects::key;

/// Largest body of a request: APISIX's 1.5 MiB.
const BODY_BYTES_MAX: usize = 1_572_864;
/// How long one may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What every path begins with.
const PREFIX: &str = "/apisix/admin";

/// The state that the loop and the API share. Held for a look or a change in memory, never across a wait.
pub(crate) type Shared = Arc<Mutex<Store>>;

/// The store, for a moment.
pub(crate) fn held(store: &Shared) -> MutexGuard<'_, Store> {
    // A commit changes memory last and at once, so a panic while it was held left nothing half done.
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that the API is made of.
pub(crate) struct Admin {
    store: Shared,
    desk: Desk,
    /// None: nobody is let in at the port.
    keys: Option<Keys>,
    allow: CidrSet,
    cors: bool,
    /// Whether secrets are told at the port.
    secrets: AdminSecrets,
    /// The form of answers on the port; on the control socket it is always the newest.
    version: AdminApiVersion,
    /// Whether stream routes are taken.
    stream_routes: bool,
    /// Of the document of all objects that was last taken.
    sheet: tokio::sync::Mutex<Sheet>,
    /// Why nothing may be written, where a file holds the objects.
    read_only: Option<String>,
    /// All that is wrong with objects taken together.
    check: Check,
}

/// Compiles objects for their faults only.
pub(crate) type Check = Box<dyn Fn(&Resources) -> Vec<ConfigError> + Send + Sync>;

impl Admin {
    pub(crate) fn new(
        settings: &AdminSettings,
        keys: Option<Keys>,
        store: Shared,
        desk: Desk,
        read_only: Option<String>,
        check: Check,
    ) -> Self {
        let ranges = settings.allow.iter().filter_map(|range| {
            let (address, bits) = range.parts();
            Cidr::new(address, bits)
        });
        let (allow, cors, stream_routes) = (ranges.collect(), settings.cors, settings.stream_routes);
        Self {
            store,
            desk,
            keys,
            allow,
            cors,
            secrets: settings.secrets,
            version: settings.api_version,
            stream_routes,
            sheet: tokio::sync::Mutex::default(),
            read_only,
            check,
        }
    }

    /// Who may come near the port; nobody is named: everybody.
    pub(super) const fn allow(&self) -> &CidrSet {
        &self.allow
    }
}

/// What the listener serves.
pub(crate) fn router(admin: Arc<Admin>) -> Router {
    Router::new().fallback(serve).with_state(admin)
}

/// A request of somebody who may ask.
struct Call {
    method: Method,
    /// Behind the prefix, split at slashes, decoded.
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Bytes,
    author: Author,
    /// Whether it came over the control socket.
    is_local: bool,
    /// Who asks may read, and is not to learn secrets.
    is_viewer: bool,
    if_match: Option<String>,
    headers: HeaderMap,
}

impl Call {
    fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn is_set(&self, name: &str) -> bool {
        self.query(name).is_some_and(|value| value != "false" && value != "0")
    }
}

async fn serve(
    State(admin): State<Arc<Admin>>,
    Extension(Peer(peer)): Extension<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let problem_details = answer::wants_problem_details(&parts.headers);
    let answer = match admit(&admin, peer, &parts) {
        Err(answer) => *answer,
        Ok((author, role)) => respond(&admin, parts, body, By::Port(author, role)).await,
    };
    answer.into_response(admin.cors, problem_details, admin.version)
}

/// Who was let in, and where.
enum By {
    Port(Author, AdminRole),
    Socket(Author),
}

/// The answer to whoever was let in.
async fn respond(admin: &Arc<Admin>, parts: Parts, body: Body, by: By) -> Answer {
    match call(parts, body, by).await {
        Err(answer) => *answer,
        Ok(call) => dispatch(admin, call).await,
    }
}

/// Who asks, if they may.
fn admit(admin: &Admin, peer: SocketAddr, parts: &Parts) -> Result<(Author, AdminRole), Box<Answer>> {
    let ip = peer.ip().to_canonical();
    if !admin.allow.is_empty() && !admin.allow.contains(ip) {
        return Err(Answer::refused(Refusal::new(403, "this address is not in admin.allow")).into());
    }
    if admin.cors && parts.method == Method::OPTIONS {
        return Err(Answer::empty(200).into());
    }
    // A browser asks in the name of whoever looks at a page, and says for which page.
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    if !admin.cors && !reads && is_of_another_page(&parts.headers) {
        let why = "asked for by a page of another origin; see admin.cors";
        return Err(Answer::refused(Refusal::new(403, why)).into());
    }
    let known = admin.keys.as_ref().map_or(Err("there are no keys"), |keys| keys.of(parts));
    let unchecked = |why: &str| {
        let body = json!({"error_msg": "failed to check token", "description": why});
        Answer::refused_as(Refusal::new(401, format!("failed to check token: {why}")), body)
    };
    let (name, role) = known.map_err(|why| unchecked(why).without_version())?;
    if role == AdminRole::Viewer && parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(unchecked("invalid method for role viewer").into());
    }
    Ok((Author { who: name, from: ip.to_string() }, role))
}

/// Whether a browser asks, for a page that is not served here (Fetch Metadata, and RFC 6454 7).
fn is_of_another_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => origin.split_once("://").map(|(_, host)| host) != text("host"),
        (None, None) => false,
    }
}

async fn call(parts: Parts, body: Body, by: By) -> Result<Call, Box<Answer>> {
    let (author, is_local, is_viewer) = match by {
        By::Port(author, role) => (author, false, role == AdminRole::Viewer),
        By::Socket(author) => (author, true, false),
    };
    let not_found = || Answer::refused(Refusal::new(404, "not found"));
    let path = parts.uri.path();
    // Where tools look for it.
    let below = path.strip_prefix(PREFIX).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let path = if path == "/openapi.json" { path } else { below.ok_or_else(not_found)? };
    let path: Vec<String> = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| text_of(part, crate::base::text::percent_decode))
        .collect();
    let query = parts
        .uri
        .query()
        .unwrap_or("")
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text| text_of(text, crate::base::text::form_decode);
            (decode(name), decode(value))
        })
        .collect();
    let is_document = path.first().is_some_and(|first| first == "configs");
    let bytes_max = if is_document { configs::BYTES_MAX } else { BODY_BYTES_MAX };
    let late = |_| {
        let problem = format!("no whole body within {} seconds", BODY_TIMEOUT.as_secs());
        Answer::refused(Refusal::new(408, problem))
    };
    let body = timeout(BODY_TIMEOUT, to_bytes(body, bytes_max)).await.map_err(late)?.map_err(|_| {
        let problem = format!("the body is larger than {bytes_max} bytes, or was broken off");
        Answer::refused(Refusal::new(400, problem))
    })?;
    let if_match = parts.headers.get("if-match").and_then(|value| value.to_str().ok()).map(str::to_owned);
    // Whoever answers leaves out the body (RFC 9110 9.3.2).
    let method = if parts.method == Method::HEAD { Method::GET } else { parts.method };
    Ok(Call { method, path, query, body, author, is_local, is_viewer, if_match, headers: parts.headers })
}

fn text_of(text: &str, decode: impl Fn(&[u8], &mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    decode(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

async fn dispatch(admin: &Arc<Admin>, call: Call) -> Answer {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        [] if call.method == Method::GET => Answer::empty(200),
        ["schema", rest @ ..] => catalog::schema(&call, rest),
        ["plugins", rest @ ..] => catalog::plugins(&call, rest),
        ["openapi.json"] if call.method == Method::GET => Answer::json(200, openapi::document().clone()),
        ["configs"] => configs::serve(admin, &call).await.unwrap_or_else(Answer::refused),
        ["configs", "validate"] if call.method == Method::POST => {
            validate::all(admin, &call).unwrap_or_else(Answer::refused)
        }
        ["history"] => history::tell(admin, &call).unwrap_or_else(Answer::refused),
        ["rollback", revision] => {
            history::go_back(admin, &call, revision).await.unwrap_or_else(Answer::refused)
        }
        [_, ..] => objects::serve(admin, &call).await.unwrap_or_else(Answer::refused),
        [] => Answer::refused(Refusal::new(404, "not found")),
    }
}

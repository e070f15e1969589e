//! The Admin API on the control socket. Who may open the socket needs no key; what is changed there carries the user's
//! number. Only here the process itself can be spoken to, and only from here all secrets are told:
//!
//! | | |
//! |---|---|
//! | `GET /v1/explain` | as the control API has it |
//! | `GET /process` | who this is, where its objects are, what is in force |
//! | `POST /process/reload` | reads resources again, as `HUP`; answered when every core serves them |
//! | `POST /process/quit` | as `QUIT` |
//! | `POST /process/stop` | ends at once, cutting what is open |
//! | `/apisix/admin/…?secrets=true` | objects with their secrets, private keys and all |

use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::Method;
use axum::response::Response;
use axum::serve::IncomingStream;
use serde_json::json;
use tokio::net::UnixListener;

use super::answer::{self, Answer};
use super::{Admin, By, respond};
use crate::control::ask::Booth;
use crate::control::board::Board;
use crate::control::explain;
use crate::control::helm::{Helm, Wish};
use crate::control::limits;
use crate::control::store::Author;
use crate::control::write::Refusal;
use crate::model::settings::AdminApiVersion;

/// What the control socket leads to.
pub(crate) struct Bridge {
    pub(crate) admin: Arc<Admin>,
    pub(crate) helm: Helm,
    pub(crate) booth: Booth,
    pub(crate) board: Arc<Board>,
    /// Where the objects are, as people read it.
    pub(crate) objects: String,
    /// Where clients connect.
    pub(crate) listeners: Vec<String>,
}

/// What is looked at over the socket as on the control API.
const LOOKS: [&str; 2] = [EXPLAIN, "/v1/limits"];
const EXPLAIN: &str = "/v1/explain";

/// The user at the other end, as the kernel knows it (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|cred| cred.uid()))
    }
}

/// What the socket serves.
pub(crate) fn router(bridge: Bridge) -> Router {
    Router::new().fallback(serve).with_state(Arc::new(bridge))
}

async fn serve(
    State(bridge): State<Arc<Bridge>>,
    ConnectInfo(Caller(uid)): ConnectInfo<Caller>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let problem_details = answer::wants_problem_details(&parts.headers);
    let answer = match uid {
        None => Answer::refused(Refusal::new(403, "the kernel does not tell who asks")),
        Some(uid) => {
            let author = Author { who: format!("unix:uid={uid}"), from: "unix".to_owned() };
            match parts.uri.path().strip_prefix("/process") {
                None if parts.method == Method::GET && LOOKS.contains(&parts.uri.path()) => {
                    let (booth, query) = (&bridge.booth, parts.uri.query());
                    let told = match parts.uri.path() {
                        EXPLAIN => explain::answer(booth, query).await,
                        _ => limits::answer(booth, query).await,
                    };
                    told.map_or_else(
                        |(status, why)| Answer::refused(Refusal::new(status, why)),
                        |told| Answer::json(200, told),
                    )
                }
                Some(path) => {
                    process(&bridge, &parts.method, path, author).await.unwrap_or_else(Answer::refused)
                }
                None => respond(&bridge.admin, parts, body, By::Socket(author)).await,
            }
        }
    };
    answer.into_response(false, problem_details, AdminApiVersion::V3)
}

async fn process(bridge: &Bridge, method: &Method, path: &str, author: Author) -> Result<Answer, Refusal> {
    let wish = match (method, path) {
        (&Method::GET, "") => return Ok(Answer::json(200, state_of(bridge))),
        (&Method::POST, "/reload") => Wish::Reload,
        (&Method::POST, "/quit") => Wish::Quit,
        (&Method::POST, "/stop") => Wish::Stop,
        _ => return Err(Refusal::new(404, "not found")),
    };
    let done = bridge.helm.wish(wish, author).await?;
    Ok(Answer::json(200, state_of(bridge)).at(done.revision))
}

fn state_of(bridge: &Bridge) -> serde_json::Value {
    let board = &bridge.board;
    let set_aside: Vec<String> = board.quarantined().into_iter().map(|object| object.name).collect();
    json!({
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "objects": bridge.objects,
        "generation": board.generation(),
        "set_aside": set_aside,
        "draining": board.is_draining(),
        "listeners": bridge.listeners,
    })
}

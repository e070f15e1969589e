//! The status listener: is the process alive, has it started, may it get traffic?
//!
//! `/livez`, `/readyz` and `/startupz` are Kubernetes' three questions, with `?verbose` every check is listed;
//! `/status` and `/status/ready` answer as APISIX's do. Readiness fails from the first moment of a drain, before
//! anything is closed.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::board::Board;

/// What the listener serves.
pub(crate) fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/status", get(async || Json(json!({"status": "ok"}))))
        .route("/status/ready", get(status_ready))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .with_state(board)
}

async fn status_ready(State(board): State<Arc<Board>>) -> Response {
    match why_not_ready(&board) {
        None => Json(json!({"status": "ok"})).into_response(),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "error", "error": error})))
            .into_response(),
    }
}

async fn livez(RawQuery(query): RawQuery) -> Response {
    // That this was answered is what there is to say.
    answer("livez", &[Check { name: "control".to_owned(), fault: None }], query.as_deref())
}

async fn readyz(State(board): State<Arc<Board>>, RawQuery(query): RawQuery) -> Response {
    let mut checks = core_checks(&board);
    let fault = board.is_draining().then(|| "draining".to_owned());
    checks.push(Check { name: "drain".to_owned(), fault });
    answer("readyz", &checks, query.as_deref())
}

async fn startupz(State(board): State<Arc<Board>>, RawQuery(query): RawQuery) -> Response {
    let mut checks = Vec::new();
    // Once started is started: a drain must not look like a start that failed.
    if !board.has_started() {
        checks = core_checks(&board);
        checks
            .push(Check { name: "start".to_owned(), fault: Some("not all listeners are bound".to_owned()) });
    }
    answer("startupz", &checks, query.as_deref())
}

/// One thing that must hold.
struct Check {
    name: String,
    fault: Option<String>,
}

fn core_checks(board: &Board) -> Vec<Check> {
    let mut checks = Vec::with_capacity(board.stats.len() * 2);
    for (core, stats) in board.stats.iter().enumerate() {
        let fault = (stats.generation.get() == 0).then(|| "has not received configuration".to_owned());
        checks.push(Check { name: format!("core-{core}-configured"), fault });
        let fault = (stats.ready.get() == 0).then(|| "does not accept connections".to_owned());
        checks.push(Check { name: format!("core-{core}-accepting"), fault });
    }
    checks
}

/// The first reason not to send traffic, in APISIX's words where it has them.
fn why_not_ready(board: &Board) -> Option<String> {
    for (core, stats) in board.stats.iter().enumerate() {
        if stats.generation.get() == 0 {
            return Some(format!("worker id: {core} has not received configuration"));
        }
    }
    for (core, stats) in board.stats.iter().enumerate() {
        if stats.ready.get() == 0 {
            return Some(format!("worker id: {core} does not accept connections"));
        }
    }
    board.is_draining().then(|| "draining".to_owned())
}

/// `ok`, or every check; a list is given unasked when one failed.
fn answer(question: &str, checks: &[Check], query: Option<&str>) -> Response {
    let verbose =
        query.is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    let passed = checks.iter().all(|check| check.fault.is_none());
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut text = String::new();
    if verbose || !passed {
        for check in checks {
            match &check.fault {
                None => text.push_str(&format!("[+]{} ok\n", check.name)),
                Some(fault) => text.push_str(&format!("[-]{} failed: {fault}\n", check.name)),
            }
        }
        text.push_str(&format!("{question} check {}\n", if passed { "passed" } else { "failed" }));
    } else {
        text.push_str("ok");
    }
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Arc<Board> {
        Arc::new(Board::new(vec![Arc::default(), Arc::default()], &[]))
    }

    fn serve_all(board: &Board) {
        for core in &board.stats {
            core.generation.set(1);
            core.ready.set(1);
        }
    }

    #[test]
    fn a_core_without_configuration_is_named_as_apisix_names_workers() {
        let board = board();
        board.stats[0].generation.set(1);
        assert_eq!(why_not_ready(&board).as_deref(), Some("worker id: 1 has not received configuration"));
        serve_all(&board);
        assert_eq!(why_not_ready(&board), None);
    }

    #[test]
    fn readiness_fails_as_soon_as_a_drain_begins() {
        let board = board();
        serve_all(&board);
        board.drain();
        assert_eq!(why_not_ready(&board).as_deref(), Some("draining"));
    }

    async fn text(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 65_536).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn failed_checks_are_listed_unasked_and_passed_ones_on_request() {
        let board = board();
        board.stats[0].generation.set(1);
        board.stats[0].ready.set(1);
        let (status, body) = text(readyz(State(Arc::clone(&board)), RawQuery(None)).await).await;
        assert_eq!(status, 503);
        assert!(body.contains("[+]core-0-accepting ok\n"), "{body}");
        assert!(body.contains("[-]core-1-configured failed: has not received configuration\n"), "{body}");
        serve_all(&board);
        let (status, body) = text(readyz(State(Arc::clone(&board)), RawQuery(None)).await).await;
        assert_eq!((status, body.as_str()), (200, "ok"));
        let (status, body) = text(readyz(State(board), RawQuery(Some("verbose".to_owned()))).await).await;
        assert_eq!(status, 200);
        assert!(body.ends_with("readyz check passed\n"), "{body}");
    }

    #[tokio::test]
    async fn startup_stays_passed_during_a_drain() {
        let board = board();
        let (status, _) = text(startupz(State(Arc::clone(&board)), RawQuery(None)).await).await;
        assert_eq!(status, 503);
        board.start();
        board.drain();
        let (status, _) = text(startupz(State(board), RawQuery(None)).await).await;
        assert_eq!(status, 200);
    }
}

//! Vault's key-value stores, over its HTTP API: `GET {uri}/v1/{prefix}/{path}` with the token in a header.
//!
//! Version 1 answers with the fields in `data`; version 2 with `data.data` beside `data.metadata`, and its paths begin
//! with `data/`, which belongs into the prefix (`secret/data`). References to one path are one request. Neither a
//! token nor a value is in what is told of a failure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes as Chunk;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::timeout;

use super::{Answers, Files, environment};
use crate::control::dial::{Dialer, words};
use crate::model::SecretStore;
use crate::model::reference::{Reference, is_reference, of_env};
use crate::snapshot::{Learnt, Unread, Wanted};

/// One request, from the connection to the end of the answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Vault's own limit for what is kept at a path is half of that.
const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Words of Vault that are told on.
const WORDS_MAX: usize = 200;

/// Why there are no fields.
enum Trouble {
    /// The store has nothing there.
    Absent(String),
    Failed(String),
    /// As failed; and nothing else need be asked of this store now.
    Unreachable(String),
}

/// Asks every store that is wanted, one path after the other.
pub(super) async fn ask(wanted: Vec<Wanted>, mut dialer: Dialer, files: Files) -> Answers {
    let mut answers = Vec::new();
    // By store, then by path: which references, and the field of each.
    let mut stores: BTreeMap<String, (Arc<SecretStore>, BTreeMap<String, Vec<(String, String)>>)> =
        BTreeMap::new();
    for Wanted { reference, store } in wanted {
        if let Ok(Reference::Secret { store: id, path, key }) = Reference::of(&reference) {
            let (_, paths) = stores.entry(id.to_owned()).or_insert_with(|| (store, BTreeMap::new()));
            let (path, key) = (path.to_owned(), key.to_owned());
            paths.entry(path).or_default().push((reference, key));
        }
    }
    for (id, (store, paths)) in stores {
        let mut unreachable: Option<String> = None;
        for (path, asked) in paths {
            let fields = match &unreachable {
                Some(why) => Err(Trouble::Unreachable(why.clone())),
                None => match token_of(&store, &files) {
                    Ok(token) => read(&store, &token, &path, &mut dialer).await,
                    Err(why) => Err(Trouble::Unreachable(format!("{}: token: {why}", address_of(&store)))),
                },
            };
            if let Err(Trouble::Unreachable(why)) = &fields {
                unreachable = Some(why.clone());
            }
            answers.extend(asked.into_iter().map(|(reference, key)| {
                let learnt = learnt(&id, &path, &key, &fields);
                (reference, learnt)
            }));
        }
    }
    answers
}

/// What one reference learns from what there is at its path.
fn learnt(id: &str, path: &str, key: &str, fields: &Result<Value, Trouble>) -> Learnt {
    match fields {
        Ok(fields) => match fields.get(key) {
            Some(value) => Learnt::Value(value.clone()),
            None => Learnt::Absent(format!("secrets/{id}: {path} has no field {key}")),
        },
        Err(Trouble::Absent(why)) => Learnt::Absent(format!("secrets/{id}: {path}: {why}")),
        Err(Trouble::Failed(why)) => Learnt::Failed(format!("secrets/{id}: {path}: {why}")),
        Err(Trouble::Unreachable(why)) => Learnt::Failed(format!("secrets/{id}: {why}")),
    }
}

/// The fields at a path.
async fn read(store: &SecretStore, token: &str, path: &str, dialer: &mut Dialer) -> Result<Value, Trouble> {
    let answered = timeout(PATIENCE, get(store, token, path, dialer)).await;
    let (status, body) = answered
        .unwrap_or_else(|_| Err(Trouble::Unreachable(format!("no whole answer within {PATIENCE:?}"))))?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status == StatusCode::NOT_FOUND {
        return Err(Trouble::Absent("Vault has nothing there".to_owned()));
    }
    if status != StatusCode::OK {
        let words = answer["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let words: String = words.collect::<Vec<_>>().join("; ").chars().take(WORDS_MAX).collect();
        return Err(Trouble::Failed(format!("{}: {}", status.as_u16(), words.trim())));
    }
    fields_of(answer).ok_or_else(|| Trouble::Failed("a strange answer: no data in it".to_owned()))
}

/// The fields in an answer of either version.
fn fields_of(mut answer: Value) -> Option<Value> {
    let mut data = answer.get_mut("data").map(Value::take).filter(Value::is_object)?;
    let is_second = data.get("metadata").is_some_and(Value::is_object);
    match data.get_mut("data") {
        Some(inner) if is_second && inner.is_object() => Some(inner.take()),
        _ => Some(data),
    }
}

async fn get(
    store: &SecretStore,
    token: &str,
    path: &str,
    dialer: &mut Dialer,
) -> Result<(StatusCode, Chunk), Trouble> {
    let base = address_of(store);
    let failed = Trouble::Failed;
    let unreachable = |why: String| Trouble::Unreachable(format!("{base}: {why}"));
    let uri: Uri = base
        .parse()
        .map_err(|_| unreachable("expected one such as https://vault.example.com:8200".into()))?;
    let (is_tls, usual) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        _ => return Err(unreachable("expected http:// or https://".into())),
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(usual));

    // Brackets are the URL's, not the address's. A connection a question, as to etcd.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = dialer.dial(host, port, is_tls).await.map_err(|error| unreachable(error.to_string()))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
    // Ends with the answer, or with whoever waits for it.
    tokio::spawn(connection);
    let target = target(uri.path(), store.prefix.as_deref().unwrap_or_default(), path);
    let mut request = Request::get(target).header(HOST, authority).header("X-Vault-Token", token);
    if let Some(namespace) = &store.namespace {
        request = request.header("X-Vault-Namespace", namespace);
    }
    // The library's words could show the token.
    let request = request.body(Empty::<Chunk>::new()).map_err(|_| failed("not fit to be sent".to_owned()))?;
    let response = sender.send_request(request).await.map_err(|error| unreachable(words(&error)))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| failed(format!("no whole answer: {error}")))?;
    Ok((status, body.to_bytes()))
}

fn address_of(store: &SecretStore) -> &str {
    store.uri.as_deref().unwrap_or_default()
}

fn token_of(store: &SecretStore, files: &Files) -> Result<String, String> {
    let token = store.token.as_ref().map_or("", |token| token.expose());
    if !is_reference(token) {
        return Ok(token.to_owned());
    }
    match Reference::of(token)? {
        Reference::Env { name, inner } => match of_env(name, inner, &environment)? {
            Value::String(token) => Ok(token),
            _ => Err(format!("{token} is not text")),
        },
        Reference::File { path } => match files.read(path) {
            Ok(token) if !token.is_empty() => Ok(token),
            Ok(_) => Err(format!("the file {path} is empty")),
            Err(Unread::Missing(why) | Unread::Failed(why) | Unread::Outside(why)) => Err(why),
        },
        Reference::Secret { .. } => {
            Err("expected a token, $env://NAME or $file:///PATH, got a reference to a secret".to_owned())
        }
    }
}

/// The path of a request. Slashes at the seams are one; what has no place in a path is encoded.
fn target(base: &str, prefix: &str, path: &str) -> String {
    let mut target = String::new();
    for part in
        [base, "v1", prefix, path].iter().flat_map(|text| text.split('/')).filter(|part| !part.is_empty())
    {
        target.push('/');
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
                target.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(target, "%{byte:02X}");
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_found_in_answers_of_either_version() {
        assert_eq!(fields_of(json!({"data": {"k": "v"}})), Some(json!({"k": "v"})));
        let second = json!({"data": {"data": {"k": "v"}, "metadata": {"version": 1}}});
        assert_eq!(fields_of(second), Some(json!({"k": "v"})));
        // Of the first version, with fields of these names.
        let like = json!({"data": {"data": "d", "metadata": "m"}});
        assert_eq!(fields_of(like), Some(json!({"data": "d", "metadata": "m"})));
        assert_eq!((fields_of(json!({})), fields_of(json!({"data": null}))), (None, None));
    }

    #[test]
    fn a_path_has_one_slash_at_its_seams_and_nothing_that_ends_it() {
        assert_eq!(target("/", "/kv/apisix/", "jack"), "/v1/kv/apisix/jack");
        assert_eq!(target("/base", "secret/data", "a b?c#d/é"), "/base/v1/secret/data/a%20b%3Fc%23d/%C3%A9");
    }
}

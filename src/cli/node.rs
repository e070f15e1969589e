//! The running gateway that a verb is about: where its control socket is, and what it says, told to a person.

use std::path::{Path, PathBuf};

use hyper::Method;
use serde_json::Value;

use super::args::NodeArgs;
use super::load::{self, Surroundings};
use super::{FAILED, Told, UNREACHABLE, USAGE};
use crate::control::caller::{Caller, Heard, Unheard};
use crate::model::Settings;

/// Where the objects are below the Admin API's paths.
const PREFIX: &str = "/apisix/admin";

/// A running gateway, or where one should be.
pub(super) struct Node {
    caller: Caller,
}

impl Node {
    /// The one that is named, else that of the settings.
    pub(super) fn find(args: &NodeArgs, around: &Surroundings) -> Result<Self, Told> {
        Ok(Self { caller: Caller::new(socket(args, around)?) })
    }

    /// Its control socket.
    pub(super) fn socket(&self) -> &Path {
        self.caller.socket()
    }

    /// Asks about objects; what it refuses is told.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Heard, Told> {
        let heard = self.hear(method, &format!("{PREFIX}{path}"), headers, body);
        heard.map_err(|unheard| self.unheard(&unheard)).and_then(taken)
    }

    pub(super) fn get(&self, path: &str) -> Result<Heard, Told> {
        self.ask(Method::GET, path, &[], String::new())
    }

    /// Asks for something beside the objects; what is refused is told.
    pub(super) fn look(&self, path: &str) -> Result<Heard, Told> {
        let heard = self.hear(Method::GET, path, &[], String::new());
        heard.map_err(|unheard| self.unheard(&unheard)).and_then(taken)
    }

    /// Has something done by the process itself.
    pub(super) fn wish(&self, what: &str) -> Result<Heard, Unheard> {
        self.hear(Method::POST, &format!("/process/{what}"), &[], String::new())
    }

    fn hear(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Heard, Unheard> {
        self.caller.ask(method, path, headers, body)
    }

    /// Why nothing was heard, and what to do about it.
    pub(super) fn unheard(&self, why: &Unheard) -> Told {
        let socket = self.socket().display();
        match why {
            Unheard::Unreachable(error) => {
                let advice = match error.kind() {
                    std::io::ErrorKind::PermissionDenied => {
                        "you may not open it: ask as its user, as one of its group, or as root"
                    }
                    _ => {
                        "no gateway listens there: start one (`ringway run`), or say which is meant with --socket or -c"
                    }
                };
                Told { code: UNREACHABLE, text: format!("control socket {socket}: {error}\n{advice}\n") }
            }
            Unheard::Unanswered(why) => {
                let text =
                    format!("control socket {socket}: {why}\nwhat became of the request is not known\n");
                Told { code: UNREACHABLE, text }
            }
        }
    }
}

/// The socket that is named, else that of the settings.
fn socket(args: &NodeArgs, around: &Surroundings) -> Result<PathBuf, Told> {
    if let Some(path) = &args.socket {
        return Ok(around.folder.join(path));
    }
    let settings = settings(args, around)?;
    settings.control_socket().map(|path| around.folder.join(path)).ok_or_else(|| {
        let text = "the settings want no control socket (control_socket: off): name one with --socket\n";
        Told { code: USAGE, text: text.to_owned() }
    })
}

/// The settings of the gateway, as far as they are known here.
pub(super) fn settings(args: &NodeArgs, around: &Surroundings) -> Result<Settings, Told> {
    load::settings(args.config.as_deref(), around)
        .map_err(|trouble| Told { code: trouble.code(), text: trouble.lines().join("\n") + "\n" })
}

/// An answer that is none of refusal.
pub(super) fn taken(heard: Heard) -> Result<Heard, Told> {
    if heard.status < 400 {
        return Ok(heard);
    }
    let said = heard.json();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let faults: Vec<String> = said["errors"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|fault| {
            let parts = [text(fault, "object"), text(fault, "path"), text(fault, "detail")];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ")
        })
        .collect();
    let why = ["detail", "error_msg", "message"].iter().find_map(|name| said[name].as_str());
    let mut lines = faults;
    lines.push(match (lines.len(), why) {
        (0, Some(why)) => format!("refused: {why}"),
        (0, None) => format!("refused with status {}", heard.status),
        (faults, _) => format!("refused; faults: {faults}; nothing has changed"),
    });
    Err(Told { code: FAILED, text: lines.join("\n") + "\n" })
}

/// What an answer warns of, a line each.
pub(super) fn warnings(heard: &Heard) -> Vec<String> {
    heard.headers("x-config-warning")
}

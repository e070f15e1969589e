//! What is asked of the process itself: `reload`, `quit`, `stop`.
//!
//! Over the control socket; where nobody listens on it, by a signal to the process whose id is beside it. The file of
//! the id is locked as long as its process lives, so the signal can not meet another that got the same number.

use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::args::{ControlArgs, OutputFormat};
use super::load::Surroundings;
use super::node::{Node, taken};
use super::{FAILED, OK, Told};
use crate::control::caller::Unheard;
use crate::control::pid_file;

/// Between two looks whether a process has ended, and two signals of a stop by signal: the second means "at once" when the
/// first was seen.
const PAUSE: Duration = Duration::from_millis(100);
/// So often, at most.
const LOOKS_MAX: usize = 50;

/// What is wished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Reload,
    Quit,
    Stop,
}

impl Wish {
    const fn word(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Quit => "quit",
            Self::Stop => "stop",
        }
    }

    /// What it is as a signal.
    const fn signal(self) -> (Signal, &'static str) {
        match self {
            Self::Reload => (Signal::HUP, "HUP"),
            Self::Quit => (Signal::QUIT, "QUIT"),
            Self::Stop => (Signal::INT, "INT"),
        }
    }
}

/// Does it, and tells what came of it.
pub(super) fn wish(wish: Wish, args: &ControlArgs, around: &Surroundings) -> Result<Told, Told> {
    let node = Node::find(&args.node, around)?;
    let path = pid_file(node.socket());
    let asked = living(&path);
    match node.wish(wish.word()) {
        Ok(heard) => Ok(told(wish, args.format, &taken(heard)?.json())),
        Err(unheard @ Unheard::Unreachable(_)) => by_signal(wish, args.format, &node, &unheard),
        Err(unheard @ Unheard::Unanswered(_)) => match asked {
            // It may be gone before its answer is out, and its going is one.
            Some(pid) if wish != Wish::Reload && has_ended(&path) => {
                Ok(told(wish, args.format, &json!({"pid": pid.as_raw_nonzero().get()})))
            }
            _ => Err(node.unheard(&unheard)),
        },
    }
}

/// Whether the process of a file ends, within some seconds.
fn has_ended(path: &Path) -> bool {
    (0..LOOKS_MAX).any(|look| {
        if look > 0 {
            pause();
        }
        living(path).is_none()
    })
}

fn told(wish: Wish, format: OutputFormat, said: &Value) -> Told {
    if format == OutputFormat::Json {
        return Told { code: OK, text: format!("{said}\n") };
    }
    let pid = said["pid"].as_u64().unwrap_or(0);
    let text = match wish {
        Wish::Quit => format!("pid {pid} accepts nothing more, and ends when its connections have"),
        Wish::Stop => format!("pid {pid} ends now"),
        Wish::Reload => {
            let names = said["set_aside"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
            let names: Vec<&str> = names.collect();
            let set_aside = if names.is_empty() {
                "none".to_owned()
            } else {
                format!("{}; why: /v1/quarantine of the control API, or the log", names.join(", "))
            };
            let objects = said["objects"].as_str().unwrap_or_default();
            format!("{objects} read again; configuration: {}, set aside: {set_aside}", said["generation"])
        }
    };
    Told { code: OK, text: text + "\n" }
}

/// Where nobody listens: the process may live all the same, its socket removed by somebody.
fn by_signal(wish: Wish, format: OutputFormat, node: &Node, why: &Unheard) -> Result<Told, Told> {
    let path = pid_file(node.socket());
    let Some(pid) = living(&path) else {
        let Told { code, text } = node.unheard(why);
        let text = format!("{text}{}: no process of ours lives that has it\n", path.display());
        return Err(Told { code, text });
    };
    let (signal, name) = wish.signal();
    let failed = |error: rustix::io::Errno| {
        let text = format!("pid {}: {name} can not be sent: {error}\n", pid.as_raw_nonzero());
        Told { code: FAILED, text }
    };
    kill_process(pid, signal).map_err(failed)?;
    for _ in 1..LOOKS_MAX {
        // One asks it to end soon, another to end at once.
        if wish != Wish::Stop || living(&path).is_none() {
            break;
        }
        pause();
        let _ = kill_process(pid, signal);
    }
    let pid = pid.as_raw_nonzero();
    let text = match format {
        OutputFormat::Json => json!({"pid": pid.get(), "signal": name}).to_string(),
        OutputFormat::Text => {
            format!("control socket {}: {why}; sent {name} to pid {pid}", node.socket().display())
        }
    };
    Ok(Told { code: OK, text: text + "\n" })
}

#[expect(clippy::disallowed_methods, reason = "no core runs in a process of the command line")]
fn pause() {
    std::thread::sleep(PAUSE);
}

/// The process that holds the lock of a file, by what the file says.
fn living(path: &Path) -> Option<Pid> {
    let file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        // Whoever wrote it is dead.
        Ok(()) | Err(TryLockError::Error(_)) => return None,
    }
    Pid::from_raw(fs::read_to_string(path).ok()?.trim().parse().ok()?)
}

//! The program that publishes records in DNS: `PROGRAM … add NAME VALUE`, and `remove` when the authority has looked. No shell is
//! in between, and nothing of ours is in its environment beyond what the gateway was started with.

use std::process::Stdio;

use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use crate::control::log;
use crate::model::settings::AcmeIssuer;

/// Most bytes of what it says that are logged.
const SAID_BYTES_MAX: u64 = 4096;

/// A record of type TXT.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) value: String,
}

/// What is to be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Add,
    Remove,
}

impl Act {
    const fn word(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

/// Runs the program of an authority and waits for it.
///
/// # Errors
/// When it can not be run, fails, or is too slow: then it is killed.
pub(super) async fn run(issuer: &AcmeIssuer, act: Act, record: &Record) -> Result<(), String> {
    let done = match &issuer.hook {
        None => Err("there is no hook".to_owned()),
        Some(hook) => {
            let patience = hook.timeout.get();
            timeout(patience, once(&hook.command, act, record))
                .await
                .unwrap_or_else(|_| Err(format!("it is not over after {patience:?}")))
        }
    };
    done.map_err(|why| {
        let why = format!("the hook of acme issuer {}: {} {}: {why}", issuer.name, act.word(), record.name);
        log::error(why.clone());
        why
    })
}

async fn once(words: &[String], act: Act, record: &Record) -> Result<(), String> {
    let Some((program, arguments)) = words.split_first() else {
        return Err("no program is named".to_owned());
    };
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut child = Command::new(program)
        .args(arguments)
        .args([act.word(), &record.name, &record.value])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::join!(said(stdout), said(stderr), child.wait());
    let lines = [out, err].concat();
    for line in String::from_utf8_lossy(&lines).lines().filter(|line| !line.trim().is_empty()) {
        log::info(format!("{program}: {line}"));
    }
    let status = status.map_err(failed)?;
    if status.success() { Ok(()) } else { Err(format!("{program}: {status}")) }
}

/// The first of what it says; the rest is read and passed over, so that it is not held up.
async fn said(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(SAID_BYTES_MAX).read_to_end(&mut text).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    text
}

//! The binary under test: started to serve, or run to its end.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What is run: the binary built with these tests, or the one `RINGWAY_TEST_BINARY` names, such as a release build
/// or what a package installed.
fn binary() -> PathBuf {
    std::env::var_os("RINGWAY_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_ringway").into(), PathBuf::from)
}

/// Starts the binary in a folder, on the files there.
pub(super) fn launch(
    dir: &Path,
    managed: bool,
    env: &[(&'static str, &'static str)],
    said: &Arc<Mutex<Vec<String>>>,
) -> (Child, Vec<JoinHandle<()>>) {
    let mut command = Command::new(binary());
    command.args(["run", "-c", "config.yaml", "--ready-file", "ready.json"]);
    if !managed {
        command.args(["--resources", "apisix.yaml"]);
    }
    let mut child = command
        .current_dir(dir)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let listeners = vec![
        listen(child.stdout.take().expect("stdout is piped"), Arc::clone(said)),
        listen(child.stderr.take().expect("stderr is piped"), Arc::clone(said)),
    ];
    (child, listeners)
}

/// Runs the binary to its end: exit code, and all it said.
#[track_caller]
pub(crate) fn ringway(dir: &Path, arguments: &[&str]) -> (i32, String) {
    ringway_with(dir, arguments, &[])
}

/// [`ringway`] with variables of the environment.
#[track_caller]
pub(crate) fn ringway_with(dir: &Path, arguments: &[&str], env: &[(&str, &str)]) -> (i32, String) {
    let mut child = Command::new(binary())
        .args(arguments)
        .current_dir(dir)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let listeners = [
        listen(child.stdout.take().expect("stdout is piped"), Arc::clone(&said)),
        listen(child.stderr.take().expect("stderr is piped"), Arc::clone(&said)),
    ];
    let mut status = None;
    for _ in 0..1000 {
        status = child.try_wait().unwrap();
        if status.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    listeners.into_iter().for_each(|listener| listener.join().unwrap());
    let said = said.lock().unwrap().join("\n");
    let status = status.unwrap_or_else(|| panic!("ringway {arguments:?} does not end; it said:\n{said}"));
    (status.code().unwrap_or(-1), said)
}

/// Has files checked: exit code, and what was said.
#[track_caller]
pub(crate) fn check(arguments: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    ringway(dir.path(), &[&["check"], arguments].concat())
}

/// Collects the lines of a stream until it ends.
fn listen(stream: impl Read + Send + 'static, said: Arc<Mutex<Vec<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            said.lock().unwrap().push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    })
}

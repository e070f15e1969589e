//! A real etcd, on ports of the system's choice and in a folder of its own. What tests write is written by
//! `etcdctl`, as an operator would.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::certs::Certs;
use super::within;

/// How long it may take to start, on a machine busy with other tests.
const START: Duration = Duration::from_secs(30);
/// Ports are free when they are looked for, and may be taken when etcd comes to them.
const TRIES: usize = 5;
/// Operations in one transaction, which is what etcd takes.
const TXN_OPS: usize = 100;

/// A running etcd. Dropping it ends it.
pub(crate) struct Etcd {
    dir: tempfile::TempDir,
    client: String,
    peer: String,
    /// `USER:PASSWORD`, where it asks for one.
    user: Option<String>,
    /// Arguments by which it and `etcdctl` speak TLS.
    tls: Option<Tls>,
    child: Option<Child>,
}

struct Tls {
    server: Vec<String>,
    client: Vec<String>,
}

impl Etcd {
    /// Starts an empty one.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(|| None)
    }

    /// The same over TLS, with the certificate `server`; whoever comes needs one by `ca`, as `client` is.
    #[track_caller]
    pub(crate) fn start_tls(certs: &Certs) -> Self {
        let path = |name: &str| certs.path(name).to_str().expect("a plain name").to_owned();
        let words = |words: &[(&str, &str)]| {
            words.iter().flat_map(|(word, file)| [(*word).to_owned(), path(file)]).collect::<Vec<_>>()
        };
        let server =
            [("--cert-file", "server.crt"), ("--key-file", "server"), ("--trusted-ca-file", "ca.crt")];
        let client = [("--cacert", "ca.crt"), ("--cert", "client.crt"), ("--key", "client")];
        Self::start_with(|| {
            let server = [words(&server), vec!["--client-cert-auth".to_owned()]].concat();
            Some(Tls { server, client: words(&client) })
        })
    }

    #[track_caller]
    fn start_with(tls: impl Fn() -> Option<Tls>) -> Self {
        for _ in 0..TRIES {
            let dir = tempfile::tempdir().unwrap();
            let (client, peer) = (free_address(), free_address());
            let mut etcd = Self { dir, client, peer, user: None, tls: tls(), child: None };
            if etcd.launch() {
                return etcd;
            }
        }
        panic!("etcd does not start (Debian has it as etcd-server, and etcdctl as etcd-client)");
    }

    /// Where it is, as settings have it.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "https" } else { "http" }, self.client)
    }

    /// The settings of a gateway that has its objects there.
    pub(crate) fn settings(&self) -> String {
        format!("etcd: {{endpoints: ['{}'], timeout: 5, startup_retry: 0}}", self.endpoint())
    }

    /// Starts the process and waits until it serves; whether it does.
    #[track_caller]
    fn launch(&mut self) -> bool {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let (client, peer) = (self.endpoint(), format!("http://{}", self.peer));
        let child = Command::new("etcd")
            .args(["--name", "default", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            .args(self.tls.iter().flat_map(|tls| &tls.server))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("etcd: {error}; Debian has it in the package etcd-server"));
        self.child = Some(child);
        let is_up = within(START, "etcd serves or ends", || {
            if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                return Some(false);
            }
            self.ctl()
                .args(["endpoint", "health"])
                .output()
                .is_ok_and(|out| out.status.success())
                .then_some(true)
        });
        if !is_up {
            self.child = None;
        }
        is_up
    }

    /// Ends it, as a power cut would.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("etcd runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, where it was and on what it had.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.launch(), "etcd does not start again: {}", self.log());
    }

    /// Starts it again, where it was and on nothing.
    #[track_caller]
    pub(crate) fn start_again_empty(&mut self) {
        fs::remove_dir_all(self.dir.path().join("data")).unwrap();
        self.start_again();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn ctl(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoint()]).stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
        command.args(self.tls.iter().flat_map(|tls| &tls.client));
        command
    }

    /// Runs `etcdctl` with these words; what it said.
    #[track_caller]
    pub(crate) fn say(&self, words: &[&str]) -> String {
        let out = self
            .ctl()
            .args(words)
            .output()
            .unwrap_or_else(|error| panic!("etcdctl: {error}; Debian has it in the package etcd-client"));
        assert!(out.status.success(), "etcdctl {words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// From here on it asks everybody for a password; root has this one.
    #[track_caller]
    pub(crate) fn ask_for_password(&mut self, password: &str) {
        let root = format!("root:{password}");
        self.say(&["user", "add", &root]);
        self.say(&["user", "grant-role", "root", "root"]);
        self.say(&["auth", "enable"]);
        self.user = Some(root);
    }

    /// Writes a key below `/apisix/`.
    #[track_caller]
    pub(crate) fn put(&self, name: &str, value: &str) {
        self.say(&["put", &format!("/apisix/{name}"), value]);
    }

    /// Deletes a key below `/apisix/`.
    #[track_caller]
    pub(crate) fn delete(&self, name: &str) {
        self.say(&["del", &format!("/apisix/{name}")]);
    }

    /// What a key below `/apisix/` holds; empty: it is not there.
    #[track_caller]
    pub(crate) fn value(&self, name: &str) -> String {
        self.say(&["get", "--print-value-only", &format!("/apisix/{name}")]).trim_end().to_owned()
    }

    /// Writes many keys below `/apisix/`, as quickly as it takes them.
    #[track_caller]
    pub(crate) fn put_many(&self, objects: &[(String, String)]) {
        for part in objects.chunks(TXN_OPS) {
            let mut text = String::from("\n");
            for (name, value) in part {
                text.push_str(&format!("put /apisix/{name} {value:?}\n"));
            }
            text.push_str("\n\n");
            let mut child =
                self.ctl().arg("txn").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            child.stdin.take().expect("stdin is piped").write_all(text.as_bytes()).unwrap();
            let out = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&out.stdout);
            assert!(out.status.success() && said.contains("SUCCESS"), "etcdctl txn: {said}");
        }
    }

    /// Throws all revisions before the present away.
    #[track_caller]
    pub(crate) fn compact(&self) {
        let status: serde_json::Value = serde_json::from_str(&self.say(&["get", "x", "-w", "json"])).unwrap();
        self.say(&["compact", &status["header"]["revision"].to_string()]);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("---- etcd said last:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

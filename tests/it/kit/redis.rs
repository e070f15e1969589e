//! A real Redis, on a port of the system's choice and with nothing on disk.

use std::cell::Cell;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Certs, within};

/// How long it may take to start, on a machine busy with other tests.
const START: Duration = Duration::from_secs(30);
/// Ports are free when they are looked for, and may be taken when Redis comes to them.
const TRIES: usize = 5;

/// A running Redis. Dropping it ends it.
pub(crate) struct Redis {
    port: u16,
    password: Option<&'static str>,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// What has a Redis speak TLS on another port.
pub(super) fn tls_arguments(certs: &Certs, port: u16) -> Vec<String> {
    let path = |name: &str| certs.path(name).to_str().unwrap().to_owned();
    let words = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", path("redis.crt")),
        ("--tls-key-file", path("redis")),
        ("--tls-ca-cert-file", path("ca.crt")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    words.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// A port that is free now.
pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Redis {
    /// Starts an empty one.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(None, |_| Vec::new())
    }

    /// Starts an empty one that asks everybody for this password.
    #[track_caller]
    pub(crate) fn asking_for(password: &'static str) -> Self {
        Self::start_with(Some(password), |_| vec!["--requirepass".to_owned(), password.to_owned()])
    }

    /// Starts an empty one that sleeps when it is told to.
    #[track_caller]
    pub(crate) fn that_may_sleep() -> Self {
        Self::start_with(None, |_| vec!["--enable-debug-command".to_owned(), "yes".to_owned()])
    }

    /// Starts one with more arguments, for the port that it gets.
    #[track_caller]
    pub(super) fn start_with(password: Option<&'static str>, more: impl Fn(u16) -> Vec<String>) -> Self {
        Self::launch_any(password, |port| {
            let port_text = port.to_string();
            let usual = ["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
            usual.into_iter().map(str::to_owned).chain(more(port)).collect()
        })
    }

    /// Starts one with these arguments, for the port that it gets.
    #[track_caller]
    pub(super) fn launch_any(password: Option<&'static str>, arguments: impl Fn(u16) -> Vec<String>) -> Self {
        for _ in 0..TRIES {
            let port = free_port();
            let mut redis = Self { port, password, arguments: arguments(port), child: None };
            if redis.launch() {
                return redis;
            }
        }
        panic!("redis-server does not start (Debian has it in the package redis-server)");
    }

    /// Starts an empty one that speaks TLS as well, with a key `redis` of which there is a certificate by `ca`; and the
    /// port for that.
    #[track_caller]
    pub(crate) fn secure(certs: &Certs) -> (Self, u16) {
        let secure_port = Cell::new(0);
        let redis = Self::start_with(None, |_| {
            secure_port.set(free_port());
            tls_arguments(certs, secure_port.get())
        });
        (redis, secure_port.get())
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Starts the process and waits until it serves; whether it does.
    #[track_caller]
    fn launch(&mut self) -> bool {
        let child = Command::new("redis-server")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("redis-server: {error}; Debian has it in the package redis-server")
            });
        self.child = Some(child);
        within(START, "redis-server serves or ends", || {
            if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                return Some(false);
            }
            (self.try_say(&["PING"]).as_deref() == Some("PONG")).then_some(true)
        })
    }

    /// As a plugin is told of it.
    pub(crate) fn fields(&self) -> String {
        format!("policy: redis, redis_host: 127.0.0.1, redis_port: {}", self.port)
    }

    /// Ends it, as a power cut would.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("redis-server runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, where it was and with nothing in it.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.launch(), "redis-server does not start again");
    }

    /// Has it stand still.
    pub(crate) fn pause(&self) {
        self.kill("STOP");
    }

    /// And go on.
    pub(crate) fn go_on(&self) {
        self.kill("CONT");
    }

    fn kill(&self, name: &str) {
        let pid = self.child.as_ref().expect("redis-server runs").id();
        let told = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().unwrap();
        assert!(told.success(), "redis-server is gone before {name}");
    }

    /// Says something to it; what it replies, a line for each part.
    #[track_caller]
    pub(crate) fn say(&self, words: &[&str]) -> String {
        self.try_say(words).unwrap_or_else(|| panic!("redis-cli {words:?} failed"))
    }

    fn try_say(&self, words: &[&str]) -> Option<String> {
        let out = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--no-auth-warning"])
            .args(self.password.iter().flat_map(|password| ["-a", password]))
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("redis-cli: {error}; Debian has it in the package redis-tools"));
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

//! Load by wrk, the tool that users measure with, until it is told to end.

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// Longer than any test: it is ended before.
const SECONDS_MAX: u32 = 300;

/// wrk at work.
pub(crate) struct Wrk(Child);

impl Wrk {
    /// So many connections ask for the path, each as fast as it is answered.
    #[track_caller]
    pub(crate) fn start(to: SocketAddr, path: &str, connections: usize) -> Self {
        let child = Command::new("wrk")
            .args(["--threads", "1", "--timeout", "10s"])
            .args(["--connections", &connections.to_string(), "--duration", &format!("{SECONDS_MAX}s")])
            .arg(format!("http://{to}{path}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("no wrk ({error}); scripts/test installs it"));
        Self(child)
    }

    /// Ends the load: how many answers came. Each was good and no connection broke.
    #[track_caller]
    pub(crate) fn end(mut self) -> u64 {
        let told = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status().unwrap();
        assert!(told.success(), "wrk ended by itself");
        let mut said = String::new();
        self.0.stdout.take().expect("stdout is piped").read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
        let line =
            said.lines().find(|line| line.contains(" requests in ")).unwrap_or_else(|| panic!("{said}"));
        line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count of requests")
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! A real nginx that speaks TLS for a server which does not.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::certs::Certs;
use super::eventually;

/// A running nginx. Dropping it ends it.
pub(crate) struct Front {
    _dir: tempfile::TempDir,
    address: String,
    child: Child,
}

impl Front {
    /// In front of `to`, with the certificate `server`.
    #[track_caller]
    pub(crate) fn start(to: &str, certs: &Certs) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self::start_at(address, to, certs)
    }

    /// The same where it is told to listen, such as `unix:/path`.
    #[track_caller]
    pub(crate) fn start_at(address: String, to: &str, certs: &Certs) -> Self {
        Self::speaking("ssl", address, to, certs)
    }

    /// The same, where both HTTP/2 and HTTP/1.1 are spoken. What was is in `X-Spoken`.
    #[track_caller]
    pub(crate) fn of_both(to: &str, certs: &Certs) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self::speaking("ssl http2", address, to, certs)
    }

    #[track_caller]
    fn speaking(spoken: &str, address: String, to: &str, certs: &Certs) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().display();
        let (certificate, key) = (certs.path("server.crt"), certs.path("server"));
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;\nevents {{}}\nhttp {{\n{temp}  \
             access_log off;\n  server {{ listen {address} {spoken}; client_max_body_size 9m; ssl_certificate {}; ssl_certificate_key {}; \
             location / {{ proxy_pass http://{to}; proxy_set_header X-Spoken $server_protocol; }} }}\n}}\n",
            certificate.display(),
            key.display(),
        );
        fs::write(dir.path().join("nginx.conf"), config).unwrap();
        let child = Command::new("nginx")
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx: {error}; Debian has it in the package nginx"));
        eventually("nginx serves", || match address.strip_prefix("unix:") {
            Some(path) => UnixStream::connect(path).map(drop).ok(),
            None => TcpStream::connect(&address).map(drop).ok(),
        });
        Self { _dir: dir, address, child }
    }

    /// Where it is, as a node.
    pub(crate) fn node(&self) -> &str {
        &self.address
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

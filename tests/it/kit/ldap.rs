//! A real directory, slapd, on ports of the system's choice and in a folder of its own.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::redis::free_port;
use super::{Certs, within};

/// How long it may take to start, on a machine busy with other tests.
const START: Duration = Duration::from_secs(30);
/// Ports are free when they are looked for, and may be taken when slapd comes to them.
const TRIES: usize = 5;
/// Where Debian has it.
const SLAPD: [&str; 2] = ["/usr/sbin/slapd", "/usr/sbin/slapadd"];

/// A running directory. Dropping it ends it.
pub(crate) struct Directory {
    dir: tempfile::TempDir,
    pub(crate) port: u16,
    /// Where it speaks TLS.
    pub(crate) secure_port: u16,
    child: Option<Child>,
}

impl Directory {
    /// Starts one with these users and their passwords below `ou=users,dc=example,dc=org`. It speaks TLS with a key `ldap` of which
    /// there is a certificate by `ca`. A bind without a password succeeds there, as a bind of nobody.
    #[track_caller]
    pub(crate) fn start(certs: &Certs, users: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let key = |name: &str| certs.path(name).display().to_string();
        let conf = format!(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
             allow bind_anon_cred bind_anon_dn\n\
             TLSCertificateFile {}\nTLSCertificateKeyFile {}\n\
             database mdb\nmaxsize 1048576\nsuffix dc=example,dc=org\ndirectory {}\n",
            key("ldap.crt"),
            key("ldap"),
            at("data"),
        );
        let mut entries = "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n\n\
                           dn: ou=users,dc=example,dc=org\nobjectClass: organizationalUnit\nou: users\n\n"
            .to_owned();
        for (name, password) in users {
            entries += &format!(
                "dn: cn={name},ou=users,dc=example,dc=org\nobjectClass: person\nsn: x\nuserPassword: {password}\n\n"
            );
        }
        fs::write(at("slapd.conf"), conf).unwrap();
        fs::write(at("users.ldif"), entries).unwrap();
        let added =
            command(SLAPD[1]).args(["-f", &at("slapd.conf"), "-l", &at("users.ldif")]).output().unwrap();
        assert!(added.status.success(), "slapadd: {}", String::from_utf8_lossy(&added.stderr));
        let mut directory = Self { dir, port: 0, secure_port: 0, child: None };
        for _ in 0..TRIES {
            (directory.port, directory.secure_port) = (free_port(), free_port());
            if directory.launch() {
                return directory;
            }
        }
        panic!("slapd does not start (Debian has it in the package slapd)");
    }

    /// Starts the process and waits until it serves; whether it does.
    #[track_caller]
    fn launch(&mut self) -> bool {
        let urls = format!("ldap://127.0.0.1:{} ldaps://127.0.0.1:{}", self.port, self.secure_port);
        let conf = self.dir.path().join("slapd.conf");
        let child = command(SLAPD[0]).args(["-d", "0", "-h", &urls, "-f"]).arg(conf).spawn();
        self.child =
            Some(child.unwrap_or_else(|error| panic!("slapd: {error}; Debian has it in the package slapd")));
        within(START, "slapd serves or ends", || {
            if self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) {
                return Some(false);
            }
            TcpStream::connect(("127.0.0.1", self.port)).is_ok().then_some(true)
        })
    }

    /// Ends it, as a power cut would.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("slapd runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again, where it was and with all that it has.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.launch(), "slapd does not start again");
    }
}

fn command(path: &str) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

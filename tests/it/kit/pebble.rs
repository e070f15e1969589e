//! A real authority: Pebble, which is Let's Encrypt's for tests, and its name server, which says of every name that it is
//! here. It looks for gateways on the ports that it was started with.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::json;

use super::certs::Certs;
use super::client::{Client, request};
use super::tls::Caller;
use super::within;

/// How long it may take to start, on a machine busy with other tests.
const START: Duration = Duration::from_secs(30);
/// Ports are free when they are looked for, and may be taken when they are come to.
const TRIES: usize = 5;

/// A running authority. Dropping it ends it.
pub(crate) struct Pebble {
    certs: Certs,
    /// Seconds for which certificates hold.
    seconds: u64,
    /// The id and the key of the accounts that it wants ours to be bound to.
    bound_to: Option<(&'static str, &'static str)>,
    /// The directory, the management, the name server, and its management.
    ports: [u16; 4],
    /// Where it looks for gateways, in clear and over TLS.
    pub(crate) http: u16,
    pub(crate) https: u16,
    children: Vec<Child>,
}

impl Pebble {
    /// Starts one whose certificates hold for so many seconds.
    #[track_caller]
    pub(crate) fn start(seconds: u64) -> Self {
        Self::start_with(seconds, None)
    }

    /// The same, which wants accounts to be bound to another that it knows by this id and key.
    #[track_caller]
    pub(crate) fn start_binding(seconds: u64, id: &'static str, key: &'static str) -> Self {
        Self::start_with(seconds, Some((id, key)))
    }

    #[track_caller]
    fn start_with(seconds: u64, bound_to: Option<(&'static str, &'static str)>) -> Self {
        for _ in 0..TRIES {
            let certs = Certs::new();
            certs.authority("ca");
            certs.here("ca", "server");
            let ports = [(); 4].map(|()| free_port());
            let mut pebble = Self {
                certs,
                seconds,
                bound_to,
                ports,
                http: free_port(),
                https: free_port(),
                children: Vec::new(),
            };
            if pebble.launch() {
                return pebble;
            }
        }
        panic!("pebble does not start (Debian has it, and pebble-challtestsrv, in the package pebble)");
    }

    /// Ends it, as a power cut would: it forgets everything.
    pub(crate) fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, where it was, knowing nobody.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        assert!(self.launch(), "pebble does not start again: {}", self.log());
    }

    /// Starts the processes and waits until they serve; whether they do.
    fn launch(&mut self) -> bool {
        let [directory, management, names, names_management] =
            self.ports.map(|port| format!("127.0.0.1:{port}"));
        let mut config = json!({"pebble": {
            "listenAddress": directory, "managementListenAddress": management,
            "certificate": self.certs.path("server.crt"), "privateKey": self.certs.path("server"),
            "httpPort": self.http, "tlsPort": self.https, "certificateValidityPeriod": self.seconds,
        }});
        if let Some((id, key)) = self.bound_to {
            config["pebble"]["externalAccountBindingRequired"] = json!(true);
            config["pebble"]["externalAccountMACKeys"] = json!({id: key});
        }
        let file = self.certs.path("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let log = || {
            let path = self.certs.path("pebble.log");
            Stdio::from(fs::File::options().create(true).append(true).open(path).unwrap())
        };
        let pebble = Command::new("pebble")
            .args(["-config", file.to_str().unwrap(), "-dnsserver", &names])
            // It looks at once, accepts every nonce of its own, and wants each name proven for each order.
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn();
        let server = Command::new("pebble-challtestsrv")
            .args(["-dns01", &names, "-management", &names_management, "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn();
        let started = [pebble, server];
        self.children = started
            .map(|child| {
                child.unwrap_or_else(|error| panic!("{error}; Debian has both in the package pebble"))
            })
            .into();
        let mut is_up = false;
        within(START, "pebble serves or ends", || {
            if self.children.iter_mut().any(|child| child.try_wait().unwrap().is_some()) {
                return Some(());
            }
            let answers = |port: &u16| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok();
            is_up = self.ports.iter().all(answers);
            is_up.then_some(())
        });
        if !is_up {
            self.stop();
        }
        is_up
    }

    /// The settings of a gateway that asks it, by the name `pebble`, and listens where it looks; with more of the issuer.
    pub(crate) fn settings(&self, more: &str) -> String {
        json!({
            "acme": [self.issuer("pebble", more)],
            "listen": [format!("127.0.0.1:{}", self.http)],
            "ssl": {"listen": [format!("127.0.0.1:{}", self.https)]},
        })
        .to_string()
    }

    /// It as an issuer of this name, with more.
    pub(crate) fn issuer(&self, name: &str, more: &str) -> serde_json::Value {
        let mut issuer = json!({
            "name": name,
            "directory": format!("https://127.0.0.1:{}/dir", self.ports[0]),
            "email": "admin@ringway.test",
            "terms_agreed": true,
            "trusted_certificate": self.certs.path("ca.crt"),
            "retry_interval": 0.2,
        });
        super::gateway::lay(&mut issuer, super::yaml(more));
        issuer
    }

    /// Who believes what it issues.
    #[track_caller]
    pub(crate) fn believer(&self) -> Caller {
        let here = SocketAddr::from(([127, 0, 0, 1], self.ports[1]));
        let mut client = Caller::new(&self.certs, "ca", None).client(here, "127.0.0.1");
        let root = client.get("/roots/0").expect_status(200).text();
        fs::write(self.certs.path("pebble.crt"), root).unwrap();
        Caller::new(&self.certs, "pebble", None)
    }

    /// Who believes nothing that it issues.
    pub(crate) fn stranger(&self) -> Caller {
        Caller::new(&self.certs, "ca", None)
    }

    /// A program that publishes records with its name server, noting what it is told in `hook.log`.
    pub(crate) fn hook(&self) -> Vec<String> {
        let (script, log) = (self.certs.path("hook"), self.certs.path("hook.log"));
        let text = format!(
            r#"echo "$@" >> {log}
case $1 in add) path=set-txt ;; *) path=clear-txt ;; esac
curl -sS --fail -o /dev/null -d "{{\"host\":\"$2.\",\"value\":\"$3\"}}" http://127.0.0.1:{port}/$path
echo "published $1"
"#,
            log = log.display(),
            port = self.ports[3],
        );
        fs::write(&script, text).unwrap();
        vec!["sh".to_owned(), script.display().to_string()]
    }

    /// What the hook was told, a line each time.
    pub(crate) fn hooked(&self) -> String {
        fs::read_to_string(self.certs.path("hook.log")).unwrap_or_default()
    }

    /// How many certificates it has issued.
    pub(crate) fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }

    /// Has it look for a name at another address than here.
    #[track_caller]
    pub(crate) fn place(&self, name: &str, address: &str) {
        let body = json!({"host": format!("{name}."), "addresses": [address]}).to_string();
        let mut client = Client::connect(SocketAddr::from(([127, 0, 0, 1], self.ports[3])));
        client.raw.send(request("POST", "/add-a", &[], body.as_bytes())).answer().expect_status(200);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.certs.path("pebble.log")).unwrap_or_default()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("---- pebble said last:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

/// A port that nobody has, below those that the system gives to others.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 22_000 + (std::process::id() % 90) as u16 * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 1000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

//! The gateway under test: the real binary, in a folder of its own, on ports of the system's choice.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};

use super::admin::Admin;
use super::binary::{launch, ringway};
use super::client::{Answer, Client, Raw};
use super::drivers::{self, Driver};
use super::origin::Origin;
use super::{eventually, within};

/// How long a start may take, on a machine busy with other tests.
const START: Duration = Duration::from_secs(15);

/// YAML as a value.
#[track_caller]
pub(crate) fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error} in:\n{text}"))
}

/// Lays `over` upon `under`: objects field by field, arrays one after the other, anything else replaced.
pub(super) fn lay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                lay(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(under), Value::Array(over)) => under.extend(over),
        (under, over) => *under = over,
    }
}

/// A gateway to be.
#[derive(Clone)]
pub(crate) struct Setup {
    settings: Value,
    resources: Value,
    driver: Driver,
    env: Vec<(&'static str, &'static str)>,
    state: Option<PathBuf>,
    may_panic: bool,
}

impl Setup {
    fn new(resources: Value) -> Self {
        let settings = json!({
            "listen": ["127.0.0.1:0"],
            "ssl": {"listen": []},
            "cores": 1,
            "metrics": {"listen": "127.0.0.1:0"},
            "status": {"listen": "127.0.0.1:0"},
            "control": {"listen": "127.0.0.1:0"},
            "access_log": {"format": "json", "buffer_bytes": 0, "flush_interval": 0.02},
            "log": {"level": "debug"},
        });
        Self {
            settings,
            resources,
            driver: drivers::current(),
            env: Vec::new(),
            state: None,
            may_panic: false,
        }
    }

    /// Adds fields, as YAML, to the upstream of the first route.
    #[track_caller]
    pub(crate) fn with(mut self, fields: &str) -> Self {
        lay(&mut self.resources["routes"][0]["upstream"], yaml(fields));
        self
    }

    /// Adds fields, as YAML, to the first route.
    #[track_caller]
    pub(crate) fn route(mut self, fields: &str) -> Self {
        lay(&mut self.resources["routes"][0], yaml(fields));
        self
    }

    /// Adds objects, as YAML with the names of their kinds on top. `{NAME}` was replaced by the caller.
    #[track_caller]
    pub(crate) fn objects(mut self, objects: &str) -> Self {
        lay(&mut self.resources, yaml(objects));
        self
    }

    /// Adds settings, as YAML.
    #[track_caller]
    pub(crate) fn settings(mut self, settings: &str) -> Self {
        lay(&mut self.settings, yaml(settings));
        self
    }

    pub(crate) fn cores(mut self, cores: usize) -> Self {
        self.settings["cores"] = json!(cores);
        self
    }

    /// Sets a variable of the process's environment.
    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, value));
        self
    }

    /// Keeps what it has to keep in this folder, which is there already.
    pub(crate) fn state_on(mut self, folder: &Path) -> Self {
        self.state = Some(folder.to_owned());
        self
    }

    /// A panic is what the test is about.
    #[cfg_attr(not(feature = "test-plugins"), expect(dead_code, reason = "needs a plugin that panics"))]
    pub(crate) fn that_may_panic(mut self) -> Self {
        self.may_panic = true;
        self
    }

    /// Writes the files, starts the binary and waits until it says it is ready.
    #[track_caller]
    pub(crate) fn start(mut self) -> Gateway {
        let dir = tempfile::tempdir().unwrap();
        if let Some(folder) = &self.state {
            std::os::unix::fs::symlink(folder, dir.path().join("state")).unwrap();
        }
        self.settings["driver"] = json!(self.driver.name());
        self.settings["state_dir"] = json!(dir.path().join("state"));
        if self.settings["access_log"].get("output").is_none() {
            self.settings["access_log"]["output"] = json!(dir.path().join("access.log"));
        }
        fs::write(dir.path().join("config.yaml"), serde_yaml_ng::to_string(&self.settings).unwrap()).unwrap();
        let managed = self.resources.is_null();
        if !managed {
            write_resources(dir.path(), &serde_yaml_ng::to_string(&self.resources).unwrap());
        }
        let said = Arc::new(Mutex::new(Vec::new()));
        let (child, listeners) = launch(dir.path(), managed, &self.env, &said);
        let mut gateway = Gateway {
            dir,
            child,
            said,
            listeners,
            managed,
            admin: None,
            control: None,
            driver: self.driver,
            http: Vec::new(),
            https: Vec::new(),
            proxied: [None, None],
            metrics: None,
            status: None,
            may_panic: self.may_panic,
            may_exit: false,
        };
        gateway.wait_ready();
        gateway
    }

    /// The same for a start that must fail: the exit code and what was said.
    #[track_caller]
    pub(crate) fn start_and_fail(self) -> (i32, String) {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = self.settings;
        settings["driver"] = json!(self.driver.name());
        settings["state_dir"] = json!(dir.path().join("state"));
        fs::write(dir.path().join("config.yaml"), serde_yaml_ng::to_string(&settings).unwrap()).unwrap();
        write_resources(dir.path(), &serde_yaml_ng::to_string(&self.resources).unwrap());
        ringway(dir.path(), &["run", "-c", "config.yaml", "--resources", "apisix.yaml"])
    }

    /// The same where no file holds the objects.
    #[track_caller]
    pub(crate) fn start_and_fail_managed(mut self) -> (i32, String) {
        let dir = tempfile::tempdir().unwrap();
        self.settings["driver"] = json!(self.driver.name());
        self.settings["state_dir"] = json!(dir.path().join("state"));
        fs::write(dir.path().join("config.yaml"), serde_yaml_ng::to_string(&self.settings).unwrap()).unwrap();
        ringway(dir.path(), &["run", "-c", "config.yaml"])
    }
}

/// Replaced whole, as an editor or a deployment would, so that no half-written file is ever seen.
fn write_resources(dir: &Path, text: &str) {
    let fresh = dir.join("apisix.yaml.new");
    fs::write(&fresh, format!("{text}\n#END\n")).unwrap();
    fs::rename(fresh, dir.join("apisix.yaml")).unwrap();
}

/// What a process may be told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Term,
    Int,
    Hup,
    Usr1,
    Quit,
}

/// A running gateway. Dropping it kills the process, and fails the test if it had died before or had panicked.
pub(crate) struct Gateway {
    dir: tempfile::TempDir,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    listeners: Vec<JoinHandle<()>>,
    driver: Driver,
    http: Vec<SocketAddr>,
    https: Vec<SocketAddr>,
    /// Where load balancers connect: in clear, and over TLS.
    proxied: [Option<SocketAddr>; 2],
    metrics: Option<SocketAddr>,
    status: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    control: Option<SocketAddr>,
    /// Objects come through the Admin API, not from a file.
    managed: bool,
    may_panic: bool,
    may_exit: bool,
}

impl Gateway {
    /// No object yet: the Admin API will bring them.
    pub(crate) fn managed() -> Setup {
        Setup::new(Value::Null).settings("admin: {listen: '127.0.0.1:0'}")
    }

    /// Its Admin API, with the key that it made at its first start, if it asks for one.
    #[track_caller]
    pub(crate) fn admin(&self) -> Admin {
        let key = fs::read_to_string(self.path("state/admin.key")).unwrap_or_default().trim().to_owned();
        Admin { address: self.admin.expect("the gateway told where its Admin API is"), key }
    }

    /// Kills the process as a power cut would, and starts it again on what it left.
    #[track_caller]
    pub(crate) fn kill_and_start_again(&mut self) {
        self.cut_power();
        self.start_again();
    }

    /// Kills the process as a power cut would.
    #[track_caller]
    pub(crate) fn cut_power(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        fs::remove_file(self.path("ready.json")).unwrap();
        self.may_exit = true;
    }

    /// Starts a process that has ended again, on what it left.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.try_start_again().unwrap_or_else(|(code, said)| panic!("no start, {code}; it said:\n{said}"));
    }

    /// The same where the start may fail: then the exit code, and what was said.
    #[track_caller]
    pub(crate) fn try_start_again(&mut self) -> Result<(), (i32, String)> {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (child, listeners) = launch(self.dir.path(), self.managed, &[], &said);
        self.child = child;
        let file = self.path("ready.json");
        let ended = within(START, "the gateway starts or ends", || {
            let ended = self.child.try_wait().unwrap();
            (ended.is_some() || file.exists()).then_some(ended)
        });
        if let Some(status) = ended {
            listeners.into_iter().for_each(|listener| listener.join().unwrap());
            let said = said.lock().unwrap().join("\n");
            return Err((status.code().unwrap_or(-1), said));
        }
        self.said = said;
        self.listeners.extend(listeners);
        self.may_exit = false;
        self.wait_ready();
        Ok(())
    }

    /// One route to these origins, equal in weight.
    pub(crate) fn routing<'a>(uri: &str, origins: impl IntoIterator<Item = &'a Origin>) -> Setup {
        let nodes: Value = origins.into_iter().map(|origin| (origin.node(), json!(1))).collect();
        Setup::new(json!({
            "routes": [{"id": "1", "uri": uri, "upstream": {"type": "roundrobin", "nodes": nodes}}],
        }))
    }

    /// One route to the first of these origins, to the second when that fails, and so on.
    pub(crate) fn preferring<'a>(uri: &str, origins: impl IntoIterator<Item = &'a Origin>) -> Setup {
        let nodes: Vec<Value> = origins
            .into_iter()
            .enumerate()
            .map(|(at, origin)| {
                let address = origin.address();
                json!({"host": address.ip(), "port": address.port(), "weight": 1, "priority": 100 - at as i64})
            })
            .collect();
        Setup::new(json!({
            "routes": [{"id": "1", "uri": uri, "upstream": {"type": "roundrobin", "nodes": nodes}}],
        }))
    }

    /// These objects, as YAML in the form of a standalone file. Each `NAME` in `names` stands for an origin.
    #[track_caller]
    pub(crate) fn resources(text: &str, names: &[(&str, &Origin)]) -> Setup {
        Setup::new(yaml(&named(text, names)))
    }

    fn wait_ready(&mut self) {
        let file = self.dir.path().join("ready.json");
        let ready: Value = within(START, "the gateway is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.may_exit = true;
                panic!("the gateway did not start ({status}); it said:\n{}", self.said());
            }
            serde_json::from_slice(&fs::read(&file).ok()?).ok()
        });
        let address = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        self.http = ready["http"].as_array().into_iter().flatten().filter_map(address).collect();
        assert!(!self.http.is_empty(), "no address to connect to in {ready}");
        let driver = ready["driver"].as_str().unwrap_or_default();
        assert!(driver.starts_with(self.driver.name()), "told {:?}, runs on {driver}", self.driver);
        self.https = ready["https"].as_array().into_iter().flatten().filter_map(address).collect();
        self.proxied = ["proxied_http", "proxied_https"].map(|name| address(&ready[name][0]));
        self.metrics = address(&ready["metrics"]);
        self.status = address(&ready["status"]);
        self.admin = address(&ready["admin"]);
        self.control = address(&ready["control"]);
    }

    /// Runs the command line in the gateway's folder, where its settings are: exit code, and what was said.
    #[track_caller]
    pub(crate) fn cli(&self, words: &str) -> (i32, String) {
        ringway(self.dir.path(), &words.split_whitespace().collect::<Vec<_>>())
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.http[0]
    }

    /// Where clients connect over TLS.
    pub(crate) fn secure_address(&self) -> SocketAddr {
        self.https[0]
    }

    /// Where a load balancer connects that says for whom, in clear or with TLS behind.
    pub(crate) fn proxied_address(&self, is_tls: bool) -> SocketAddr {
        self.proxied[usize::from(is_tls)].expect("the gateway told where load balancers connect")
    }

    /// Where streams come in: the first of the places told under this name.
    #[track_caller]
    pub(crate) fn stream_address(&self, name: &str) -> SocketAddr {
        let ready: Value = serde_json::from_slice(&fs::read(self.path("ready.json")).unwrap()).unwrap();
        ready[name][0]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{name} in {ready}"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A file in the gateway's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A connection that is kept.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A connection that says exactly what it is told.
    #[track_caller]
    pub(crate) fn raw(&self) -> Raw {
        Raw::connect(self.address())
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.client().get(path)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Answer {
        self.client().post(path, body)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.client().request(method, path, headers, body)
    }

    /// These bytes on a connection of their own; the first answer.
    #[track_caller]
    pub(crate) fn say(&self, bytes: impl AsRef<[u8]>) -> Answer {
        self.raw().send(bytes).answer()
    }

    /// What Prometheus would scrape.
    #[track_caller]
    pub(crate) fn metrics(&self) -> String {
        let address = self.metrics.expect("the gateway told where its metrics are");
        Client::connect(address).get("/apisix/prometheus/metrics").expect_status(200).text()
    }

    /// The value of one line of the metrics, found by its beginning.
    #[track_caller]
    pub(crate) fn metric(&self, begins: &str) -> Option<f64> {
        let text = self.metrics();
        let line = text.lines().find(|line| line.starts_with(begins))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// What the status listener answers.
    #[track_caller]
    pub(crate) fn status(&self, path: &str) -> Answer {
        Client::connect(self.status.expect("the gateway told where its status is")).get(path)
    }

    /// What the control API answers.
    #[track_caller]
    pub(crate) fn control(&self, method: &str, path: &str) -> Answer {
        self.control_asking(method, path, &[])
    }

    /// The same, with headers.
    #[track_caller]
    pub(crate) fn control_asking(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let address = self.control.expect("the gateway told where its control API is");
        Client::connect(address).request(method, path, headers, b"")
    }

    /// What is said to one request on the control socket, as any HTTP client would make it, head and all.
    #[track_caller]
    pub(crate) fn on_socket(&self, method: &str, path: &str) -> String {
        let mut stream = UnixStream::connect(self.path("state/control.sock")).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    /// The access log so far.
    pub(crate) fn access_log(&self) -> String {
        fs::read_to_string(self.path("access.log")).unwrap_or_default()
    }

    /// Waits for the line of the access log that mentions this, as text.
    #[track_caller]
    pub(crate) fn logged_text(&self, mention: &str) -> String {
        eventually(&format!("a line of the access log with {mention:?}"), || {
            let log = self.access_log();
            let whole = &log[..log.rfind('\n')? + 1];
            whole.lines().find(|line| line.contains(mention)).map(str::to_owned)
        })
    }

    /// The same, parsed.
    #[track_caller]
    pub(crate) fn logged(&self, mention: &str) -> Value {
        let line = self.logged_text(mention);
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in the log line {line}"))
    }

    /// Why the answer to the request with this path was not the origin's, as logged.
    #[track_caller]
    pub(crate) fn reason(&self, mention: &str) -> String {
        self.logged(mention)["error_code"].as_str().unwrap_or_default().to_owned()
    }

    /// What the process said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Waits until the process says a line that contains all of these.
    #[track_caller]
    pub(crate) fn wait_said(&self, parts: &[&str]) -> String {
        eventually(&format!("the gateway says {parts:?}"), || {
            let said = self.said.lock().unwrap();
            said.iter().find(|line| parts.iter().all(|part| line.contains(part))).cloned()
        })
    }

    /// Replaces the resources, as YAML, and lets the gateway find out by itself.
    pub(crate) fn write(&self, text: &str, names: &[(&str, &Origin)]) {
        write_resources(self.dir.path(), &named(text, names));
    }

    /// The same and tells it to look.
    pub(crate) fn reload(&self, text: &str, names: &[(&str, &Origin)]) {
        self.write(text, names);
        self.signal(Signal::Hup);
    }

    /// The same and waits until the new state shows.
    #[track_caller]
    pub(crate) fn reload_until(&self, text: &str, names: &[(&str, &Origin)], shows: impl Fn(&Self) -> bool) {
        self.reload(text, names);
        eventually("the new resources are served", || shows(self).then_some(()));
    }

    /// Tells the process something.
    pub(crate) fn signal(&self, signal: Signal) {
        self.kill(match signal {
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Hup => "HUP",
            Signal::Usr1 => "USR1",
            Signal::Quit => "QUIT",
        });
    }

    /// Has the process stand still, all threads of it.
    pub(crate) fn pause(&self) {
        self.kill("STOP");
    }

    /// And go on.
    pub(crate) fn go_on(&self) {
        self.kill("CONT");
    }

    fn kill(&self, name: &str) {
        let told = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status().unwrap();
        assert!(told.success(), "the gateway is gone before {name}; it said:\n{}", self.said());
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end, which from now on is no failure.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> ExitStatus {
        self.may_exit = true;
        let child = &mut self.child;
        within(START, "the gateway ends", || child.try_wait().unwrap())
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> usize {
        resident_of(self.pid())
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

/// Resident memory of a process, in bytes.
pub(super) fn resident_of(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a process has resident memory");
    let kib: usize = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
    kib * 1024
}

/// Puts the addresses of origins in the place of their names.
fn named(text: &str, names: &[(&str, &Origin)]) -> String {
    names.iter().fold(text.to_owned(), |text, (name, origin)| text.replace(name, &origin.node()))
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let died = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        for listener in self.listeners.drain(..) {
            let _ = listener.join();
        }
        let said = self.said();
        if thread::panicking() {
            eprintln!("---- the gateway said:\n{said}\n---- its access log:\n{}", self.access_log());
            return;
        }
        if let (Some(status), false) = (died, self.may_exit) {
            panic!("the gateway died during the test ({status}); it said:\n{said}");
        }
        assert!(self.may_panic || !said.contains("panicked"), "the gateway panicked; it said:\n{said}");
    }
}

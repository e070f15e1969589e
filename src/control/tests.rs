//! The control plane over cores that are only letterboxes. Time is given, nothing is slept for.

use std::cell::Cell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use super::*;
use crate::link::mailbox::{Letterbox, mailbox};
use crate::link::outbox::{Outbox, outbox};
use crate::model::settings::AccessLogSettings;
use crate::snapshot::at_once;

/// Cores that do what the test says, under a control plane that is driven turn by turn.
struct Scene {
    control: Control,
    cores: Vec<(Letterbox<Order>, Arc<CoreStats>)>,
    are_done: Rc<Cell<bool>>,
    now: Moment,
    _out: Outbox,
}

impl Scene {
    async fn new(resources: Option<&Path>, ready_file: Option<PathBuf>) -> Self {
        let (mut mailboxes, mut cores, mut stats) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            let (mailbox, letterbox) = mailbox().expect("a pair");
            let core = Arc::new(CoreStats::default());
            mailboxes.push(mailbox);
            stats.push(Arc::clone(&core));
            cores.push((letterbox, core));
        }
        let mut settings = Settings::parse(
            "{status: {listen: '127.0.0.1:0'}, metrics: {listen: '127.0.0.1:0'}, admin: {enabled: false}, \
             control: {enabled: false}, control_socket: 'off', limits: {pre_stop_delay: 5, shutdown_timeout: 30}}",
            &|_| None,
        )
        .expect("valid");
        settings.access_log = AccessLogSettings { enabled: false, ..AccessLogSettings::default() };
        let mut compiler = Compiler::new(&settings, at_once(|_| Ok(Vec::new())));
        let (source, objects) = match resources {
            Some(path) => Source::open(path).map(|(source, objects)| (Some(source), objects)).expect("valid"),
            None => (None, crate::model::resources::Resources::default()),
        };
        let are_done = Rc::new(Cell::new(false));
        let (out, inbox) = outbox();
        let asked = Rc::clone(&are_done);
        let (doors, waiting) = Doors::new();
        let secrets = Secrets::new(&settings);
        let names = Names::new(&settings);
        let discovery = Discovery::new(&settings, &names);
        let holdings = Holdings::open(&settings, source.as_ref()).expect("a file holds the objects");
        let mut parts = Parts {
            ports: Ports::bind(&settings, &holdings).expect("ports are free"),
            holdings,
            first: compiler.compile(&objects),
            settings,
            resources: source,
            etcd: None,
            compiler,
            secrets,
            names,
            discovery,
            acme: Acme::open(&Settings::default()).expect("no authority is named"),
            mailboxes,
            stats: stats.clone(),
            inbox,
            cores_done: Box::new(move || asked.get()),
            leave_room: || {},
            driver: "none".to_owned(),
            listeners: vec![("http".to_owned(), "127.0.0.1:9080".parse().expect("an address"))],
            ready_file,
            reasons: &["route_not_found"],
        };
        let board = Arc::new(Board::new(stats, parts.reasons));
        let floor = Floor::build(&mut parts, &board, doors).expect("ports are free");
        let control = Control::new(parts, board, floor, waiting);
        Self { control, cores, are_done, now: Moment::from_nanos(1), _out: out }
    }

    /// The cores take their orders; what was not a snapshot is told.
    fn cores_work(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (letterbox, stats) in &self.cores {
            for order in letterbox.orders.try_iter() {
                match order {
                    Order::Swap(snapshot) => stats.generation.set(snapshot.generation),
                    other => told.push(format!("{other:?}")),
                }
            }
            stats.ready.set(1);
        }
        told
    }

    fn turn_after(&mut self, pause: Duration) -> Option<Ended> {
        self.now = self.now.plus(pause);
        self.control.turn(self.now)
    }

    /// Turns until a change of the file would have been seen.
    fn look(&mut self) {
        for _ in 0..3 {
            assert_eq!(self.turn_after(LOOK_EVERY), None);
            self.cores_work();
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.control.on_signal(signal, self.now);
    }

    fn generations(&self) -> Vec<u64> {
        self.cores.iter().map(|(_, stats)| stats.generation.get()).collect()
    }
}

fn route(id: u32) -> String {
    format!("routes: [{{id: {id}, uri: /, upstream: {{nodes: {{'127.0.0.1:1': 1}}}}}}]")
}

#[tokio::test]
async fn the_ready_file_appears_when_the_last_core_serves() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ready.json");
    let mut scene = Scene::new(None, Some(path.clone())).await;
    assert_eq!(scene.turn_after(LOOK_EVERY), None);
    assert!(!path.exists());
    scene.cores_work();
    assert_eq!(scene.turn_after(LOOK_EVERY), None);
    let ready: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).expect("written")).expect("JSON");
    assert_eq!(ready["http"][0], "127.0.0.1:9080");
    let metrics: SocketAddr = ready["metrics"].as_str().expect("text").parse().expect("an address");
    assert_ne!(metrics.port(), 0);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_a_mended_one_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("resources.yaml");
    fs::write(&path, route(1)).expect("written");
    let mut scene = Scene::new(Some(&path), None).await;
    scene.look();
    assert_eq!(scene.generations(), [1, 1]);

    fs::write(&path, "routes: [").expect("written");
    scene.look();
    assert_eq!(scene.generations(), [1, 1]);
    assert!(!scene.control.board.reload_ok());

    fs::write(&path, route(22)).expect("written");
    scene.look();
    assert_eq!(scene.generations(), [2, 2]);
    assert!(scene.control.board.reload_ok());
}

#[tokio::test]
async fn hup_reads_even_what_has_not_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("resources.yaml");
    fs::write(&path, route(1)).expect("written");
    let mut scene = Scene::new(Some(&path), None).await;
    scene.look();
    scene.signal(Signal::Hangup);
    scene.look();
    assert_eq!(scene.generations(), [2, 2]);
}

#[tokio::test]
async fn term_fails_readiness_first_and_ends_well_when_the_cores_do() {
    let mut scene = Scene::new(None, None).await;
    scene.look();
    assert!(!scene.control.board.is_draining());
    scene.signal(Signal::Terminate);
    assert!(scene.control.board.is_draining());
    assert_eq!(
        scene.cores_work(),
        ["Drain { accept_for: 5s, within: Some(30s), farewell: Some(Stopping) }"; 2]
    );
    assert_eq!(scene.turn_after(SECOND), None);
    scene.are_done.set(true);
    assert_eq!(scene.turn_after(SECOND), Some(Ended::Asked));
    assert_eq!(Ended::Asked.exit_code(), 0);
}

#[tokio::test]
async fn cores_that_do_not_end_in_time_are_stopped_and_then_left() {
    let mut scene = Scene::new(None, None).await;
    scene.look();
    scene.signal(Signal::Terminate);
    scene.cores_work();
    assert_eq!(scene.turn_after(Duration::from_secs(36)), None);
    assert_eq!(scene.cores_work(), Vec::<String>::new());
    assert_eq!(scene.turn_after(Duration::from_secs(2)), None);
    assert_eq!(scene.cores_work(), ["Stop"; 2]);
    let ended = scene.turn_after(Duration::from_secs(3));
    assert_eq!(ended, Some(Ended::Forced(Signal::Terminate)));
    assert_eq!(ended.map(Ended::exit_code), Some(143));
}

#[tokio::test]
async fn a_second_int_stops_at_once_and_the_exit_code_says_so() {
    let mut scene = Scene::new(None, None).await;
    scene.look();
    scene.signal(Signal::Interrupt);
    scene.signal(Signal::Interrupt);
    assert_eq!(scene.cores_work().last().map(String::as_str), Some("Stop"));
    scene.are_done.set(true);
    let ended = scene.turn_after(SECOND);
    assert_eq!(ended, Some(Ended::Forced(Signal::Interrupt)));
    assert_eq!(ended.map(Ended::exit_code), Some(130));
}

#[tokio::test]
async fn winch_drains_but_the_process_stays_until_told_to_go() {
    let mut scene = Scene::new(None, None).await;
    scene.look();
    scene.signal(Signal::WindowChange);
    assert_eq!(scene.cores_work(), ["Drain { accept_for: 0ns, within: None, farewell: None }"; 2]);
    assert!(scene.control.board.is_draining());
    scene.are_done.set(true);
    assert_eq!(scene.turn_after(SECOND), None);
    scene.signal(Signal::Quit);
    assert_eq!(scene.turn_after(SECOND), Some(Ended::Asked));
}

#[tokio::test]
async fn cores_that_end_by_themselves_are_a_failure() {
    let mut scene = Scene::new(None, None).await;
    scene.look();
    scene.are_done.set(true);
    let ended = scene.turn_after(SECOND);
    assert_eq!(ended.map(Ended::exit_code), Some(1));
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

#[tokio::test]
async fn status_and_metrics_answer_over_http_under_both_names() {
    let mut scene = Scene::new(None, None).await;
    let (status, metrics) =
        (scene.control.floor.status.expect("on"), scene.control.floor.metrics.expect("on"));
    let asked = tokio::task::spawn_blocking(move || {
        (get(status, "/status/ready"), get(metrics, "/metrics"), get(metrics, "/apisix/prometheus/metrics"))
    });
    let (ready, ours, theirs) = asked.await.expect("no panic");
    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(
        ready.ends_with(r#"{"status":"error","error":"worker id: 0 has not received configuration"}"#),
        "{ready}"
    );
    for text in [ours, theirs] {
        assert!(text.contains("content-type: text/plain; version=0.0.4"), "{text}");
        assert!(text.contains("\napisix_http_requests_total 0\n"), "{text}");
    }
    scene.look();
    let asked = tokio::task::spawn_blocking(move || (get(status, "/status"), get(status, "/readyz")));
    let (alive, ready) = asked.await.expect("no panic");
    assert!(alive.ends_with(r#"{"status":"ok"}"#), "{alive}");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
}

//! Start-up in order (compile, bind, cores, control thread), shut-down in reverse.
//!
//! Everything that can fail because of what the user wrote fails before the first connection is accepted: all
//! sockets are bound, all loops are built, then the cores accept.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::base::address::{Address, UnixPath};
use crate::cli::Launch;
use crate::control::discovery::Discovery;
use crate::control::names::{self, Names};
use crate::control::secrets::{Files, Secrets, environment};
use crate::control::source::etcd::Etcd;
use crate::control::{self, Acme, Ended, Holdings, Keeper, Parts, Ports, roots_of_nodes, ticket_keys};
use crate::edge;
use crate::link::handover::{self, Handed, Neighbours, Spoken};
use crate::link::ledger::Ledger;
use crate::link::mailbox::{Letterbox, Mailbox, mailbox};
use crate::link::outbox::outbox;
use crate::link::shelf::Shelves;
use crate::link::stats::CoreStats;
use crate::model::Settings;
use crate::model::resources::Resources;
use crate::model::settings::{self, Cores, Entrance};
use crate::runtime::core::Hatches;
use crate::runtime::driver::{Driver, Wanted};
use crate::runtime::listener::{self, Bound, Open};
use crate::runtime::tls::Aside;
use crate::runtime::unix::{self, SocketFile};
use crate::runtime::{Core, Limits, affinity, loan, sys, udp};
use crate::snapshot::compile::Outcome;
use crate::snapshot::{Compiler, Order, Resolve, Snapshot, limits_of};

/// What a first snapshot needs to learn of others, and the snapshot with what they have told in time.
fn complete(
    settings: &Settings,
    compiler: &mut Compiler,
    names: &Names,
    first: Outcome,
) -> io::Result<((Secrets, Discovery, Acme), Outcome)> {
    let mut secrets = Secrets::new(settings);
    let first = secrets.first(compiler)?.unwrap_or(first);
    let mut discovery = Discovery::new(settings, names);
    let first = discovery.first(compiler)?.unwrap_or(first);
    compiler.resolve_by(names.resolve_within(names::CHANGE));
    let mut acme = Acme::open(settings)?;
    let first = acme.first(compiler).unwrap_or(first);
    Ok(((secrets, discovery, acme), first))
}

/// A compiler that asks this machine.
fn compiler(settings: &Settings, resolve: Resolve) -> io::Result<Compiler> {
    let compiler = Compiler::new(settings, resolve)
        .reading_env(Box::new(environment))
        .reading_files(Files::new(settings).reader());
    Ok(compiler.trusting(roots_of_nodes(settings)).sharing_tickets(&ticket_keys(settings)?))
}

/// The first snapshot, of objects from wherever they are.
fn compile_first(
    compiler: &mut Compiler,
    etcd: Option<&mut Etcd>,
    holdings: &Holdings,
    of_files: Option<Resources>,
) -> io::Result<Outcome> {
    let first = match (etcd, of_files) {
        (Some(etcd), _) => holdings.follow(etcd, compiler),
        (None, Some(resources)) => {
            holdings.show(&resources)?;
            compiler.compile(&resources)
        }
        (None, None) => compiler.compile(&holdings.resources()),
    };
    // Whatever was read is made into something else by now.
    sys::give_memory_back();
    Ok(first)
}

/// Starts everything, and returns when everything has ended.
///
/// # Errors
/// When an address can not be had, or a loop not be built.
pub fn run(launch: Launch) -> io::Result<Ended> {
    let Launch { settings, source, resources, ready_file } = launch;
    sys::raise_descriptor_limit();
    sys::use_small_pages();
    let mut etcd = Etcd::open(&settings)?;
    let holdings = Holdings::open(&settings, source.as_ref())?;
    let names = Names::new(&settings);
    let mut compiler = compiler(&settings, names.resolve_within(names::START))?;
    let objects = source.is_some().then_some(resources);
    let first = compile_first(&mut compiler, etcd.as_mut(), &holdings, objects)?;
    let ((secrets, discovery, acme), first) = complete(&settings, &mut compiler, &names, first)?;
    let processors = processors(&settings.cores);
    let ports = Ports::bind(&settings, &holdings)?;
    let Bindings { names: addresses, doors, files } = Bindings::of(&settings, processors.len())?;
    let (report, inbox) = outbox();
    let ledger = Arc::new(Ledger::new());
    compiler.look_in(&ledger);
    let keeper = Keeper::start(&settings.state_dir, &ledger)?;
    let shelves = Arc::new(Shelves::new(processors.len()));
    let aside = Aside::start(processors.len())?;
    let shared = Hatches { outbox: report, stats: Arc::default(), ledger, shelves, aside };
    let (started, driver) = start_cores(&settings, &processors, doors, &shared, &first.snapshot)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Started { mailboxes, stats, threads } = started;
    // What it does for a change may wait for a request, not the other way round. Who writes records keeps its share: it is started before the rest.
    affinity::wait_for_turn();
    let ended = runtime.block_on(control::run(Parts {
        settings,
        resources: source,
        etcd,
        holdings,
        ports,
        compiler,
        secrets,
        names,
        discovery,
        acme,
        first,
        mailboxes,
        stats,
        inbox,
        cores_done: Box::new(move || threads.iter().all(JoinHandle::is_finished)),
        leave_room: affinity::leave_room,
        driver,
        listeners: addresses,
        ready_file,
        reasons: edge::REASONS,
    }));
    // The cores have ended, or are not waited for any more.
    keeper.end();
    drop(files);
    ended
}

/// Starts a core on each processor and waits until all have their loops; the name of the driver these have.
fn start_cores(
    settings: &Settings,
    processors: &[usize],
    mut doors: Vec<Doors>,
    shared: &Hatches,
    snapshot: &Arc<Snapshot>,
) -> io::Result<(Started, String)> {
    let (tell, hear) = mpsc::channel();
    let mut started = Started::default();
    let all_stats: Vec<Arc<CoreStats>> = processors.iter().map(|_| Arc::default()).collect();
    let neighbours = handover::among(&all_stats)?;
    let lenders = loan::among(processors.len())?;
    let each = processors.iter().zip(neighbours).zip(lenders);
    for (id, ((processor, (neighbours, handed)), lenders)) in each.enumerate() {
        let (post, letterbox) = mailbox()?;
        let seat = Seat {
            id: id as u16,
            processor: *processor,
            wanted: wanted(settings.driver),
            limits: limits_of(settings),
            hatches: Hatches { stats: Arc::clone(&all_stats[id]), ..shared.clone() },
            snapshot: Arc::clone(snapshot),
            doors: doors.pop().unwrap_or_default(),
            letterbox,
            neighbours,
            handed,
            lenders,
        };
        started.seat(seat, post, tell.clone())?;
    }
    // Only the cores' own ends are left: hearing ends when the last core has told how its start went.
    drop(tell);
    let driver = started.driver(&hear)?;
    Ok((started, driver))
}

/// The cores that were started.
#[derive(Default)]
struct Started {
    mailboxes: Vec<Mailbox<Order>>,
    stats: Vec<Arc<CoreStats>>,
    threads: Vec<JoinHandle<()>>,
}

impl Started {
    /// Starts another, which tells whether it has a loop.
    fn seat(
        &mut self,
        seat: Seat,
        mailbox: Mailbox<Order>,
        tell: mpsc::Sender<io::Result<String>>,
    ) -> io::Result<()> {
        self.mailboxes.push(mailbox);
        self.stats.push(Arc::clone(&seat.hatches.stats));
        let thread = std::thread::Builder::new().name(format!("core-{}", seat.id));
        self.threads.push(thread.spawn(move || seat.take(&tell))?);
        Ok(())
    }

    /// Waits until every core has its loop; its name, or why a core has none.
    fn driver(&self, hear: &mpsc::Receiver<io::Result<String>>) -> io::Result<String> {
        let mut driver = String::new();
        for _ in &self.threads {
            driver = hear.recv().map_err(|_| io::Error::other("a core ended while it started"))??;
        }
        Ok(driver)
    }
}

/// Where a core is come to.
#[derive(Default)]
struct Doors {
    listeners: Vec<Open>,
    datagrams: Vec<UdpSocket>,
}

/// What a core's thread is given.
struct Seat {
    id: u16,
    processor: usize,
    wanted: Wanted,
    limits: Limits,
    hatches: Hatches,
    snapshot: Arc<Snapshot>,
    doors: Doors,
    letterbox: Letterbox<Order>,
    neighbours: Neighbours,
    handed: Letterbox<Handed>,
    lenders: loan::Neighbour,
}

impl Seat {
    /// The life of a core's thread.
    fn take(self, tell: &mpsc::Sender<io::Result<String>>) {
        sys::block_signals();
        affinity::pin(self.processor);
        affinity::run_soon();
        let driver = match Driver::build(self.wanted) {
            Ok(driver) => driver,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        // The address of a local differs from run to run (ASLR), and from core to core.
        let seed = std::ptr::from_ref(&self.hatches).addr() as u64
            ^ crate::base::clock::wall()
            ^ u64::from(self.id) << 48;
        let core = Core::new(self.id, self.limits, self.hatches, seed);
        let _ = tell.send(Ok(driver.name().to_owned()));
        let start = edge::Start {
            core,
            snapshot: self.snapshot,
            listeners: self.doors.listeners,
            datagrams: self.doors.datagrams,
            letterbox: self.letterbox,
            neighbours: self.neighbours,
            handed: self.handed,
            lenders: self.lenders,
        };
        // A listener that can not be taken over ends the core, which the control thread notices.
        let _ = edge::run_core(driver, start);
    }
}

/// All that is listened on.
#[derive(Default)]
struct Bindings {
    /// By what is spoken there, with their real ports.
    names: Vec<(String, Address)>,
    doors: Vec<Doors>,
    /// Of Unix sockets; there until the end.
    files: Vec<SocketFile>,
}

impl Bindings {
    /// One socket for each core and address; for each Unix socket one for all.
    fn of(settings: &Settings, cores: usize) -> io::Result<Self> {
        let mut all = Self { doors: (0..cores).map(|_| Doors::default()).collect(), ..Self::default() };
        let proxied = &settings.proxy_protocol;
        let kinds: [(&[Entrance], bool, bool); 4] = [
            (&settings.listen, false, false),
            (&settings.ssl.listen, false, true),
            (&proxied.listen, true, false),
            (&proxied.ssl_listen, true, true),
        ];
        let of_requests = kinds.into_iter().flat_map(|(entrances, is_proxied, is_tls)| {
            entrances.iter().map(move |entrance| (entrance, Spoken { is_proxied, is_tls, is_stream: false }))
        });
        let of_streams = settings.stream_proxy.tcp.iter().map(|listen| {
            let spoken = Spoken { is_proxied: listen.proxy_protocol, is_tls: listen.tls, is_stream: true };
            (&listen.entrance, spoken)
        });
        for (entrance, spoken) in of_requests.chain(of_streams) {
            all.open(entrance, spoken)?;
        }
        for listen in settings.stream_proxy.udp.iter() {
            let sockets = udp::bind(listen.address(), cores)?;
            if let Some(first) = sockets.first() {
                all.names.push(("udp".to_owned(), first.local_addr()?.into()));
            }
            for (core, socket) in all.doors.iter_mut().zip(sockets) {
                core.datagrams.push(socket);
            }
        }
        Ok(all)
    }

    fn open(&mut self, entrance: &Entrance, spoken: Spoken) -> io::Result<()> {
        let cores = self.doors.len();
        let (name, sockets): (Address, Vec<Bound>) = match entrance {
            Entrance::Ip(listen) => {
                let sockets = listener::bind(listen.address(), cores)?;
                let name = sockets.first().map_or_else(|| Ok(listen.address()), TcpListener::local_addr)?;
                (name.into(), sockets.into_iter().map(Bound::Tcp).collect())
            }
            Entrance::Unix(unix) => {
                let path = UnixPath::of(&unix.name).map_err(|why| io::Error::other(why.to_string()))?;
                let (sockets, file) = unix::bind(path, unix.mode, cores)?;
                self.files.push(file);
                (Address::Unix(path), sockets.into_iter().map(|socket| Bound::Unix(socket, path)).collect())
            }
        };
        self.names.push((name_of(spoken).to_owned(), name));
        for (core, listener) in self.doors.iter_mut().zip(sockets) {
            core.listeners.push(Open { listener, spoken });
        }
        Ok(())
    }
}

/// What a place to listen is called by, where it is told.
const fn name_of(spoken: Spoken) -> &'static str {
    match (spoken.is_stream, spoken.is_proxied, spoken.is_tls) {
        (false, false, false) => "http",
        (false, false, true) => "https",
        (false, true, false) => "proxied_http",
        (false, true, true) => "proxied_https",
        (true, false, false) => "tcp",
        (true, false, true) => "tls",
        (true, true, false) => "proxied_tcp",
        (true, true, true) => "proxied_tls",
    }
}

/// The processors to run on.
fn processors(cores: &Cores) -> Vec<usize> {
    let available = affinity::available();
    match cores {
        Cores::Auto => available,
        // More loops than processors share them.
        Cores::Count(count) => available.iter().copied().cycle().take(usize::from(*count).max(1)).collect(),
        Cores::Listed(listed) => listed.iter().map(|processor| usize::from(*processor)).collect(),
    }
}

const fn wanted(driver: settings::Driver) -> Wanted {
    match driver {
        settings::Driver::Auto => Wanted::Auto,
        settings::Driver::IoUring => Wanted::IoUring,
        settings::Driver::Epoll => Wanted::Epoll,
    }
}

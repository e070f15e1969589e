//! Names of nodes, kept: asked when a configuration first has them, and again whenever their answers have run out.
//!
//! A thread of its own does it, begun when there is a name to ask for, as whoever compiles may wait for it: up to a
//! bound, and without knowing of sockets. What fails takes nothing away; it is counted, told once, and asked again
//! later and later.

mod exchange;
mod keeper;
mod message;
pub(crate) mod resolver;
mod system;
pub(crate) mod tally;

use std::net::IpAddr;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::clock;
use crate::model::Settings;
use crate::model::settings::DnsSettings;
use crate::snapshot::{Answers, Compiler, Resolve};

use keeper::Keeper;
use resolver::Resolver;
use tally::Tally;

/// What a start gives name servers, so that it does not begin with nodes that are not there.
pub const START: Duration = Duration::from_secs(3);
/// What a change of configuration gives them: for so long nothing else is done. What comes later is taken in then.
pub const CHANGE: Duration = Duration::from_secs(1);
/// Orders that wait for the keeper; it only ever waits for the network beside taking them.
const ORDERS_MAX: usize = 64;
/// News that wait for the control loop, each of any number of names.
const NEWS_MAX: usize = 1;

/// What the keeper is told.
enum Order {
    /// Somebody waits for these.
    Ask(Vec<String>, std_mpsc::Sender<(String, Result<Vec<IpAddr>, String>)>),
    /// These are in use, and no others.
    Follow(Vec<String>),
}

/// Newer addresses of names.
pub(crate) type News = Vec<(String, Vec<IpAddr>)>;

/// The names of a process.
#[derive(Debug)]
pub struct Names {
    shared: Arc<Shared>,
    news: mpsc::Receiver<News>,
    /// Of which snapshot what is followed is true.
    at: u64,
}

#[derive(Debug)]
struct Shared {
    settings: DnsSettings,
    tally: Arc<Tally>,
    /// There once the keeper is; `None`: no thread could be had.
    orders: OnceLock<Option<mpsc::Sender<Order>>>,
    /// For the keeper, until it is there.
    tell: Mutex<Option<mpsc::Sender<News>>>,
}

impl Names {
    /// Nothing is asked yet.
    pub fn new(settings: &Settings) -> Self {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        let shared = Shared {
            settings: (*settings.dns).clone(),
            tally: Arc::default(),
            orders: OnceLock::new(),
            tell: Mutex::new(Some(tell)),
        };
        Self { shared: Arc::new(shared), news, at: 0 }
    }

    /// What a compiler resolves names by, waiting for so long at most: for all the names of a compilation together.
    pub fn resolve_within(&self, within: Duration) -> Resolve {
        self.asker().resolve_within(within)
    }

    /// The way to ask without hearing of news.
    pub(crate) fn asker(&self) -> Asker {
        Asker(Arc::clone(&self.shared))
    }

    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.shared.tally)
    }

    /// Keeps the names of the last snapshot from here on, and no others.
    pub(crate) fn follow(&mut self, compiler: &Compiler) {
        if self.at == compiler.generation() {
            return;
        }
        let names = compiler.names();
        if names.is_empty() && self.shared.orders.get().is_none() {
            self.at = compiler.generation();
            return;
        }
        // Where the keeper has no ear just now, at the next look.
        if let Some(orders) = self.shared.orders()
            && orders.try_send(Order::Follow(names)).is_ok()
        {
            self.at = compiler.generation();
        }
    }

    /// What is new. Waits for ever where nothing is.
    pub(crate) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }
}

/// Asks for names.
#[derive(Debug)]
pub(crate) struct Asker(Arc<Shared>);

impl Asker {
    /// As [`Names::resolve_within`].
    pub(crate) fn resolve_within(&self, within: Duration) -> Resolve {
        let shared = Arc::clone(&self.0);
        Box::new(move |names| shared.ask(names, within))
    }
}

impl Shared {
    /// The keeper's ear; it begins with whoever first wants something of it.
    fn orders(&self) -> Option<&mpsc::Sender<Order>> {
        let begin = || {
            let tell = self.tell.lock().unwrap_or_else(PoisonError::into_inner).take()?;
            let resolver = Arc::new(Resolver::new(&self.settings, Arc::clone(&self.tally)));
            let (orders, hear) = mpsc::channel(ORDERS_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let keep = move || runtime.block_on(Keeper::new(resolver, tell).run(hear));
            std::thread::Builder::new().name("names".to_owned()).spawn(keep).ok()?;
            Some(orders)
        };
        self.orders.get_or_init(begin).as_ref()
    }

    fn ask(&self, names: &[String], within: Duration) -> Answers {
        let (reply, answers) = std_mpsc::channel();
        let is_asked =
            self.orders().is_some_and(|orders| orders.try_send(Order::Ask(names.to_vec(), reply)).is_ok());
        let mut found = Answers::new();
        let since = clock::now();
        while is_asked && found.len() < names.len() {
            let left = within.saturating_sub(clock::now().since(since));
            match answers.recv_timeout(left) {
                Ok(answer) => found.push(answer),
                Err(_) => break,
            }
        }
        found
    }
}

//! Nodes of upstreams that are found in registries.
//!
//! Every service that an upstream in force names is asked after by a task of its own, which tells the control loop
//! what it hears. A registry that fails takes nothing away: the last nodes stay, the failure is logged once, and so is
//! its end.

mod consul;
mod dns;
mod eureka;
mod http;
mod nacos;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::dial::Dialer;
use super::lines::Lines;
use super::log;
use super::names::Names;
use super::names::resolver::Resolver;
use crate::base::clock;
use crate::model::Settings;
use crate::model::settings::{DiscoverySettings, Endpoint};
use crate::model::upstream::NodeSpec;
use crate::snapshot::compile::Outcome;
use crate::snapshot::{Compiler, Service};

/// What registries tell while the loop is busy; beyond, their tasks wait.
const TOLD_MAX: usize = 64;
/// After a failure: so long, then twice as long, until it is the registry's interval.
const RETRY: Duration = Duration::from_millis(500);
/// Between two answers of a registry that should have waited for a change and did not.
const PAUSE: Duration = Duration::from_millis(100);
/// Services that are asked after, each with a connection of its own; those beyond have no nodes.
const SERVICES_MAX: usize = 4096;
/// What a start gives registries, so that it does not begin with routes that refuse.
const START: Duration = Duration::from_secs(3);

/// What came of a question.
struct Fetched {
    nodes: Vec<NodeSpec>,
    /// With which the next question waits for a change.
    index: Option<u64>,
}

/// A registry, and how it is asked.
trait Registry {
    fn servers(&self) -> &[Endpoint];

    /// Between two questions after the same service.
    fn every(&self) -> Duration;

    /// Asks one server after a service; with an index, for what differs from then.
    fn fetch(
        &self,
        server: &Endpoint,
        service: &Service,
        index: Option<u64>,
        dialer: Dialer,
    ) -> impl Future<Output = Result<Fetched, String>> + Send;
}

/// What is told of a service.
pub(crate) type Told = (Service, Result<Vec<NodeSpec>, String>);

/// Keeps a task for each service that is wanted.
#[derive(Debug)]
pub struct Discovery {
    ways: Ways,
    running: BTreeMap<Service, Running>,
    /// Of which snapshot `running` is true.
    at: u64,
    tell: mpsc::Sender<Told>,
    hear: mpsc::Receiver<Told>,
    lines: Lines,
}

/// How registries are asked.
#[derive(Clone, Debug)]
struct Ways {
    settings: Arc<DiscoverySettings>,
    dialer: Dialer,
    dns: Option<Arc<Resolver>>,
}

#[derive(Debug)]
struct Running {
    task: AbortHandle,
    /// The failure that was logged.
    trouble: Option<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery {
    /// Nothing is known yet.
    pub fn new(settings: &Settings, names: &Names) -> Self {
        let (tell, hear) = mpsc::channel(TOLD_MAX);
        let dns = settings.discovery.dns.as_ref();
        let dns = dns.map(|dns| Arc::new(Resolver::of_services(&settings.dns, dns, names.tally())));
        let settings_of = Arc::new((*settings.discovery).clone());
        Self {
            ways: Ways { settings: settings_of, dialer: Dialer::new(settings), dns },
            running: BTreeMap::new(),
            at: 0,
            tell,
            hear,
            lines: Lines::about("services"),
        }
    }

    /// Asks after the services of a first snapshot, and waits a moment for them; the snapshot with them, if they came.
    ///
    /// # Errors
    /// When there is no runtime to be had.
    pub fn first(&mut self, compiler: &mut Compiler) -> io::Result<Option<Outcome>> {
        let mut services = compiler.services();
        services.truncate(SERVICES_MAX);
        if services.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let told = runtime.block_on(async {
            let mut asked = JoinSet::new();
            for service in services {
                let ways = self.ways.clone();
                asked.spawn(async move {
                    let told = tokio::time::timeout(START, once(&ways, &service)).await;
                    Some((service, told.ok()?.ok()?))
                });
            }
            asked.join_all().await
        });
        // A name may still be looked up: that is not waited for.
        runtime.shutdown_background();
        Ok(compiler.learn_services(told.into_iter().flatten().collect()))
    }

    /// Asks after the services of the last snapshot from here on, and after no others. Needs a tokio runtime.
    pub(crate) fn follow(&mut self, compiler: &Compiler) {
        if self.at == compiler.generation() {
            return;
        }
        self.at = compiler.generation();
        let mut before = std::mem::take(&mut self.running);
        let mut services = compiler.services();
        // Always the same ones.
        services.sort_unstable();
        if services.len() > SERVICES_MAX {
            let left = services.len() - SERVICES_MAX;
            log::warn(format!(
                "registries are asked after {SERVICES_MAX} services at most; {left} are left out"
            ));
            services.truncate(SERVICES_MAX);
        }
        for service in services {
            let running = before.remove(&service).unwrap_or_else(|| {
                let (ways, tell) = (self.ways.clone(), self.tell.clone());
                let asked = service.clone();
                let task = tokio::spawn(async move { follow(&ways, asked, tell).await });
                Running { task: task.abort_handle(), trouble: None }
            });
            self.running.insert(service, running);
        }
    }

    /// What a registry tells next. Waits for ever where none is asked.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        self.hear.recv().await
    }

    /// Takes in what was told: the nodes, if there are any to take over.
    pub(crate) fn take(&mut self, (service, told): Told) -> Option<(Service, Vec<NodeSpec>)> {
        let running = self.running.get_mut(&service)?;
        match told {
            Ok(nodes) => {
                if running.trouble.take().is_some() {
                    let line = format!("{service}: the registry answers again");
                    self.lines.write(clock::now(), log::Level::Info, &line);
                }
                Some((service, nodes))
            }
            Err(why) => {
                if running.trouble.as_ref() != Some(&why) {
                    let line = format!("{service}: {why}; the last nodes stay");
                    if self.lines.write(clock::now(), log::Level::Warn, &line) {
                        running.trouble = Some(why);
                    }
                }
                None
            }
        }
    }
}

/// A port that a registry tells, if it is one.
fn port_of(told: u64) -> Option<u16> {
    u16::try_from(told).ok().filter(|port| *port > 0)
}

/// Calls a function with the registry of a kind.
macro_rules! with_registry {
    ($settings:expr, $service:expr, |$registry:ident| $run:expr) => {{
        match $service.kind.as_str() {
            "consul" => match &$settings.consul {
                Some($registry) => $run,
                None => Err("it is not set up".to_owned()),
            },
            "eureka" => match &$settings.eureka {
                Some($registry) => $run,
                None => Err("it is not set up".to_owned()),
            },
            "nacos" => match &$settings.nacos {
                Some($registry) => $run,
                None => Err("it is not set up".to_owned()),
            },
            _ => Err("it is not there".to_owned()),
        }
    }};
}

/// The nodes of a service, asked of one server after the other.
async fn once(ways: &Ways, service: &Service) -> Result<Vec<NodeSpec>, String> {
    let Ways { settings, dialer, dns } = ways;
    if let Some(resolver) = dns.as_ref().filter(|_| service.kind == "dns") {
        return dns::once(resolver, service).await;
    }
    with_registry!(settings, service, |registry| {
        let mut last = Err("no server".to_owned());
        for server in registry.servers() {
            last = registry.fetch(server, service, None, dialer.clone()).await.map(|fetched| fetched.nodes);
            if last.is_ok() {
                break;
            }
        }
        last
    })
}

/// Asks after a service for as long as anybody hears.
async fn follow(ways: &Ways, service: Service, tell: mpsc::Sender<Told>) {
    let Ways { settings, dialer, dns } = ways;
    if let Some(resolver) = dns.as_ref().filter(|_| service.kind == "dns") {
        return dns::watch(resolver, service, &tell).await;
    }
    let ended: Result<(), String> = with_registry!(settings, service, |registry| {
        watch(registry, &service, dialer, &tell).await;
        Ok(())
    });
    if let Err(why) = ended {
        let _ = tell.send((service, Err(why))).await;
    }
}

async fn watch(registry: &impl Registry, service: &Service, dialer: &Dialer, tell: &mpsc::Sender<Told>) {
    let (mut index, mut patience) = (None, RETRY);
    for server in registry.servers().iter().cycle() {
        // The same server for as long as it answers.
        loop {
            let told = match registry.fetch(server, service, index, dialer.clone()).await {
                Ok(fetched) => {
                    (index, patience) = (fetched.index, RETRY);
                    Ok(fetched.nodes)
                }
                Err(why) => {
                    index = None;
                    Err(why)
                }
            };
            let has_failed = told.is_err();
            if tell.send((service.clone(), told)).await.is_err() {
                return;
            }
            if has_failed {
                sleep(patience).await;
                patience = (patience * 2).min(registry.every().max(RETRY));
                break;
            }
            sleep(if index.is_some() { PAUSE } else { registry.every() }).await;
        }
    }
}

//! Names to addresses, and services to nodes: which name is asked for, which servers are asked, and for how long the
//! answer counts.
//!
//! Literal addresses are their own; names in the file of hosts are never asked for. Where servers fail, the others are
//! asked; that none knows the name is an answer, too.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::exchange::ask;
use super::message::{Answer, Host, Type};
use super::system::System;
use super::tally::{Tally, Trouble};
use crate::base::hash::Map;
use crate::model::settings::{DnsRegistry, DnsSettings, NameServer, RecordType};
use crate::model::upstream::NodeSpec;

/// A server gets so long, one after the other, and then all of them twice as long again.
const TRIES: [Duration; 3] = [Duration::from_millis(400), Duration::from_secs(1), Duration::from_secs(2)];
/// A name gets so long, whatever is tried.
const NAME_WITHIN: Duration = Duration::from_secs(5);
/// An answer counts for at least so long: a lifetime of 0 is not a question a request.
const VALID_MIN: Duration = Duration::from_secs(1);
/// And at most so long: who moved a name away from a long lifetime wants to see it move.
const VALID_MAX: Duration = Duration::from_secs(3600);
/// After this the file of hosts is looked at again.
const VALID_IN_FILE: Duration = Duration::from_secs(5);
/// Addresses of a name, and hosts of a service, that are taken.
const ADDRESSES_MAX: usize = 256;
const HOSTS_MAX: usize = 256;
/// Hosts of a service that are asked for at a time.
const AT_ONCE_MAX: usize = 16;

/// An answer, and for how long it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found<T> {
    pub(crate) held: T,
    pub(crate) valid: Duration,
}

/// The addresses that the hosts of a service had when they last had some.
pub(crate) type Before = Map<String, Vec<IpAddr>>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Resolver {
    servers: Vec<NameServer>,
    system: System,
    valid: Option<Duration>,
    is_searching: bool,
    order: Vec<Type>,
    /// The server that answered last: the first one may be gone for long.
    preferred: AtomicUsize,
    tally: Arc<Tally>,
}

impl Resolver {
    /// For names of nodes.
    pub(crate) fn new(settings: &DnsSettings, tally: Arc<Tally>) -> Self {
        Self::with(settings, settings.servers.clone(), &settings.resolv_conf, tally)
    }

    /// For services.
    pub(crate) fn of_services(settings: &DnsSettings, registry: &DnsRegistry, tally: Arc<Tally>) -> Self {
        let (servers, path) = match (&registry.servers, &registry.resolv_conf) {
            (servers, None) if servers.is_empty() => (settings.servers.clone(), &settings.resolv_conf),
            (servers, path) => (servers.clone(), path.as_ref().unwrap_or(&settings.resolv_conf)),
        };
        let order = registry.order.iter().filter_map(|kind| match kind {
            RecordType::Srv => Some(Type::Srv),
            RecordType::A => Some(Type::A),
            RecordType::Aaaa => Some(Type::Aaaa),
            RecordType::Last | RecordType::Cname => None,
        });
        Self { order: order.collect(), ..Self::with(settings, servers, path, tally) }
    }

    fn with(settings: &DnsSettings, servers: Vec<NameServer>, resolv_conf: &Path, tally: Arc<Tally>) -> Self {
        Self {
            servers,
            system: System::new(resolv_conf, &settings.hosts),
            valid: settings.valid.map(|valid| valid.get()),
            is_searching: settings.search,
            order: vec![Type::A, Type::Aaaa],
            preferred: AtomicUsize::new(0),
            tally,
        }
    }

    /// The addresses of a name: of IPv4, else of IPv6.
    pub(crate) async fn addresses(&self, name: &str) -> Result<Found<Vec<IpAddr>>, Trouble> {
        let found = self.addresses_uncounted(name).await;
        self.tally.note(&found);
        found
    }

    async fn addresses_uncounted(&self, name: &str) -> Result<Found<Vec<IpAddr>>, Trouble> {
        if let Some(found) = self.at_hand(name) {
            return Ok(found);
        }
        let (name, kind, answer) = self.look_up(name, &[Type::A, Type::Aaaa]).await?;
        let (mut found, ttl) = answer.addresses(&name, kind);
        found.truncate(ADDRESSES_MAX);
        Ok(Found { held: found, valid: self.valid_for(ttl) })
    }

    /// The nodes of a service, whose name may have a port that counts for all of them. A host whose addresses can not be
    /// had has those of `before`, which is as it should be for the next time afterwards.
    pub(crate) async fn nodes(
        self: &Arc<Self>,
        service: &str,
        before: &mut Before,
    ) -> Result<Found<Vec<NodeSpec>>, Trouble> {
        let found = self.nodes_uncounted(service, before).await;
        self.tally.note(&found);
        found
    }

    async fn nodes_uncounted(
        self: &Arc<Self>,
        service: &str,
        before: &mut Before,
    ) -> Result<Found<Vec<NodeSpec>>, Trouble> {
        let (name, port) = split_port(service);
        let node = |address: &IpAddr| NodeSpec { host: address.to_string(), port, weight: 1, priority: 0 };
        if let Some(found) = self.at_hand(name) {
            return Ok(Found { held: found.held.iter().map(node).collect(), valid: found.valid });
        }
        let (name, kind, answer) = self.look_up(name, &self.order).await?;
        if kind != Type::Srv {
            let (mut found, ttl) = answer.addresses(&name, kind);
            found.truncate(ADDRESSES_MAX);
            return Ok(Found { held: found.iter().map(node).collect(), valid: self.valid_for(ttl) });
        }
        let (mut hosts, ttl) = answer.hosts(&name);
        hosts.truncate(HOSTS_MAX);
        let mut valid = self.valid_for(ttl);
        let known = self.of_hosts(&hosts, &answer, before, &mut valid).await;
        let mut nodes = Vec::new();
        for host in &hosts {
            let port = port.or_else(|| (host.port != 0).then_some(host.port));
            for address in known.get(&host.target).into_iter().flatten() {
                nodes.push(NodeSpec {
                    host: address.to_string(),
                    port,
                    // RFC 2782 gives a weight of 0 a very small chance; a weight of 0 has none here.
                    weight: u32::from(host.weight.max(1)),
                    // There the lowest comes first.
                    priority: -i32::from(host.priority),
                });
            }
        }
        *before = known;
        if nodes.is_empty() { Err(Trouble::NoRecord) } else { Ok(Found { held: nodes, valid }) }
    }

    /// The addresses of the hosts of a service: from the same answer, else asked for.
    async fn of_hosts(
        self: &Arc<Self>,
        hosts: &[Host],
        answer: &Answer,
        before: &Before,
        valid: &mut Duration,
    ) -> Before {
        let (mut known, mut asked) = (Before::default(), JoinSet::new());
        let mut left = Vec::new();
        for host in hosts {
            let (found, ttl) = answer.addresses(&host.target, Type::A);
            if !found.is_empty() {
                *valid = (*valid).min(self.valid_for(ttl));
                known.insert(host.target.clone(), found);
            } else if !left.contains(&host.target) {
                left.push(host.target.clone());
            }
        }
        loop {
            while asked.len() < AT_ONCE_MAX
                && let Some(target) = left.pop()
            {
                let resolver = Arc::clone(self);
                asked.spawn(async move {
                    let found = resolver.addresses(&target).await;
                    (target, found)
                });
            }
            match asked.join_next().await {
                Some(Ok((target, Ok(found)))) => {
                    *valid = (*valid).min(found.valid);
                    known.insert(target, found.held);
                }
                Some(Ok((target, Err(_)))) => {
                    *valid = VALID_MIN;
                    if let Some(last) = before.get(&target) {
                        known.insert(target, last.clone());
                    }
                }
                Some(Err(_)) => {}
                None => return known,
            }
        }
    }

    /// What needs no server.
    fn at_hand(&self, name: &str) -> Option<Found<Vec<IpAddr>>> {
        if let Ok(address) = name.parse() {
            return Some(Found { held: vec![address], valid: VALID_MAX });
        }
        let found = self.system.of_hosts(name)?;
        Some(Found { held: found, valid: VALID_IN_FILE })
    }

    fn valid_for(&self, ttl: u32) -> Duration {
        let valid = self.valid.unwrap_or_else(|| Duration::from_secs(u64::from(ttl)));
        valid.clamp(VALID_MIN, VALID_MAX)
    }

    /// The first answer with records of one of these types, the name that it is for, and their type.
    async fn look_up(&self, name: &str, order: &[Type]) -> Result<(String, Type, Answer), Trouble> {
        let conf = self.system.resolv_conf();
        let servers = if self.servers.is_empty() { &conf.servers } else { &self.servers };
        let domains: &[String] = if self.is_searching { &conf.domains } else { &[] };
        let until = Instant::now() + NAME_WITHIN;
        let (mut failure, mut exists) = (None, false);
        for name in candidates(name, domains, conf.dots) {
            for kind in order {
                match self.ask_servers(servers, &name, *kind, until).await {
                    Ok(answer) => {
                        exists = true;
                        let has_any = match kind {
                            Type::Srv => !answer.hosts(&name).0.is_empty(),
                            Type::A | Type::Aaaa => !answer.addresses(&name, *kind).0.is_empty(),
                        };
                        if has_any {
                            return Ok((name, *kind, answer));
                        }
                    }
                    Err(Trouble::Unknown) => break,
                    Err(trouble) => {
                        // Another type would be true of only a part of what there is.
                        failure = failure.or(Some(trouble));
                        break;
                    }
                }
            }
        }
        Err(failure.unwrap_or(if exists { Trouble::NoRecord } else { Trouble::Unknown }))
    }

    /// Asks one server after the other until one knows.
    async fn ask_servers(
        &self,
        servers: &[NameServer],
        name: &str,
        kind: Type,
        until: Instant,
    ) -> Result<Answer, Trouble> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = Trouble::Silence;
        for within in TRIES {
            let mut is_final = true;
            for place in 0..servers.len() {
                let place = (first + place) % servers.len();
                let asked = ask(servers[place].address(), name, kind, within);
                match timeout_at(until, asked).await.unwrap_or(Err(Trouble::Silence)) {
                    Ok(answer) => match answer.code {
                        0 | 3 => {
                            self.preferred.store(place, Ordering::Relaxed);
                            return if answer.code == 0 { Ok(answer) } else { Err(Trouble::Unknown) };
                        }
                        code => last = Trouble::Failure(code),
                    },
                    Err(Trouble::NoName) => return Err(Trouble::NoName),
                    Err(trouble) => {
                        is_final &= trouble != Trouble::Silence;
                        last = trouble;
                    }
                }
            }
            // A server that said no is not asked again; one that said nothing may not have been reached.
            if is_final || Instant::now() >= until {
                break;
            }
        }
        Err(last)
    }
}

/// The names that a name may mean, in the system's order.
fn candidates(name: &str, domains: &[String], dots: usize) -> Vec<String> {
    if let Some(whole) = name.strip_suffix('.') {
        return vec![whole.to_owned()];
    }
    let within = domains.iter().map(|domain| format!("{name}.{domain}"));
    let itself = std::iter::once(name.to_owned());
    if name.matches('.').count() >= dots {
        itself.chain(within).collect()
    } else {
        within.chain(itself).collect()
    }
}

/// `name:8080`, as a service may be written.
fn split_port(service: &str) -> (&str, Option<u16>) {
    match service.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') => match port.parse() {
            Ok(port) if port > 0 => (name, Some(port)),
            _ => (service, None),
        },
        _ => (service, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_in_the_systems_order() {
        let domains = ["a.test".to_owned(), "b.test".to_owned()];
        assert_eq!(candidates("web", &domains, 1), ["web.a.test", "web.b.test", "web"]);
        assert_eq!(candidates("web.c", &domains, 1), ["web.c", "web.c.a.test", "web.c.b.test"]);
        assert_eq!(candidates("web.c", &domains, 5), ["web.c.a.test", "web.c.b.test", "web.c"]);
        assert_eq!(candidates("web.c.", &domains, 5), ["web.c"]);
        assert_eq!(candidates("web", &[], 1), ["web"]);
    }

    #[test]
    fn a_service_may_have_a_port() {
        assert_eq!(split_port("web.test"), ("web.test", None));
        assert_eq!(split_port("web.test:8080"), ("web.test", Some(8080)));
        assert_eq!(split_port("web.test:0"), ("web.test:0", None));
        assert_eq!(split_port("::1"), ("::1", None));
    }

    #[test]
    fn lifetimes_have_a_floor_and_a_ceiling_and_settings_come_first() {
        let check = |valid: Option<f64>, ttl: u32, expected: u64| {
            let valid = valid.map(|valid| serde_json::json!(valid));
            let settings = serde_json::from_value(serde_json::json!({ "valid": valid })).expect("settings");
            let resolver = Resolver::new(&settings, Arc::default());
            assert_eq!(resolver.valid_for(ttl), Duration::from_secs(expected), "{valid:?} {ttl}");
        };
        check(None, 0, 1);
        check(None, 30, 30);
        check(None, u32::MAX, 3600);
        check(Some(5.0), 30, 5);
        check(Some(0.01), 30, 1);
    }
}

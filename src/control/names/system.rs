//! The system's files: which name servers there are, what is searched, and names that no server is asked for.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::base::hash::Map;
use crate::model::settings::NameServer;

/// Name servers and domains that are read; more are left out, as in the system's own resolver.
const SERVERS_MAX: usize = 8;
const DOMAINS_MAX: usize = 6;
const DOTS_MAX: usize = 15;
/// A file beyond this is not one of these.
const FILE_MAX: u64 = 1 << 20;

/// What `resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub servers: Vec<NameServer>,
    pub domains: Vec<String>,
    /// A name with fewer dots is first looked for in the domains.
    pub dots: usize,
}

impl ResolvConf {
    fn parse(text: &str) -> Self {
        let mut conf = Self { servers: Vec::new(), domains: Vec::new(), dots: 1 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if conf.servers.len() < SERVERS_MAX => {
                    // A zone (`fe80::1%eth0`) would need an interface, which is not looked up.
                    let address = words.next().and_then(|word| word.parse().ok());
                    conf.servers.extend(address.map(NameServer::at));
                }
                // The last line of these counts.
                Some("search" | "domain") => {
                    let domain = |word: &str| word.trim_matches('.').to_owned();
                    conf.domains =
                        words.map(domain).filter(|word| !word.is_empty()).take(DOMAINS_MAX).collect();
                }
                Some("options") => {
                    let mut dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok());
                    conf.dots = dots.next_back().map_or(conf.dots, |dots: usize| dots.min(DOTS_MAX));
                }
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(NameServer::at(Ipv4Addr::LOCALHOST.into()));
        }
        conf
    }
}

/// Names with addresses, those of IPv4 if there are any.
pub(super) type Hosts = Map<String, Vec<IpAddr>>;

fn hosts(text: &str) -> Hosts {
    let mut hosts = Hosts::default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            let known = hosts.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default();
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }
    for known in hosts.values_mut() {
        if known.iter().any(IpAddr::is_ipv4) {
            known.retain(IpAddr::is_ipv4);
        }
    }
    hosts
}

/// A file, read again when it has changed. One that is away counts as empty.
#[derive(Debug)]
struct Watched<T> {
    path: PathBuf,
    read: fn(&str) -> T,
    last: Mutex<Option<(Option<SystemTime>, Arc<T>)>>,
}

impl<T> Watched<T> {
    fn new(path: &Path, read: fn(&str) -> T) -> Self {
        Self { path: path.to_owned(), read, last: Mutex::new(None) }
    }

    fn now(&self) -> Arc<T> {
        let known = fs::metadata(&self.path).ok().filter(|known| known.len() <= FILE_MAX);
        let written = known.and_then(|known| known.modified().ok());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, read)) if *at == written => Arc::clone(read),
            _ => {
                let text = written.and_then(|_| fs::read(&self.path).ok()).unwrap_or_default();
                let read = Arc::new((self.read)(&String::from_utf8_lossy(&text)));
                *last = Some((written, Arc::clone(&read)));
                read
            }
        }
    }
}

/// Both files.
#[derive(Debug)]
pub(super) struct System {
    resolv_conf: Watched<ResolvConf>,
    hosts: Watched<Hosts>,
}

impl System {
    pub(super) fn new(resolv_conf: &Path, hosts_file: &Path) -> Self {
        Self {
            resolv_conf: Watched::new(resolv_conf, ResolvConf::parse),
            hosts: Watched::new(hosts_file, hosts),
        }
    }

    pub(super) fn resolv_conf(&self) -> Arc<ResolvConf> {
        self.resolv_conf.now()
    }

    /// The addresses that the file of hosts has for a name.
    pub(super) fn of_hosts(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.hosts.now().get(&name.trim_end_matches('.').to_ascii_lowercase()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_names_servers_and_domains() {
        let text = "# a comment\ndomain old.test\nnameserver 10.0.0.1\nnameserver fd00::1\nnameserver x\n\
                    search a.test. b.test\noptions edns0 ndots:5 timeout:1\n";
        let conf = ResolvConf::parse(text);
        let servers: Vec<String> = conf.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:53"]);
        assert_eq!((conf.domains, conf.dots), (vec!["a.test".to_owned(), "b.test".to_owned()], 5));
        let empty = ResolvConf::parse("");
        assert_eq!(empty.servers[0].to_string(), "127.0.0.1:53");
        assert_eq!((empty.servers.len(), empty.domains.len(), empty.dots), (1, 0, 1));
    }

    #[test]
    fn hosts_prefer_the_addresses_that_most_machines_reach() {
        let hosts =
            hosts("127.0.0.1 localhost\n::1 localhost six # none\n10.0.0.1\tA.test a\n10.0.0.2 a\nx y\n");
        let of = |name: &str| {
            hosts.get(name).map(|known| known.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(of("localhost").as_deref(), Some("127.0.0.1"));
        assert_eq!(of("six").as_deref(), Some("::1"));
        assert_eq!(of("a").as_deref(), Some("10.0.0.1 10.0.0.2"));
        assert_eq!(of("a.test").as_deref(), Some("10.0.0.1"));
        assert_eq!((of("none"), of("y")), (None, None));
    }

    #[test]
    fn a_file_is_read_again_when_it_has_changed_and_may_be_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hosts");
        let system = System::new(&folder.path().join("resolv.conf"), &path);
        assert_eq!(system.of_hosts("a"), None);
        assert_eq!(system.resolv_conf().servers.len(), 1);
        fs::write(&path, "10.0.0.1 a").expect("it is written");
        assert_eq!(system.of_hosts("A."), Some(vec![IpAddr::from([10, 0, 0, 1])]));
        fs::remove_file(&path).expect("it is there");
        assert_eq!(system.of_hosts("a"), None);
    }
}

//! Names of nodes to addresses. Asked on the control thread only, remembered between snapshots.

use std::net::IpAddr;

use crate::base::hash::Map;

/// How a name is resolved; the control plane brings it.
pub type Resolve = Box<dyn Fn(&str) -> Result<Vec<IpAddr>, String> + Send>;

/// Names and what is known of them. An answer is kept until a later one replaces it: a failed lookup never takes
/// good addresses away.
pub(super) struct Names {
    resolve: Resolve,
    known: Map<String, Vec<IpAddr>>,
    /// Since they were last taken.
    asked: Vec<String>,
}

impl Names {
    pub(super) fn new(resolve: Resolve) -> Self {
        Self { resolve, known: Map::default(), asked: Vec::new() }
    }

    /// The addresses of a host; a literal address is its own.
    pub(super) fn addresses(&mut self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        self.asked.push(host.to_owned());
        if let Some(known) = self.known.get(host) {
            return Ok(known.clone());
        }
        let found = sorted((self.resolve)(host)?);
        if found.is_empty() {
            return Err("the name has no address".to_owned());
        }
        self.known.insert(host.to_owned(), found.clone());
        Ok(found)
    }

    /// The names that were asked for since this was last called.
    pub(super) fn take_asked(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }

    /// Takes in newer answers; the names whose addresses differ from what was known.
    pub(super) fn learn(&mut self, answers: Vec<(String, Vec<IpAddr>)>) -> Vec<String> {
        let mut changed = Vec::new();
        for (name, addresses) in answers {
            if addresses.is_empty() {
                continue;
            }
            let addresses = sorted(addresses);
            if self.known.get(&name) != Some(&addresses) {
                changed.push(name.clone());
                self.known.insert(name, addresses);
            }
        }
        changed
    }

    /// Forgets the names that nobody uses.
    pub(super) fn forget_unused(&mut self, is_used: impl Fn(&str) -> bool) {
        self.known.retain(|name, _| is_used(name));
    }
}

/// Resolvers rotate their answers; order must not look like change.
fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("known", &self.known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_or_empty_answer_never_takes_addresses_away() {
        let one: IpAddr = "10.0.0.1".parse().expect("an address");
        let mut names =
            Names::new(Box::new(move |name| if name == "a" { Ok(vec![one]) } else { Err("no".into()) }));
        assert_eq!(names.addresses("a"), Ok(vec![one]));
        assert!(names.addresses("b").is_err());
        assert!(names.learn(vec![("a".to_owned(), vec![])]).is_empty());
        assert_eq!(names.addresses("a"), Ok(vec![one]));
        let news = || vec![("a".to_owned(), vec!["10.0.0.2".parse().expect("an address")])];
        assert_eq!(names.learn(news()), ["a"]);
        assert!(names.learn(news()).is_empty());
    }
}

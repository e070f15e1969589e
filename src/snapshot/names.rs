//! Names of nodes to addresses. Asked on the control thread only, remembered between snapshots.

use std::net::IpAddr;

use crate::base::hash::Map;

/// What is known of names: addresses, or why there are none.
pub type Answers = Vec<(String, Result<Vec<IpAddr>, String>)>;

/// How names are resolved; the control plane brings it. May wait, but not for long: what has no answer then is learnt
/// later.
pub type Resolve = Box<dyn Fn(&[String]) -> Answers + Send>;

/// A way to resolve names that knows each at once.
pub fn at_once(resolve: impl Fn(&str) -> Result<Vec<IpAddr>, String> + Send + 'static) -> Resolve {
    Box::new(move |names| names.iter().map(|name| (name.clone(), resolve(name))).collect())
}

/// What is told of a name that no answer has come for.
const AWAITED: &str = "no name server has answered yet";

/// Names and what is known of them. An answer is kept until a later one replaces it: a failed lookup never takes
/// good addresses away.
pub(super) struct Names {
    resolve: Resolve,
    known: Map<String, Result<Vec<IpAddr>, String>>,
    /// Met and not asked for yet.
    new: Vec<String>,
    /// Since they were last taken.
    asked: Vec<String>,
}

impl Names {
    pub(super) fn new(resolve: Resolve) -> Self {
        Self { resolve, known: Map::default(), new: Vec::new(), asked: Vec::new() }
    }

    /// Resolves names another way from here on.
    pub(super) fn resolve_by(&mut self, resolve: Resolve) {
        self.resolve = resolve;
    }

    /// The addresses of a host; a literal address is its own. What is met for the first time has none until
    /// [`Self::ask_new`].
    pub(super) fn addresses(&mut self, host: &str) -> Result<Vec<IpAddr>, String> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        self.asked.push(host.to_owned());
        self.known.get(host).cloned().unwrap_or_else(|| {
            self.new.push(host.to_owned());
            self.known.insert(host.to_owned(), Err(AWAITED.to_owned()));
            Err(AWAITED.to_owned())
        })
    }

    /// Asks for all names that were met for the first time, together; which those are.
    pub(super) fn ask_new(&mut self) -> Vec<String> {
        let new = std::mem::take(&mut self.new);
        if !new.is_empty() {
            for (name, answer) in (self.resolve)(&new) {
                match answer {
                    Err(why) => drop(self.known.insert(name, Err(why))),
                    Ok(none) if none.is_empty() => {
                        self.known.insert(name, Err("the name has no address".to_owned()));
                    }
                    Ok(addresses) => drop(self.learn(vec![(name, addresses)])),
                }
            }
        }
        new
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
            let addresses = Ok(sorted(addresses));
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
            Names::new(at_once(move |name| if name == "a" { Ok(vec![one]) } else { Err("no".into()) }));
        assert_eq!(names.addresses("a"), Err(AWAITED.to_owned()));
        assert_eq!(names.addresses("b"), Err(AWAITED.to_owned()));
        assert_eq!(names.ask_new(), ["a", "b"]);
        assert!(names.ask_new().is_empty(), "each is asked for once");
        assert_eq!(names.addresses("a"), Ok(vec![one]));
        assert_eq!(names.addresses("b"), Err("no".to_owned()));
        assert!(names.learn(vec![("a".to_owned(), vec![])]).is_empty());
        assert_eq!(names.addresses("a"), Ok(vec![one]));
        let news = || vec![("a".to_owned(), vec!["10.0.0.2".parse().expect("an address")])];
        assert_eq!(names.learn(news()), ["a"]);
        assert!(names.learn(news()).is_empty());
        assert_eq!(names.learn(vec![("b".to_owned(), vec![one])]), ["b"]);
        assert_eq!(names.take_asked(), ["a", "b", "a", "b", "a"]);
        names.forget_unused(|name| name == "b");
        assert_eq!(names.addresses("a"), Err(AWAITED.to_owned()));
    }
}

//! Nodes that registries tell. Asked by the control plane, remembered between snapshots.

use crate::base::hash::Map;
use crate::model;
use crate::model::upstream::NodeSpec;

/// A service as a registry knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// Which registry: `consul`.
    pub kind: String,
    pub name: String,
    /// Empty: the registry's own.
    pub namespace: String,
    /// The same.
    pub group: String,
}

impl Service {
    /// The service that an upstream's nodes are those of, if they are any's.
    pub(super) fn of(upstream: &model::Upstream) -> Option<Self> {
        let args = upstream.discovery_args.as_ref();
        let text = |value: Option<&String>| value.cloned().unwrap_or_default();
        Some(Self {
            kind: upstream.discovery_type.as_ref()?.as_str().to_owned(),
            name: upstream.service_name.as_ref()?.as_str().to_owned(),
            namespace: text(args.and_then(|args| args.namespace_id.as_ref())),
            group: text(args.and_then(|args| args.group_name.as_ref())),
        })
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Services and what is known of them. Nodes are kept until the registry tells others: one that does not answer takes
/// nothing away.
#[derive(Debug, Default)]
pub(super) struct Services {
    /// The registries that are asked.
    kinds: Vec<&'static str>,
    known: Map<Service, Vec<NodeSpec>>,
    /// Since they were last taken.
    asked: Vec<Service>,
}

impl Services {
    pub(super) fn new(kinds: Vec<&'static str>) -> Self {
        Self { kinds, ..Self::default() }
    }

    /// The nodes of a service, or why none are known.
    pub(super) fn nodes(&mut self, service: &Service) -> Result<Vec<NodeSpec>, String> {
        if !self.kinds.contains(&service.kind.as_str()) {
            let there = if self.kinds.is_empty() { "none is".to_owned() } else { self.kinds.join(", ") };
            return Err(format!(
                "expected a registry that the settings name ({there}), got {}",
                service.kind
            ));
        }
        self.asked.push(service.clone());
        match self.known.get(service) {
            None => Err(format!("{service} is not known yet")),
            Some(nodes) if nodes.is_empty() => Err(format!("{service} has no healthy instance")),
            Some(nodes) => Ok(nodes.clone()),
        }
    }

    /// The services that were asked for since this was last called.
    pub(super) fn take_asked(&mut self) -> Vec<Service> {
        std::mem::take(&mut self.asked)
    }

    /// Takes in what a registry tells; whether it is news.
    pub(super) fn learn(&mut self, service: &Service, mut nodes: Vec<NodeSpec>) -> bool {
        // Registries answer in any order; order must not look like change.
        nodes.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
        nodes.dedup_by(|a, b| (&a.host, a.port) == (&b.host, b.port));
        if self.known.get(service) == Some(&nodes) {
            return false;
        }
        self.known.insert(service.clone(), nodes);
        true
    }

    /// All that is known of the services of a registry.
    pub(super) fn of_kind(&self, kind: &str) -> Vec<(Service, Vec<NodeSpec>)> {
        let mut all: Vec<_> = self
            .known
            .iter()
            .filter(|(service, _)| service.kind == kind)
            .map(|(service, nodes)| (service.clone(), nodes.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Forgets the services that nobody uses.
    pub(super) fn forget_unused(&mut self, is_used: impl Fn(&Service) -> bool) {
        self.known.retain(|service, _| is_used(service));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> Service {
        Service { kind: "consul".into(), name: name.into(), namespace: String::new(), group: String::new() }
    }

    fn node(host: &str) -> NodeSpec {
        NodeSpec { host: host.into(), port: Some(80), weight: 1, priority: 0 }
    }

    #[test]
    fn nodes_are_news_only_when_they_differ() {
        let mut services = Services::new(vec!["consul"]);
        let a = service("a");
        assert_eq!(services.nodes(&a), Err("consul a is not known yet".to_owned()));
        assert!(services.learn(&a, vec![node("10.0.0.2"), node("10.0.0.1")]));
        assert!(!services.learn(&a, vec![node("10.0.0.1"), node("10.0.0.2"), node("10.0.0.2")]));
        assert_eq!(services.nodes(&a).map(|nodes| nodes.len()), Ok(2));
        assert!(services.learn(&a, vec![]));
        assert_eq!(services.nodes(&a), Err("consul a has no healthy instance".to_owned()));
        assert_eq!(services.take_asked().len(), 3);
        services.forget_unused(|_| false);
        assert!(services.of_kind("consul").is_empty());
    }

    #[test]
    fn a_registry_that_is_not_set_up_is_named() {
        let mut services = Services::new(vec!["nacos"]);
        let why = services.nodes(&service("a")).expect_err("it is not there");
        assert_eq!(why, "expected a registry that the settings name (nacos), got consul");
        assert!(services.take_asked().is_empty());
    }
}

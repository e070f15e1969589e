//! Stream routes, compiled into the parts of the snapshot.

use std::sync::Arc;

use super::parts::Service;
use super::work::{Work, both, labels_of};
use crate::model::field::PluginMap;
use crate::model::{self, ConfigError, Kind};
use crate::plugin::Hooks as _;
use crate::plugins::{CATALOG, Card};
use crate::snapshot::merge::{Mounts, lay_over};
use crate::snapshot::streams::StreamRoute;
use crate::snapshot::{Chain, Target};

use super::set_of;

impl Work<'_> {
    pub(super) fn add_stream_route(
        &mut self,
        name: &str,
        id: &str,
        route: &model::StreamRoute,
    ) -> Result<(), Vec<ConfigError>> {
        let fit = only_of_streams(route.plugins.as_ref());
        let own = both(fit, self.mounts_of_any(name, route.plugins.as_ref())).map(|((), own)| own);
        let target = self.target(name, route.upstream.as_ref(), route.upstream_id.as_ref());
        let (own, target) = both(own, target)?;
        let service = route.service_id.as_ref().map(|id| self.service_of_streams(name, id));
        let is_broken = self.is_stand_in || matches!(service, Some(None));
        let service = service.flatten();
        let (mounts, target) = match &service {
            Some(service) => {
                let under = usable(&service.mounts);
                let target = if target == Target::Nothing { service.target } else { target };
                (lay_over(&under, &own), target)
            }
            None => (own, target),
        };
        self.parts.streams.check(route).map_err(|error| vec![ConfigError::at("sni", error.to_string())])?;
        self.tell_what_is_not_done(name, route, target);
        if route.protocol.as_ref().is_some_and(|protocol| protocol.superior_id.is_some()) {
            // It is for what passes inside another's connections, and no connection is its own.
            return Ok(());
        }
        let compiled = StreamRoute {
            labels: labels_of(
                id,
                route.name.as_ref().map(|name| name.as_str()),
                route.service_id.as_ref().map(|id| id.as_str()),
                service.as_deref(),
            ),
            clients: route.remote_addr.is_some().then(|| set_of(route.remote_addr.iter())),
            servers: route.server_addr.is_some().then(|| set_of(route.server_addr.iter())),
            chain: Chain::new(mounts.list),
            target,
            is_broken,
        };
        let place = self.parts.streams.put(self.age, route, compiled);
        self.made.place = Some(place);
        Ok(())
    }

    /// What is asked for and not to be had.
    fn tell_what_is_not_done(&mut self, name: &str, route: &model::StreamRoute, target: Target) {
        if let Some(protocol) = &route.protocol {
            let problem = format!(
                "expected none in this version, got {}; its bytes are passed on and not looked into",
                protocol.name
            );
            self.lacks.push(ConfigError::at("protocol", problem).in_object(name));
        }
        let Target::Upstream(at) = target else { return };
        let scheme = self.parts.upstreams[at].scheme;
        if !scheme.is_for_streams() && !scheme.is_for_datagrams() {
            let problem =
                format!("expected tcp, tls, udp or none, got {}; connections are closed", scheme.word());
            self.lacks.push(ConfigError::at("upstream.scheme", problem).in_object(name));
        }
    }

    /// A stream route's service; none if it is gone.
    fn service_of_streams(&mut self, name: &str, id: &model::ObjectId) -> Option<Arc<Service>> {
        self.need(Kind::Service, id.as_str());
        let found = self.parts.services.get(id.as_str()).cloned();
        if found.is_none() {
            self.missing(name, "service_id", "a service", id);
        }
        found
    }
}

/// Whether each of these plugins works in streams.
fn only_of_streams(plugins: Option<&PluginMap>) -> Result<(), Vec<ConfigError>> {
    only(
        plugins,
        |card| card.in_streams,
        || {
            let known = CATALOG.iter().filter(|card| card.in_streams).map(|card| card.name);
            format!("in a stream: expected one of {}", known.collect::<Vec<_>>().join(", "))
        },
    )
}

/// Whether each of these plugins works with requests.
pub(super) fn only_of_requests(plugins: Option<&PluginMap>) -> Result<(), Vec<ConfigError>> {
    only(plugins, |card| card.with_requests, || "with requests: it is for stream routes".to_owned())
}

fn only(
    plugins: Option<&PluginMap>,
    fits: fn(&Card) -> bool,
    why: impl Fn() -> String,
) -> Result<(), Vec<ConfigError>> {
    let names = plugins.into_iter().flat_map(PluginMap::keys);
    let strangers = names.filter(|name| Card::of(name).is_some_and(|card| !fits(card)));
    let fault = |name: &String| {
        ConfigError::at(format!("plugins.{name}"), format!("unknown plugin [{name}] {}", why()))
    };
    let faults: Vec<ConfigError> = strangers.map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What of a service's plugins works in streams; the rest is for its requests.
fn usable(mounts: &Mounts) -> Mounts {
    let works = |name: &str| Card::of(name).is_some_and(|card| card.in_streams);
    Mounts {
        list: mounts.list.iter().filter(|mount| works(mount.plugin.name())).cloned().collect(),
        disabled: mounts.disabled.clone(),
    }
}

//! What a consumer adds to a request once it is known: its plugins, and its name for the upstream.

use std::rc::Rc;

use super::{Hall, MERGED_MAX, View};
use crate::exchange::Exchange;
use crate::plugin::{Hooks as _, PluginChain};
use crate::proto::head::HeaderId;
use crate::snapshot::{AnyPlugin, Chain, Consumer};

/// Whether a merged chain has the plugin from the consumer: such ones missed the first `REWRITE`.
pub(super) fn is_new(route: &Chain, plugin: &AnyPlugin) -> bool {
    !plugin.is_auth() && !route.has(plugin.name())
}

/// The route's chain with the consumer's plugins over it, if the consumer has any.
pub(super) fn merge(hall: &Hall, view: &View, route: Option<u32>, ex: &Exchange) -> Option<Rc<Chain>> {
    let (at, consumer) = (route?, ex.consumer_at?);
    let Consumer { mounts, disabled, .. } = view.consumers.get(consumer)?;
    if mounts.is_empty() && disabled.is_empty() {
        return None;
    }
    let mut known = hall.merged.borrow_mut();
    if let Some(chain) = known.get(&(at, consumer)) {
        return Some(Rc::clone(chain));
    }
    if known.len() >= MERGED_MAX {
        known.clear();
    }
    let route = view.routes[at].chain.mounts();
    let replaced =
        |name: &str| mounts.iter().any(|new| new.plugin.name() == name) || disabled.contains(&name);
    let kept = route.iter().filter(|own| !replaced(own.plugin.name()));
    let chain = Rc::new(PluginChain::new(kept.chain(mounts).cloned().collect()));
    // A request that outlives its snapshot must not leave a chain of it behind.
    if hall.view.borrow().generation == view.generation {
        known.insert((at, consumer), Rc::clone(&chain));
    }
    Some(chain)
}

/// Tells the upstream who the request comes from.
pub(super) fn show(ex: &mut Exchange) {
    if ex.consumer_at.is_none() {
        return;
    }
    let headers = &mut ex.request.headers;
    for (id, value) in [
        (HeaderId::XConsumerUsername, ex.consumer.name()),
        (HeaderId::XCredentialIdentifier, ex.consumer.credential_id()),
        (HeaderId::XConsumerCustomId, ex.consumer.custom_id()),
    ] {
        if value.is_empty() {
            headers.remove_id(id);
        } else {
            headers.set_id(id, value.as_bytes());
        }
    }
}

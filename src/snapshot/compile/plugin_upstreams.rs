//! Upstreams of an object's plugins: those they name, and those that are written in their configuration; and the protos
//! they name.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::parts::{Made, Parts};
use super::state::Need;
use super::work::dangling;
use crate::model::reference::{Reference, fill, has_reference};
use crate::model::{self, ConfigError, Kind, ObjectId};
use crate::plugin::{Holds, Registry, Upstreams};
use crate::proto::protobuf::Types;
use crate::runtime::dialogue::Tls;
use crate::snapshot::Upstream;
use crate::snapshot::cells::NodeBook;
use crate::snapshot::references::References;
use crate::snapshot::tls::{Identity, check_pair};
use crate::snapshot::upstream::{Own, compile};

/// What the plugins of one object may do with upstreams.
#[derive(Debug)]
pub(super) struct PluginUpstreams<'w> {
    /// The object, as `routes/7`.
    pub(super) owner: &'w str,
    pub(super) book: &'w mut NodeBook,
    pub(super) parts: &'w mut Parts,
    pub(super) made: &'w mut Made,
    pub(super) needs: &'w mut Vec<Need>,
    pub(super) lacks: &'w mut Vec<ConfigError>,
}

impl Upstreams for PluginUpstreams<'_> {
    fn kept(&mut self, field: &str, id: &ObjectId) -> Option<u32> {
        self.needs.push(Need::Object((Kind::Upstream, id.as_str().into())));
        let place = self.parts.upstream_ids.get(id.as_str()).copied();
        if place.is_none() {
            self.lacks.push(dangling(field, "an upstream", id).in_object(self.owner));
        }
        place
    }

    fn proto(&mut self, field: &str, id: &ObjectId) -> Option<Arc<Types>> {
        self.needs.push(Need::Object((Kind::Proto, id.as_str().into())));
        let types = self.parts.protos.get(id.as_str()).cloned();
        if types.is_none() {
            self.lacks.push(dangling(field, "a proto", id).in_object(self.owner));
        }
        types
    }

    fn addresses(&mut self, field: &str, host: &str) -> Vec<IpAddr> {
        self.book.names.addresses(host).unwrap_or_else(|error| {
            let problem = format!("can not resolve {host}: {error}");
            self.lacks.push(ConfigError::at(field, problem).in_object(self.owner));
            Vec::new()
        })
    }

    fn tls(&mut self, verify: bool) -> Result<Tls, String> {
        // What is spoken over it is not HTTP.
        let tls = self.book.outward.for_nodes(verify, None, &[])?;
        Ok(Tls { id: tls.id, config: tls.config })
    }

    fn make(
        &mut self,
        holder: (&mut Registry, &mut Holds),
        field: &str,
        upstream: &model::Upstream,
    ) -> Result<u32, Vec<ConfigError>> {
        let name = format!("{}#{field}", self.owner);
        // References in plugins are filled in before they are compiled.
        let own = Shown { parts: self.parts, needs: self.needs, references: None };
        let (compiled, lacks) = upstream_of(holder, &name, upstream, self.book, own)?;
        self.lacks.extend(lacks);
        let place = self.parts.upstreams.add(compiled);
        self.made.inline.push(place);
        Ok(place)
    }
}

/// The certificates that nodes may be shown.
pub(super) struct Shown<'w> {
    pub(super) parts: &'w Parts,
    pub(super) needs: &'w mut Vec<Need>,
    /// What references stand for.
    pub(super) references: Option<&'w mut References>,
}

impl Shown<'_> {
    /// The one that the nodes of an upstream are shown: an ssl's, or its own; or what is lacking where the ssl is not in
    /// force.
    fn identity(self, upstream: &model::Upstream, book: &NodeBook) -> Result<Own, Vec<ConfigError>> {
        let Some(tls) = &upstream.tls else { return Ok(Ok(None)) };
        if let Some(id) = &tls.client_cert_id {
            self.needs.push(Need::Object((Kind::Ssl, id.as_str().into())));
            return match self.parts.identities.get(id.as_str()) {
                Some(identity) => Ok(Ok(Some(Arc::clone(identity)))),
                None => Ok(Err(dangling("tls.client_cert_id", "an ssl of type client", id))),
            };
        }
        let (Some(cert), Some(key)) = (&tls.client_cert, &tls.client_key) else { return Ok(Ok(None)) };
        let written = json!({"client_cert": cert.as_str(), "client_key": key.expose()});
        let filled = match self.filled(written) {
            Ok(filled) => filled,
            // Nobody is shown another certificate, or none, instead.
            Err(fault) => {
                let fault = fault.under("tls");
                return if fault.may_pass { Ok(Err(fault)) } else { Err(vec![fault]) };
            }
        };
        let text = |field: &str| filled[field].as_str().unwrap_or_default();
        let (cert, key) = (text("client_cert"), text("client_key"));
        check_pair(("tls.client_cert", cert), ("tls.client_key", key))?;
        let own = Identity::of(book.outward.provider(), cert, key);
        own.map(|own| Ok(Some(Arc::new(own))))
            .map_err(|problem| vec![ConfigError::at("tls.client_key", problem)])
    }

    /// Texts with what their references stand for, or the first that has no value.
    fn filled(self, written: Value) -> Result<Value, ConfigError> {
        let Some(references) = self.references.filter(|_| has_reference(&written)) else {
            return Ok(written);
        };
        let secrets = &self.parts.secrets;
        let mut stores = Vec::new();
        let filled = fill(&written, &mut |text| {
            if let Ok(Reference::Secret { store, .. }) = Reference::of(text) {
                stores.push(store.to_owned());
            }
            references.value(text, |store| secrets.contains_key(store))
        });
        self.needs.extend(stores.into_iter().map(|store| Need::Object((Kind::Secret, store.into()))));
        match filled {
            Ok(mut filled) => Ok(std::mem::take(&mut filled.value)),
            Err(faults) => Err(faults.into_iter().next().unwrap_or_else(|| ConfigError::new("no value"))),
        }
    }
}

/// Compiles an upstream, and tells what it lacks. `name` is the object, with the field behind `#` where it is written
/// inside another.
pub(super) fn upstream_of(
    (registry, holds): (&mut Registry, &mut Holds),
    name: &str,
    upstream: &model::Upstream,
    book: &mut NodeBook,
    shown: Shown<'_>,
) -> Result<(Upstream, Vec<ConfigError>), Vec<ConfigError>> {
    let (spare, missing) = spare_of(upstream, shown.parts, shown.needs);
    let own = shown.identity(upstream, book)?;
    let (mut compiled, mut lacks) = compile(name, upstream, book, (own, spare))?;
    lacks.extend(missing);
    let fingerprint = compiled.fingerprint();
    compiled.turn = registry.local(holds, name, "upstream", fingerprint);
    if let Some(hedge) = &mut compiled.additions.hedge {
        hedge.tally = registry.local(holds, name, "hedge", fingerprint);
    }
    let (object, field) = name.split_once('#').unwrap_or((name, ""));
    let of_object = |fault: ConfigError| match field {
        "" => fault.in_object(object),
        field => fault.under(field).in_object(object),
    };
    Ok((compiled, lacks.into_iter().map(of_object).collect()))
}

/// The place of the upstream that the fallback of another names; what is lacking where it is not in force.
fn spare_of(
    upstream: &model::Upstream,
    parts: &Parts,
    needs: &mut Vec<Need>,
) -> (Option<u32>, Option<ConfigError>) {
    let Some(id) = upstream.fallback.as_ref().and_then(|fallback| fallback.upstream_id.as_ref()) else {
        return (None, None);
    };
    needs.push(Need::Object((Kind::Upstream, id.as_str().into())));
    let place = parts.upstream_ids.get(id.as_str()).copied();
    (place, place.is_none().then(|| dangling("fallback.upstream_id", "an upstream", id)))
}

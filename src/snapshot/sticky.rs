//! Sticky sessions, compiled: the cookie of each node, made when configuration is.

use aws_lc_rs::hmac;

use super::upstream::Node;
use crate::base::hash::Map;
use crate::base::text::hex;
use crate::exchange::Exchange;
use crate::model::upstream as model;

/// Bytes of a value, before they are written as text: enough that none is met by chance.
const VALUE_BYTES: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Sticky {
    cookie: Box<str>,
    /// Places of nodes by their values; of nodes that get no requests there are none.
    places: Map<Box<[u8]>, usize>,
    /// What is set for a node, by its place: the value of the header.
    lines: Box<[Box<[u8]>]>,
}

impl Sticky {
    /// `weights` are those of the nodes, in their order.
    pub(super) fn new(sticky: &model::Sticky, nodes: &[Node], weights: impl Iterator<Item = u32>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, sticky.key.expose().as_bytes());
        let attributes = attributes(sticky);
        let (mut places, mut lines) = (Map::default(), Vec::with_capacity(nodes.len()));
        for ((place, node), weight) in nodes.iter().enumerate().zip(weights) {
            let tag = hmac::sign(&key, format!("node {}", node.address).as_bytes());
            let value = hex(tag.as_ref().get(..VALUE_BYTES).unwrap_or_default());
            lines.push(format!("{}={value}{attributes}", sticky.cookie.as_str()).into_bytes().into());
            if weight > 0 {
                places.entry(value.into_bytes().into()).or_insert(place);
            }
        }
        Self { cookie: sticky.cookie.as_str().into(), places, lines: lines.into() }
    }

    /// The cookie's name.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    /// The node that a request's cookie leads to.
    pub fn node_of(&self, ex: &Exchange) -> Option<usize> {
        self.places.get(ex.request.cookie(self.cookie.as_bytes())?).copied()
    }

    /// The value of `Set-Cookie` that leads to a node.
    pub fn line(&self, node: usize) -> Option<&[u8]> {
        self.lines.get(node).map(|line| &**line)
    }
}

fn attributes(sticky: &model::Sticky) -> String {
    let mut text = format!("; Path={}", sticky.path.as_str());
    if let Some(ttl) = sticky.ttl {
        text.push_str(&format!("; Max-Age={}", ttl.get()));
    }
    if sticky.secure {
        text.push_str("; Secure");
    }
    if sticky.http_only {
        text.push_str("; HttpOnly");
    }
    text.push_str(match sticky.same_site {
        None => "",
        Some(model::SameSite::Strict) => "; SameSite=Strict",
        Some(model::SameSite::Lax) => "; SameSite=Lax",
        Some(model::SameSite::None) => "; SameSite=None",
    });
    text
}

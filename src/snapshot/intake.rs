//! What a request says, before anybody acts on it: framing, authority, path, and whom to believe.
//!
//! All of it is decided once, here, so that routes, rules, logs and the upstream see the same bytes, and so does
//! whoever explains what would become of a request.

use std::net::IpAddr;

use super::House;
use crate::base::cidr::vouched;
use crate::exchange::Exchange;
use crate::proto::h1::HeadFault;
use crate::proto::h1::framing::{self, Framing};
use crate::proto::head::{HeaderId, HeaderSet, Method, Version};
use crate::proto::uri::{self, Scheme, Target, UriFault};

/// Why a request is refused before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    /// One stable word.
    pub word: &'static str,
}

impl Refusal {
    pub const HEAD_TIMEOUT: Self = Self { status: 408, word: "head_timeout" };
    pub const BODY_TOO_LARGE: Self = Self { status: 413, word: "body_too_large" };
    /// A request in clear where TLS is spoken.
    pub const PLAIN_HTTP: Self = Self { status: 400, word: "plain_http_over_tls" };
    /// The host is not the one whose rules the client was let in by; RFC 9110 15.5.20.
    pub const MISDIRECTED: Self = Self { status: 421, word: "misdirected" };
    /// The client has shown its certificate to another host; APISIX's status.
    pub const SNI_MISMATCH: Self = Self { status: 400, word: "sni_mismatch" };
    /// The client has no certificate, or one that nobody vouches for; APISIX's status.
    pub const CLIENT_CERTIFICATE: Self = Self { status: 400, word: "client_certificate" };
    const METHOD_REFUSED: Self = Self { status: 405, word: "method_refused" };
    const AUTHORITY_MISMATCH: Self = Self { status: 400, word: "authority_mismatch" };
}

impl From<HeadFault> for Refusal {
    fn from(fault: HeadFault) -> Self {
        Self { status: fault.status(), word: fault.word() }
    }
}

impl From<UriFault> for Refusal {
    fn from(fault: UriFault) -> Self {
        Self { status: 400, word: fault.word() }
    }
}

/// Headers by which proxies vouch for a client. From anybody else they are lies.
const VOUCHING: HeaderSet = HeaderSet::of(&[
    HeaderId::Forwarded,
    HeaderId::XForwardedFor,
    HeaderId::XForwardedHost,
    HeaderId::XForwardedPort,
    HeaderId::XForwardedProto,
    HeaderId::XRealIp,
]);
const VOUCHING_LIST: [HeaderId; 6] = [
    HeaderId::Forwarded,
    HeaderId::XForwardedFor,
    HeaderId::XForwardedHost,
    HeaderId::XForwardedPort,
    HeaderId::XForwardedProto,
    HeaderId::XRealIp,
];
/// Headers of the same kind without an id; looked for only where a request has unknown names at all.
const VOUCHING_OTHERS: [&str; 6] = [
    "x-forwarded-prefix",
    "x-forwarded-uri",
    "x-forwarded-method",
    "true-client-ip",
    "cf-connecting-ip",
    "x-client-ip",
];
/// Headers that say who the gateway found a client to be. Never from the client.
const IDENTITY_LIST: [HeaderId; 3] =
    [HeaderId::XConsumerUsername, HeaderId::XCredentialIdentifier, HeaderId::XConsumerCustomId];
const IDENTITY: HeaderSet = HeaderSet::of(&IDENTITY_LIST);
/// Headers that stand once or not at all (RFC 9110 5.3): of two, whoever is behind us may believe the other one. `Host` and
/// what tells of the body are looked at with the framing.
const SINGLE: HeaderSet = HeaderSet::of(&[HeaderId::Authorization, HeaderId::ContentType]);
/// Proxies in a row that are walked to find a client.
const HOPS_MAX: usize = 32;

/// What a head says of the body behind it.
#[derive(Clone, Copy, Debug)]
pub struct BodyAhead {
    pub framing: Framing,
    /// The client sends it when it is told to go on.
    pub awaits_continue: bool,
}

/// How the body comes, if the method is one that is served.
///
/// # Errors
/// Why the request is refused.
pub fn body_ahead(ex: &mut Exchange) -> Result<BodyAhead, Refusal> {
    let line = ex.request.line;
    let headers = &ex.request.headers;
    let framing = framing::of_request(&line, headers)?;
    if headers.repeats_any(SINGLE) {
        let is_authorization = headers.is_repeated(HeaderId::Authorization);
        let fault =
            if is_authorization { HeadFault::AuthorizationRepeated } else { HeadFault::ContentTypeRepeated };
        return Err(fault.into());
    }
    // RFC 9110 10.1.1: an HTTP/1.0 client can not mean it.
    let awaits_continue = framing::expects_continue(headers)? && line.version == Version::Http11;
    if matches!(line.method, Method::Connect | Method::Trace) {
        return Err(Refusal::METHOD_REFUSED);
    }
    ex.request.content_length = match framing {
        Framing::Length(length) => Some(length),
        Framing::None | Framing::Chunked | Framing::UntilClose => None,
    };
    Ok(BodyAhead { framing, awaits_continue })
}

/// Makes of a head what the rest of the gateway reads. A body may have so many bytes; 0 is no bound.
///
/// # Errors
/// Why the request is refused.
pub fn admit(house: &House, body_bytes_max: u64, ex: &mut Exchange) -> Result<(), Refusal> {
    let max = body_bytes_max;
    if max > 0 && ex.request.content_length.is_some_and(|length| length > max) {
        return Err(Refusal::BODY_TOO_LARGE);
    }
    read_target(house, ex)?;
    judge_client(house, ex);
    Ok(())
}

/// Authority, path and query.
fn read_target(house: &House, ex: &mut Exchange) -> Result<(), Refusal> {
    let request = &mut ex.request;
    let line = request.line;
    let target = line.target.of(request.headers.received());
    let (path, query, authority) = match uri::split(target, line.method)? {
        Target::Origin { path, query } => (path, query, None),
        Target::Absolute { scheme, authority, path, query } => (path, query, Some((scheme, authority))),
        Target::Asterisk | Target::Authority => (&b"/"[..], None, None),
    };
    let host = request.headers.get_id(HeaderId::Host);
    match (host, authority) {
        (Some(host), Some((scheme, authority))) => {
            // RFC 9112 3.2.2 lets the target win; two names for one request are refused here.
            let own = if ex.security.is_some() { Scheme::Https } else { Scheme::Http };
            if scheme != own || !uri::same_authority(authority, host, scheme) {
                return Err(Refusal::AUTHORITY_MISMATCH);
            }
            request.host_port = uri::authority(host, &mut request.host)?;
        }
        (Some(host), None) => request.host_port = uri::authority(host, &mut request.host)?,
        (None, Some((_, authority))) => request.host_port = uri::authority(authority, &mut request.host)?,
        // HTTP/1.0 only: framing has refused the rest.
        (None, None) => {}
    }
    request.has_query = query.is_some();
    request.query.extend_from_slice(query.unwrap_or(b""));
    uri::normalise(path, &house.uri, &mut request.path, &mut request.wire_path)?;
    Ok(())
}

/// Believes a trusted proxy, and nobody else; nobody at all as to consumers.
fn judge_client(house: &House, ex: &mut Exchange) {
    let headers = &mut ex.request.headers;
    if headers.has_any(IDENTITY) {
        for id in IDENTITY_LIST {
            headers.remove_id(id);
        }
    }
    ex.client.trusted = house.trusted.contains(ex.client.ip);
    if ex.client.trusted {
        ex.client.ip = client_behind(house, headers.all_id(HeaderId::XForwardedFor), ex.client.ip);
        return;
    }
    if headers.has_any(VOUCHING) {
        for id in VOUCHING_LIST {
            if id != HeaderId::XForwardedFor || !house.appends_forwarded_for {
                headers.remove_id(id);
            }
        }
    }
    if headers.has_unknown() {
        for name in VOUCHING_OTHERS {
            headers.remove(name);
        }
    }
}

/// Walks `X-Forwarded-For` from the right, through trusted proxies only.
fn client_behind<'a>(house: &House, lines: impl Iterator<Item = &'a [u8]>, peer: IpAddr) -> IpAddr {
    let mut hops = [peer; HOPS_MAX];
    let mut count = 0;
    for hop in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let Some((address, _)) = vouched(hop) else {
            // What is left of something unreadable is unreadable, too.
            count = 0;
            continue;
        };
        // Of a longer list, the right-hand end counts.
        if count == HOPS_MAX {
            hops.copy_within(1.., 0);
            count -= 1;
        }
        hops[count] = address;
        count += 1;
    }
    let mut client = peer;
    for address in hops[..count].iter().rev() {
        client = *address;
        if !house.trusted.contains(client) {
            break;
        }
    }
    client
}

//! The request of an exchange.

use super::{Body, Read};
use crate::proto::head::{HeaderList, Method, RequestLine};

/// A request: its head as received, what was made of its target, and what plugins want changed.
#[derive(Debug, Default)]
pub struct Request {
    pub line: RequestLine,
    pub headers: HeaderList,
    /// The path as rules see it: decoded, dot segments and doubled slashes gone. APISIX's `$uri`.
    pub path: Vec<u8>,
    /// The same path in the form it is forwarded in: normal percent coding.
    pub wire_path: Vec<u8>,
    /// The query as received, without `?`; plugins may edit it.
    pub query: Vec<u8>,
    /// Whether the target had a `?`, with or without something behind it.
    pub has_query: bool,
    /// The host in lower case, without port and trailing dot. One name for routes, rules and logs.
    pub host: String,
    /// The port of the authority, if given.
    pub host_port: Option<u16>,
    pub body: Body,
    /// Where what is read of the body is kept, while nobody changes it.
    pub read: Option<Box<Read>>,
    /// Declared length of the body, if it was declared.
    pub content_length: Option<u64>,
    /// The most bytes of body that a plugin allows; 0 is no bound.
    pub body_bytes_max: u64,
    /// The most bytes of body of which a copy is kept as it passes, for `LOG` to see as held; 0 keeps none. A longer one
    /// is not kept.
    pub kept_body_bytes_max: usize,
    /// The most bytes of the beginning of a body of which a copy is kept as it passes, for `LOG`; 0 keeps none.
    pub logged_body_bytes_max: usize,
    /// That beginning, where the body is longer or did not come whole; else it is held.
    pub body_beginning: Vec<u8>,
    /// The most bytes of body that are held before `ACCESS` because a plugin's `REWRITE` asked for it; 0 holds none.
    pub held_body_bytes_max: usize,
    pub forward: Forward,
    /// Parameters of the route's path, as ranges into `path`.
    pub params: Vec<(String, std::ops::Range<u32>)>,
}

/// What plugins want the upstream to see instead; empty means as received.
#[derive(Debug, Default)]
pub struct Forward {
    /// Path and query to send, percent-encoded.
    pub target: Vec<u8>,
    /// `Host` to send.
    pub host: Vec<u8>,
    pub method: Option<Method>,
}

impl Request {
    /// The method as received.
    pub const fn method(&self) -> Method {
        self.line.method
    }

    /// The method to forward.
    pub const fn forward_method(&self) -> Method {
        match self.forward.method {
            Some(method) => method,
            None => self.line.method,
        }
    }

    /// Appends APISIX's `$request_uri`: the normalised path with the query.
    pub fn write_request_uri(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.wire_path);
        if self.has_query {
            out.push(b'?');
            out.extend_from_slice(&self.query);
        }
    }

    /// Appends the target that is sent on.
    pub fn write_forward_target(&self, out: &mut Vec<u8>) {
        if !self.forward.target.is_empty() {
            out.extend_from_slice(&self.forward.target);
        } else if self.line.target.of(self.headers.received()) == b"*" {
            out.push(b'*');
        } else {
            self.write_request_uri(out);
        }
    }

    /// The value of the first query argument of that name as it stands in the query. Names compare after
    /// decoding.
    pub fn raw_arg(&self, name: &[u8]) -> Option<&[u8]> {
        raw_pair(&self.query, name)
    }

    /// The value of the first query argument of that name, percent-decoded into `out`.
    /// False when there is none.
    pub fn arg(&self, name: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(raw) = self.raw_arg(name) else { return false };
        out.clear();
        crate::base::text::form_decode(raw, out);
        true
    }

    /// Removes all query arguments of that name.
    pub fn remove_arg(&mut self, name: &[u8]) {
        self.query = without_pairs(&self.query, name);
        self.has_query = !self.query.is_empty();
        // A plugin that ran before may have written the query into the target that is sent.
        let target = &mut self.forward.target;
        if let Some(at) = memchr::memchr(b'?', target) {
            let kept = without_pairs(&target[at + 1..], name);
            target.truncate(if kept.is_empty() { at } else { at + 1 });
            target.extend_from_slice(&kept);
        }
    }

    /// The range of a cookie's value within the `Cookie` lines; the first of that name.
    pub fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        use crate::proto::head::HeaderId;
        for line in self.headers.all_id(HeaderId::Cookie) {
            for pair in line.split(|byte| *byte == b';') {
                let pair = pair.trim_ascii();
                if pair.len() > name.len() && pair.starts_with(name) && pair[name.len()] == b'=' {
                    return Some(&pair[name.len() + 1..]);
                }
            }
        }
        None
    }

    /// The most bytes of body where `most` is another bound; 0 is none.
    pub const fn body_bound(&self, most: u64) -> u64 {
        match (self.body_bytes_max, most) {
            (0, bound) | (bound, 0) => bound,
            (own, other) if own < other => own,
            (_, other) => other,
        }
    }

    /// Holds what is here in no more memory than it needs. The receive buffer, to be given back.
    pub(super) fn compact(&mut self) -> Vec<u8> {
        for text in [
            &mut self.path,
            &mut self.wire_path,
            &mut self.query,
            &mut self.forward.target,
            &mut self.forward.host,
        ] {
            text.shrink_to_fit();
        }
        self.host.shrink_to_fit();
        self.params.shrink_to_fit();
        self.headers.compact(self.line.head)
    }

    /// Forgets everything but the memory.
    pub fn clear(&mut self) {
        self.line = RequestLine::default();
        self.headers.clear();
        self.path.clear();
        self.wire_path.clear();
        self.query.clear();
        self.has_query = false;
        self.host.clear();
        self.host_port = None;
        self.body = Body::Empty;
        self.read = None;
        self.content_length = None;
        self.body_bytes_max = 0;
        self.kept_body_bytes_max = 0;
        self.logged_body_bytes_max = 0;
        self.body_beginning = Vec::new();
        self.held_body_bytes_max = 0;
        self.forward.target.clear();
        self.forward.host.clear();
        self.forward.method = None;
        self.params.clear();
    }
}

/// What is between `&`s but for the pairs whose decoded name is `name`.
fn without_pairs(form: &[u8], name: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(form.len());
    for pair in form.split(|byte| *byte == b'&') {
        let cut = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        if !crate::base::text::form_decoded_eq(&pair[..cut], name) {
            if !kept.is_empty() {
                kept.push(b'&');
            }
            kept.extend_from_slice(pair);
        }
    }
    kept
}

/// The raw value of the first `name=value` between `&`s whose decoded name is `name`.
pub(super) fn raw_pair<'a>(form: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    form.split(|byte| *byte == b'&').find_map(|pair| {
        let cut = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        crate::base::text::form_decoded_eq(&pair[..cut], name).then(|| pair.get(cut + 1..).unwrap_or(b""))
    })
}

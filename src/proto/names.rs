//! Names of header fields that matter to a gateway, as ids, and sets of them as one word.

macro_rules! known_headers {
    ($($variant:ident = $text:literal,)*) => {
        /// A header name that the gateway has business with.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum HeaderId {
            /// Any name that is not known.
            Other,
            $($variant,)*
        }

        impl HeaderId {
            /// The name in lower case; empty for `Other`.
            pub const fn text(self) -> &'static str {
                match self { Self::Other => "", $(Self::$variant => $text,)* }
            }

            const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }
    };
}

known_headers! {
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    Apikey = "apikey",
    Authorization = "authorization",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Expect = "expect",
    Forwarded = "forwarded",
    Host = "host",
    Http2Settings = "http2-settings",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    ProxyAuthenticate = "proxy-authenticate",
    ProxyAuthorization = "proxy-authorization",
    ProxyConnection = "proxy-connection",
    Referer = "referer",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    XConsumerCustomId = "x-consumer-custom-id",
    XConsumerUsername = "x-consumer-username",
    XCredentialIdentifier = "x-credential-identifier",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    XRatelimitLimit = "x-ratelimit-limit",
    XRatelimitRemaining = "x-ratelimit-remaining",
    XRatelimitReset = "x-ratelimit-reset",
    XRealIp = "x-real-ip",
    XRequestId = "x-request-id",
}

/// Bytes of the longest known name.
const NAME_BYTES_MAX: usize = 24;
/// Known names of one length at most.
const GROUP_MAX: usize = 6;

/// A known name as three words that overlap where it is shorter than all of them.
#[derive(Clone, Copy)]
struct Known {
    words: [u64; 3],
    id: HeaderId,
}

/// Known names of one length.
#[derive(Clone, Copy)]
struct Group {
    names: [Known; GROUP_MAX],
    len: usize,
}

/// Names grouped by length at compile time, so that classifying one compares a few words with a handful.
static BY_LENGTH: [Group; NAME_BYTES_MAX + 1] = by_length();

const fn by_length() -> [Group; NAME_BYTES_MAX + 1] {
    let nothing = Known { words: [0; 3], id: HeaderId::Other };
    let mut table = [Group { names: [nothing; GROUP_MAX], len: 0 }; NAME_BYTES_MAX + 1];
    let mut at = 0;
    while at < HeaderId::ALL.len() {
        let id = HeaderId::ALL[at];
        let name = id.text().as_bytes();
        let group = &mut table[name.len()];
        group.names[group.len] = Known { words: words(name), id };
        group.len += 1;
        at += 1;
    }
    table
}

/// First, middle and last eight bytes of a name of at most 24, letters in lower case. A shorter name than eight
/// stands in the first word alone. What this makes equal besides case, no name of a header can hold.
const fn words(name: &[u8]) -> [u64; 3] {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    if name.len() < 8 {
        let (mut word, mut at) = (0, 0);
        while at < name.len() {
            word = word << 8 | (name[at] | 0x20) as u64;
            at += 1;
        }
        return [word, 0, 0];
    }
    let middle = if name.len() > 16 { 8 } else { 0 };
    [eight(name, 0) | LOWER, eight(name, middle) | LOWER, eight(name, name.len() - 8) | LOWER]
}

const fn eight(name: &[u8], from: usize) -> u64 {
    let (_, rest) = name.split_at(from);
    match rest.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => 0,
    }
}

impl HeaderId {
    /// The id of a name in any case; `Other` when it is none of ours. The name is a token (RFC 9110 5.6.2).
    pub fn of(name: &[u8]) -> Self {
        let Some(group) = BY_LENGTH.get(name.len()) else { return Self::Other };
        let words = words(name);
        for known in &group.names[..group.len] {
            // Word by word: compared as a whole they would be loaded wider than they were just stored, and wait for it.
            let [first, middle, last] = words;
            if known.words[0] == first && known.words[1] == middle && known.words[2] == last {
                return known.id;
            }
        }
        Self::Other
    }

    pub(super) const fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

/// A name that is written, or looked for, again and again: which one it is was found out before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName {
    text: Box<str>,
    id: HeaderId,
}

impl FieldName {
    /// A name, as it is to be written.
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), id: HeaderId::of(text.as_bytes()) }
    }

    /// The name as it is written.
    pub const fn text(&self) -> &str {
        &self.text
    }

    /// Which one it is.
    pub const fn id(&self) -> HeaderId {
        self.id
    }
}

/// Several ids in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderSet(pub(super) u64);

impl HeaderSet {
    /// The set of the given ids.
    pub const fn of(ids: &[HeaderId]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < ids.len() {
            bits |= ids[at].bit();
            at += 1;
        }
        Self(bits)
    }

    /// Whether `id` is in the set; `Other` never is.
    pub const fn contains(self, id: HeaderId) -> bool {
        self.0 & id.bit() != 0 && !matches!(id, HeaderId::Other)
    }

    /// Adds one id.
    pub const fn insert(&mut self, id: HeaderId) {
        self.0 |= id.bit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for id in HeaderId::ALL {
            assert_eq!(HeaderId::of(id.text().to_ascii_uppercase().as_bytes()), *id);
        }
        assert_eq!(HeaderId::of(b"x-unknown"), HeaderId::Other);
        assert!(HeaderId::ALL.len() < 64, "ids are bits of one word");
    }

    #[test]
    fn a_name_that_differs_anywhere_from_a_known_one_is_another() {
        for id in HeaderId::ALL {
            let name = id.text().as_bytes();
            for at in 0..name.len() {
                let mut other = name.to_vec();
                other[at] = if other[at] == b'q' { b'z' } else { b'q' };
                assert_eq!(HeaderId::of(&other), HeaderId::Other, "{}", String::from_utf8_lossy(&other));
            }
            assert_eq!(HeaderId::of(&[name, b"s"].concat()), HeaderId::Other);
        }
        assert_eq!(HeaderId::of(b""), HeaderId::Other);
        assert_eq!(HeaderId::of(&[b'a'; 300]), HeaderId::Other);
    }
}

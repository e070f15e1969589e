//! Sticky sessions: requests of one client go to one node, by a cookie that the gateway gives. Not in APISIX.

use serde::{Deserialize, Serialize};

use crate::model::ConfigError;
use crate::model::field::{CookieName, InRange, Secret, Text};
use crate::model::schema::shown_text;

/// Shortest key: what is shorter could be found by trying.
const KEY_BYTES_MIN: usize = 16;

/// How a client is kept at one node.
#[derive(Clone, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// The name of the cookie. Upstreams that one client may meet under one host, as those of `traffic-split`, each need
    /// a name of their own.
    pub cookie: CookieName,
    /// What the values are made with, at least 16 characters: they tell nothing of a node to whoever does not know it. Gateways
    /// with the same key know each other's cookies.
    pub key: Secret,
    /// Seconds that the client keeps the cookie. Absent: until it ends.
    pub ttl: Option<InRange<1, 34_560_000>>,
    /// The paths for which the client shows the cookie: this and all below.
    #[serde(default = "root")]
    pub path: Text<1, 1024>,
    /// Is it shown over TLS only?
    #[serde(default)]
    pub secure: bool,
    /// Is it hidden from scripts of the page?
    #[serde(default = "yes")]
    pub http_only: bool,
    /// Whether other sites' requests show it. Absent: as the client likes.
    pub same_site: Option<SameSite>,
}

/// Whether a cookie comes with requests that other sites have caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SameSite {
    /// Never.
    Strict,
    /// When the client goes there.
    Lax,
    /// Always; only with `secure`.
    None,
}

fn root() -> Text<1, 1024> {
    Text::literal("/")
}

const fn yes() -> bool {
    true
}

impl Sticky {
    /// What no client would take, or anybody could guess.
    pub(super) fn faults(&self) -> Vec<ConfigError> {
        let mut faults = Vec::new();
        if self.key.expose().len() < KEY_BYTES_MIN {
            let problem = format!("expected at least {KEY_BYTES_MIN} characters, got fewer");
            faults.push(ConfigError::at("sticky.key", problem));
        }
        let path = self.path.as_str();
        if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
            let found = shown_text(path);
            let problem = format!("expected a path such as /shop, without spaces and ;, got {found}");
            faults.push(ConfigError::at("sticky.path", problem));
        }
        if self.same_site == Some(SameSite::None) && !self.secure {
            let problem = "expected secure: true beside none, as clients take no such cookie without";
            faults.push(ConfigError::at("sticky.same_site", problem));
        }
        faults
    }
}

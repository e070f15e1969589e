//! Where a node is: an address with a port, or a Unix socket. Copied freely, as it goes along with every request.
//!
//! Paths of Unix sockets live as long as the process, so that a copy costs nothing. They come from configuration, and there
//! is an end to how many different ones it may name.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

/// What a text begins with that names a Unix socket.
pub const UNIX: &str = "unix:";
/// The longest path that the system has room for in an address, whose last byte is a zero.
pub const PATH_BYTES_MAX: usize = 107;
/// Different paths that a process may come to know while it runs. Worst case half a megabyte.
const PATHS_MAX: usize = 4096;

/// Who comes by a Unix socket has no address. Where one is asked for, it is this one, which nobody else can have.
pub const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

/// Whether an address stands for those that have none.
pub const fn is_none(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unspecified(),
    }
}

/// An address as it is told: in the form of its own family, and `unix:` for those that have none.
#[derive(Clone, Copy, Debug)]
pub struct Shown(pub IpAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_none(self.0) { f.write_str(UNIX) } else { self.0.to_canonical().fmt(f) }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Ip(SocketAddr),
    Unix(UnixPath),
}

/// The path of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixPath(&'static str);

/// Why a text names no Unix socket; reads as a sentence after the field's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPath {
    Form,
    TooMany,
}

impl fmt::Display for NoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str(FORM),
            Self::TooMany => {
                write!(f, "expected at most {PATHS_MAX} different Unix sockets in the life of a process")
            }
        }
    }
}

/// What is expected of a text that names a Unix socket.
pub const FORM: &str = "unix: and an absolute path of at most 107 bytes, such as unix:/run/app.sock";

/// The path in `unix:/path`; `None`: it is none of those.
pub fn path_in(text: &str) -> Option<&str> {
    let path = text.strip_prefix(UNIX)?;
    // So it can stand in a header, a label or a log as it is.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    let is_path = path.starts_with('/') && !path.ends_with('/') && path.bytes().all(is_plain);
    (is_path && path.len() <= PATH_BYTES_MAX).then_some(path)
}

impl UnixPath {
    /// The path in `unix:/path`, which is known from then on.
    ///
    /// # Errors
    /// When it is no path, or one too many. Not for cores: this takes a lock.
    pub fn of(text: &str) -> Result<Self, NoPath> {
        static KNOWN: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
        let path = path_in(text).ok_or(NoPath::Form)?;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.iter().find(|known| **known == path) {
            return Ok(Self(known));
        }
        if known.len() >= PATHS_MAX {
            return Err(NoPath::TooMany);
        }
        let path: &'static str = Box::leak(path.into());
        known.push(path);
        Ok(Self(path))
    }

    pub const fn path(self) -> &'static str {
        self.0
    }

    /// A number that differs from those of other paths.
    pub fn number(self) -> u64 {
        self.0.as_ptr().addr() as u64
    }
}

impl Address {
    /// The address and port, where it has them.
    pub const fn ip(self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// The address without a port, one of IPv4 as such: `10.0.0.1`, `::1`, `unix:/run/app.sock`.
    pub const fn host(self) -> Host {
        Host(self)
    }

    /// 0 where there is none.
    pub const fn port(self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Unix(_) => 0,
        }
    }

    pub const fn is_unix(self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

/// An address without its port, as text.
#[derive(Clone, Copy, Debug)]
pub struct Host(Address);

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Ip(address) => address.ip().to_canonical().fmt(f),
            Address::Unix(path) => write!(f, "{UNIX}{}", path.0),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(_) => self.host().fmt(f),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl FromStr for Address {
    type Err = NoPath;

    fn from_str(text: &str) -> Result<Self, NoPath> {
        match text.parse() {
            Ok(address) => Ok(Self::Ip(address)),
            Err(_) => UnixPath::of(text).map(Self::Unix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_is_written() {
        for text in ["10.0.0.1:80", "[::1]:8080", "unix:/run/app.sock"] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        let [ip, unix] =
            ["[::1]:8080", "unix:/run/app.sock"].map(|text| text.parse::<Address>().expect(text));
        assert_eq!((ip.host().to_string().as_str(), ip.port()), ("::1", 8080));
        assert_eq!((unix.host().to_string().as_str(), unix.port()), ("unix:/run/app.sock", 0));
        assert_eq!(unix.ip(), None);
    }

    #[test]
    fn what_is_no_path_or_has_no_room_in_an_address_is_refused() {
        let long = |bytes: usize| format!("unix:/{}", "a".repeat(bytes - 1));
        assert!(UnixPath::of(&long(PATH_BYTES_MAX)).is_ok());
        for text in [
            "",
            "unix:",
            "unix:run/a",
            "/run/a",
            "unix:/run/",
            "unix:/a b",
            "unix:/a\0",
            "unix:/a\"",
            "unix:/\u{e9}",
        ] {
            assert_eq!(UnixPath::of(text), Err(NoPath::Form), "{text:?}");
        }
        assert_eq!(UnixPath::of(&long(PATH_BYTES_MAX + 1)), Err(NoPath::Form));
    }

    #[test]
    fn a_path_is_kept_once() {
        let one = UnixPath::of("unix:/run/one.sock").expect("a path");
        let again = UnixPath::of("unix:/run/one.sock").expect("a path");
        let other = UnixPath::of("unix:/run/other.sock").expect("a path");
        assert_eq!((one, one.number()), (again, again.number()));
        assert_ne!(one.number(), other.number());
    }

    #[test]
    fn the_address_of_those_without_one_is_told_from_others() {
        assert!(is_none(NO_ADDRESS.ip()));
        assert!(
            ["0.0.0.0", "::1", "::ffff:0.0.0.0"].iter().all(|ip| !is_none(ip.parse().expect("an address")))
        );
    }
}

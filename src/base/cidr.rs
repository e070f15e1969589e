//! Addresses and ranges of addresses, asked once per request.
//!
//! A [`CidrSet`] is two sorted lists of disjoint ranges (v4 and v6), so asking is a binary search whatever the
//! order and overlap of what was written, and allocates nothing. An IPv4 address that arrives in IPv6 clothes
//! (`::ffff:10.0.0.1`, what a dual-stack socket reports) is undressed first, on both sides: otherwise a list of
//! IPv4 ranges could be walked around by connecting over IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::address::{self, Shown};

/// The bits in front of the IPv4 address in an IPv4-mapped IPv6 address.
const MAPPED_BITS: u8 = 96;

/// A range of addresses as one writes it: `10.0.0.0/8`, one address, or `unix:` for those who come by a Unix socket. Bits behind the prefix are cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// Never an IPv4-mapped IPv6 address with a prefix of 96 or more.
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no [`Cidr`]; reads as a sentence after the field's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CidrError(String);

impl Cidr {
    /// The range of the addresses that share the first `prefix` bits; `None` when the address has fewer.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32_u32.checked_sub(u32::from(prefix))?).unwrap_or(0);
                Some(Self { address: Ipv4Addr::from_bits(v4.to_bits() & mask).into(), prefix })
            }
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if prefix >= MAPPED_BITS => Self::new(v4.into(), prefix - MAPPED_BITS),
                _ => {
                    let mask = u128::MAX.checked_shl(128_u32.checked_sub(u32::from(prefix))?).unwrap_or(0);
                    Some(Self { address: Ipv6Addr::from_bits(v6.to_bits() & mask).into(), prefix })
                }
            },
        }
    }

    /// The range of one address.
    pub fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, prefix: width(address) }
    }

    /// The first address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits all addresses share.
    pub const fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(asked)) => {
                let rest = 32 - u32::from(self.prefix);
                (first.to_bits() ^ asked.to_bits()).checked_shr(rest).unwrap_or(0) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(asked)) => {
                let rest = 128 - u32::from(self.prefix);
                (first.to_bits() ^ asked.to_bits()).checked_shr(rest).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        if text == address::UNIX {
            return Ok(Self::of(address::NO_ADDRESS.ip()));
        }
        let fault = || CidrError(format!("expected an address or address/prefix, got {text:?}"));
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        // The standard parser takes plain decimal only: no `010.0.0.1`, `0x7f.1` or `127.1`, which libraries
        // read differently, so that a list would not mean what its writer saw.
        let address: IpAddr = address.parse().map_err(|_| fault())?;
        let Some(prefix) = prefix else { return Ok(Self::of(address)) };
        let plain = prefix == "0" || !prefix.starts_with('0') && prefix.bytes().all(|b| b.is_ascii_digit());
        if !plain || prefix.is_empty() {
            return Err(fault());
        }
        prefix.parse().ok().and_then(|prefix| Self::new(address, prefix)).ok_or_else(|| {
            let most = width(address);
            CidrError(format!("expected a prefix of at most {most} bits, got {text:?}"))
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix == width(self.address) {
            return Shown(self.address).fmt(f);
        }
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for CidrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CidrError {}

/// An address as proxies write it, bare, in brackets or with a port, with that port. Not the one of those who have none: it
/// is known of a connection, and nobody's word is taken for it.
pub fn vouched(text: &[u8]) -> Option<(IpAddr, Option<u16>)> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (address, port) = match (inside, text.parse::<SocketAddr>()) {
        (Some(v6), _) => (v6.parse::<Ipv6Addr>().ok()?.into(), None),
        (None, Ok(both)) => (both.ip(), Some(both.port())),
        (None, Err(_)) => (text.parse().ok()?, None),
    };
    (!address::is_none(address)).then(|| (address.to_canonical(), port))
}

/// A set of addresses. Overlapping and touching ranges are merged when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CidrSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl CidrSet {
    /// Whether the address lies in one of the ranges.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => lies_in(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => lies_in(&self.v6, v6.to_bits()),
        }
    }

    /// Whether no address is in the set.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

fn lies_in<T: Copy + Ord>(ranges: &[(T, T)], asked: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= asked);
    behind > 0 && ranges.get(behind - 1).is_some_and(|(_, last)| asked <= *last)
}

/// Sorts the ranges and joins those that overlap or touch. `next` is the number behind, if there is one.
fn merged<T: Copy + Ord>(mut ranges: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Box<[(T, T)]> {
    ranges.sort_unstable();
    let mut kept: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match kept.last_mut() {
            Some(before) if next(before.1).is_none_or(|behind| first <= behind) => {
                before.1 = before.1.max(last);
            }
            _ => kept.push((first, last)),
        }
    }
    kept.into()
}

impl FromIterator<Cidr> for CidrSet {
    fn from_iter<I: IntoIterator<Item = Cidr>>(cidrs: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for cidr in cidrs {
            match cidr.address {
                IpAddr::V4(first) => {
                    let rest = u32::MAX.checked_shr(u32::from(cidr.prefix)).unwrap_or(0);
                    v4.push((first.to_bits(), first.to_bits() | rest));
                }
                IpAddr::V6(first) => {
                    let rest = u128::MAX.checked_shr(u32::from(cidr.prefix)).unwrap_or(0);
                    v6.push((first.to_bits(), first.to_bits() | rest));
                }
            }
        }
        Self { v4: merged(v4, |last| last.checked_add(1)), v6: merged(v6, |last| last.checked_add(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    fn cidr(text: &str) -> Cidr {
        text.parse().expect("the sample is a range")
    }

    fn set(texts: &[&str]) -> CidrSet {
        texts.iter().map(|text| cidr(text)).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("the sample is an address")
    }

    #[test]
    fn forms_are_read_and_written_in_their_shortest_shape() {
        for (text, written) in [
            ("10.0.0.1", "10.0.0.1"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1"),
            ("2001:DB8::1/32", "2001:db8::/32"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(cidr(text).to_string(), written, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused_with_what_was_expected() {
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/8 ",
            " 10.0.0.1",
            "010.0.0.1",
            "0x7f.0.0.1",
            "127.1",
            "2130706433",
            "10.0.0.256",
            "example.com",
            "[::1]",
            "fe80::1%eth0",
            "1.2.3.4:80",
        ] {
            let error = text.parse::<Cidr>().expect_err(text).to_string();
            assert_eq!(error, format!("expected an address or address/prefix, got {text:?}"));
        }
        for (text, most) in [("10.0.0.0/33", 32), ("::/129", 128), ("10.0.0.0/999", 32)] {
            let error = text.parse::<Cidr>().expect_err(text).to_string();
            assert_eq!(error, format!("expected a prefix of at most {most} bits, got {text:?}"));
        }
    }

    #[test]
    fn the_edges_of_a_range_are_in_and_their_neighbours_are_out() {
        let set = set(&["10.0.0.0/8", "192.168.1.7", "2001:db8::/32", "255.255.255.255"]);
        for inside in ["10.0.0.0", "10.255.255.255", "192.168.1.7", "2001:db8::", "255.255.255.255"] {
            assert!(set.contains(ip(inside)), "{inside}");
        }
        for outside in ["9.255.255.255", "11.0.0.0", "192.168.1.6", "192.168.1.8", "2001:db9::", "::"] {
            assert!(!set.contains(ip(outside)), "{outside}");
        }
        assert!(!CidrSet::default().contains(ip("10.0.0.1")));
        assert!(CidrSet::default().is_empty());
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_address_it_maps() {
        assert!(set(&["10.0.0.0/8"]).contains(ip("::ffff:10.1.2.3")));
        assert!(set(&["::ffff:10.0.0.0/104"]).contains(ip("10.1.2.3")));
        assert!(!set(&["10.0.0.0/8"]).contains(ip("::10.1.2.3")));
        assert!(cidr("10.0.0.0/8").contains(ip("::ffff:10.1.2.3")));
    }

    #[test]
    fn addresses_are_read_in_every_form_proxies_write() {
        for (text, expected) in [
            ("10.0.0.1", Some(("10.0.0.1", None))),
            (" 10.0.0.1:8080 ", Some(("10.0.0.1", Some(8080)))),
            ("::1", Some(("::1", None))),
            ("[::1]", Some(("::1", None))),
            ("[::1]:80", Some(("::1", Some(80)))),
            ("::ffff:127.0.0.1", Some(("127.0.0.1", None))),
            ("[10.0.0.1]", None),
            ("[::1]80", None),
            ("10.0.0.1:", None),
            ("10.0.0.1:65536", None),
            ("0x7f.1", None),
            ("unknown", None),
            ("", None),
        ] {
            let expected = expected.map(|(address, port)| (ip(address), port));
            assert_eq!(vouched(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn everything_is_one_range() {
        let all = set(&["0.0.0.0/1", "128.0.0.0/1", "::/0", "10.0.0.0/8"]);
        assert_eq!(all, set(&["0.0.0.0/0", "::/0"]));
        assert!(all.contains(ip("255.255.255.255")) && all.contains(ip("0.0.0.0")));
    }

    #[test]
    fn a_set_agrees_with_asking_every_range() {
        let seed = 0x5eed;
        let mut rng = Rng::seeded(seed);
        for round in 0..50 {
            let cidrs: Vec<Cidr> = (0..rng.below(40))
                .filter_map(|_| {
                    let address = Ipv4Addr::from_bits((rng.next_u64() as u32) & 0x0303_0303);
                    Cidr::new(address.into(), rng.below(33) as u8)
                })
                .collect();
            let set: CidrSet = cidrs.iter().copied().collect();
            for _ in 0..200 {
                let asked = IpAddr::from(Ipv4Addr::from_bits((rng.next_u64() as u32) & 0x0303_0303));
                let expected = cidrs.iter().any(|cidr| cidr.contains(asked));
                assert_eq!(
                    set.contains(asked),
                    expected,
                    "seed {seed:#x} round {round}: {asked} in {cidrs:?}"
                );
            }
        }
    }
}

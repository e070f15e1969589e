//! Messages of DNS (RFC 1035): a question to bytes, and bytes of anybody to the records of an answer.
//!
//! No EDNS: what does not fit into 512 bytes comes over TCP, which costs a connection a lifetime of an answer, and no
//! server is confused. Every pointer in a name leads back, so that reading ends whatever the bytes are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a name as it is written here, and of one of its labels.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;
/// Other names that lead from one to its addresses.
const CNAMES_MAX: usize = 16;
/// Records of an answer that are looked at.
const RECORDS_MAX: usize = 512;
const HEAD: usize = 12;
const INTERNET: u16 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Type {
    A = 1,
    Aaaa = 28,
    Srv = 33,
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Cname(String),
    Srv { priority: u16, weight: u16, port: u16, target: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// In lower case, without a dot at its end.
    name: String,
    /// In seconds.
    ttl: u32,
    data: Data,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// 0: there is an answer; 3: there is no such name.
    pub code: u8,
    pub is_truncated: bool,
    pub records: Vec<Record>,
}

/// A question as it is sent; none for what is no name.
pub(super) fn question(id: u16, name: &str, kind: Type) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > NAME_MAX {
        return None;
    }
    // Recursion is desired; one question.
    let mut bytes = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    for label in name.split('.') {
        let is_label = !label.is_empty() && label.len() <= LABEL_MAX;
        if !is_label || !label.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&(kind as u16).to_be_bytes());
    bytes.extend_from_slice(&INTERNET.to_be_bytes());
    Some(bytes)
}

/// What is answered to a question; `None` for bytes that do not answer it.
pub(super) fn answer(bytes: &[u8], question: &[u8]) -> Option<Answer> {
    let (asked, asked_end) = name_at(question, HEAD)?;
    let (id, flags) = (bytes.get(..2)?, bytes.get(2..4)?);
    let is_response = flags[0] & 0x80 != 0;
    let (name, end) = name_at(bytes, HEAD)?;
    let is_same = id == question.get(..2)? && u16_at(bytes, 4)? == 1 && name == asked;
    if !is_response || !is_same || bytes.get(end..end + 4)? != question.get(asked_end..asked_end + 4)? {
        return None;
    }
    let is_truncated = flags[0] & 0x02 != 0;
    let mut records = Vec::new();
    let count: usize = [6, 8, 10].iter().filter_map(|at| u16_at(bytes, *at)).map(usize::from).sum();
    let mut at = end + 4;
    for _ in 0..count.min(RECORDS_MAX) {
        match record_at(bytes, at) {
            Some((record, next)) => {
                records.extend(record);
                at = next;
            }
            // A server may cut a record in two.
            None if is_truncated => break,
            None => return None,
        }
    }
    Some(Answer { code: flags[1] & 0x0f, is_truncated, records })
}

/// A record that means something here, and where the next one begins.
fn record_at(bytes: &[u8], at: usize) -> Option<(Option<Record>, usize)> {
    let (name, at) = name_at(bytes, at)?;
    let (kind, class) = (u16_at(bytes, at)?, u16_at(bytes, at + 2)?);
    let ttl = u32::from_be_bytes(bytes.get(at + 4..at + 8)?.try_into().ok()?);
    let length = usize::from(u16_at(bytes, at + 8)?);
    let (start, end) = (at + 10, at + 10 + length);
    let held = bytes.get(start..end)?;
    let target = |at: usize| name_at(bytes, at).filter(|(_, after)| *after == end).map(|(name, _)| name);
    let data = match (class, kind) {
        (INTERNET, 1) => Some(Data::Address(Ipv4Addr::from(<[u8; 4]>::try_from(held).ok()?).into())),
        (INTERNET, 28) => Some(Data::Address(Ipv6Addr::from(<[u8; 16]>::try_from(held).ok()?).into())),
        (INTERNET, 5) => Some(Data::Cname(target(start)?)),
        (INTERNET, 33) => Some(Data::Srv {
            priority: u16_at(held, 0)?,
            weight: u16_at(held, 2)?,
            port: u16_at(held, 4)?,
            target: target(start + 6)?,
        }),
        _ => None,
    };
    // RFC 2181 8: what has the first bit set counts as 0.
    let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
    Some((data.map(|data| Record { name, ttl, data }), end))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A name in lower case, and what follows it. A byte that no host name has becomes `?`.
fn name_at(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut name, mut at, mut after) = (String::new(), start, None);
    let mut earliest = start;
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((name, after.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                let is_of_names = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
                name.extend(label.iter().map(|byte| match *byte {
                    byte if is_of_names(byte) => char::from(byte.to_ascii_lowercase()),
                    _ => '?',
                }));
                if name.len() > NAME_MAX {
                    return None;
                }
                at += 1 + usize::from(length);
            }
            192.. => {
                let to = usize::from(u16_at(bytes, at)? & 0x3fff);
                // Only back: a circle would never end.
                if to >= earliest {
                    return None;
                }
                after = after.or(Some(at + 2));
                (at, earliest) = (to, to);
            }
            _ => return None,
        }
    }
}

/// A host of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub target: String,
}

impl Answer {
    /// The addresses of a name, through its other names, and for how many seconds they count.
    pub(super) fn addresses(&self, name: &str, kind: Type) -> (Vec<IpAddr>, u32) {
        let (name, mut ttl) = self.last_name(name);
        let mut found = Vec::new();
        for record in self.records.iter().filter(|record| record.name == name) {
            if let Data::Address(address) = record.data
                && address.is_ipv4() == (kind == Type::A)
            {
                ttl = ttl.min(record.ttl);
                found.push(address);
            }
        }
        (found, ttl)
    }

    /// The hosts of a service, and for how many seconds they count.
    pub(super) fn hosts(&self, name: &str) -> (Vec<Host>, u32) {
        let (name, mut ttl) = self.last_name(name);
        let mut found = Vec::new();
        for record in self.records.iter().filter(|record| record.name == name) {
            if let Data::Srv { priority, weight, port, target } = &record.data {
                ttl = ttl.min(record.ttl);
                found.push(Host {
                    priority: *priority,
                    weight: *weight,
                    port: *port,
                    target: target.clone(),
                });
            }
        }
        (found, ttl)
    }

    fn last_name(&self, name: &str) -> (String, u32) {
        let (mut name, mut ttl) = (name.trim_end_matches('.').to_ascii_lowercase(), u32::MAX);
        for _ in 0..CNAMES_MAX {
            let next = self.records.iter().find_map(|record| match &record.data {
                Data::Cname(next) if record.name == name => Some((next, record.ttl)),
                _ => None,
            });
            let Some((next, its)) = next else { break };
            (name, ttl) = (next.clone(), ttl.min(its));
        }
        (name, ttl)
    }
}

#[cfg(test)]
mod tests;

//! A name server on loopback that says what a test wants: over UDP, and over TCP for what it cuts.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// What is said of a name.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// Addresses, for so many seconds.
    At(u32, Vec<IpAddr>),
    /// The same, cut over UDP.
    Cut(u32, Vec<IpAddr>),
    /// Hosts of a service as priority, weight, port and name, for so many seconds.
    Hosts(u32, Vec<(u16, u16, u16, &'static str)>),
    /// Another name, for so many seconds.
    Is(u32, &'static str),
    /// That it exists, and nothing else.
    Empty,
    /// NXDOMAIN.
    Unknown,
    /// SERVFAIL.
    Fails,
    /// Bytes that are no message.
    Nonsense,
    /// Nothing.
    Silence,
}

#[derive(Default)]
struct Zone {
    says: BTreeMap<String, Says>,
    /// Questions by name, over UDP.
    asked: BTreeMap<String, usize>,
    over_tcp: usize,
}

/// A name server. What it does not know it says is unknown.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl NameServer {
    pub(crate) fn start() -> Self {
        // The same port twice: what is free for one is not always for the other.
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
                break (tcp, udp);
            }
        };
        let server = Self { address: tcp.local_addr().unwrap(), zone: Arc::default() };
        let zone = Arc::clone(&server.zone);
        thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut bytes) {
                if let Some(answer) = answer(&zone, &bytes[..length], false) {
                    let _ = udp.send_to(&answer, from);
                }
            }
        });
        let zone = Arc::clone(&server.zone);
        thread::spawn(move || {
            for mut stream in tcp.incoming().flatten() {
                let mut length = [0; 2];
                let mut bytes = [0; 512];
                let mut read = || {
                    stream.read_exact(&mut length).ok()?;
                    let bytes = bytes.get_mut(..usize::from(u16::from_be_bytes(length)))?;
                    stream.read_exact(bytes).ok()?;
                    answer(&zone, bytes, true)
                };
                if let Some(answer) = read() {
                    let _ = stream.write_all(&(answer.len() as u16).to_be_bytes());
                    let _ = stream.write_all(&answer);
                }
            }
        });
        server
    }

    /// Says this of a name from here on.
    pub(crate) fn says(&self, name: &str, what: Says) {
        self.zone.lock().unwrap().says.insert(name.to_owned(), what);
    }

    /// How often it was asked for a name.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.get(name).copied().unwrap_or(0)
    }

    /// How often it was asked over TCP.
    pub(crate) fn over_tcp(&self) -> usize {
        self.zone.lock().unwrap().over_tcp
    }

    /// As settings have it.
    pub(crate) fn server(&self) -> SocketAddr {
        self.address
    }
}

fn answer(zone: &Mutex<Zone>, question: &[u8], is_tcp: bool) -> Option<Vec<u8>> {
    let mut zone = zone.lock().unwrap();
    let (name, kind, end) = asked(question)?;
    if is_tcp {
        zone.over_tcp += 1;
    } else {
        *zone.asked.entry(name.clone()).or_default() += 1;
    }
    let mut bytes = question[..end].to_vec();
    (bytes[2], bytes[3]) = (0x81, 0x80);
    bytes[10..12].fill(0);
    match zone.says.get(&name).cloned().unwrap_or(Says::Unknown) {
        Says::Silence => return None,
        Says::Nonsense => bytes.truncate(13),
        Says::Unknown => bytes[3] |= 3,
        Says::Fails => bytes[3] |= 2,
        Says::Empty => {}
        Says::Cut(..) if !is_tcp => bytes[2] |= 2,
        Says::At(ttl, addresses) | Says::Cut(ttl, addresses) => {
            for address in addresses {
                match address {
                    IpAddr::V4(address) if kind == 1 => add(&mut bytes, 1, ttl, &address.octets()),
                    IpAddr::V6(address) if kind == 28 => add(&mut bytes, 28, ttl, &address.octets()),
                    _ => {}
                }
            }
        }
        Says::Is(ttl, other) => {
            add(&mut bytes, 5, ttl, &written(other));
            if let Some(Says::At(ttl, addresses)) = zone.says.get(other).cloned() {
                for address in addresses {
                    if let (IpAddr::V4(address), 1) = (address, kind) {
                        add_of(&mut bytes, &written(other), 1, ttl, &address.octets());
                    }
                }
            }
        }
        Says::Hosts(ttl, hosts) if kind == 33 => {
            for (priority, weight, port, target) in hosts {
                let numbers = [priority, weight, port].map(u16::to_be_bytes).concat();
                add(&mut bytes, 33, ttl, &[numbers, written(target)].concat());
            }
        }
        Says::Hosts(..) => {}
    }
    Some(bytes)
}

/// The name that is asked for, the type, and where the question ends.
fn asked(question: &[u8]) -> Option<(String, u16, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).into_owned());
        at += length;
    }
    let kind = question.get(at..at + 2)?;
    Some((labels.join("."), u16::from_be_bytes([kind[0], kind[1]]), at + 4))
}

fn written(name: &str) -> Vec<u8> {
    let labels = name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([0]).collect()
}

/// Adds a record of the name that was asked for.
fn add(bytes: &mut Vec<u8>, kind: u16, ttl: u32, data: &[u8]) {
    add_of(bytes, &[0xc0, 12], kind, ttl, data);
}

fn add_of(bytes: &mut Vec<u8>, name: &[u8], kind: u16, ttl: u32, data: &[u8]) {
    let count = u16::from_be_bytes([bytes[6], bytes[7]]) + 1;
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1u16.to_be_bytes());
    bytes.extend_from_slice(&ttl.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
    bytes.extend_from_slice(data);
}

//! Sentinels: those who watch a master and its replicas, and know which of them the master is now.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use super::Failure;
use super::line::converse;
use crate::base::clock::Moment;
use crate::proto::resp::{Reply, write_command};
use crate::runtime::Core;
use crate::runtime::dialogue::{Alarm, Tls, open};

/// How many are asked for one connection.
const ASKED_MAX: usize = 5;

/// Those who watch one master.
#[derive(Clone, Debug)]
pub struct Sentinels {
    /// Asked in turn, beginning with the one that answered last.
    addresses: Vec<(String, SocketAddr)>,
    /// Commands that open a connection and ask for the master, and how many they are.
    question: Vec<u8>,
    count: usize,
}

impl Sentinels {
    /// Those at these hosts and addresses, who watch the master of that name; `hello` are so many commands that open a connection.
    pub fn new(
        addresses: Vec<(String, SocketAddr)>,
        (mut hello, count): (Vec<u8>, usize),
        master: &str,
    ) -> Self {
        write_command(&mut hello, &[b"SENTINEL", b"get-master-addr-by-name", master.as_bytes()]);
        Self { addresses, question: hello, count: count + 1 }
    }

    /// Where the master is now.
    pub(super) async fn find_master(
        &self,
        core: &Core,
        (tls, turn): (Option<&Tls>, &Cell<usize>),
        until: Moment,
    ) -> Result<SocketAddr, Failure> {
        let mut failure = Failure::Unreachable(io::ErrorKind::AddrNotAvailable);
        for left in (1..=self.addresses.len().min(ASKED_MAX)).rev() {
            let Some((host, address)) = self.addresses.get(turn.get() % self.addresses.len()) else { break };
            // One that hangs must leave time for the others, and for the master.
            let share = until.since(core.now()) / (left as u32 + 1);
            match self.ask(core, *address, (tls, host), core.now().plus(share)).await {
                Ok(master) => return Ok(master),
                Err(why) => failure = why,
            }
            turn.set(turn.get().wrapping_add(1));
        }
        Err(failure)
    }

    async fn ask(
        &self,
        core: &Core,
        address: SocketAddr,
        secure: (Option<&Tls>, &str),
        until: Moment,
    ) -> Result<SocketAddr, Failure> {
        let socket = open(core, address, secure, until).await?;
        let sleep = pin!(core.sleep(until.since(core.now())));
        let mut alarm = Alarm::new(until, sleep);
        let (mut heard, mut last) = (0, None);
        let take = |reply| {
            if let Reply::Error(why) = reply {
                return Err(Failure::Refused(why));
            }
            heard += 1;
            last = Some(reply);
            Ok(heard == self.count)
        };
        converse(core, socket, self.question.clone(), &mut alarm, take).await?;
        match last {
            Some(Reply::List(parts)) => address_of(&parts).ok_or(Failure::Garbage),
            Some(Reply::Nothing) => Err(Failure::Refused("no master of that name is watched".to_owned())),
            _ => Err(Failure::Garbage),
        }
    }
}

fn address_of(parts: &[Reply]) -> Option<SocketAddr> {
    let [Reply::Text(ip), Reply::Text(port)] = parts else { return None };
    let ip: IpAddr = std::str::from_utf8(ip).ok()?.parse().ok()?;
    Some(SocketAddr::new(ip, std::str::from_utf8(port).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_is_an_address_and_a_port() {
        let text = |text: &str| Reply::Text(text.as_bytes().to_vec());
        let of = |parts: &[&str]| {
            address_of(&parts.iter().map(|part| text(part)).collect::<Vec<_>>()).map(|a| a.to_string())
        };
        assert_eq!(of(&["10.0.0.1", "6379"]).as_deref(), Some("10.0.0.1:6379"));
        assert_eq!(of(&["::1", "6379"]).as_deref(), Some("[::1]:6379"));
        for parts in [&["10.0.0.1"][..], &["master", "6379"], &["10.0.0.1", "x"], &["10.0.0.1", "65536"], &[]]
        {
            assert_eq!(of(parts), None, "{parts:?}");
        }
    }
}

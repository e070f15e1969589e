//! Writes under load: none costs a request, and each is in force on every core when its answer comes.
//!
//! Which core answers is known: the kernel leads a port of ours to the same core always, and what that core leaves to the other
//! is counted. `RINGWAY_TEST_WRITES=1000` makes a thousand writes.

use serde_json::json;

use super::kit::{Gateway, Origin, Raw, Wrk, connect_from, connections, eventually, ports_of_cores};

on_both_drivers!(writes_cost_no_request_and_hold_on_every_core_when_they_are_answered);

const WRITES: usize = 40;
const CORES: usize = 2;
/// Every so many writes, one takes the route away.
const DELETED: usize = 10;

/// A client before each of two cores.
struct Probes<'a> {
    gateway: &'a Gateway,
    /// Those that come to each core.
    ports: [u16; CORES],
    /// Connections that each core left to the other.
    handed: [f64; CORES],
}

impl Probes<'_> {
    /// What each core has left to the other since this was last asked. The load's connections stay, so it is ours.
    fn newly_handed(&mut self) -> [f64; CORES] {
        let text = self.gateway.metrics();
        let of = |core: usize| {
            let begins = format!("ringway_connections_handed_over_total{{core=\"{core}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&begins));
            line.and_then(|count| count.parse().ok()).expect("it is told for each core")
        };
        let now = [of(0), of(1)];
        let before = std::mem::replace(&mut self.handed, now);
        [now[0] - before[0], now[1] - before[1]]
    }

    /// Asks on fresh connections until every core has answered: each answer must be right, whichever core gives it.
    #[track_caller]
    fn ask(&mut self, paths: &[(&str, u16)]) {
        let mut asked = [false; CORES];
        eventually("every core is asked", || {
            for port in self.ports {
                let to = self.gateway.address();
                let stream = eventually("the port is free again", || connect_from(port, to).ok());
                let mut raw = Raw::over(stream);
                for (path, status) in paths {
                    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                    raw.send(request).answer().expect_status(*status);
                }
            }
            let handed = self.newly_handed();
            // One connection came to each, and stayed or went to the other.
            asked[0] |= handed[0] == 0.0 || handed[1] > 0.0;
            asked[1] |= handed[1] == 0.0 || handed[0] > 0.0;
            (asked == [true; CORES]).then_some(())
        });
    }
}

fn writes_cost_no_request_and_hold_on_every_core_when_they_are_answered() {
    let writes =
        std::env::var("RINGWAY_TEST_WRITES").ok().and_then(|count| count.parse().ok()).unwrap_or(WRITES);
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().cores(CORES).start();
    let admin = gateway.admin();
    let route = |uri: &str| json!({"uri": uri, "upstream": {"nodes": {origin.node(): 1}}}).to_string();
    admin.put("/routes/load", &route("/load"));
    let ports = ports_of_cores(&gateway, CORES, 1).concat().try_into().expect("one for each core");
    let load = Wrk::start(gateway.address(), "/load", 16);
    // From here on only ours come.
    let is_there = || (connections(&gateway, CORES).iter().sum::<f64>() >= 16.0).then_some(());
    eventually("the load is there", is_there);
    let mut probes = Probes { gateway: &gateway, ports, handed: [0.0; CORES] };
    probes.newly_handed();
    for turn in 0..writes {
        let (path, before) = (format!("/turn/{turn}"), format!("/turn/{}", turn.wrapping_sub(1)));
        if turn % DELETED == DELETED - 1 {
            admin.ask("DELETE", "/routes/turn", &[], "").expect_status(200);
            probes.ask(&[(&before, 404)]);
        } else {
            admin.put("/routes/turn", &route(&path));
            probes.ask(&[(&path, 200), (&before, 404)]);
        }
    }
    let answered = load.end();
    assert!(answered > writes as u64, "hardly any load: {answered} requests");
}

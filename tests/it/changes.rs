//! Writes under load: none costs a request, and each is in force on every core when its answer comes.

use serde_json::json;

use super::kit::{Gateway, Origin, Wrk, get_from, ports_of_cores};

on_both_drivers!(a_thousand_writes_cost_no_request_and_hold_on_every_core_when_they_are_answered);

const WRITES: usize = 1000;
const CORES: usize = 2;

fn a_thousand_writes_cost_no_request_and_hold_on_every_core_when_they_are_answered() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().cores(CORES).start();
    let admin = gateway.admin();
    let route = |uri: &str| json!({"uri": uri, "upstream": {"nodes": {origin.node(): 1}}}).to_string();
    admin.put("/routes/load", &route("/load"));
    let ports: Vec<u16> = ports_of_cores(&gateway, CORES, 1).concat();
    let load = Wrk::start(gateway.address(), "/load", 16);
    for turn in 0..WRITES {
        let (path, before) = (format!("/turn/{turn}"), format!("/turn/{}", turn.wrapping_sub(1)));
        admin.put("/routes/turn", &route(&path));
        for port in &ports {
            get_from(*port, &gateway, &path).expect(200, "hello");
        }
        let port = ports[turn % CORES];
        get_from(port, &gateway, &before).expect_status(404);
    }
    let answered = load.end();
    assert!(answered > WRITES as u64, "hardly any load: {answered} requests");
}

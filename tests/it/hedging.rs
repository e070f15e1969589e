//! Hedging: a second node is asked where the first is late, and the first answer counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::kit::{Gateway, Origin, eventually, reply};

on_both_drivers!(
    a_second_node_is_asked_where_the_first_is_late_and_the_other_is_let_go,
    the_first_node_may_still_be_the_first_to_answer,
    where_the_second_fails_the_first_is_waited_for,
    only_what_may_be_done_twice_is_hedged,
    no_more_is_hedged_than_the_budget_allows,
);

/// The first node has the higher priority, so it is asked first.
fn gateway(nodes: [&Origin; 2], more: &str) -> Gateway {
    let [first, second] = nodes.map(|origin| origin.address().port());
    let text = format!(
        "upstreams:
  - id: '1'
    nodes:
      - {{host: 127.0.0.1, port: {first}, weight: 1, priority: 1}}
      - {{host: 127.0.0.1, port: {second}, weight: 1}}
    {more}
routes: [{{id: '1', uri: /*, upstream_id: '1'}}]"
    );
    Gateway::resources(&text, &[]).start()
}

const HEDGE: &str = "hedge: {delay: 0.05, budget_percent: 100}";

fn hedges(gateway: &Gateway) -> [Option<f64>; 2] {
    ["ringway_hedges_total", "ringway_hedges_won_total"]
        .map(|name| gateway.metric(&format!("{name}{{core=\"0\"}}")))
}

fn a_second_node_is_asked_where_the_first_is_late_and_the_other_is_let_go() {
    let (late, quick) = (Origin::that_stalls(), Origin::replying("quick"));
    let gateway = gateway([&late, &quick], HEDGE);
    let mut client = gateway.client();
    for _ in 0..3 {
        client.get("/mark").expect(200, "quick");
    }
    assert_eq!((late.requests(), quick.requests()), (3, 3));
    late.wait_ended(3);
    // Which of both has won is counted when its answer was sent.
    eventually("all are counted", || (hedges(&gateway) == [Some(3.0), Some(3.0)]).then_some(()));
    let record = gateway.logged("/mark");
    assert_eq!(record["upstream_addr"], quick.node(), "{record}");
    assert_eq!(record["upstream_attempts"], 2, "{record}");
    let seen = quick.seen();
    assert_eq!((seen[0].target.as_str(), seen[0].values("host")), ("/mark", vec!["ringway.test"]));
}

fn the_first_node_may_still_be_the_first_to_answer() {
    // It answers once the other has been asked.
    let other = Arc::new(Origin::that_stalls());
    let asked = Arc::clone(&other);
    let first = Origin::answering(move |_| {
        asked.wait_requests(1);
        reply("200 OK", "first")
    });
    let gateway = gateway([&first, &other], HEDGE);
    gateway.get("/mark").expect(200, "first");
    assert_eq!(hedges(&gateway), [Some(1.0), Some(0.0)]);
    other.wait_ended(1);
    assert_eq!(gateway.logged("/mark")["upstream_addr"], first.node());
}

fn where_the_second_fails_the_first_is_waited_for() {
    let bad =
        [Origin::refusing(), Origin::that_closes_instead_of_answering(), Origin::sending("nonsense\r\n\r\n")];
    for bad in bad {
        let may_answer = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&may_answer);
        let late = Origin::answering(move |_| {
            eventually("the other was asked", || seen.load(Ordering::SeqCst).then_some(()));
            reply("200 OK", "late")
        });
        let gateway = gateway([&late, &bad], HEDGE);
        let mut raw = gateway.raw();
        raw.send("GET /mark HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("a second node is asked", || (hedges(&gateway)[0] == Some(1.0)).then_some(()));
        may_answer.store(true, Ordering::SeqCst);
        raw.answer().expect(200, "late");
        assert_eq!(hedges(&gateway), [Some(1.0), Some(0.0)]);
        assert_eq!(gateway.logged("/mark")["upstream_addr"], late.node());
    }
}

fn only_what_may_be_done_twice_is_hedged() {
    // Late enough, and for GET as late as need be.
    let quick = Arc::new(Origin::replying("quick"));
    let asked = Arc::clone(&quick);
    let late = Origin::answering(move |seen| {
        if seen.method == "GET" {
            asked.wait_requests(1);
        } else {
            // This is the origin's work, not a wait of the test.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        reply("200 OK", "late")
    });
    let gateway = gateway([&late, &quick], HEDGE);
    gateway.post("/", b"").expect(200, "late");
    gateway.post("/", b"body").expect(200, "late");
    gateway.request("PUT", "/", &[], b"body").expect(200, "late");
    assert_eq!((hedges(&gateway), quick.requests()), ([Some(0.0), Some(0.0)], 0));
    gateway.get("/").expect_status(200);
    assert_eq!((hedges(&gateway)[0], quick.requests()), (Some(1.0), 1));
}

fn no_more_is_hedged_than_the_budget_allows() {
    const REQUESTS: usize = 40;
    let late = Origin::answering(|_| {
        // This is the origin's work, not a wait of the test.
        std::thread::sleep(std::time::Duration::from_millis(20));
        reply("200 OK", "late")
    });
    let quick = Origin::replying("quick");
    let gateway = gateway([&late, &quick], "hedge: {delay: 0.001, budget_percent: 10}");
    let mut client = gateway.client();
    for _ in 0..REQUESTS {
        client.get("/").expect_status(200);
    }
    // One at the start, and each tenth.
    let sent = eventually("hedges are counted", || hedges(&gateway)[0]);
    assert!((1.0..=5.0).contains(&sent), "{sent}");
    assert!(quick.requests() <= 5);
}

//! Plugins that turn requests away: by target, size, name, page or consumer.

use super::kit::{Gateway, Origin};

on_both_drivers!(a_blocked_target_never_reaches_its_origin,);

fn a_blocked_target_never_reaches_its_origin() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::routing("/*", [&origin])
        .route(r"plugins: {uri-blocker: {block_rules: ['/\.env$', 'select.+from'], rejected_msg: never}}")
        .start();

    let mut client = gateway.client();
    for target in ["/.env", "/a/%2e%65nv", "/x/..//.env", "/?q=select+a+from+b"] {
        client.get(target).expect(403, "{\"error_msg\":\"never\"}\n");
    }
    assert_eq!(origin.requests(), 0);
    for target in ["/env", "/.environment", "/?q=select"] {
        client.get(target).expect(200, "hello");
    }
}

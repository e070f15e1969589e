//! Objects in a real etcd: served as they come, kept when it is away, and not lost when it is.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{Certs, Etcd, Gateway, Origin, Setup, Signal, eventually, within};

/// For what a busy machine does slowly, such as ten thousand objects.
const LONG: Duration = Duration::from_secs(60);

fn route(uri: &str, origin: &Origin) -> String {
    format!(
        r#"{{"id":"x","uri":"{uri}","upstream":{{"type":"roundrobin","nodes":{{"{}":1}}}}}}"#,
        origin.node()
    )
}

fn following(etcd: &Etcd) -> Setup {
    Gateway::managed().settings(&etcd.settings())
}

/// Waits until a path is answered with this status.
#[track_caller]
fn serves(gateway: &Gateway, path: &str, status: u16) {
    within(LONG, &format!("{path} is answered with {status}"), || {
        (gateway.get(path).status == status).then_some(())
    });
}

/// Waits until what is served is on disk, too.
#[track_caller]
fn keeps(gateway: &Gateway, mention: &str) {
    within(LONG, &format!("{mention} is kept"), || {
        let text = std::fs::read_to_string(gateway.path("state/etcd.json")).ok()?;
        text.contains(mention).then_some(())
    });
}

#[test]
fn objects_that_others_write_to_etcd_are_served_changed_and_gone() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/", "init_dir");
    etcd.put("routes/1", &route("/old", &origin));
    let gateway = following(&etcd).start();
    gateway.get("/old").expect(200, "hello");

    etcd.put("upstreams/u", &format!(r#"{{"nodes":{{"{}":1}}}}"#, origin.node()));
    etcd.put("routes/2", r#"{"uri":"/keyed","upstream_id":"u","plugins":{"key-auth":{}}}"#);
    etcd.put("consumers/jack", r#"{"username":"jack"}"#);
    etcd.put("consumers/jack/credentials/a", r#"{"plugins":{"key-auth":{"key":"secret"}}}"#);
    serves(&gateway, "/keyed", 401);
    eventually("the credential is known", || {
        let answer = gateway.request("GET", "/keyed", &[("apikey", "secret")], b"");
        (answer.status == 200).then_some(())
    });

    etcd.put("routes/1", &route("/new", &origin));
    serves(&gateway, "/new", 200);
    gateway.get("/old").expect_status(404);
    etcd.delete("routes/1");
    serves(&gateway, "/new", 404);
    assert_eq!(gateway.metric("apisix_etcd_reachable"), Some(1.0));
    let index = |key: &str| gateway.metric(&format!("apisix_etcd_modify_indexes{{key=\"{key}\"}}"));
    let (consumers, max) = (index("consumers").expect("told"), index("max_modify_index").expect("told"));
    assert!(consumers > 0.0 && max > consumers && index("x_etcd_index") > Some(max), "{}", gateway.metrics());
    assert!(index("prev_index").is_some_and(|before| before < max) && index("protos") == Some(0.0));
}

#[test]
fn a_bad_value_is_set_aside_alone_and_its_last_good_version_outlives_the_process() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    let mut gateway = following(&etcd).start();
    etcd.put("routes/1", "{not json");
    etcd.put("routes/2", r#"{"uri":"/two","nonsense":1}"#);
    etcd.put("routes/3", &route("/three", &origin));
    serves(&gateway, "/three", 200);
    gateway.wait_said(&["routes/1: not JSON"]);
    gateway.wait_said(&["routes/2", "nonsense"]);
    eventually("two are set aside", || (gateway.metric("ringway_quarantined_objects")? == 2.0).then_some(()));
    gateway.get("/one").expect(200, "hello");
    gateway.get("/two").expect_status(404);
    gateway.admin().ask("GET", "/configs", &[], "").expect_status(200);

    keeps(&gateway, "routes/3");
    gateway.kill_and_start_again();
    gateway.get("/one").expect(200, "hello");
    assert_eq!(gateway.metric("ringway_quarantined_objects"), Some(2.0));
    etcd.stop();
    gateway.kill_and_start_again();
    gateway.get("/one").expect(200, "hello");
    etcd.start_again();
    etcd.put("routes/1", &route("/mended", &origin));
    serves(&gateway, "/mended", 200);
}

#[test]
fn what_depends_on_a_bad_value_is_served_on_over_a_restart_too() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    let upstream = |retries: &str| format!(r#"{{"nodes":{{"{}":1}},"retries":{retries}}}"#, origin.node());
    etcd.put("upstreams/u", &upstream("1"));
    etcd.put("plugin_configs/p", r#"{"plugins":{"key-auth":{}}}"#);
    etcd.put("global_rules/g", r#"{"plugins":{"ip-restriction":{"blacklist":["10.0.0.1"]}}}"#);
    etcd.put("routes/1", r#"{"uri":"/keyed","upstream_id":"u","plugin_config_id":"p"}"#);
    etcd.put("routes/2", r#"{"uri":"/open","upstream_id":"u"}"#);
    let mut gateway = following(&etcd).start();
    serves(&gateway, "/open", 200);
    etcd.put("upstreams/u", &upstream("\"many\""));
    etcd.put("plugin_configs/p", r#"{"plugins":{"key-auth":{"header":5}}}"#);
    etcd.put("global_rules/g", r#"{"plugins":{"ip-restriction":{"blocklist":["10.0.0.1"]}}}"#);
    etcd.put("routes/3", r#"{"uri":"/later","upstream_id":"u"}"#);
    serves(&gateway, "/later", 200);
    keeps(&gateway, "routes/3");
    for _ in 0..2 {
        gateway.get("/keyed").expect_status(401);
        gateway.get("/open").expect(200, "hello");
        assert_eq!(gateway.metric("ringway_quarantined_objects"), Some(3.0));
        gateway.kill_and_start_again();
    }
    etcd.stop();
    gateway.kill_and_start_again();
    gateway.get("/keyed").expect_status(401);
    gateway.get("/open").expect(200, "hello");
}

#[test]
fn a_global_rule_that_was_never_good_lets_nobody_past() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    etcd.put("global_rules/g", r#"{"plugins":{"key-auth":{"header":5}}}"#);
    let gateway = following(&etcd).start();
    gateway.get("/one").expect_status(503);
    etcd.put("global_rules/g", r#"{"plugins":{"key-auth":{}}}"#);
    serves(&gateway, "/one", 401);
}

#[test]
fn an_etcd_that_goes_and_comes_back_is_followed_on() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    let gateway = following(&etcd).start();
    etcd.stop();
    eventually("it is seen to be away", || (gateway.metric("apisix_etcd_reachable")? == 0.0).then_some(()));
    gateway.get("/one").expect(200, "hello");
    etcd.start_again();
    etcd.put("routes/2", &route("/two", &origin));
    serves(&gateway, "/two", 200);
    gateway.get("/one").expect(200, "hello");
    assert_eq!(gateway.metric("apisix_etcd_reachable"), Some(1.0));
}

#[test]
fn a_gateway_started_while_etcd_is_away_serves_what_it_had_and_catches_up() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    let mut gateway = following(&etcd).start();
    keeps(&gateway, "routes/1");
    etcd.stop();
    gateway.kill_and_start_again();
    gateway.wait_said(&["starting with revision", "kept in"]);
    gateway.get("/one").expect(200, "hello");
    etcd.start_again();
    etcd.put("routes/2", &route("/two", &origin));
    etcd.delete("routes/1");
    serves(&gateway, "/two", 200);
    serves(&gateway, "/one", 404);
}

#[test]
fn a_first_start_without_etcd_fails_and_names_it() {
    let mut etcd = Etcd::start();
    etcd.stop();
    let (code, said) = following(&etcd).start_and_fail_managed();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("etcd: 127.0.0.1:") && said.contains("no earlier configuration is kept"), "{said}");
}

#[test]
fn what_was_compacted_away_while_nobody_watched_is_found_by_comparing() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    etcd.put("routes/2", &route("/two", &origin));
    let mut gateway = following(&etcd).start();
    keeps(&gateway, "routes/2");
    // The gateway is told that etcd is away, and hears nothing of what happens until it is asked again.
    etcd.stop();
    gateway.kill_and_start_again();
    gateway.wait_said(&["starting with revision"]);
    gateway.pause();
    etcd.start_again();
    etcd.delete("routes/1");
    etcd.put("routes/2", &route("/new", &origin));
    etcd.put("routes/3", &route("/three", &origin));
    etcd.compact();
    gateway.go_on();
    serves(&gateway, "/three", 200);
    gateway.get("/one").expect_status(404);
    gateway.get("/two").expect_status(404);
    gateway.get("/new").expect(200, "hello");
}

#[test]
fn a_watch_that_was_compacted_away_is_begun_anew() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    let gateway = following(&etcd).start();
    serves(&gateway, "/one", 200);
    // While the process stands still its connection breaks, and what it would go on from is thrown away.
    gateway.pause();
    etcd.stop();
    etcd.start_again();
    etcd.put("routes/2", &route("/two", &origin));
    etcd.delete("routes/1");
    etcd.compact();
    gateway.go_on();
    serves(&gateway, "/two", 200);
    serves(&gateway, "/one", 404);
}

#[test]
fn a_wiped_prefix_is_served_on_until_that_is_confirmed() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    etcd.put("routes/2", &route("/two", &origin));
    let mut gateway = following(&etcd).start();
    etcd.say(&["del", "--prefix", "/apisix"]);
    gateway.wait_said(&["no object is left below /apisix", "etcdctl put /apisix/ringway/accept-empty"]);
    eventually("two are missing", || (gateway.metric("ringway_etcd_missing_objects")? == 2.0).then_some(()));
    gateway.get("/one").expect(200, "hello");
    // One that is put back does not end the service of the other, nor does a restart, nor an etcd that lost its data.
    etcd.put("routes/3", &route("/three", &origin));
    serves(&gateway, "/three", 200);
    gateway.get("/two").expect(200, "hello");
    keeps(&gateway, "routes/3");
    gateway.kill_and_start_again();
    gateway.get("/two").expect(200, "hello");
    etcd.stop();
    etcd.start_again_empty();
    gateway.wait_said(&["another one answers"]);
    eventually("all are missing", || (gateway.metric("ringway_etcd_missing_objects")? == 3.0).then_some(()));
    gateway.get("/two").expect(200, "hello");

    etcd.put("ringway/accept-empty", "yes");
    serves(&gateway, "/two", 404);
    serves(&gateway, "/one", 404);
    assert_eq!(gateway.metric("ringway_etcd_missing_objects"), Some(0.0));
}

#[test]
fn a_burst_of_ten_thousand_keys_is_compiled_a_few_times_and_served() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    let gateway = following(&etcd).start();
    let objects: Vec<(String, String)> =
        (0..10_000).map(|at| (format!("routes/{at}"), route(&format!("/r{at}"), &origin))).collect();
    etcd.put_many(&objects);
    serves(&gateway, "/r9999", 200);
    for at in [0, 1, 4_999, 9_998] {
        gateway.get(&format!("/r{at}")).expect(200, "hello");
    }
    let generations = gateway.metric("ringway_config_published_generation").expect("a number");
    assert!(generations < 110.0, "{generations} compilations for 100 transactions");
}

#[test]
fn a_write_over_the_admin_api_is_in_etcd_and_served_when_it_is_answered() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    let gateway = following(&etcd).cores(2).start();
    let admin = gateway.admin();
    let answer = admin.ask("PUT", "/routes/1", &[], &route("/one", &origin).replace(r#""id":"x","#, ""));
    answer.expect_status(201);
    gateway.get("/one").expect(200, "hello");
    let kept: Value = serde_json::from_str(&etcd.value("routes/1")).unwrap();
    assert_eq!((&kept["uri"], &kept["id"]), (&"/one".into(), &"1".into()));

    // Revisions are etcd's.
    let shown = admin.ask("GET", "/routes/1", &[], "").json();
    let raw: Value = serde_json::from_str(&etcd.say(&["get", "/apisix/routes/1", "-w", "json"])).unwrap();
    assert_eq!(shown["modifiedIndex"], raw["kvs"][0]["mod_revision"]);
    assert_eq!(shown["createdIndex"], raw["kvs"][0]["create_revision"]);
    let stale = admin.ask("PATCH", "/routes/1", &[("If-Match", "\"1\"")], r#"{"uri":"/two"}"#);
    stale.expect_status(412);
    let tag = format!("\"{}\"", shown["modifiedIndex"]);
    admin.ask("PATCH", "/routes/1", &[("If-Match", &tag)], r#"{"uri":"/two"}"#).expect_status(200);
    gateway.get("/two").expect(200, "hello");

    // What is refused leaves nothing behind, here or there.
    admin.ask("PUT", "/routes/2", &[], r#"{"uri":"/x","nonsense":1}"#).expect_status(400);
    assert_eq!(etcd.value("routes/2"), "");
    let batch = r#"[{"method":"PUT","path":"/routes/3","body":{"uri":"/3","upstream_id":"u"}},
        {"method":"PUT","path":"/upstreams/u","body":{"nodes":{"127.0.0.1:1":1}}}]"#;
    admin.ask("POST", "/batch", &[], batch).expect_status(200);
    assert!(etcd.value("routes/3").contains("upstream_id") && etcd.value("upstreams/u").contains("nodes"));
    admin.ask("DELETE", "/upstreams/u", &[], "").expect_status(400);

    admin.ask("DELETE", "/routes/1", &[], "").expect_status(200);
    gateway.get("/two").expect_status(404);
    assert_eq!(etcd.value("routes/1"), "");
}

#[test]
fn the_last_object_deleted_over_one_admin_api_is_gone_from_every_gateway() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    let (here, there) = (following(&etcd).start(), following(&etcd).start());
    here.admin().ask("DELETE", "/routes/1", &[], "").expect_status(200);
    here.get("/one").expect_status(404);
    serves(&there, "/one", 404);
    here.signal(Signal::Hup);
    here.wait_said(&["nothing to read again: etcd tells of every change"]);
}

#[test]
fn a_write_while_etcd_is_away_is_refused_and_changes_nothing() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    let gateway = following(&etcd).start();
    etcd.stop();
    let answer = gateway.admin().ask("DELETE", "/routes/1", &[], "");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("etcd can not be reached"), "{}", answer.text());
    gateway.get("/one").expect(200, "hello");
    gateway.admin().ask("GET", "/routes/1", &[], "").expect_status(200);
}

#[test]
fn an_etcd_that_asks_for_a_password_is_given_it_again_when_its_token_has_run_out() {
    let (mut etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    etcd.ask_for_password("secret");
    let (code, said) =
        following(&etcd).settings("etcd: {user: root, password: wrong}").start_and_fail_managed();
    assert!(code == 1 && said.contains("authentication failed") && !said.contains("wrong"), "{code}: {said}");

    let gateway = following(&etcd).settings("etcd: {user: root, password: secret}").start();
    let admin = gateway.admin();
    gateway.get("/one").expect(200, "hello");
    etcd.put("routes/2", &route("/two", &origin));
    serves(&gateway, "/two", 200);
    admin.put("/upstreams/u", r#"{"nodes":{"127.0.0.1:1":1}}"#);
    // Its tokens are in memory only.
    etcd.stop();
    etcd.start_again();
    etcd.put("routes/3", &route("/three", &origin));
    serves(&gateway, "/three", 200);
    admin.put("/upstreams/v", r#"{"nodes":{"127.0.0.1:1":1}}"#);
    assert!(etcd.value("upstreams/v").contains("nodes"));
}

#[test]
fn a_kept_configuration_that_is_damaged_is_named_and_never_used() {
    let (etcd, origin) = (Etcd::start(), Origin::replying("hello"));
    etcd.put("routes/1", &route("/one", &origin));
    let mut gateway = following(&etcd).start();
    keeps(&gateway, "routes/1");
    let path = gateway.path("state/etcd.json");
    let text = std::fs::read_to_string(&path).unwrap();
    // Nothing changes any more, so nothing is kept again.
    std::fs::write(&path, text.replace("/one", "/eno")).unwrap();
    gateway.kill_and_start_again();
    gateway.wait_said(&["etcd.json: is damaged"]);
    gateway.get("/one").expect(200, "hello");
    gateway.get("/eno").expect_status(404);
}

/// The settings of a gateway that comes to this etcd over TLS with the certificate of that name.
fn over_tls(etcd: &Etcd, certs: &Certs, authority: &Certs, ours: &str) -> String {
    format!(
        "{{ssl: {{trusted_certificate: '{}'}}, etcd: {{endpoints: ['{}'], timeout: 5, startup_retry: 0, \
         tls: {{cert: '{}', key: '{}'}}}}}}",
        authority.path("ca.crt").display(),
        etcd.endpoint(),
        certs.path(&format!("{ours}.crt")).display(),
        certs.path(ours).display(),
    )
}

#[test]
fn an_etcd_that_speaks_tls_and_asks_for_a_certificate_is_read_and_written() {
    let (certs, origin) = (Certs::new(), Origin::replying("hello"));
    certs.authority("ca");
    certs.here("ca", "server");
    certs.here("ca", "client");
    let etcd = Etcd::start_tls(&certs);
    etcd.put("routes/1", &route("/old", &origin));
    let gateway = Gateway::managed().settings(&over_tls(&etcd, &certs, &certs, "client")).start();
    gateway.get("/old").expect(200, "hello");
    etcd.put("routes/1", &route("/new", &origin));
    serves(&gateway, "/new", 200);
    gateway.admin().put("/routes/x", &route("/ours", &origin));
    gateway.get("/ours").expect(200, "hello");
    assert!(etcd.say(&["get", "/apisix/routes/x"]).contains("/ours"));

    // Without a certificate that they know, or without one that we know, nobody is told anything.
    certs.authority("stranger");
    let (code, said) =
        Gateway::managed().settings(&over_tls(&etcd, &certs, &certs, "stranger")).start_and_fail_managed();
    assert!(code != 0 && said.contains("etcd: ") && said.contains("alert"), "{code}: {said}");
    let others = Certs::new();
    others.authority("ca");
    let (code, said) =
        Gateway::managed().settings(&over_tls(&etcd, &certs, &others, "client")).start_and_fail_managed();
    assert!(code != 0 && said.contains("TLS: invalid peer certificate"), "{code}: {said}");
    // A file that is not there is named.
    let (code, said) =
        Gateway::managed().settings(&over_tls(&etcd, &certs, &certs, "nobody")).start_and_fail_managed();
    assert!(code != 0 && said.contains("TLS to etcd: ") && said.contains("nobody.crt"), "{code}: {said}");
}

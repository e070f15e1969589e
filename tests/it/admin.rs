//! The Admin API: objects written, read, patched, deleted, kept, and in force when the answer says so.

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, route_to};

on_both_drivers!(
    an_object_is_in_force_on_every_core_when_its_answer_comes,
    an_object_is_read_back_as_it_was_written,
    tools_that_know_the_older_form_of_answers_get_it,
    a_patch_merges_or_sets_what_a_path_leads_to,
    an_object_that_can_not_be_taken_changes_nothing,
    faults_are_told_with_their_places_to_those_who_ask,
    what_is_needed_can_not_be_deleted_unless_by_force,
    a_client_that_knows_an_older_revision_is_refused,
    a_dry_run_checks_and_changes_nothing,
    a_batch_is_taken_whole_or_not_at_all,
    lists_are_filtered_and_come_by_the_page,
    nobody_without_a_key_gets_in_and_a_viewer_only_reads,
    a_file_of_objects_is_shown_and_not_written,
    what_was_acknowledged_is_there_after_a_power_cut,
    the_past_is_told_and_the_way_back_is_a_revision,
    the_past_shows_no_secrets_and_brings_them_back,
    writes_cost_no_request,
    schemas_and_plugins_are_told,
    what_is_valid_and_not_there_yet_is_kept_and_told,
    stream_routes_are_checked_and_kept_where_somebody_asks_for_them,
    an_upstream_that_is_named_goes_before_one_that_is_written,
    an_id_that_is_given_is_nobody_elses,
    a_batch_brings_along_and_takes_away_in_any_order,
    what_stands_behind_an_id_is_for_patches_of_some_depth,
    a_page_of_another_origin_changes_nothing,
);

fn an_object_is_in_force_on_every_core_when_its_answer_comes() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().cores(2).start();
    let admin = gateway.admin();
    for round in 0..10 {
        let path = format!("/r{round}");
        admin.put("/routes/1", &route_to(&origin, &path));
        // Fresh connections, so that both cores are met.
        for _ in 0..8 {
            gateway.get(&path).expect(200, "hello");
        }
        admin.ask("DELETE", "/routes/1", &[], "").expect_status(200);
        for _ in 0..8 {
            gateway.get(&path).expect_status(404);
        }
    }
}

fn an_object_is_read_back_as_it_was_written() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let answer = admin.ask("PUT", "/upstreams/u-1", &[], r#"{"nodes":{"127.0.0.1:9":1},"retries":0}"#);
    answer.expect_status(201);
    assert_eq!(answer.header("x-config-revision"), Some("1"));
    let written = answer.json();
    assert_eq!(written["key"], "/apisix/upstreams/u-1");
    let read = admin.ask("GET", "/upstreams/u-1", &[], "").json();
    assert_eq!(read["value"], written["value"]);
    assert_eq!((&read["value"]["id"], &read["value"]["retries"]), (&json!("u-1"), &json!(0)));
    assert!(read["value"]["create_time"].is_u64() && read["value"].get("scheme").is_none());
    assert_eq!((&read["createdIndex"], &read["modifiedIndex"]), (&json!(1), &json!(1)));

    let again = admin.ask("PUT", "/upstreams/u-1", &[], r#"{"nodes":{"127.0.0.1:10":1}}"#);
    again.expect_status(200);
    assert_eq!(again.json()["value"]["create_time"], read["value"]["create_time"]);
    let read = admin.ask("GET", "/upstreams/u-1", &[], "").json();
    assert_eq!((&read["createdIndex"], &read["modifiedIndex"]), (&json!(1), &json!(2)));

    let posted = admin.ask("POST", "/upstreams", &[], r#"{"nodes":{"127.0.0.1:9":1}}"#);
    posted.expect_status(201);
    assert_eq!(posted.json()["key"], "/apisix/upstreams/00000000000000000003");
    admin.ask("GET", "/upstreams/none", &[], "").expect(404, "{\"message\":\"Key not found\"}\n");
    admin.ask("DELETE", "/upstreams/none", &[], "").expect_status(404);
    admin.ask("POST", "/consumers", &[], r#"{"username":"jack"}"#).expect_status(405);
}

fn tools_that_know_the_older_form_of_answers_get_it() {
    let gateway = Gateway::managed().settings("deployment: {admin: {admin_api_version: default}}").start();
    let admin = gateway.admin();
    let ask = |method: &str, path: &str, body: &str, status: u16| {
        let answer = admin.ask(method, path, &[], body);
        answer.expect_status(status);
        assert_eq!(answer.header("x-api-version"), Some("v2"), "{method} {path}");
        answer.json()
    };
    let empty = ask("GET", "/upstreams", "", 200);
    let node = json!({"key": "/apisix/upstreams", "dir": true, "nodes": []});
    assert_eq!(empty, json!({"action": "get", "count": 0, "node": node}));

    let made = ask("PUT", "/upstreams/u", r#"{"nodes":{"127.0.0.1:9":1}}"#, 201);
    assert_eq!((&made["action"], &made["node"]["key"]), (&json!("set"), &json!("/apisix/upstreams/u")));
    assert_eq!(made["node"]["value"]["nodes"], json!({"127.0.0.1:9": 1}));
    let patched = ask("PATCH", "/upstreams/u", r#"{"retries":1}"#, 200);
    assert_eq!(
        (&patched["action"], &patched["node"]["value"]["retries"]),
        (&json!("compareAndSwap"), &json!(1))
    );
    let posted = ask("POST", "/upstreams", r#"{"nodes":{"127.0.0.1:9":1}}"#, 201);
    assert_eq!(posted["action"], "create");

    let read = ask("GET", "/upstreams/u", "", 200);
    assert_eq!(
        (&read["action"], &read["count"], &read["node"]["value"]["id"]),
        (&json!("get"), &json!(1), &json!("u"))
    );
    let listed = ask("GET", "/upstreams", "", 200);
    assert_eq!((&listed["count"], &listed["node"]["nodes"][0]), (&json!(2), &read["node"]));
    let deleted = ask("DELETE", "/upstreams/u", "", 200);
    assert_eq!(
        deleted,
        json!({"deleted": "1", "key": "/apisix/upstreams/u", "action": "delete", "node": {}})
    );
    assert_eq!(ask("GET", "/upstreams/u", "", 404), json!({"message": "Key not found"}));

    ask("PUT", "/consumers", r#"{"username":"jack"}"#, 201);
    ask("PUT", "/consumers/jack/credentials/c", r#"{"plugins":{"key-auth":{"key":"k"}}}"#, 201);
    let listed = ask("GET", "/consumers/jack/credentials", "", 200);
    assert_eq!(listed["node"]["key"], "/apisix/consumers/jack/credentials");
    assert_eq!(listed["node"]["nodes"][0]["key"], "/apisix/consumers/jack/credentials/c");
}

fn a_patch_merges_or_sets_what_a_path_leads_to() {
    let (first, second) = (Origin::replying("first"), Origin::replying("second"));
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/routes/1", &route_to(&first, "/*"));
    admin.ask("PATCH", "/routes/1", &[], r#"{"desc":"a","labels":{"x":"1","y":"2"}}"#).expect_status(200);
    admin.ask("PATCH", "/routes/1", &[], r#"{"desc":null,"labels":{"x":null}}"#).expect_status(200);
    let value = admin.ask("GET", "/routes/1", &[], "").json()["value"].clone();
    assert_eq!((value.get("desc"), &value["labels"]), (None, &json!({"y": "2"})));
    gateway.get("/").expect(200, "first");

    let nodes = json!({second.node(): 1}).to_string();
    admin.ask("PATCH", "/routes/1/upstream/nodes", &[], &nodes).expect_status(200);
    gateway.get("/").expect(200, "second");
    admin.ask("PATCH", "/routes/1/uri/deeper", &[], "1").expect_status(400);
    admin.ask("PATCH", "/routes/9", &[], "{}").expect_status(404);
}

fn an_object_that_can_not_be_taken_changes_nothing() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/routes/1", &route_to(&origin, "/*"));
    let before = admin.ask("GET", "/routes", &[], "").json();
    let unknown = r#"{"uri":"/*","plugins":{"key-aut":{}}}"#;
    admin.ask("PUT", "/routes/2", &[], unknown).expect(400, "{\"error_msg\":\"unknown plugin [key-aut]\"}\n");
    let problem = admin.ask("PUT", "/routes/2", &[("Accept", "application/problem+json")], unknown).json();
    assert_eq!(problem["detail"], "unknown plugin [key-aut]; did you mean \"key-auth\"?");
    for (path, body, part) in [
        ("/routes/1", r#"{"uri":"/*","upstram":{}}"#, "did you mean"),
        (
            "/routes/1",
            r#"{"uri":"/*","upstream_id":"9"}"#,
            "failed to fetch upstream info by upstream id [9]",
        ),
        ("/routes/2", r#"{"uri":"/*","plugins":{"limit-count":{"count":-1,"time_window":60}}}"#, "count"),
        ("/routes/2", r#"{"uri":"/*","plugins":{"no-such":{}}}"#, "unknown plugin [no-such]"),
        ("/routes/2", r#"{"uri":"/*""#, "invalid request body"),
        ("/routes/2", r#"{"id":"3","uri":"/*","plugins":{}}"#, "wrong route id"),
        ("/routes", r#"{"uri":"/*","plugins":{}}"#, "missing route id"),
        ("/routes/bad id", r#"{"uri":"/*","plugins":{}}"#, "an id"),
        ("/consumers/jack/credentials/1", r#"{"plugins":{"key-auth":{"key":"k"}}}"#, "consumer not found"),
        ("/nothing/1", "{}", "Unsupported resource type: nothing"),
    ] {
        let answer = admin.ask("PUT", &path.replace(' ', "%20"), &[], body);
        assert!(matches!(answer.status, 400 | 404), "{path} {body}: {}", answer.text());
        let told = answer.json()["error_msg"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(part), "{path} {body}: {told}");
    }
    assert_eq!(admin.ask("GET", "/routes", &[], "").json(), before);
    gateway.get("/").expect(200, "hello");
}

fn faults_are_told_with_their_places_to_those_who_ask() {
    let gateway = Gateway::managed().start();
    let body = r#"{"uri":"/*","plugins":{"limit-count":{"count":"x"}},"upstram":{}}"#;
    let accept = [("Accept", "application/problem+json")];
    let answer = gateway.admin().ask("PUT", "/routes/1", &accept, body);
    answer.expect_status(400);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    let pointers: Vec<&Value> =
        problem["errors"].as_array().into_iter().flatten().map(|error| &error["pointer"]).collect();
    assert!(!pointers.is_empty(), "{problem}");
    assert_eq!(problem["status"], 400);
}

fn what_is_needed_can_not_be_deleted_unless_by_force() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/upstreams/u", &json!({"nodes": {origin.node(): 1}}).to_string());
    admin.put("/routes/1", r#"{"uri":"/*","upstream_id":"u"}"#);
    let refused = admin.ask("DELETE", "/upstreams/u", &[], "");
    refused.expect_status(400);
    let told = "can not delete this upstream, route [1] is still using it now";
    assert_eq!(refused.json()["error_msg"], told);
    gateway.get("/").expect(200, "hello");
    admin.ask("DELETE", "/upstreams/u?force=yes", &[], "").expect_status(400);
    admin.ask("DELETE", "/upstreams/u?force=true", &[], "").expect_status(200);
    gateway.get("/").expect_status(502);

    admin.put("/consumers", r#"{"username":"jack"}"#);
    admin.put("/consumers/jack/credentials/1", r#"{"plugins":{"key-auth":{"key":"k"}}}"#);
    admin.ask("DELETE", "/consumers/jack", &[], "").expect_status(200);
    admin.ask("GET", "/consumers/jack/credentials/1", &[], "").expect_status(404);
}

fn a_client_that_knows_an_older_revision_is_refused() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let body = r#"{"nodes":{"127.0.0.1:9":1}}"#;
    let first = admin.ask("PUT", "/upstreams/1", &[], body);
    let tag = first.header("etag").expect("a tag").to_owned();
    admin.ask("PUT", "/upstreams/1", &[("If-Match", &tag)], body).expect_status(200);
    admin.ask("PUT", "/upstreams/1", &[("If-Match", &tag)], body).expect_status(412);
    admin.ask("PATCH", "/upstreams/1", &[("If-Match", &tag)], "{}").expect_status(412);
    admin.ask("DELETE", "/upstreams/1", &[("If-Match", &tag)], "").expect_status(412);
    admin.ask("DELETE", "/upstreams/1", &[("If-Match", "*")], "").expect_status(200);
    admin.ask("PUT", "/upstreams/1", &[("If-Match", "*")], body).expect_status(412);
}

fn a_dry_run_checks_and_changes_nothing() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.ask("PUT", "/routes/1?dry_run=true", &[], &route_to(&origin, "/*")).expect_status(201);
    admin.ask("PUT", "/routes/1?dry_run=true", &[], r#"{"uri":"/*","upstram":{}}"#).expect_status(400);
    admin.ask("GET", "/routes/1", &[], "").expect_status(404);
    gateway.get("/").expect_status(404);
}

fn a_batch_is_taken_whole_or_not_at_all() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let put = |path: &str, body: Value| json!({"method": "PUT", "path": path, "body": body});
    let upstream = put("/upstreams/u", json!({"nodes": {origin.node(): 1}}));
    let route = put("/routes/1", json!({"uri": "/*", "upstream_id": "u"}));
    let broken = put("/routes/2", json!({"uri": "/*", "upstream_id": "none"}));
    let refused = admin.ask("POST", "/batch", &[], &json!([upstream, route, broken]).to_string());
    refused.expect_status(400);
    assert_eq!(admin.ask("GET", "/upstreams", &[], "").json()["total"], 0);
    let taken = admin.ask("POST", "/batch", &[], &json!([route, upstream]).to_string());
    taken.expect_status(200);
    assert_eq!(taken.json()["revision"], 1);
    gateway.get("/").expect(200, "hello");
}

fn lists_are_filtered_and_come_by_the_page() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    for at in 0..25 {
        let labels = if at % 5 == 0 { json!({"fifth": "yes"}) } else { json!({"other": "yes"}) };
        let body =
            json!({"uri": format!("/{at}"), "name": format!("route-{at}"), "labels": labels, "plugins": {}});
        admin.put(&format!("/routes/{at}"), &body.to_string());
    }
    let ids = |query: &str| -> (Value, Vec<String>) {
        let list = admin.ask("GET", &format!("/routes{query}"), &[], "").json();
        let ids = list["list"].as_array().into_iter().flatten();
        let ids = ids.map(|entry| entry["value"]["id"].as_str().unwrap_or_default().to_owned()).collect();
        (list["total"].clone(), ids)
    };
    assert_eq!(ids("?page_size=10&page=3"), (json!(25), (20..25).map(|at| at.to_string()).collect()));
    assert_eq!(ids("?page_size=10&page=9"), (json!(25), vec![]));
    assert_eq!(ids("?label=fifth").0, 5);
    assert_eq!(ids("?name=route-1%24"), (json!(1), vec!["1".to_owned()]));
    assert_eq!(ids("?uri=%2F2"), (json!(6), ["2", "20", "21", "22", "23", "24"].map(str::to_owned).to_vec()));
    admin.ask("GET", "/routes?page_size=9", &[], "").expect_status(400);
    admin.ask("GET", "/routes?page_size=501", &[], "").expect_status(400);
}

fn nobody_without_a_key_gets_in_and_a_viewer_only_reads() {
    let gateway = Gateway::managed().start();
    assert_eq!(
        gateway.admin().stranger("/routes").expect_status(401).json()["description"],
        "missing apikey"
    );

    let keys = "admin: {keys: [{name: ann, key: look, role: viewer}, {name: bob, key: change}]}";
    let gateway = Gateway::managed().settings(keys).start();
    let admin = gateway.admin();
    let body = r#"{"nodes":{"127.0.0.1:9":1}}"#;
    // The key of a first start does not exist where keys are given.
    admin.ask("GET", "/routes", &[], "").expect_status(401);
    let as_ = |key: &str, method: &str| {
        admin.ask(method, &format!("/upstreams/1?api_key={key}"), &[("Cookie", "x_api_key=no")], body)
    };
    assert_eq!(as_("look", "PUT").status, 401);
    assert!(!gateway.path("state/admin.key").exists());
}

fn a_file_of_objects_is_shown_and_not_written() {
    let origin = Origin::replying("hello");
    let gateway =
        Gateway::routing("/*", [&origin]).settings("admin: {enabled: true, listen: '127.0.0.1:0'}").start();
    let admin = gateway.admin();
    assert_eq!(admin.ask("GET", "/routes/1", &[], "").json()["value"]["uri"], "/*");
    let refused = admin.ask("PUT", "/routes/2", &[], &route_to(&origin, "/two"));
    refused.expect_status(403);
    assert!(refused.text().contains("apisix.yaml"), "{}", refused.text());
    admin.ask("PUT", "/routes/2?dry_run=true", &[], &route_to(&origin, "/two")).expect_status(201);
}

fn what_was_acknowledged_is_there_after_a_power_cut() {
    let origin = Origin::replying("hello");
    let mut gateway = Gateway::managed().start();
    for round in 0..5 {
        let path = format!("/r{round}");
        gateway.admin().put(&format!("/routes/{round}"), &route_to(&origin, &path));
        gateway.kill_and_start_again();
        for earlier in 0..=round {
            gateway.get(&format!("/r{earlier}")).expect(200, "hello");
        }
    }
    assert_eq!(gateway.admin().ask("GET", "/routes", &[], "").json()["total"], 5);
}

fn the_past_is_told_and_the_way_back_is_a_revision() {
    let (first, second) = (Origin::replying("first"), Origin::replying("second"));
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/routes/1", &route_to(&first, "/*"));
    admin.put("/routes/1", &route_to(&second, "/*"));
    admin.put("/routes/2", &route_to(&second, "/two"));
    let history = admin.ask("GET", "/history", &[], "").json();
    assert_eq!(history["total"], 3);
    let newest = &history["list"][0];
    assert_eq!((&newest["revision"], &newest["who"]), (&json!(3), &json!("admin")));
    assert_eq!(newest["changes"][0]["key"], "/apisix/routes/2");
    assert!(newest["changes"][0]["before"].is_null());
    admin.ask("POST", "/rollback/1", &[], "").expect_status(200);
    gateway.get("/").expect(200, "first");
    admin.ask("GET", "/routes/2", &[], "").expect_status(404);
    assert_eq!(admin.ask("GET", "/history?limit=1", &[], "").json()["list"][0]["revision"], 4);
    admin.ask("POST", "/rollback/99", &[], "").expect_status(404);
}

fn the_past_shows_no_secrets_and_brings_them_back() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let jack =
        |key: &str| format!(r#"{{"username": "jack", "plugins": {{"key-auth": {{"key": "{key}"}}}}}}"#);
    let route = route_to(&origin, "/*").replacen('{', r#"{"plugins": {"key-auth": {}}, "#, 1);
    admin.put("/routes/1", &route);
    admin.put("/consumers", &jack("first-secret"));
    admin.put("/consumers", &jack("second-secret"));

    let history = admin.ask("GET", "/history", &[], "").text();
    assert!(history.contains("jack") && !history.contains("-secret"), "{history}");
    admin.ask("POST", "/rollback/2", &[], "").expect_status(200);
    let answer = gateway.client().request("GET", "/", &[("apikey", "first-secret")], b"");
    answer.expect(200, "hello");
}

fn writes_cost_no_request() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().cores(2).start();
    let admin = gateway.admin();
    admin.put("/routes/1", &route_to(&origin, "/*"));
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for at in 0..50 {
                admin.put("/routes/2", &route_to(&origin, &format!("/other/{at}")));
            }
        });
        let mut client = gateway.client();
        while !writer.is_finished() {
            client.get("/").expect(200, "hello");
        }
        writer.join().expect("all writes were taken");
    });
}

fn schemas_and_plugins_are_told() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let names = admin.ask("GET", "/plugins/list", &[], "").json();
    assert!(names.as_array().is_some_and(|names| names.contains(&json!("key-auth"))), "{names}");
    let schema = admin.ask("GET", "/schema/route", &[], "").json();
    assert!(schema["properties"]["uri"].is_object(), "{schema}");
    let of_plugin = admin.ask("GET", "/schema/plugins/limit-count", &[], "").json();
    assert!(of_plugin["properties"]["count"].is_object(), "{of_plugin}");
    // What consumers write of an authentication plugin is another thing than what routes do.
    for (asked, title, field) in [
        ("", "work with route or service object", "header"),
        ("?schema_type=consumer", "work with consumer object", "key"),
        ("?schema_type=other", "work with route or service object", "header"),
    ] {
        let schema = admin.ask("GET", &format!("/schema/plugins/key-auth{asked}"), &[], "").json();
        assert_eq!(schema["title"], title, "{asked}");
        assert!(schema["properties"][field].is_object(), "{asked}: {schema}");
    }
    let all = admin.ask("GET", "/plugins?all=true", &[], "").json();
    assert!(all["key-auth"]["consumer_schema"]["properties"]["key"].is_object());
    assert_eq!(all["cors"].get("consumer_schema"), None);
    admin.ask("GET", "/plugins/none", &[], "").expect_status(404);
    // What only begins like its paths is none of them.
    admin.ask("GET", "routes", &[], "").expect_status(404);
    admin.ask("POST", "/schema/validate/routes", &[], r#"{"uri":"/*","plugins":{}}"#).expect_status(200);
    admin.ask("POST", "/schema/validate/routes", &[], r#"{"url":"/*"}"#).expect_status(400);
    let whole = r#"{"routes":[{"id":"1","uri":"/*","upstream_id":"none"}]}"#;
    let refused = admin.ask("POST", "/configs/validate", &[], whole);
    refused.expect_status(400);
    assert_eq!(refused.json()["errors"][0]["resource_id"], "1");
    admin.ask("POST", "/configs/validate", &[], r#"{"routes":[]}"#).expect_status(200);
}

fn what_is_valid_and_not_there_yet_is_kept_and_told() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let verified = json!({"tls": {"verify": true}, "nodes": {origin.node(): 1}}).to_string();
    let answer = admin.ask("PUT", "/upstreams/verified", &[], &verified);
    answer.expect_status(201);
    let told = answer.header("x-config-warning").unwrap_or_default();
    assert!(told.starts_with("upstreams/verified: tls: expected scheme: https"), "{told}");
    assert_eq!(
        admin.ask("GET", "/upstreams/verified", &[], "").json()["value"]["tls"],
        json!({"verify": true})
    );
    admin.put("/routes/1", r#"{"uri":"/verified","upstream_id":"verified"}"#);
    gateway.get("/verified").expect(200, "hello");

    // What asks for more than is spoken is never sent in clear.
    let route = json!({"uri": "/tls", "upstream": {"scheme": "tls", "nodes": {origin.node(): 1}}});
    let answer = admin.ask("PUT", "/routes/2", &[], &route.to_string());
    answer.expect_status(201);
    let told = answer.header("x-config-warning").unwrap_or_default();
    assert!(told.starts_with("routes/2: upstream.scheme: "), "{told}");
    gateway.get("/tls").expect_status(503);
    assert_eq!(origin.requests(), 1);

    for (upstream, told) in [
        (r#"{"type":"chash","nodes":{}}"#, "missing key"),
        (r#"{"type":"sorted","nodes":{}}"#, "expected one of"),
        (r#"{"nodes":[{"host":"::1","port":80,"weight":1}]}"#, "an IPv6 address in brackets"),
    ] {
        let answer = admin.ask("PUT", "/upstreams/bad", &[], upstream);
        answer.expect_status(400);
        assert!(answer.text().contains(told), "{upstream}: {}", answer.text());
    }
    let nested = r#"{"upstream":{"nodes":{},"create_time":1}}"#;
    admin.ask("PUT", "/services/1", &[], nested).expect_status(400);
}

fn stream_routes_are_checked_and_kept_where_somebody_asks_for_them() {
    let route = r#"{"server_port":9100,"upstream":{"nodes":{"127.0.0.1:9":1},"scheme":"tls"}}"#;
    let refusing = Gateway::managed().start();
    let answer = refusing.admin().ask("PUT", "/stream_routes/1", &[], route);
    answer.expect(400, "{\"error_msg\":\"stream mode is disabled, can not add stream routes\"}\n");

    let gateway = Gateway::managed().settings("admin: {stream_routes: true}").start();
    let admin = gateway.admin();
    admin.put("/stream_routes/1", route);
    assert_eq!(admin.ask("GET", "/stream_routes/1", &[], "").json()["value"]["server_port"], 9100);
    let inner = r#"{"protocol":{"name":"redis","superior_id":"1"},"upstream":{"nodes":{}}}"#;
    admin.put("/stream_routes/2", inner);
    admin.ask("DELETE", "/stream_routes/1", &[], "").expect_status(400);
    let unknown = admin.ask("PUT", "/stream_routes/3", &[], r#"{"plugins":{"mqttt-proxy":{}}}"#);
    unknown.expect(400, "{\"error_msg\":\"unknown plugin [mqttt-proxy]\"}\n");
    for (body, told) in [
        (r#"{"server_port":70000}"#, "server_port"),
        (r#"{"upstream_id":"9"}"#, "failed to fetch upstream info by upstream id [9]"),
        (r#"{"plugins":{"ip-restriction":{"whitelist":["nowhere"]}}}"#, "plugins.ip-restriction.whitelist"),
    ] {
        let answer = admin.ask("PUT", "/stream_routes/3", &[], body);
        answer.expect_status(400);
        assert!(answer.text().contains(told), "{body}: {}", answer.text());
    }
    let proto = r#"{"content":"syntax = \"proto3\";"}"#;
    admin.put("/protos/1", proto);
    assert_eq!(admin.ask("POST", "/protos", &[], proto).status, 201);
}

fn an_upstream_that_is_named_goes_before_one_that_is_written() {
    let (named, written) = (Origin::replying("named"), Origin::replying("written"));
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    admin.put("/upstreams/u", &json!({"nodes": {named.node(): 1}}).to_string());
    let route = json!({"uri": "/*", "upstream": {"nodes": {written.node(): 1}}, "upstream_id": "u"});
    admin.put("/routes/1", &route.to_string());
    gateway.get("/").expect(200, "named");
}

fn an_id_that_is_given_is_nobody_elses() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let taken = format!("/routes/{:020}", 2);
    admin.put(&taken, r#"{"uri":"/kept","plugins":{}}"#);
    let made = admin.ask("POST", "/routes", &[], r#"{"uri":"/new","plugins":{}}"#);
    made.expect_status(201);
    assert_eq!(made.json()["key"], format!("/apisix/routes/{:020}", 3));
    assert_eq!(admin.ask("GET", &taken, &[], "").json()["value"]["uri"], "/kept");
}

fn a_batch_brings_along_and_takes_away_in_any_order() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let batch = |operations: &serde_json::Value| admin.ask("POST", "/batch", &[], &operations.to_string());
    let credential = json!({"method": "PUT", "path": "/consumers/jack/credentials/1", "body": {"plugins": {"key-auth": {"key": "k"}}}});
    batch(&json!([credential])).expect_status(400);
    batch(&json!([credential, {"method": "PUT", "path": "/consumers/jack", "body": {"username": "jack"}}]))
        .expect_status(200);

    admin.put("/services/1", r#"{"plugins":{}}"#);
    admin.put("/routes/1", r#"{"uri":"/","service_id":"1"}"#);
    let gone = |path: &str| json!({"method": "DELETE", "path": path});
    batch(&json!([gone("/services/1")])).expect_status(400);
    batch(&json!([gone("/services/1"), gone("/routes/1")])).expect_status(200);
    admin.ask("GET", "/services/1", &[], "").expect_status(404);
}

fn what_stands_behind_an_id_is_for_patches_of_some_depth() {
    let origin = Origin::replying("hello");
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let route = json!({"uri": "/", "upstream": {"nodes": {origin.node(): 1}}});
    admin.put("/routes/1", &route.to_string());
    admin.ask("DELETE", "/routes/1/plugins/limit-count", &[], "").expect_status(404);
    admin.ask("PATCH", &format!("/routes/1/plugins{}", "/a".repeat(30_000)), &[], "1").expect_status(400);
    gateway.get("/").expect(200, "hello");
}

fn a_page_of_another_origin_changes_nothing() {
    let gateway = Gateway::managed().start();
    let admin = gateway.admin();
    let body = r#"{"uri":"/","plugins":{}}"#;
    for told in [("Origin", "http://evil.example"), ("Sec-Fetch-Site", "cross-site"), ("Origin", "null")] {
        admin.ask("PUT", "/routes/1", &[told], body).expect_status(403);
    }
    admin.ask("PUT", "/routes/1", &[("Sec-Fetch-Site", "same-origin")], body).expect_status(201);
    admin.ask("GET", "/routes", &[("Origin", "http://evil.example")], "").expect_status(200);
}

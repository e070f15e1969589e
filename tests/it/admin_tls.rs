//! The Admin API over TLS: to whom it speaks, and with which certificate.

use std::fs;

use serde_json::json;

use super::kit::{Admin, Answer, Caller, Certs, Gateway, Raw, check, eventually};

const SCHEMA: &str = "/apisix/admin/plugins/list";

/// An authority, another, and what each has issued: to the server `server`, to clients `friend` and `stranger`.
fn certs() -> Certs {
    let certs = Certs::new();
    for (authority, own) in [("ca", ["server", "friend"]), ("other", ["again", "stranger"])] {
        certs.authority(authority);
        for name in own {
            certs.here(authority, name);
        }
    }
    certs
}

fn settings(certs: &Certs, client_ca: Option<&str>) -> String {
    let mut tls = json!({"cert": certs.path("server.crt"), "key": certs.path("server")});
    if let Some(authority) = client_ca {
        tls["client_ca"] = json!(certs.path(&format!("{authority}.crt")));
    }
    json!({"admin": {"tls": tls}}).to_string()
}

/// The answer to a client that shows the certificate of `own`; `None` where it gets none.
fn asked(certs: &Certs, admin: &Admin, own: Option<&str>) -> Option<Answer> {
    let mut raw = Caller::new(certs, "ca", own).call(admin.address, "here.test");
    raw.send(format!("GET {SCHEMA} HTTP/1.1\r\nHost: a\r\nX-API-KEY: {}\r\n\r\n", admin.key));
    raw.try_answer("GET").ok()
}

#[test]
fn with_a_certificate_it_speaks_tls_alone_and_asks_for_the_key_as_ever() {
    let certs = certs();
    let gateway = Gateway::managed().settings(&settings(&certs, None)).start();
    let admin = gateway.admin();
    let answer = asked(&certs, &admin, None).expect("an answer");
    answer.expect_status(200);
    assert!(answer.json().as_array().is_some_and(|names| !names.is_empty()));
    let mut client = Caller::new(&certs, "ca", None).client(admin.address, "here.test");
    client.get(SCHEMA).expect_status(401);
    let headers = [("X-API-KEY", admin.key.as_str())];
    let route = r#"{"uri":"/a","plugins":{"fault-injection":{"abort":{"http_status":418}}}}"#;
    client.request("PUT", "/apisix/admin/routes/1", &headers, route.as_bytes()).expect_status(201);
    gateway.get("/a").expect_status(418);
    let history = client.request("GET", "/apisix/admin/history", &headers, b"").json();
    assert!(
        history["list"][0]["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1")),
        "{history}"
    );

    let mut plain = Raw::connect(admin.address);
    plain.send(format!("GET {SCHEMA} HTTP/1.1\r\nHost: a\r\nX-API-KEY: {}\r\n\r\n", admin.key));
    plain.try_answer("GET").expect_err("nothing is said in clear");
}

#[test]
fn who_shows_no_certificate_of_the_authority_gets_no_further() {
    let certs = certs();
    let gateway = Gateway::managed().settings(&settings(&certs, Some("ca"))).start();
    let admin = gateway.admin();
    assert!(asked(&certs, &admin, None).is_none());
    assert!(asked(&certs, &admin, Some("stranger")).is_none());
    asked(&certs, &admin, Some("friend")).expect("an answer").expect_status(200);
}

#[test]
fn certificates_that_are_renewed_are_used_and_what_is_no_certificate_is_not() {
    let certs = certs();
    let gateway = Gateway::managed().settings(&settings(&certs, None)).start();
    let admin = gateway.admin();
    asked(&certs, &admin, None).expect("an answer").expect_status(200);
    fs::write(certs.path("server.crt"), "no certificate").unwrap();
    eventually("it is told", || {
        asked(&certs, &admin, None).expect("what was read before stays").expect_status(200);
        gateway.said().contains("what was read before stays").then_some(())
    });
    // One that can not be read for a moment, with the time at which it was written.
    let written = fs::metadata(certs.path("server.crt")).unwrap().modified().unwrap();
    for file in ["", ".crt"] {
        fs::copy(certs.path(&format!("again{file}")), certs.path(&format!("server{file}"))).unwrap();
    }
    fs::File::options().write(true).open(certs.path("server.crt")).unwrap().set_modified(written).unwrap();
    let believes_other = Caller::new(&certs, "other", None);
    eventually("the other authority's is shown", || {
        let mut raw = believes_other.call(admin.address, "here.test");
        raw.send(format!("GET {SCHEMA} HTTP/1.1\r\nHost: a\r\nX-API-KEY: {}\r\n\r\n", admin.key));
        raw.try_answer("GET").is_ok().then_some(())
    });
}

#[test]
fn who_says_nothing_keeps_nobody_waiting_and_takes_no_more_than_so_many_connections() {
    let certs = certs();
    let gateway = Gateway::managed().settings(&settings(&certs, None)).start();
    let admin = gateway.admin();
    let mut silent: Vec<Raw> = (0..200).map(|_| Raw::connect(admin.address)).collect();
    for _ in 0..5 {
        asked(&certs, &admin, None).expect("an answer").expect_status(200);
    }
    silent.extend((0..400).map(|_| Raw::connect(admin.address)));
    gateway.get("/nothing").expect_status(404);
    let files = fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    assert!(files < 580, "{files} of 600 connections and some");
    drop(silent);
    eventually("the door is open again", || asked(&certs, &admin, None));
}

#[test]
fn a_start_without_its_files_fails_and_names_them() {
    let certs = certs();
    fs::remove_file(certs.path("server")).unwrap();
    let (code, said) = Gateway::managed().settings(&settings(&certs, None)).start_and_fail_managed();
    assert_ne!(code, 0);
    let path = certs.path("server").display().to_string();
    assert!(said.contains("admin.tls") && said.contains(&path), "{said}");
}

#[test]
fn a_check_tells_of_the_files_what_a_start_would() {
    let certs = certs();
    let folder = tempfile::tempdir().unwrap();
    let (config, objects) = (folder.path().join("config.yaml"), folder.path().join("resources.yaml"));
    fs::write(&objects, "routes: []\n#END\n").unwrap();
    let checked = |settings: &str| {
        fs::write(&config, settings).unwrap();
        let (config, objects) = (config.display().to_string(), objects.display().to_string());
        check(&["--config", &config, "--resources", &objects])
    };
    assert_eq!(checked(&settings(&certs, Some("ca"))).0, 0);
    let good = settings(&certs, None);
    let key = certs.path("server").display().to_string();
    let stranger = certs.path("stranger").display().to_string();
    for (bad, expected) in [
        (settings(&certs, Some("none")), "none.crt"),
        (good.replace("server.crt", "none.crt"), "none.crt"),
        (good.replace(&key, &format!("{key}.none")), "server.none"),
        // The key of another certificate.
        (good.replace(&format!("{key}\""), &format!("{stranger}\"")), "stranger"),
    ] {
        let (code, said) = checked(&bad);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("admin.tls: ") && said.contains(expected), "{expected}: {said}");
    }
}

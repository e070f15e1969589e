//! Stapling, with `openssl ocsp` as the authority that is asked and `openssl s_client` as the client that looks.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::kit::{Certs, Gateway, Origin, free_port, within};

/// How long programs may take, on a machine busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a responder says of the certificate `site`.
struct Responder(Child);

impl Responder {
    /// Answers there that the certificate is good or not, in the name of this key.
    #[track_caller]
    fn start(certs: &Certs, port: u16, is_good: bool, signer: &str) -> Self {
        let path = |name: &str| certs.path(name).display().to_string();
        let out =
            Command::new("openssl").args(["x509", "-noout", "-serial", "-in", &path("site.crt")]).output();
        let said = String::from_utf8(out.unwrap().stdout).unwrap();
        let serial = said.trim().strip_prefix("serial=").expect("a serial").to_owned();
        let (status, since) = if is_good { ("V", "") } else { ("R", "260101000000Z") };
        let line = format!("{status}\t391231235959Z\t{since}\t{serial}\tunknown\t/CN=site\n");
        fs::write(certs.path("index"), line).unwrap();
        let _ = fs::remove_file(certs.path("ocsp.log"));
        let log = || {
            let path = certs.path("ocsp.log");
            Stdio::from(fs::File::options().create(true).append(true).open(path).unwrap())
        };
        let child = Command::new("openssl")
            .args(["ocsp", "-port", &port.to_string(), "-index", &path("index"), "-CA", &path("ca.crt")])
            .args(["-rsigner", &path(&format!("{signer}.crt")), "-rkey", &path(signer), "-nmin", "10"])
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log())
            .spawn()
            .unwrap_or_else(|error| panic!("openssl: {error}; Debian has it in the package openssl"));
        let responder = Self(child);
        // A connection that asks for nothing would hold it up for good.
        within(PATIENCE, "the responder listens", || {
            let said = fs::read_to_string(certs.path("ocsp.log")).unwrap_or_default();
            said.contains("waiting for OCSP client connections").then_some(())
        });
        responder
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority, a certificate of its making that says who may be asked, and others that could answer.
fn certs(port: u16) -> Certs {
    let certs = Certs::new();
    certs.authority("ca");
    let access = format!("authorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/ask\n");
    certs.issued_saying("ca", "site", "DNS:a.test", &access);
    certs.issued_saying("ca", "delegate", "DNS:d.test", "extendedKeyUsage=OCSPSigning\n");
    certs.issued("ca", "impostor", "DNS:i.test");
    certs
}

fn serving(certs: &Certs, origin: &Origin) -> Gateway {
    let read = |name: &str| fs::read_to_string(certs.path(name)).unwrap();
    let (chain, key) = (read("site.crt") + &read("ca.crt"), read("site"));
    Gateway::routing("/*", [origin])
        .settings("ssl: {listen: ['127.0.0.1:0'], stapling: true}")
        .objects(&json!({"ssls": [{"id": "a", "sni": "a.test", "cert": chain, "key": key}]}).to_string())
        .start()
}

/// What a client is sent along.
#[track_caller]
fn sent(certs: &Certs, gateway: &Gateway, version: &str) -> String {
    let out = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &gateway.secure_address().to_string(),
            "-servername",
            "a.test",
            version,
        ])
        .args(["-status", "-CAfile", certs.path("ca.crt").to_str().unwrap()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned()
}

#[test]
fn an_answer_is_sent_along_by_its_issuer_or_whom_it_names_and_stays_when_they_are_away() {
    let port = free_port();
    let (certs, origin) = (certs(port), Origin::replying("hello"));
    for signer in ["ca", "delegate"] {
        let responder = Responder::start(&certs, port, true, signer);
        let gateway = serving(&certs, &origin);
        let said = within(PATIENCE, "an answer is sent along", || {
            let said = sent(&certs, &gateway, "-tls1_3");
            said.contains("OCSP Response Status: successful").then_some(said)
        });
        assert!(said.contains("Cert Status: good") && said.contains("Verify return code: 0"), "{said}");
        drop(responder);
        let said = sent(&certs, &gateway, "-tls1_2");
        assert!(said.contains("Cert Status: good"), "{said}");
    }
}

#[test]
fn what_is_not_good_or_not_believed_is_not_sent_along() {
    let port = free_port();
    let (certs, origin) = (certs(port), Origin::replying("hello"));
    certs.authority("stranger");
    for (is_good, signer, expected) in [
        (false, "ca", "the certificate was revoked"),
        (true, "impostor", "neither the issuer nor anybody it names"),
        (true, "stranger", "neither the issuer nor anybody it names"),
    ] {
        let _responder = Responder::start(&certs, port, is_good, signer);
        let gateway = serving(&certs, &origin);
        within(PATIENCE, "it is told", || gateway.said().contains(expected).then_some(()));
        let said = sent(&certs, &gateway, "-tls1_3");
        assert!(said.contains("no response sent") && said.contains("Verify return code: 0"), "{said}");
    }
    // Nobody answers, and everybody is served.
    let gateway = serving(&certs, &origin);
    within(PATIENCE, "it is told", || gateway.said().contains("what is known is sent on").then_some(()));
    assert!(sent(&certs, &gateway, "-tls1_3").contains("Verify return code: 0"));
}

//! Keys and certificates, made by openssl as an operator would.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder in which they are made.
pub(crate) struct Certs {
    dir: tempfile::TempDir,
}

impl Certs {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The file of a key by its name, of its certificate with `.crt` behind.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A key and its certificate for 127.0.0.1, by the key `issuer` that has one by itself; in files.
    #[track_caller]
    pub(crate) fn here(&self, issuer: &str, name: &str) {
        self.issued(issuer, name, "IP:127.0.0.1,DNS:here.test");
    }

    /// A key and its certificate for these names, as openssl writes them, by the key `issuer`; in files. The certificate, and
    /// the key, in PEM.
    #[track_caller]
    pub(crate) fn issued(&self, issuer: &str, name: &str, names: &str) -> (String, String) {
        self.issued_saying(issuer, name, names, "")
    }

    /// The same, with more lines of extensions.
    #[track_caller]
    pub(crate) fn issued_saying(
        &self,
        issuer: &str,
        name: &str,
        names: &str,
        more: &str,
    ) -> (String, String) {
        self.key(name, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        self.certified(issuer, name, names, more)
    }

    /// The same for a key that was made already.
    #[track_caller]
    pub(crate) fn certified(&self, issuer: &str, name: &str, names: &str, more: &str) -> (String, String) {
        let (request, extension) = (self.path("request"), self.path("extension"));
        fs::write(&extension, format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n{more}")).unwrap();
        let (key, path) = (self.path(name), self.path(&format!("{name}.crt")));
        let subject = format!("/O=Ringway/CN={name}");
        openssl(&["req", "-new", "-key", text(&key), "-subj", &subject, "-out", text(&request)]);
        let (ca, ca_key) = (self.path(&format!("{issuer}.crt")), self.path(issuer));
        let by = ["-CA", text(&ca), "-CAkey", text(&ca_key), "-CAcreateserial", "-days", "30"];
        let with = ["-extfile", text(&extension), "-in", text(&request), "-out", text(&path)];
        openssl(&[&["x509", "-req"], by.as_slice(), with.as_slice()].concat());
        (fs::read_to_string(path).unwrap(), fs::read_to_string(key).unwrap())
    }

    /// A private key in PEM, by the arguments of `openssl genpkey`.
    #[track_caller]
    pub(crate) fn key(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.path(name);
        openssl(&[&["genpkey", "-out", text(&path)], arguments].concat());
        fs::read_to_string(path).unwrap()
    }

    /// The same key in another form, by the arguments of `openssl pkey`.
    #[track_caller]
    pub(crate) fn converted(&self, name: &str, arguments: &[&str]) -> String {
        let (path, other) = (self.path(name), self.path("converted"));
        openssl(&[&["pkey", "-in", text(&path), "-out", text(&other)], arguments].concat());
        fs::read_to_string(other).unwrap()
    }

    /// A certificate in PEM of a key that was made, for this host, by itself.
    #[track_caller]
    pub(crate) fn by_itself(&self, key: &str, host: &str) -> String {
        let (key, path) = (self.path(key), self.path(&format!("{key}.crt")));
        let subject = format!("/CN={host}");
        openssl(&["req", "-x509", "-key", text(&key), "-subj", &subject, "-days", "30", "-out", text(&path)]);
        fs::read_to_string(path).unwrap()
    }

    /// A key, and a certificate by itself that may vouch for others; in files.
    #[track_caller]
    pub(crate) fn authority(&self, name: &str) {
        self.key(name, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        self.by_itself(name, "authority.test");
    }

    /// The same between an authority and those it vouches for: its certificate is by `issuer`.
    #[track_caller]
    pub(crate) fn between(&self, issuer: &str, name: &str) {
        self.key(name, &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        let (request, extension) = (self.path("request"), self.path("extension"));
        fs::write(&extension, "basicConstraints=critical,CA:TRUE").unwrap();
        let (key, path) = (self.path(name), self.path(&format!("{name}.crt")));
        openssl(&[
            "req",
            "-new",
            "-key",
            text(&key),
            "-subj",
            &format!("/CN={name}"),
            "-out",
            text(&request),
        ]);
        let (ca, ca_key) = (self.path(&format!("{issuer}.crt")), self.path(issuer));
        let by = ["-CA", text(&ca), "-CAkey", text(&ca_key), "-CAcreateserial", "-days", "30"];
        let with = ["-extfile", text(&extension), "-in", text(&request), "-out", text(&path)];
        openssl(&[&["x509", "-req"], by.as_slice(), with.as_slice()].concat());
    }

    /// A list in PEM of what an authority has revoked: the certificates of these keys.
    #[track_caller]
    pub(crate) fn revoking(&self, authority: &str, revoked: &[&str]) -> String {
        self.list(authority, revoked, "crlnumber=")
    }

    /// The same in version 1 of such lists, which openssl writes where they have no number.
    #[track_caller]
    pub(crate) fn revoking_as_of_old(&self, authority: &str, revoked: &[&str]) -> String {
        self.list(authority, revoked, "#")
    }

    #[track_caller]
    fn list(&self, authority: &str, revoked: &[&str], number: &str) -> String {
        let (settings, index, list) = (self.path("ca.cnf"), self.path("index"), self.path("list"));
        fs::write(&index, "").unwrap();
        fs::write(self.path("crlnumber"), "01\n").unwrap();
        let folder = self.dir.path().display();
        let words = format!(
            "[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index\n{number}{folder}/crlnumber\n\
             default_md=sha256\ndefault_crl_days=30\n"
        );
        fs::write(&settings, words).unwrap();
        let (key, cert) = (self.path(authority), self.path(&format!("{authority}.crt")));
        let ca = ["ca", "-config", text(&settings), "-keyfile", text(&key), "-cert", text(&cert)];
        for name in revoked {
            openssl(&[&ca[..], &["-revoke", text(&self.path(&format!("{name}.crt")))]].concat());
        }
        openssl(&[&ca[..], &["-gencrl", "-out", text(&list)]].concat());
        fs::read_to_string(list).unwrap()
    }

    /// A certificate of a key, by another key that has one by itself.
    #[track_caller]
    pub(crate) fn by(&self, issuer: &str, key: &str, host: &str) -> String {
        let (issuer_key, issuer) = (self.path(issuer), self.path(&format!("{issuer}.crt")));
        let (key, request, path) = (self.path(key), self.path("request"), self.path("issued.crt"));
        let subject = format!("/CN={host}");
        openssl(&["req", "-new", "-key", text(&key), "-subj", &subject, "-out", text(&request)]);
        let by = ["-CA", text(&issuer), "-CAkey", text(&issuer_key), "-CAcreateserial", "-days", "30"];
        openssl(&[&["x509", "-req", "-in", text(&request), "-out", text(&path)], by.as_slice()].concat());
        fs::read_to_string(path).unwrap()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder has a plain name")
}

#[track_caller]
fn openssl(arguments: &[&str]) {
    let out = Command::new("openssl").args(arguments).stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|error| panic!("openssl: {error}; Debian has it in the package openssl"));
    assert!(out.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

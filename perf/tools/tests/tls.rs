//! The load generator over TLS, against a server of rustls: handshakes are counted by their kind, and another certificate
//! than the given one is no answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use ringway_perf::load::{Bench, Options};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, Stream};
use serde_json::{Value, json};

/// A file that goes with the test.
struct Pem(PathBuf);

impl Pem {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringway-perf-{}-{name}.pem", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Pem {
    fn drop(&mut self) {
        // It may stay where the folder is gone.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Answers every request, and closes where that is asked for; its certificate.
fn server(tickets: usize) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["perf.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.send_tls13_tickets = tickets;
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut tls = ServerConnection::new(config.clone()).unwrap();
            std::thread::spawn(move || {
                let mut stream = Stream::new(&mut tls, &mut socket);
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let closes = bytes[..count].windows(5).any(|word| word == b"close");
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
                    if closes {
                        stream.conn.send_close_notify();
                        // The client may be gone.
                        let _ = stream.conn.complete_io(stream.sock);
                        return;
                    }
                }
            });
        }
    });
    (address, made.cert.pem())
}

fn run(address: SocketAddr, certificate: &Pem, arguments: &str) -> Value {
    let line = format!(
        "loadgen https://{address}/ -c 4 -d 0.3 -w 0.2 --certificate {} {arguments}",
        certificate.0.display()
    );
    let options = Options::try_parse_from(line.split_whitespace()).unwrap();
    Bench::new(&[], &[]).unwrap().run(&options, None).unwrap().json().clone()
}

#[test]
fn handshakes_are_counted_by_their_kind() {
    let (address, pem) = server(2);
    let certificate = Pem::new("kinds", &pem);
    let kept = run(address, &certificate, "");
    assert_eq!(
        (&kept["handshakes"], &kept["errors"]),
        (&json!({"full": 4, "resumed": 0}), &json!({})),
        "{kept}"
    );
    assert!(kept["answered"].as_u64().unwrap() > 4, "{kept}");
    let full = run(address, &certificate, "--new-connections");
    assert_eq!((&full["handshakes"]["resumed"], &full["errors"]), (&json!(0), &json!({})), "{full}");
    assert!(full["handshakes"]["full"].as_u64() >= full["answered"].as_u64(), "{full}");
    let resumed = run(address, &certificate, "--new-connections --resume");
    assert_eq!((&resumed["handshakes"]["full"], &resumed["errors"]), (&json!(4), &json!({})), "{resumed}");
    assert!(resumed["handshakes"]["resumed"].as_u64() >= resumed["answered"].as_u64(), "{resumed}");
}

#[test]
fn a_session_that_is_not_resumed_is_an_error_where_that_was_asked_for() {
    let (address, pem) = server(0);
    let certificate = Pem::new("tickets", &pem);
    let report = run(address, &certificate, "--new-connections --resume");
    // Those that were under way when measuring began are none of it.
    assert!(report["answered"].as_u64().unwrap() <= 4, "{report}");
    assert!(report["errors"]["not resumed"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn another_certificate_than_the_given_one_is_an_error() {
    let (address, _) = server(2);
    let (_, other) = server(2);
    let report = run(address, &Pem::new("other", &other), "");
    assert_eq!(report["answered"], 0, "{report}");
    assert!(report["errors"]["tls"].as_u64().unwrap() > 0, "{report}");
}

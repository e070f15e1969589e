//! What is asked over a socket that has only just come to a loop.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use super::*;
use crate::base::clock;
use crate::runtime::driver::{Driver, Wanted};

const PATIENCE: Duration = Duration::from_secs(10);

/// Asks over a socket that its loop has heard nothing of, as one that was borrowed from another core; what was answered.
fn asked_at_once(wanted: Wanted, how: Sending) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let near = std::net::TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let (mut far, _) = listener.accept().expect("connected");
    far.set_read_timeout(Some(PATIENCE)).expect("an option");
    let peer = std::thread::spawn(move || {
        let mut asked = [0; 4];
        far.read_exact(&mut asked).expect("the question");
        far.write_all(b"pong").expect("sent");
        (asked, far)
    });
    let answer = std::thread::spawn(move || {
        let mut driver = Driver::build(wanted).expect("a loop");
        near.set_nonblocking(driver.wants_nonblocking()).expect("an option");
        driver.run(async {
            let wheel = Wheel::new(clock::now());
            let mut socket = Socket::new(TcpStream::from_std(near).expect("a stream"), &wheel);
            let asking = socket.ask(b"ping".to_vec(), how);
            let asked = monoio::time::timeout(PATIENCE, asking).await.expect("an answer in time");
            asked.0.expect("sent");
            let (received, buffer) = socket.reader.receive(Vec::with_capacity(8), 8).await;
            assert_eq!(received.expect("received"), 4);
            buffer
        })
    });
    let answer = answer.join().expect("no panic");
    assert_eq!(&peer.join().expect("no panic").0, b"ping");
    String::from_utf8(answer).expect("a text")
}

#[test]
fn a_socket_that_has_just_come_is_asked_and_answers() {
    for wanted in [Wanted::Epoll, Wanted::IoUring] {
        for how in [Sending::Together, Sending::Alone] {
            assert_eq!(asked_at_once(wanted, how), "pong", "{wanted:?} {how:?}");
        }
    }
}

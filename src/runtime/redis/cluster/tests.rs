//! What nodes of a cluster say of where keys are.

use super::*;
use crate::proto::resp;

fn said(text: &str) -> Option<Vec<Range>> {
    let (reply, length) = resp::parse(text.as_bytes()).unwrap().unwrap();
    assert_eq!(length, text.len());
    ranges(reply)
}

fn of(first: u16, last: u16, host: &str, ip: Option<&str>, port: u16) -> Range {
    Range { first, last, host: host.to_owned(), ip: ip.map(|ip| ip.parse().unwrap()), port }
}

#[test]
fn a_map_is_read_in_every_form_that_a_cluster_gives_it() {
    let text = "*3\r\n\
        *4\r\n:0\r\n:5460\r\n\
        *4\r\n$8\r\n10.0.0.1\r\n:6379\r\n$2\r\nid\r\n*0\r\n\
        *4\r\n$8\r\n10.0.0.9\r\n:6379\r\n$2\r\nid\r\n*0\r\n\
        *3\r\n:5461\r\n:5461\r\n*4\r\n$5\r\nnamed\r\n:7\r\n$2\r\nid\r\n*2\r\n$2\r\nip\r\n$8\r\n10.0.0.2\r\n\
        *3\r\n:5462\r\n:16383\r\n*3\r\n$-1\r\n:6380\r\n$2\r\nid\r\n";
    let expected = vec![
        of(0, 5460, "10.0.0.1", None, 6379),
        of(5461, 5461, "named", Some("10.0.0.2"), 7),
        of(5462, 16383, "", None, 6380),
    ];
    assert_eq!(said(text), Some(expected));
    assert_eq!(said("*0\r\n"), Some(vec![]));
}

#[test]
fn what_is_no_map_is_refused() {
    for text in [
        "+OK\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n:0\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:-1\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:2\r\n:1\r\n*2\r\n$1\r\na\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n:65536\r\n",
        "*1\r\n*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n",
    ] {
        assert_eq!(said(text), None, "{text:?}");
    }
}

#[test]
fn a_node_says_where_a_key_is() {
    let read = |text| Elsewhere::read(text);
    let of = |for_good, host, port| Some(Elsewhere { for_good, host, port });
    assert_eq!(read("MOVED 3999 10.0.0.1:6381"), of(true, "10.0.0.1", 6381));
    assert_eq!(read("ASK 3999 ::1:6381"), of(false, "::1", 6381));
    assert_eq!(read("MOVED 3999 :6381"), of(true, "", 6381));
    for text in ["MOVED", "MOVED 1", "MOVED 1 a", "MOVED 1 a:x", "MOVED 1 a:65536", "ERR MOVED 1 a:1", ""] {
        assert_eq!(read(text), None, "{text}");
    }
}

fn seeds() -> Seeds {
    let manner = Manner {
        hello: vec![],
        hello_count: 0,
        tls: None,
        connect: Duration::from_secs(1),
        idle: Duration::ZERO,
    };
    let nodes = vec![("first.test".to_owned(), "10.0.0.1:1".parse().unwrap())];
    Seeds { name: "c".to_owned(), nodes, manner }
}

#[test]
fn a_new_map_keeps_lines_and_forgets_nodes_that_are_gone() {
    let (cluster, seeds) = (Cluster::default(), seeds());
    let at = |slot| cluster.node_for(slot, &seeds).unwrap();
    let first = at(7);
    assert_eq!(first.address.to_string(), "10.0.0.1:1");
    let map = [of(0, 99, "first.test", None, 1), of(100, 16383, "10.0.0.2", None, 1)];
    cluster.take_over(&map, &first, &seeds);
    assert!(Rc::ptr_eq(&first, &at(99)));
    let second = at(100);
    assert_eq!(second.address.to_string(), "10.0.0.2:1");
    cluster.take_over(&[of(0, 16383, "", None, 1)], &second, &seeds);
    assert!(Rc::ptr_eq(&second, &at(0)));
    assert_eq!(cluster.nodes.borrow().len(), 1);
    cluster.assign(5, &cluster.node_at(("", "10.0.0.3:1".parse().unwrap()), &seeds).unwrap());
    assert_eq!(
        (at(5).address.to_string(), at(6).address.to_string()),
        ("10.0.0.3:1".to_owned(), "10.0.0.2:1".to_owned())
    );
}

#[test]
fn nodes_are_not_known_without_end() {
    let (cluster, seeds) = (Cluster::default(), seeds());
    let known = (1..=NODES_MAX as u16 + 9)
        .filter(|port| cluster.node_at(("", SocketAddr::new([10, 0, 0, 1].into(), *port)), &seeds).is_some());
    assert_eq!(known.count(), NODES_MAX);
}

//! Several real Redis: a cluster of three masters, and a master with a replica that sentinels watch.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use super::redis::{Redis, free_port, tls_arguments};
use super::{Certs, eventually, within};

/// A cluster does not serve for its first two seconds, on its own account.
const JOIN: Duration = Duration::from_secs(30);

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Three masters that share all slots.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<Redis>,
    ids: Vec<String>,
    _dir: tempfile::TempDir,
}

impl RedisCluster {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(|_| Vec::new())
    }

    /// Starts nodes that speak TLS as well, as [`Redis::secure`] has it; and a port for that.
    #[track_caller]
    pub(crate) fn secure(certs: &Certs) -> (Self, u16) {
        let ports = RefCell::new(HashMap::new());
        let cluster = Self::start_with(|port| {
            let secure_port = free_port();
            ports.borrow_mut().insert(port, secure_port);
            let more = tls_arguments(certs, secure_port);
            more.into_iter().chain(owned(&["--tls-cluster", "yes"])).collect()
        });
        let port = ports.borrow()[&cluster.nodes[0].port()];
        (cluster, port)
    }

    /// Starts nodes with more arguments.
    #[track_caller]
    fn start_with(more: impl Fn(u16) -> Vec<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let mut buses = Vec::new();
        let nodes: Vec<Redis> = (0..3)
            .map(|at| {
                let bus = free_port();
                buses.push(bus.to_string());
                Redis::start_with(None, |port| {
                    let (bus, file) = (bus.to_string(), format!("nodes-{at}-{port}.conf"));
                    let mut arguments =
                        owned(&["--cluster-enabled", "yes", "--dir", folder, "--cluster-port", &bus]);
                    arguments.extend(owned(&[
                        "--cluster-config-file",
                        &file,
                        "--cluster-node-timeout",
                        "2000",
                    ]));
                    arguments.extend(owned(&["--cluster-require-full-coverage", "no"]));
                    arguments.extend(more(port));
                    arguments
                })
            })
            .collect();
        for ((at, node), slots) in
            nodes.iter().enumerate().zip([["0", "5460"], ["5461", "10922"], ["10923", "16383"]])
        {
            node.say(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]);
            node.say(&["CLUSTER", "SET-CONFIG-EPOCH", &(at + 1).to_string()]);
        }
        for (node, bus) in nodes.iter().zip(&buses).skip(1) {
            nodes[0].say(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus]);
        }
        let ids = nodes.iter().map(|node| node.say(&["CLUSTER", "MYID"])).collect();
        within(JOIN, "the cluster serves", || {
            let serves = |node: &Redis| {
                let said = node.say(&["CLUSTER", "INFO"]);
                let has = |line: &str| said.lines().any(|said| said.trim_end() == line);
                has("cluster_state:ok") && has("cluster_slots_ok:16384") && has("cluster_known_nodes:3")
            };
            nodes.iter().all(serves).then_some(())
        });
        Self { nodes, ids, _dir: dir }
    }

    /// As a plugin is told of it: of one node, which tells of the others.
    pub(crate) fn fields(&self) -> String {
        format!(
            "policy: redis-cluster, redis_cluster_name: fleet, redis_cluster_nodes: ['127.0.0.1:{}']",
            self.nodes[0].port()
        )
    }

    /// All keys that begin so, and where they are.
    #[track_caller]
    pub(crate) fn keys(&self, begins: &str) -> Vec<(usize, String)> {
        let mut keys = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let said = node.say(&["KEYS", &format!("{begins}*")]);
            keys.extend(said.lines().filter(|key| !key.is_empty()).map(|key| (at, key.to_owned())));
        }
        keys
    }

    /// Begins to move the slot of a key, and moves the key: whoever asks for it is sent on from case to case.
    #[track_caller]
    pub(crate) fn begin_to_move(&self, key: &str, from: usize, to: usize) -> String {
        let slot = self.nodes[0].say(&["CLUSTER", "KEYSLOT", key]);
        self.nodes[to].say(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]);
        self.nodes[from].say(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]);
        let port = self.nodes[to].port().to_string();
        assert_eq!(self.nodes[from].say(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]), "OK");
        slot
    }

    /// Ends it: the slot is there for good.
    #[track_caller]
    pub(crate) fn end_to_move(&self, slot: &str, to: usize) {
        for node in [to, 0, 1, 2] {
            assert_eq!(self.nodes[node].say(&["CLUSTER", "SETSLOT", slot, "NODE", &self.ids[to]]), "OK");
        }
    }
}

/// A master, its replica, and a sentinel that watches them.
pub(crate) struct RedisWatched {
    pub(crate) nodes: Vec<Redis>,
    pub(crate) sentinel: Redis,
    _dir: tempfile::TempDir,
}

impl RedisWatched {
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(None).0
    }

    /// Starts all three with TLS, which they speak among themselves and tell of; and the port on which the sentinel does.
    #[track_caller]
    pub(crate) fn secure(certs: &Certs) -> (Self, u16) {
        Self::start_with(Some(certs))
    }

    #[track_caller]
    fn start_with(certs: Option<&Certs>) -> (Self, u16) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        // Where a node is for others: its port, or that for TLS.
        let told = RefCell::new(HashMap::new());
        let more = |port: u16, usual: &[&str]| {
            let secure = certs.map(|certs| {
                let secure_port = free_port();
                told.borrow_mut().insert(port, secure_port);
                let more = tls_arguments(certs, secure_port);
                more.into_iter().chain(owned(&["--tls-replication", "yes"])).collect::<Vec<_>>()
            });
            secure.unwrap_or_default().into_iter().chain(owned(usual)).collect::<Vec<_>>()
        };
        let port_of =
            |redis: &Redis| told.borrow().get(&redis.port()).copied().unwrap_or_else(|| redis.port());
        // A copy is made at once, not when others might have come for one, too.
        let master = Redis::start_with(None, |port| more(port, &["--repl-diskless-sync-delay", "0"]));
        let port = port_of(&master).to_string();
        let replica =
            Redis::start_with(None, |own| more(own, &["--replicaof", "127.0.0.1", &port, "--dir", folder]));
        eventually("the replica has a copy", || {
            replica.say(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        // What a sentinel is told it also writes down.
        let file = dir.path().join("sentinel.conf");
        let sentinel = Redis::launch_any(None, |own| {
            // `--name value` on a command line is `name value` in a file.
            let tls = more(own, &[]).join(" ").replace(" --", "\n").replace("--", "");
            let text = format!(
                "port {own}\nbind 127.0.0.1\ndir {}\n{tls}\nsentinel monitor counters 127.0.0.1 {port} 1\n\
                 sentinel down-after-milliseconds counters 500\nsentinel failover-timeout counters 3000\n",
                dir.path().display()
            );
            fs::write(&file, text).unwrap();
            owned(&[file.to_str().unwrap(), "--sentinel"])
        });
        eventually("the sentinel knows the replica", || {
            sentinel
                .say(&["SENTINEL", "REPLICAS", "counters"])
                .contains("master-link-status\nok")
                .then_some(())
        });
        let port = port_of(&sentinel);
        (Self { nodes: vec![master, replica], sentinel, _dir: dir }, port)
    }

    /// As a plugin is told of it. The first sentinel is none.
    pub(crate) fn fields(&self) -> String {
        format!(
            "policy: redis-sentinel, redis_master_name: counters, \
             redis_sentinels: [{{host: 127.0.0.1, port: 1}}, {{host: 127.0.0.1, port: {}}}]",
            self.sentinel.port()
        )
    }

    /// The port of the master that is now, as the sentinel has it.
    #[track_caller]
    pub(crate) fn master(&self) -> u16 {
        let said = self.sentinel.say(&["SENTINEL", "get-master-addr-by-name", "counters"]);
        said.lines().nth(1).unwrap().parse().unwrap()
    }
}

//! What a client, an origin and an operator see of a running gateway. Every test starts its own gateway, the real
//! binary on ports of the system's choice, and its own origins; nothing is mocked and nothing is slept for.
//!
//! One binary, because on few cores linking is most of the wait. Tests whose name ends in `io_uring` or `epoll`
//! are one story told on both drivers; `RINGWAY_TEST_DRIVERS=epoll` leaves the first out where the kernel forbids
//! it, and nothing else does.
// No core runs here: the clock may be asked, and a thread may wait.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types)]

#[macro_use]
mod kit;

mod acme;
mod admin;
mod admin_answers;
mod admin_guards;
mod admin_secrets;
mod admin_tls;
mod admin_whole;
mod at_rest;
mod balance;
mod bandwidth;
mod body_routes;
mod borrowed;
mod certificates;
mod changes;
mod churn;
mod command_line;
mod concurrency;
mod config_tests;
mod configs;
mod control_api;
mod deadlines;
mod discovery;
mod etcd;
mod examples;
mod expiry;
mod explain;
mod explain_agrees;
mod fallbacks;
mod file_logger;
mod graphql;
mod grpc;
mod grpc_transcode;
mod grpc_web;
mod guards;
mod handshakes;
mod health;
mod hedging;
mod http2;
mod http2_abuse;
mod http2_attacks;
mod http2_stalls;
mod http_logger;
mod ldap;
mod limiting;
mod limits;
mod limits_exact;
mod limits_kept;
mod limits_left;
mod limits_seen;
mod made_up;
mod memory;
mod metric_attributes;
mod mirror;
mod mishaps;
mod mutants;
mod names;
mod node_alpn;
mod ocsp;
mod outliers;
mod overload;
mod panic;
mod partings;
mod plugins;
mod probes_chunks;
mod probes_framing;
mod probes_paths;
mod probes_responses;
mod probes_trust;
mod proxied;
mod public_api;
mod redis;
mod redis_away;
mod redis_fleet;
mod redis_leases;
mod redis_mishaps;
mod redis_seats;
mod redis_tls;
mod reference;
mod reload;
mod road;
mod road_bodies;
mod road_upstream;
mod secrets;
mod seeing;
mod serverless;
mod shares;
mod spread;
mod sticky;
mod stop;
mod streams;
mod streams_tls;
mod streams_udp;
mod syslog;
mod tls;
mod tls_fleet;
mod tls_nodes;
mod traffic;
mod traffic_split;
mod tunnel;
mod turns;
mod unix_nodes;
mod unix_sockets;

//! What black-box tests are made of: a [`Gateway`], [`Origin`]s behind it, [`Client`]s before it.
//!
//! Every wait has a deadline ([`PATIENCE`]) and every failure says what was sent, what came back and what the
//! gateway logged.

#[macro_use]
mod drivers;
mod admin;
mod binary;
mod certs;
mod client;
mod disk;
mod etcd;
mod faults;
mod front;
mod gateway;
pub(crate) mod http2;
mod ldap;
mod names;
mod origin;
mod pebble;
mod ports;
mod probe;
mod redis;
mod redis_fleet;
mod settings;
pub(crate) mod siege;
mod tests;
mod tls;
mod vault;
mod wait;
mod wire;
mod wrk;

pub(crate) use admin::{Admin, route_to};
pub(crate) use binary::{check, ringway, ringway_with};
pub(crate) use certs::Certs;
pub(crate) use client::{Answer, Client, Raw};
pub(crate) use disk::SmallDisk;
pub(crate) use drivers::{Driver, current as current_driver, on};
pub(crate) use etcd::Etcd;
pub(crate) use front::Front;
pub(crate) use gateway::{Gateway, Setup, Signal, yaml};
pub(crate) use ldap::Directory;
pub(crate) use names::{NameServer, Says};
pub(crate) use origin::{Conn, Origin, reply};
pub(crate) use pebble::{Pebble, free_port};
pub(crate) use ports::{Refusing, connect_from, connections, ports_of_cores};
pub(crate) use probe::{Bed, anything, bytes, get, has_body, post};
pub(crate) use redis::Redis;
pub(crate) use redis_fleet::{RedisCluster, RedisWatched};
pub(crate) use tls::{Caller, as_node, server_config};
pub(crate) use vault::{TOKEN, Vault};
pub(crate) use wait::{PATIENCE, eventually, within};
pub(crate) use wire::{Ended, Seen, Wire, text};
pub(crate) use wrk::Wrk;

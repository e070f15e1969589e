//! The record of an exchange, written once, handed to the control thread in batches.
//!
//! A line is written straight into the core's current batch, so logging costs no allocation; a batch leaves when
//! it is large or old enough. When the control thread has no room for it, the batch is dropped and its lines
//! are counted: logging never holds a request up.

use std::time::Duration;

use super::forward_head::write_ip;
use super::respond::reason_at;
use super::{Hall, View};
use crate::base::address::{Address, UNIX};
use crate::base::clock::{Moment, Stamp};
use crate::base::text::write_json_string;
use crate::exchange::Exchange;
use crate::link::outbox::Report;
use crate::proto::head::HeaderId;
use crate::runtime::Core;
use crate::snapshot::LogFormat;

/// Room a batch starts with beyond what it holds when it leaves: its last line.
const LINE_ROOM: usize = 8 * 1024;
/// Longest part of a request that is logged.
const TEXT_BYTES: usize = 2048;

/// Lines that wait to leave.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    since: Moment,
    stamp: Stamp,
}

impl Batch {
    /// An empty batch that is as roomy as those after it: one that grew line by line would grow again, in the middle
    /// of a request, each time it came back.
    pub(super) fn new(core: &Core) -> Self {
        Self { bytes: roomy(core), lines: 0, since: Moment::ZERO, stamp: Stamp::default() }
    }

    /// Sends the batch off, whatever is in it.
    pub(super) fn flush(&mut self, core: &Core) {
        if self.bytes.is_empty() {
            return;
        }
        let empty = core.outbox.recycled().unwrap_or_else(|| roomy(core));
        let full = std::mem::replace(&mut self.bytes, empty);
        let lines = std::mem::take(&mut self.lines);
        if let Err(report) = core.outbox.send(Report::AccessLog(full)) {
            core.stats.log_drops.add(lines);
            // The buffer is as good for the next batch.
            if let Report::AccessLog(mut bytes) = report {
                bytes.clear();
                self.bytes = bytes;
            }
        }
    }

    /// Sends the batch off if its first line has waited long enough.
    pub(super) fn flush_if_old(&mut self, core: &Core, now: Moment) {
        if now.since(self.since) >= core.limits.log_batch_age {
            self.flush(core);
        }
    }
}

/// A buffer for the lines of a batch.
fn roomy(core: &Core) -> Vec<u8> {
    Vec::with_capacity(core.limits.log_batch_bytes + LINE_ROOM)
}

/// Counts an exchange that is over, and logs it.
pub(super) fn hand_over(hall: &Hall, view: &View, ex: &Exchange) {
    let stats = &hall.core.stats;
    stats.bytes_in.add(ex.bytes_in);
    stats.bytes_out.add(ex.bytes_out);
    if let Some(reason) = reason_at(ex).and_then(|at| stats.reasons.get(at)) {
        reason.add(1);
    }
    let batch = &mut *hall.log.borrow_mut();
    match &view.house.log_format {
        LogFormat::Off => return,
        LogFormat::Json => write_json(&mut batch.bytes, &mut batch.stamp, view.generation, ex),
        LogFormat::Template(template) => {
            template.render_escaped(ex, &mut batch.bytes, write_escaped);
        }
    }
    batch.bytes.push(b'\n');
    batch.lines += 1;
    if batch.lines == 1 {
        batch.since = ex.timing.finished;
    }
    if batch.bytes.len() >= hall.core.limits.log_batch_bytes {
        batch.flush(&hall.core);
    }
}

/// Appends a value as nginx does: what could end the quotes or the line around it becomes `\xXX`, so that no
/// client can forge a line of the log.
fn write_escaped(value: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in &value[..value.len().min(TEXT_BYTES)] {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                out.extend_from_slice(&[
                    b'\\',
                    b'x',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ]);
            }
            plain => out.push(*plain),
        }
    }
}

/// The name of a field with all that stands around it, put together at compile time.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}

/// Appends fields of a JSON object. A name is one of [`name!`].
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(name.as_bytes());
    }

    /// A text; left out when empty.
    fn text(&mut self, name: &str, text: &[u8]) {
        if !text.is_empty() {
            self.name(name);
            write_json_string(self.0, &text[..text.len().min(TEXT_BYTES)]);
        }
    }

    fn number(&mut self, name: &str, number: u64) {
        self.name(name);
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    /// Milliseconds with three decimals.
    fn millis(&mut self, name: &str, time: Duration) {
        self.name(name);
        let us = time.as_micros() as u64;
        let mut buffer = itoa::Buffer::new();
        self.0.extend_from_slice(buffer.format(us / 1000).as_bytes());
        let rest = (us % 1000) as u16;
        self.0.extend_from_slice(&[b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }

    fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }
}

const fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
}

fn write_json(out: &mut Vec<u8>, stamp: &mut Stamp, generation: u64, ex: &Exchange) {
    out.extend_from_slice(b"{\"ts\":\"");
    stamp.write(out, ex.timing.received_at);
    out.extend_from_slice(b"\",\"level\":\"info\",\"client_ip\":\"");
    write_ip(out, ex.client.ip);
    out.push(b'"');
    let mut fields = Fields(out);
    if ex.stream.is_on() {
        write_stream(&mut fields, ex);
    }
    let request = &ex.request;
    fields.text(name!("request_id"), &ex.request_id);
    fields.text(name!("route_id"), ex.route.route_id().as_bytes());
    fields.text(name!("service_id"), ex.route.service_id().as_bytes());
    fields.text(name!("consumer"), ex.consumer.name().as_bytes());
    if !request.path.is_empty() {
        fields.text(name!("method"), request.method().text().as_bytes());
    }
    fields.text(name!("host"), request.host.as_bytes());
    fields.text(name!("path"), &request.path);
    fields.number(name!("status"), u64::from(ex.response.status));
    if !ex.reason.is_empty() {
        fields.text(name!("error_code"), ex.reason.as_bytes());
    }
    fields.text(name!("error_source"), error_source(ex).as_bytes());
    fields.text(name!("would_reject"), &ex.would_reject);
    fields.number(name!("bytes_in"), ex.bytes_in);
    fields.number(name!("bytes_out"), ex.bytes_out);
    fields.millis(name!("dur_ms"), ex.timing.finished.since(ex.timing.received));
    fields.text(name!("user_agent"), request.headers.get_id(HeaderId::UserAgent).unwrap_or(b""));
    write_upstream(&mut fields, ex);
    fields.number(name!("config_generation"), generation);
    fields.number(name!("core"), u64::from(ex.core));
    out.push(b'}');
}

/// What is told of a stream besides.
fn write_stream(fields: &mut Fields<'_>, ex: &Exchange) {
    fields.text(name!("protocol"), ex.stream.protocol.as_bytes());
    fields.number(name!("server_port"), ex.client.local.port().into());
    let agreed = ex.security.as_ref().and_then(|security| security.server_name.as_deref());
    fields.text(name!("sni"), agreed.unwrap_or(&ex.stream.server_name).as_bytes());
}

fn write_upstream(fields: &mut Fields<'_>, ex: &Exchange) {
    let Some(last) = ex.last_attempt() else { return };
    fields.name(name!("upstream_addr"));
    fields.0.push(b'"');
    write_node(fields.0, last.node);
    fields.0.push(b'"');
    fields.number(name!("upstream_status"), u64::from(last.status));
    fields.millis(name!("upstream_connect_ms"), last.connect);
    fields.millis(name!("upstream_ttfb_ms"), last.header);
    fields.millis(name!("upstream_dur_ms"), ex.timing.upstream);
    fields.number(name!("upstream_attempts"), ex.attempts.len() as u64);
    fields.boolean(name!("upstream_reused"), last.reused);
}

fn write_node(out: &mut Vec<u8>, node: Address) {
    let node = match node {
        Address::Ip(node) => node,
        Address::Unix(path) => {
            out.extend_from_slice(UNIX.as_bytes());
            return out.extend_from_slice(path.path().as_bytes());
        }
    };
    if node.is_ipv6() {
        out.push(b'[');
    }
    write_ip(out, node.ip());
    out.extend_from_slice(if node.is_ipv6() { b"]:" } else { b":" });
    out.extend_from_slice(itoa::Buffer::new().format(node.port()).as_bytes());
}

/// Who is to blame for an error status; empty when none is.
fn error_source(ex: &Exchange) -> &'static str {
    use crate::exchange::Source;
    if ex.response.status < 400 && ex.reason.is_empty() {
        return "";
    }
    match (ex.response.source, ex.reason) {
        (_, "client_gone" | "body_timeout" | "bad_body" | "body_too_large" | "head_timeout") => "client",
        (_, reason) if reason.starts_with("upstream_") || reason == "retry_timeout" => "upstream",
        (Source::Upstream, _) => "upstream",
        (Source::Gateway | Source::Plugin(_), _) => "gateway",
    }
}

//! The record of an exchange, written once, handed to the control thread in batches.
//!
//! A line is written into memory that is kept and copied to the core's current batch, so logging costs no allocation; a batch
//! leaves when it is large or old enough. When the control thread has no room for it, the batch is dropped and its lines
//! are counted: logging never holds a request up.

use super::log_line::Line;
use super::respond::reason_at;
use super::{Hall, View};
use crate::base::address::{Address, UNIX};
use crate::base::clock::{Moment, Stamp};
use crate::base::prefetch::foresee_writing;
use crate::exchange::Exchange;
use crate::link::outbox::Report;
use crate::proto::head::HeaderId;
use crate::runtime::Core;
use crate::snapshot::LogFormat;

/// Room a batch starts with beyond what it holds when it leaves: its last line.
const LINE_ROOM: usize = 8 * 1024;
/// So much of the next line is asked of memory when one is written: as much as most are long.
const LINE_FORESEEN: usize = 512;
/// Longest part of a request that is logged.
pub(super) const TEXT_BYTES: usize = 2048;

/// Lines that wait to leave.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    since: Moment,
    line: Line,
    stamp: Stamp,
    tail: Tail,
}

/// How every line of a core ends as long as a configuration is in force.
#[derive(Debug, Default)]
struct Tail {
    text: Vec<u8>,
    generation: u64,
}

impl Tail {
    fn of(&mut self, generation: u64, core: u16) -> &[u8] {
        if self.generation != generation || self.text.is_empty() {
            self.generation = generation;
            self.text = format!(",\"config_generation\":{generation},\"core\":{core}}}\n").into_bytes();
        }
        &self.text
    }
}

impl Batch {
    /// An empty batch that is as roomy as those after it: one that grew line by line would grow again, in the middle
    /// of a request, each time it came back.
    pub(super) fn new(core: &Core) -> Self {
        Self {
            bytes: roomy(core),
            lines: 0,
            since: Moment::ZERO,
            line: Line::new(),
            stamp: Stamp::default(),
            tail: Tail::default(),
        }
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
        LogFormat::Json => {
            let Batch { bytes, line, stamp, tail, .. } = &mut *batch;
            let tail = tail.of(view.generation, ex.core);
            bytes.extend_from_slice(line.write(|line| write_json(line, stamp, tail, ex)));
        }
        LogFormat::Template(template) => {
            template.render_escaped(ex, &mut batch.bytes, write_escaped);
            batch.bytes.push(b'\n');
        }
    }
    batch.lines += 1;
    if batch.lines == 1 {
        batch.since = ex.timing.finished;
    }
    if batch.bytes.len() >= hall.core.limits.log_batch_bytes {
        batch.flush(&hall.core);
    }
    // The memory was last written a batch or more ago, and read elsewhere since.
    foresee_writing::<LINE_FORESEEN>(batch.bytes.spare_capacity_mut());
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

/// The name of a field with all that stands around it, put together at compile time: a comma, and the first quote of a text.
macro_rules! name {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
    (text $name:literal) => {
        concat!(",\"", $name, "\":\"")
    };
}

fn write_json(line: &mut Line, stamp: &mut Stamp, tail: &[u8], ex: &Exchange) {
    line.put(b"{\"ts\":\"");
    line.put(&stamp.text(ex.timing.received_at));
    line.put(b"\",\"level\":\"info\",\"client_ip\":\"");
    line.ip(ex.client.ip);
    line.put(b"\"");
    if ex.stream.is_on() {
        write_stream(line, ex);
    }
    let request = &ex.request;
    line.text(name!(text "request_id"), &ex.request_id);
    line.word(name!(text "route_id"), ex.route.route_id());
    line.word(name!(text "service_id"), ex.route.service_id());
    line.word(name!(text "consumer"), ex.consumer.name());
    if !request.path.is_empty() {
        line.word(name!(text "method"), request.method().text());
    }
    line.text(name!(text "host"), request.host.as_bytes());
    line.text(name!(text "path"), &request.path);
    line.number(name!("status"), u64::from(ex.response.status));
    if !ex.reason.is_empty() {
        line.word(name!(text "error_code"), ex.reason);
    }
    line.word(name!(text "error_source"), error_source(ex));
    line.text(name!(text "would_reject"), &ex.would_reject);
    line.number(name!("bytes_in"), ex.bytes_in);
    line.number(name!("bytes_out"), ex.bytes_out);
    line.millis(name!("dur_ms"), ex.timing.finished.since(ex.timing.received));
    line.text(name!(text "user_agent"), request.headers.get_id(HeaderId::UserAgent).unwrap_or(b""));
    write_upstream(line, ex);
    line.put(tail);
}

/// What is told of a stream besides.
fn write_stream(line: &mut Line, ex: &Exchange) {
    line.text(name!(text "protocol"), ex.stream.protocol.as_bytes());
    line.number(name!("server_port"), ex.client.local.port().into());
    let agreed = ex.security.as_ref().and_then(|security| security.server_name.as_deref());
    line.text(name!(text "sni"), agreed.unwrap_or(&ex.stream.server_name).as_bytes());
}

fn write_upstream(line: &mut Line, ex: &Exchange) {
    let Some(last) = ex.last_attempt() else { return };
    line.name(name!(text "upstream_addr"));
    match last.node {
        Address::Ip(node) => line.socket(node),
        Address::Unix(path) => {
            line.put(UNIX.as_bytes());
            line.put(path.path().as_bytes());
        }
    }
    line.put(b"\"");
    line.number(name!("upstream_status"), u64::from(last.status));
    line.millis(name!("upstream_connect_ms"), last.connect);
    line.millis(name!("upstream_ttfb_ms"), last.header);
    line.millis(name!("upstream_dur_ms"), ex.timing.upstream);
    line.number(name!("upstream_attempts"), ex.attempts.len() as u64);
    line.name(name!("upstream_reused"));
    line.put(if last.reused { b"true" } else { b"false" });
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

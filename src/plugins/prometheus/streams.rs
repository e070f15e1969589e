//! What is counted of streams: `stream_connection_total`, `stream_active_connections`, `stream_status`, `stream_bandwidth`.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Prometheus, escape};
use crate::base::address::{UNIX, is_none};
use crate::base::hash::Map;
use crate::exchange::Exchange;
use crate::link::stats::Series;
use crate::plugin::{Env, Step};
use crate::runtime::Core;

/// Series by family and labels that a core remembers.
#[derive(Default)]
pub(super) struct StreamMeters {
    series: RefCell<Map<String, Arc<Series>>>,
    /// Where a name is put together.
    text: RefCell<String>,
}

/// A stream that is open: counted for as long as this is there, however it ends.
struct Active(Arc<Series>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

impl StreamMeters {
    /// The series of these labels; `None` where there are too many.
    fn of(&self, core: &Core, family: &'static str, write: impl FnOnce(&mut String)) -> Option<Arc<Series>> {
        let mut text = self.text.borrow_mut();
        text.clear();
        text.push_str(family);
        text.push('{');
        write(&mut text);
        if let Some(series) = self.series.borrow().get(text.as_str()) {
            return Some(Arc::clone(series));
        }
        let labels = text[family.len() + 1..].to_owned();
        let series = core.announce(Series::count(family, labels))?;
        self.series.borrow_mut().insert(text.clone(), Arc::clone(&series));
        Some(series)
    }

    fn add(&self, core: &Core, family: &'static str, by: u64, write: impl FnOnce(&mut String)) {
        if let Some(series) = self.of(core, family, write) {
            series.add(by);
        }
    }
}

/// Appends the first label of most families.
fn write_listener(ex: &Exchange, out: &mut String) {
    let at = ex.stream.listener.unwrap_or(ex.client.local);
    // Writing to a String cannot fail.
    let _ = match is_none(at.ip()) {
        true => write!(out, "listen_addr=\"{UNIX}\""),
        false => write!(out, "listen_addr=\"{at}\""),
    };
}

impl Prometheus {
    /// A stream begins.
    pub(super) fn begin<'a>(&'a self, ex: &'a mut Exchange, env: Env<'a>) -> Step<'a> {
        let meters = self.meters(env.core);
        let series =
            meters.streams.of(env.core, "stream_active_connections", |out| write_listener(ex, out));
        if let Some(series) = series {
            series.add(1);
            *ex.slots.of::<Option<Active>>(self.active) = Some(Active(series));
        }
        Step::Next
    }

    /// A stream is over.
    pub(super) fn count_stream(&self, ex: &Exchange, env: Env<'_>) {
        let (meters, core) = (self.meters(env.core), env.core);
        let route = self.name_or_id(ex.route.route_name(), ex.route.route_id());
        meters.streams.add(core, "stream_connection_total", 1, |out| {
            out.push_str("route=\"");
            let _ = escape(route, out);
            out.push('"');
        });
        meters.streams.add(core, "stream_status", 1, |out| {
            let _ = write!(out, "code=\"{}\",", ex.response.status);
            write_listener(ex, out);
            out.push_str(",node=\"");
            if let Some(attempt) = ex.last_attempt() {
                let _ = write!(out, "{}", attempt.node);
            }
            out.push('"');
        });
        let ways = [
            ("ingress", "downstream", ex.bytes_in),
            ("egress", "downstream", ex.bytes_out),
            ("egress", "upstream", ex.bytes_in),
            ("ingress", "upstream", ex.bytes_out),
        ];
        for (way, side, bytes) in ways {
            // What was refused came from the client and went no further.
            if side == "downstream" || !ex.attempts.is_empty() {
                meters.streams.add(core, "stream_bandwidth", bytes, |out| {
                    write_listener(ex, out);
                    let _ = write!(out, ",type=\"{way}\",side=\"{side}\"");
                });
            }
        }
    }
}

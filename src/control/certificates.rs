//! What clients and nodes are shown: `/v1/certificates` of the control API tells until when, and what is awaited; the log warns in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::Control;
use super::board::Board;
use super::log::{self, Level};
use crate::base::clock::{self, Moment, UnixMs};
use crate::snapshot::CertificateEnd;

/// Between two looks at when certificates end.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// From so long before its end on a certificate is told of.
const SOON_SECONDS: i64 = 14 * DAY_SECONDS;
/// And every so often again.
const AGAIN_SECONDS: i64 = DAY_SECONDS;
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Every certificate that is shown, by id of its ssl.
pub(super) fn all(board: &Board) -> Value {
    let mut told: BTreeMap<String, Value> = board
        .certificates()
        .ends()
        .map(|end| {
            let told =
                json!({"ssl": end.ssl, "type": end.kind(), "not_after": end.not_after, "is_shown": true});
            (end.ssl.to_owned(), told)
        })
        .collect();
    for (ssl, acme) in board.acme().map(|sight| sight.all()).unwrap_or_default() {
        let entry = told
            .entry(ssl.clone())
            .or_insert_with(|| json!({"ssl": ssl, "type": "server", "not_after": null, "is_shown": false}));
        entry["acme"] = acme;
    }
    told.into_values().collect()
}

/// What was told of certificates that end.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// When that was last looked at.
    looked: Option<Moment>,
    /// By ssl: the end that was told of, whether it was over, and when that was.
    told: BTreeMap<String, (i64, bool, i64)>,
}

impl Ends {
    /// What is to be told at a time, in seconds since 1970. Of the `renewed`, which look after themselves, only what is over.
    fn due<'a>(
        &mut self,
        ends: impl Iterator<Item = CertificateEnd<'a>>,
        renewed: &BTreeSet<String>,
        now: i64,
    ) -> Vec<(Level, String)> {
        let mut still = BTreeMap::new();
        let mut lines = Vec::new();
        for shown in ends {
            let (id, end) = (shown.ssl, shown.not_after);
            let is_over = end <= now;
            if !is_over && (renewed.contains(id) || end - now > SOON_SECONDS) {
                continue;
            }
            let before = self.told.remove(id);
            let known = before.filter(|(told, was_over, at)| {
                (*told, *was_over) == (end, is_over) && now - at < AGAIN_SECONDS
            });
            if known.is_none() {
                lines.push(line(shown, is_over));
            }
            still.insert(id.to_owned(), known.unwrap_or((end, is_over, now)));
        }
        self.told = still;
        lines
    }
}

fn line(shown: CertificateEnd<'_>, is_over: bool) -> (Level, String) {
    let CertificateEnd { ssl: id, not_after: end, to_nodes } = shown;
    let mut date = Vec::new();
    clock::write_rfc3339(&mut date, UnixMs::try_from(end).unwrap_or(0) * 1000);
    let date = String::from_utf8_lossy(&date);
    if is_over {
        let who = if to_nodes { "nodes that ask for it" } else { "clients" };
        (Level::Error, format!("ssls/{id}: its certificate has expired at {date}: {who} refuse it"))
    } else {
        (Level::Warn, format!("ssls/{id}: its certificate expires at {date}"))
    }
}

impl Control {
    /// Warns of certificates that end soon, or have.
    pub(super) fn look_at_ends(&mut self, now: Moment) {
        let is_early = self.ends.looked.is_some_and(|looked| now.since(looked) < LOOK_EVERY);
        if is_early || !self.board.has_started() {
            return;
        }
        self.ends.looked = Some(now);
        let renewed = self.board.acme().map(|sight| sight.all()).unwrap_or_default();
        let renewed = renewed.into_iter().map(|(ssl, _)| ssl).collect();
        let (certificates, at) = (self.board.certificates(), (clock::wall() / 1000) as i64);
        for (level, line) in self.ends.due(certificates.ends(), &renewed, at) {
            log::write(level, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_when_it_ends_soon_when_it_has_and_once_a_day() {
        let mut ends = Ends::default();
        let renewed = BTreeSet::from(["own".to_owned()]);
        let mut told = |all: &[(&str, i64)], now: i64| -> Vec<String> {
            let all = all.iter().map(|&(ssl, not_after)| CertificateEnd {
                ssl,
                not_after,
                to_nodes: ssl == "client",
            });
            ends.due(all, &renewed, now).into_iter().map(|(_, line)| line).collect()
        };
        let end = 100 * DAY_SECONDS;
        let all = [("a", end), ("own", end)];
        assert!(told(&all, end - SOON_SECONDS - 1).is_empty());
        let soon = ["ssls/a: its certificate expires at 1970-04-11T00:00:00.000Z"];
        assert_eq!(told(&all, end - SOON_SECONDS), soon);
        assert!(told(&all, end - SOON_SECONDS + DAY_SECONDS - 1).is_empty());
        assert_eq!(told(&all, end - SOON_SECONDS + DAY_SECONDS), soon, "every day");
        let over = ["ssls/a", "ssls/own"].map(|ssl| {
            format!("{ssl}: its certificate has expired at 1970-04-11T00:00:00.000Z: clients refuse it")
        });
        assert_eq!(told(&all, end), over);
        assert!(told(&all, end + 1).is_empty());
        assert!(told(&[("a", end + 1000 * DAY_SECONDS)], end + 2).is_empty(), "renewed");
        assert_eq!(told(&[("a", end)], end + 3), over[..1], "and another again");
        let to_nodes = told(&[("client", end)], end + 4);
        assert!(to_nodes[0].ends_with("nodes that ask for it refuse it"), "{to_nodes:?}");
    }
}

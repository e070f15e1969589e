//! The verbs that only tell: `version`, `plugins`.

use serde_json::json;

use crate::control::kernel_release;
use crate::plugin::{Phase, Phases};
use crate::plugins::{CATALOG, Card};

use super::args::{PluginsArgs, VersionArgs};
use super::{OK, Told, USAGE};

/// What is built in, for those who compare builds.
const FEATURES: [&str; 3] = ["http1", "io_uring", "epoll"];

pub(super) fn version(args: &VersionArgs, driver: &str) -> Told {
    let (version, revision) = (env!("CARGO_PKG_VERSION"), env!("RINGWAY_REVISION"));
    let kernel = kernel_release();
    let text = if args.json {
        json!({
            "name": "ringway",
            "version": version,
            "revision": revision,
            "features": FEATURES,
            "plugins": CATALOG.len(),
            "kernel": kernel,
            "driver": driver,
        })
        .to_string()
    } else {
        format!(
            "ringway {version} ({revision})\nfeatures: {}\nplugins:  {}\nkernel:   {kernel}\ndriver:   {driver}",
            FEATURES.join(", "),
            CATALOG.len(),
        )
    };
    Told { code: OK, text: text + "\n" }
}

pub(super) fn unknown(name: &str) -> Told {
    Told { code: USAGE, text: format!("there is no {name}; `ringway plugins` lists what there is\n") }
}

pub(super) fn plugins(args: &PluginsArgs) -> Told {
    let Some(name) = &args.name else {
        let mut cards: Vec<&Card> = CATALOG.iter().collect();
        // As they run.
        cards.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(b.name)));
        let line =
            |card: &&Card| format!("{:<24} {:>6}  {}\n", card.name, card.priority, phases(card.phases));
        let text = format!("{:<24} {:>6}  PHASES\n", "NAME", "PRIO");
        return Told { code: OK, text: text + &cards.iter().map(line).collect::<String>() };
    };
    let Some(card) = Card::of(name) else { return unknown(name) };
    let text = format!(
        "{}\npriority: {}\nphases:   {}\nidentifies consumers: {}\nconfiguration: {:#}\nmetadata: {:#}\n",
        card.name,
        card.priority,
        phases(card.phases),
        if card.credential.is_some() { "yes" } else { "no" },
        (card.schema)(),
        (card.metadata_schema)(),
    );
    Told { code: OK, text }
}

fn phases(phases: Phases) -> String {
    let all = [
        (Phase::Preread, "preread"),
        (Phase::Rewrite, "rewrite"),
        (Phase::Access, "access"),
        (Phase::BeforeProxy, "before_proxy"),
        (Phase::HeaderFilter, "header_filter"),
        (Phase::BodyFilter, "body_filter"),
        (Phase::Log, "log"),
    ];
    let names = all.into_iter().filter(|(phase, _)| phases.contains(*phase)).map(|(_, name)| name);
    names.collect::<Vec<_>>().join(" ")
}

//! `apply`: the objects of a running gateway become those of a file, all at once or not at all.
//!
//! What is sent holds for the objects as they were looked at: when somebody else changes them in between, nothing is
//! done. Objects that say the same are sent as they are held, and so are not touched.

use std::io::{self, Read as _};
use std::path::Path;

use hyper::Method;
use serde_json::{Value, json};

use super::args::{ApplyArgs, OutputFormat};
use super::load::{Surroundings, Trouble};
use super::node::{Node, warnings};
use super::plan::{Act, Plan};
use super::{OK, Told, USAGE};
use crate::base::hash;
use crate::control::source::file::{LoadError, Source};
use crate::model::ConfigError;
use crate::model::resources::{self, FILE_BYTES_MAX, Format, Resources};

/// `apply -f PATH`.
pub(super) fn apply(args: &ApplyArgs, around: &Surroundings) -> Result<Told, Told> {
    let wanted = read(&args.file, around)?;
    let node = Node::find(&args.node, around)?;
    let held = Held::of(&node)?;
    if wanted.objects.is_empty() && !held.objects.objects.is_empty() && !args.empty {
        let count = held.objects.objects.len();
        let text = format!(
            "{}: has no object, and the gateway has {count}: say --empty if all are to be deleted\n",
            args.file.display()
        );
        return Err(Told { code: USAGE, text });
    }
    let plan = plan(&held.objects, wanted, &args.file)?;
    let (mut revision, mut warned) = (held.revision, Vec::new());
    if !plan.acts.is_empty() {
        let mut document = plan.document();
        // Which plugins may be used is for the settings to say; the gateway tells so.
        if let (Value::Object(fields), Some(plugins)) = (&mut document, &plan.wanted.plugins) {
            fields.insert("plugins".to_owned(), json!(plugins));
        }
        let text = document.to_string();
        let headers = [
            ("content-type", "application/json".to_owned()),
            ("x-digest", format!("ringway-{:016x}", hash::stable(text.as_bytes()))),
            ("if-match", format!("\"{}\"", held.revision)),
        ];
        let path = if args.dry_run { "/configs?dry_run=true" } else { "/configs" };
        let heard = node.ask(Method::PUT, path, &headers, text)?;
        revision = heard.revision().unwrap_or(revision);
        warned = warnings(&heard);
    }
    Ok(told(args, &plan, revision, &warned))
}

/// What a gateway holds.
pub(super) struct Held {
    pub(super) objects: Resources,
    revision: u64,
}

impl Held {
    /// With all secrets: what is compared must be what is there.
    pub(super) fn of(node: &Node) -> Result<Self, Told> {
        let heard = node.get("/configs?secrets=true")?;
        let revision = heard.revision().unwrap_or(0);
        let objects = resources::of_document(heard.json()).map_err(|faults| faulty("the gateway", faults))?;
        Ok(Self { objects, revision })
    }
}

/// The objects of a file, a folder, or the standard input.
pub(super) fn read(path: &Path, around: &Surroundings) -> Result<Resources, Told> {
    let name = path.display().to_string();
    let unreadable = |error: &dyn std::fmt::Display| {
        let trouble = Trouble { unreadable: vec![error.to_string()], faults: Vec::new() };
        Told { code: trouble.code(), text: trouble.lines().join("\n") + "\n" }
    };
    if path == Path::new("-") {
        let mut text = String::new();
        let read = io::stdin().lock().take(FILE_BYTES_MAX as u64).read_to_string(&mut text);
        read.map_err(|error| unreadable(&format!("standard input: {error}")))?;
        let env = |name: &str| std::env::var(name).ok();
        // JSON is YAML as well.
        return resources::parse(&text, Format::Yaml, &env)
            .map_err(|faults| faulty("standard input", faults));
    }
    match Source::open(&around.folder.join(path)) {
        Ok((_, resources)) => Ok(resources),
        Err(LoadError::Unreadable(error)) => Err(unreadable(&error)),
        Err(LoadError::Invalid(faults)) => Err(faulty(&name, faults)),
    }
}

pub(super) fn plan(held: &Resources, wanted: Resources, file: &Path) -> Result<Plan, Told> {
    Plan::new(held, wanted).map_err(|faults| faulty(&file.display().to_string(), faults))
}

fn faulty(file: &str, faults: Vec<ConfigError>) -> Told {
    let faults = faults.into_iter().map(|fault| (file.to_owned(), fault)).collect();
    let trouble = Trouble { unreadable: Vec::new(), faults };
    Told { code: trouble.code(), text: trouble.lines().join("\n") + "\n" }
}

/// The sign of an act, as in a diff.
pub(super) const fn sign(act: &Act) -> char {
    match act {
        Act::Create => '+',
        Act::Change(_) => '~',
        Act::Delete => '-',
    }
}

fn told(args: &ApplyArgs, plan: &Plan, revision: u64, warned: &[String]) -> Told {
    let created = plan.names(|act| matches!(act, Act::Create));
    let changed = plan.names(|act| matches!(act, Act::Change(_)));
    let deleted = plan.names(|act| matches!(act, Act::Delete));
    let text = match args.format {
        OutputFormat::Json => json!({
            "dry_run": args.dry_run,
            "created": created,
            "changed": changed,
            "deleted": deleted,
            "revision": revision,
            "warnings": warned,
        })
        .to_string(),
        OutputFormat::Text => {
            let mut lines: Vec<String> = plan
                .acts
                .iter()
                .map(|(name, act)| match act {
                    Act::Change(fields) => {
                        let paths: Vec<&str> = fields.iter().map(|field| field.path.as_str()).collect();
                        format!("~ {name}: {}", paths.join(", "))
                    }
                    Act::Create | Act::Delete => format!("{} {name}", sign(act)),
                })
                .collect();
            lines.extend(warned.iter().map(|warning| format!("warning: {warning}")));
            let counts =
                format!("created: {}, changed: {}, deleted: {}", created.len(), changed.len(), deleted.len());
            lines.push(match (plan.acts.is_empty(), args.dry_run) {
                (true, _) => format!("nothing to do; revision: {revision}"),
                (false, true) => format!("would be applied; {counts}"),
                (false, false) => format!("applied; {counts}; revision: {revision}"),
            });
            lines.join("\n")
        }
    };
    Told { code: OK, text: text + "\n" }
}

//! `diff`: what a file would change in a running gateway, object by object, and which requests would go elsewhere.
//! Nothing is changed.

use serde_json::{Value, json};

use super::apply::{Held, plan, read, sign};
use super::args::{DiffArgs, OutputFormat};
use super::load::{Surroundings, Trouble};
use super::node::{Node, settings};
use super::plan::{Act, Difference, Plan};
use super::winners::{self, Winner};
use super::{DIFFERENT, OK, Told};

/// Requests that are told to people; machines get all.
const WINNERS_TOLD_MAX: usize = 50;
/// Letters of a value that are told to people.
const VALUE_CHARS_MAX: usize = 120;

/// `diff -f PATH`.
pub(super) fn diff(args: &DiffArgs, around: &Surroundings) -> Result<Told, Told> {
    let wanted = read(&args.file, around)?;
    let settings = settings(&args.node, around)?;
    let held = Held::of(&Node::find(&args.node, around)?)?.objects;
    let plan = plan(&held, wanted, &args.file)?;
    let winners = winners::differences(&held, &plan.wanted, &settings).map_err(|faults| {
        let file = args.file.display().to_string();
        let faults = faults.into_iter().map(|fault| (file.clone(), fault)).collect();
        let trouble = Trouble { unreadable: Vec::new(), faults };
        Told { code: trouble.code(), text: trouble.lines().join("\n") + "\n" }
    })?;
    let code = if plan.acts.is_empty() { OK } else { DIFFERENT };
    let text = match args.format {
        OutputFormat::Text => text(&plan, &winners),
        OutputFormat::Json => json_of(&plan, &winners).to_string() + "\n",
    };
    Ok(Told { code, text })
}

fn text(plan: &Plan, winners: &[Winner]) -> String {
    if plan.acts.is_empty() {
        return "no differences\n".to_owned();
    }
    let mut lines = Vec::new();
    for (name, act) in &plan.acts {
        lines.push(format!("{} {name}", sign(act)));
        if let Act::Change(fields) = act {
            lines.extend(fields.iter().map(field_line));
        }
    }
    let name = |winner: &Option<String>| winner.clone().unwrap_or_else(|| "no route".to_owned());
    lines.extend(winners.iter().take(WINNERS_TOLD_MAX).map(|winner| {
        format!("! {}: {} -> {}", winner.request.text(), name(&winner.before), name(&winner.after))
    }));
    if winners.len() > WINNERS_TOLD_MAX {
        lines.push(format!("! … and {} more requests", winners.len() - WINNERS_TOLD_MAX));
    }
    let count = |is_wanted: fn(&Act) -> bool| plan.names(is_wanted).len();
    lines.push(format!(
        "created: {}, changed: {}, deleted: {}; requests that another route wins: {}",
        count(|act| matches!(act, Act::Create)),
        count(|act| matches!(act, Act::Change(_))),
        count(|act| matches!(act, Act::Delete)),
        winners.len(),
    ));
    lines.join("\n") + "\n"
}

fn field_line(field: &Difference) -> String {
    let value = |value: &Option<Value>| {
        let text = value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
        if text.chars().count() <= VALUE_CHARS_MAX {
            return text;
        }
        text.chars().take(VALUE_CHARS_MAX - 1).collect::<String>() + "…"
    };
    format!("    {}: {} -> {}", field.path, value(&field.before), value(&field.after))
}

fn json_of(plan: &Plan, winners: &[Winner]) -> Value {
    let changed: Vec<Value> = plan
        .acts
        .iter()
        .filter_map(|(name, act)| match act {
            Act::Change(fields) => Some((name, fields)),
            Act::Create | Act::Delete => None,
        })
        .map(|(name, fields)| {
            let fields: Vec<Value> = fields
                .iter()
                .map(|field| json!({"path": field.path, "before": field.before, "after": field.after}))
                .collect();
            json!({"object": name, "fields": fields})
        })
        .collect();
    let winners: Vec<Value> = winners
        .iter()
        .map(|winner| {
            let request = &winner.request;
            json!({
                "request": request.text(),
                "method": request.method,
                "host": request.host,
                "path": request.path,
                "before": winner.before,
                "after": winner.after,
            })
        })
        .collect();
    json!({
        "created": plan.names(|act| matches!(act, Act::Create)),
        "changed": changed,
        "deleted": plan.names(|act| matches!(act, Act::Delete)),
        "winners": winners,
    })
}

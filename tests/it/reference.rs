//! Schemas say what the types say: each is compared with what the binary tells of itself.
//! `UPDATE=1 cargo test --test it reference::` makes them anew.

use std::fs;
use std::path::Path;

use ringway::model::Kind;
use serde_json::{Value, json};

use super::kit::ringway;

/// What has them all made anew.
const HINT: &str = "`UPDATE=1 cargo test --test it reference::` makes it anew";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_default()
}

/// What `ringway schema` says.
#[track_caller]
fn schema(words: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (code, said) = ringway(dir.path(), &[&["schema"], words].concat());
    assert_eq!(code, 0, "ringway schema {words:?}: {said}");
    said + "\n"
}

/// Names of the plugins that releases have.
fn plugins() -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let (_, said) = ringway(dir.path(), &["plugins"]);
    let names = said.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).filter(|name| name != "crash").collect()
}

/// Whether a file is as it should be; with `UPDATE=1` it is made so.
#[track_caller]
fn assert_fresh(path: &str, wanted: &str) {
    let found = read(path);
    if found == wanted {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        let full = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, wanted).unwrap();
        return;
    }
    let differs = |(found, wanted): &(&str, &str)| found != wanted;
    let same = found.lines().zip(wanted.lines()).take_while(|pair| !differs(pair)).count();
    let line = |text: &str| text.lines().nth(same).unwrap_or("(its end)").to_owned();
    panic!("{path}:{}: stale. {HINT}\n  is:     {}\n  should: {}", same + 1, line(&found), line(wanted));
}

#[test]
fn the_schemas_of_whole_files_are_those_of_the_binary() {
    assert_fresh("docs/schema/resources.json", &schema(&["resources"]));
    assert_fresh("docs/schema/config.json", &schema(&["config"]));
}

#[test]
fn every_field_says_what_it_means_and_what_holds_when_it_is_left_out() {
    let mut faults = Vec::new();
    let kinds = Kind::ALL.iter().map(|kind| kind.singular().to_owned());
    for name in kinds.chain(["config".to_owned()]).chain(plugins()) {
        for line in schema(&[&name, "--markdown"]).lines().filter(|line| line.starts_with("| `")) {
            if line.ends_with("|  |") {
                faults.push(format!("{name}: {line}: no meaning"));
            }
        }
        // What may be left out and can not be null has a default, and the schema should say which.
        let schema: Value = serde_json::from_str(&schema(&[&name])).unwrap();
        for (field, told) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = schema["required"].as_array().is_some_and(|all| all.contains(&json!(field)));
            let kind = ["type", "anyOf", "oneOf", "$ref"].into_iter().find_map(|keyword| told.get(keyword));
            // What is of any type may be null.
            let may_be_null = kind.is_none_or(|kind| kind.to_string().contains("\"null\""));
            if !is_required && !may_be_null && told.get("default").is_none() {
                faults.push(format!(
                    "{name}: {field}: its default is not told; does its type have `Serialize`?"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

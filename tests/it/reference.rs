//! Reference pages and schemas say what the types say: each is compared with what the binary tells of itself.
//! `UPDATE=1 cargo test --test it reference::` makes them anew.

use std::fs;
use std::path::Path;

use ringway::model::Kind;
use serde_json::{Map, Value, json};

use super::kit::{Gateway, ringway};

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

/// A page in which the first table below each heading of `sections` is the one there.
#[track_caller]
fn with_tables(path: &str, sections: &str) -> String {
    let mut lines: Vec<String> = read(path).lines().map(str::to_owned).collect();
    for section in sections.split("## ").filter(|section| !section.trim().is_empty()) {
        let (heading, table) = section.split_once('\n').expect("a heading is a line");
        let heading = format!("## {heading}");
        let at = lines.iter().position(|line| *line == heading);
        let at = at.unwrap_or_else(|| panic!("{path}: lacks \"{heading}\", below which a table belongs"));
        let end = lines[at + 1..].iter().position(|line| line.starts_with("## "));
        let end = end.map_or(lines.len(), |end| at + 1 + end);
        let start = lines[at..end].iter().position(|line| line.starts_with('|')).map(|start| at + start);
        let mut old = start.unwrap_or(at + 1)..start.unwrap_or(at + 1);
        let is_part = |line: &String| line.starts_with('|') || line.starts_with("Together: ");
        while lines[..end].get(old.end).is_some_and(is_part)
            || lines[..end]
                .get(old.end + 1)
                .is_some_and(|line| !old.is_empty() && line.starts_with("Together: "))
        {
            old.end += 1;
        }
        let blank = start.is_none().then(String::new);
        let new: Vec<String> = blank.into_iter().chain(table.trim().lines().map(str::to_owned)).collect();
        lines.splice(old, new);
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_schemas_of_whole_files_are_those_of_the_binary() {
    assert_fresh("docs/schema/resources.json", &schema(&["resources"]));
    assert_fresh("docs/schema/config.json", &schema(&["config"]));
    assert_fresh("docs/schema/tests.json", &schema(&["tests"]));
}

#[test]
fn the_tables_of_pages_are_those_of_the_types() {
    let page = |path: &str, name: &str| {
        assert_fresh(path, &with_tables(path, &schema(&[name, "--markdown"])));
    };
    page("docs/configuration.md", "config");
    for kind in Kind::ALL {
        page(&format!("docs/objects/{}.md", kind.singular()), kind.singular());
    }
    page("docs/objects/plugins.md", "plugins");
    page("docs/objects/plugins.md", "_meta");
    for plugin in plugins() {
        page(&format!("docs/plugins/{plugin}.md"), &plugin);
    }
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

/// The paths of the OpenAPI document as a table.
fn table_of_paths(paths: &Map<String, Value>) -> String {
    let row = |(path, operations): (&String, &Value)| {
        let operations = operations.as_object().expect("operations of a path");
        let each = operations.iter().map(|(method, told)| {
            (method.to_uppercase(), told["summary"].as_str().expect("a summary").to_owned())
        });
        let (methods, says): (Vec<String>, Vec<String>) = each.unzip();
        let says = says.iter().enumerate().map(|(at, says)| {
            // One sentence of them all.
            let (first, rest) = says.split_at(1);
            if at == 0 { says.clone() } else { first.to_lowercase() + rest }
        });
        format!("| `{path}` | {} | {} |", methods.join(", "), says.collect::<Vec<_>>().join("; "))
    };
    let rows: Vec<String> = paths.iter().map(row).collect();
    format!("## Paths\n\n| path | methods | what they do |\n|---|---|---|\n{}\n", rows.join("\n"))
}

#[test]
fn the_page_of_the_admin_api_names_every_path_and_method_that_is_served() {
    let gateway = Gateway::managed().start();
    let document = gateway.admin().ask("GET", "/openapi.json", &[], "").expect_status(200).json();
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() > 30, "{}", paths.len());
    for (path, operations) in paths {
        let there = path.replace("{manager}", "vault").replace("{kind}", "route").replace("{name}", "cors");
        let there = there.replace("{revision}", "1").replace("{id}", "x").replace("{username}", "jack");
        for method in operations.as_object().expect("operations").keys() {
            let body = if matches!(method.as_str(), "put" | "post" | "patch") { "{}" } else { "" };
            let answer = gateway.admin().ask(&method.to_uppercase(), &there, &[], body);
            let refusal = answer.text();
            let is_unknown = answer.status == 405
                || refusal.contains(r#""error_msg":"not found""#)
                || refusal.contains("Unsupported resource type");
            assert!(!is_unknown, "{method} {there} is in the document and not served: {refusal}");
        }
    }
    let path = "docs/admin-api.md";
    assert_fresh(path, &with_tables(path, &table_of_paths(paths)));
}

//! Whether the tree is as the documents say: floors, names, lists, lengths, words.
//!
//! Only the standard library and plain text, so it runs in a second and before anything else compiles. Each test
//! collects every fault before it fails, and each message carries the sentence of the rule and where it is written.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // No core runs here.

#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, words};

/// Who may import whom: `docs/architecture.md` has the same table, and a test below compares the two.
const FLOORS: [(&str, &str); 14] = [
    ("base", ""),
    ("model", "base"),
    ("proto", "base"),
    ("link", "base"),
    ("balance", "base"),
    ("expr", "base"),
    ("router", "base expr"),
    ("exchange", "base proto expr"),
    ("runtime", "base proto link exchange"),
    ("plugin", "base model proto expr link exchange runtime"),
    ("plugins", "base model proto balance expr link exchange runtime plugin"),
    ("snapshot", "base model proto expr router balance link exchange runtime plugin plugins"),
    ("edge", "base proto expr router balance link exchange runtime plugin snapshot"),
    ("control", "base model link plugins snapshot"),
];

/// The top floor, which may open every door.
const TOP: [&str; 4] = ["main", "lib", "cli", "boot"];

/// Foreign crates that only some rooms may name: the crate, where, and why.
const KEPT_IN: [(&str, &[&str], &str); 4] = [
    (
        "tokio",
        // What the `h2` crate takes for a connection to a node is a trait of tokio's; no runtime comes with it.
        &["src/control/", "src/cli.rs", "src/boot.rs", "src/proto/h2/"],
        "tokio belongs to the control thread; a core never meets it",
    ),
    (
        "axum",
        &["src/control/", "src/cli.rs", "src/boot.rs"],
        "axum serves the control thread's own endpoints only",
    ),
    (
        "monoio",
        &["src/runtime/", "src/edge/"],
        "monoio stays behind `runtime` and `edge`, so that one folder changes if the ring layer does",
    ),
    (
        "serde",
        &[
            "src/model/",
            "src/plugin/",
            "src/plugins/",
            "src/snapshot/",
            "src/control/",
            "src/cli.rs",
            "src/cli/cases/",
            "src/boot.rs",
        ],
        "nothing is parsed per request that could be parsed per snapshot, so the hot path can not even name serde",
    ),
];

/// Files that may say `unsafe`, and why each must.
const UNSAFE: [(&str, &str); 3] = [
    ("src/base/prefetch.rs", "asks memory for what will be looked at soon, which no crate of ours wraps"),
    (
        "src/runtime/sys.rs",
        "system calls that no crate of ours wraps: socket options, how a thread is scheduled, shutdown by descriptor",
    ),
    ("tests/allocations.rs", "an allocator that counts before it asks the system's"),
];

/// Files that may print: what they print is what was asked for, not a log.
const PRINTS: [(&str, &str); 3] = [
    ("src/main.rs", "the last word before an exit code"),
    ("src/cli.rs", "answers of subcommands"),
    ("src/boot.rs", "what goes wrong before there is a log"),
];

/// A file beyond this is asked which two things it is.
const FILE_LINES_MAX: usize = 600;
/// A function beyond this does not fit a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// A decision record beyond this is not a page.
const RECORD_LINES_MAX: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the repository but what is built or fetched, sorted.
fn tree() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let kept_out = ["target", ".git", "raw"].iter().any(|out| name == *out);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !kept_out => walk(&path, found),
                Ok(kind) if kind.is_file() && !kept_out => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    walk(root(), &mut found);
    let inside =
        |path: &PathBuf| path.strip_prefix(root()).ok().map(|path| path.to_string_lossy().into_owned());
    let mut paths: Vec<String> = found.iter().filter_map(inside).collect();
    paths.sort();
    paths
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// The Rust sources under a folder; those of `src` without modules that exist only for tests.
fn sources(folder: &str) -> Vec<Source> {
    let all: Vec<Source> = tree()
        .into_iter()
        .filter(|path| path.starts_with(folder) && path.ends_with(".rs"))
        .map(|path| {
            let text = read(&path);
            Source::new(path, text)
        })
        .collect();
    let mut for_tests = BTreeSet::new();
    for source in &all {
        let path = Path::new(&source.path);
        let beside = path.parent().unwrap_or_else(|| Path::new(""));
        let below = beside.join(path.file_stem().unwrap_or_default());
        for name in source.test_modules() {
            for folder in [beside, &below] {
                for file in [format!("{name}.rs"), format!("{name}/mod.rs")] {
                    for_tests.insert(folder.join(file).to_string_lossy().into_owned());
                }
            }
        }
    }
    all.into_iter().filter(|source| folder != "src/" || !for_tests.contains(&source.path)).collect()
}

/// The documents a reader is meant to read.
fn documents() -> Vec<(String, String)> {
    let kept = |path: &String| path.ends_with(".md") && !path.starts_with("perf/results/");
    tree().into_iter().filter(kept).map(|path| (path.clone(), read(&path))).collect()
}

#[track_caller]
fn none(faults: Vec<String>, rule: &str) {
    assert!(faults.is_empty(), "{} fault(s).\nThe rule: {rule}\n  {}\n", faults.len(), faults.join("\n  "));
}

fn named(source: &Source, word: &str) -> Vec<usize> {
    let line = |at: usize| source.plain[..at].lines().count().max(1);
    words(&source.plain).into_iter().filter(|found| found.1 == word).map(|found| line(found.0)).collect()
}

#[test]
fn rooms_import_only_downward() {
    let floors: BTreeMap<&str, Vec<&str>> =
        FLOORS.iter().map(|(room, may)| (*room, may.split_whitespace().collect())).collect();
    let mut faults = Vec::new();
    for source in sources("src/") {
        let room = source.room();
        if TOP.contains(&room.as_str()) {
            continue;
        }
        let Some(may) = floors.get(room.as_str()) else {
            faults.push(format!("{}: the room `{room}` has no floor", source.path));
            continue;
        };
        let named: BTreeSet<String> =
            source.crate_paths().into_iter().filter_map(|path| path.into_iter().next()).collect();
        for other in
            named.iter().filter(|other| floors.contains_key(other.as_str()) || TOP.contains(&other.as_str()))
        {
            if *other != room && !may.contains(&other.as_str()) {
                let list = if may.is_empty() { "nothing".to_owned() } else { may.join(", ") };
                faults.push(format!(
                    "{}: names crate::{other}, but {room} may import {list} only",
                    source.path
                ));
            }
        }
    }
    none(
        faults,
        "imports go downward, and only to the rooms listed (docs/architecture.md, \"Who may import whom\")",
    );
}

#[test]
fn no_plugin_knows_another() {
    let mut faults = Vec::new();
    for source in sources("src/plugins/") {
        let own = source.module().get(1).cloned();
        for path in source.crate_paths() {
            if let (Some(own), [room, other, ..]) = (&own, path.as_slice())
                && room == "plugins"
                && other != own
                && other.starts_with(char::is_lowercase)
            {
                faults.push(format!("{}: names plugins::{other}", source.path));
            }
        }
    }
    none(faults, "what two plugins share moves down a floor, never sideways (docs/style.md)");
}

#[test]
fn the_documented_floors_are_the_tested_ones() {
    let page = read("docs/architecture.md");
    let missing = FLOORS.iter().filter_map(|(room, may)| {
        let may = if may.is_empty() { "nothing".to_owned() } else { may.replace(' ', ", ") };
        let row = format!("| {room} | {may} |");
        (!page.contains(&row)).then_some(row)
    });
    none(missing.collect(), "docs/architecture.md and FLOORS in tests/tidy.rs carry the same table");
}

#[test]
fn foreign_crates_stay_in_their_rooms() {
    let mut faults = Vec::new();
    for source in sources("src/") {
        for (name, rooms, rule) in KEPT_IN {
            if rooms.iter().any(|room| source.path.starts_with(room)) {
                continue;
            }
            faults.extend(
                named(&source, name)
                    .first()
                    .map(|line| format!("{}:{line}: names {name}; {rule}", source.path)),
            );
        }
    }
    none(faults, "runtimes and parsers have rooms of their own (docs/architecture.md)");
}

#[test]
fn unsafe_code_is_in_listed_files_only() {
    let mut faults = Vec::new();
    for source in sources("src/").into_iter().chain(sources("tests/")).chain(sources("bench/")) {
        let used = words(&source.code).iter().any(|word| word.1 == "unsafe");
        match (used, UNSAFE.iter().any(|(path, _)| *path == source.path)) {
            (true, false) => faults.push(format!("{}: has unsafe code and is not listed", source.path)),
            (false, true) => faults.push(format!("{}: is listed but has none any more", source.path)),
            _ => {}
        }
    }
    none(faults, "`unsafe` only in the files UNSAFE lists, each with its reason (docs/style.md)");
}

#[test]
fn nothing_prints_but_the_command_line() {
    let mut faults = Vec::new();
    for source in sources("src/") {
        if PRINTS.iter().any(|(path, _)| *path == source.path) || source.path.starts_with("src/cli/") {
            continue;
        }
        for name in ["println", "print", "eprintln", "eprint", "dbg"] {
            let called = |at: &usize| {
                source.plain.lines().nth(at - 1).is_some_and(|line| line.contains(&format!("{name}!")))
            };
            faults.extend(
                named(&source, name)
                    .into_iter()
                    .filter(called)
                    .map(|line| format!("{}:{line}: {name}!", source.path)),
            );
        }
    }
    none(
        faults,
        "a core tells through its outbox, the control thread through its log; printing is for the command line",
    );
}

#[test]
fn every_source_says_what_it_is() {
    let silent = |source: &Source| !source.text.starts_with("//! ");
    let all = sources("src/").into_iter().chain(sources("tests/")).chain(sources("bench/"));
    let faults = all.filter(silent).map(|source| source.path);
    none(faults.collect(), "a file opens with `//!`: what it is, then what can not be seen (docs/style.md)");
}

#[test]
fn files_and_functions_fit_a_head_and_a_screen() {
    let mut faults = Vec::new();
    for source in sources("src/").iter().chain(&sources("tests/")).chain(&sources("bench/")) {
        let lines = source.lines_outside_tests();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines outside of tests: which two things is it?", source.path));
        }
        for (name, lines) in source.functions().into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX) {
            faults.push(format!("{}: fn {name} has {lines} lines", source.path));
        }
    }
    none(
        faults,
        "a file has at most 600 lines outside of tests, a function 70 lines of code (docs/style.md)",
    );
}

#[test]
fn every_plugin_is_listed_documented_and_named_after_its_file() {
    let list = Source::new(String::new(), read("src/plugins/mod.rs")).plain;
    let list = list
        .rsplit_once("plugins! {")
        .and_then(|(_, rest)| rest.split_once('}'))
        .map_or("", |(list, _)| list);
    let listed: Vec<&str> =
        list.lines().filter_map(|line| line.trim().split_once(':')).map(|(file, _)| file).collect();
    let mut faults = Vec::new();
    let mut sorted = listed.clone();
    sorted.sort_unstable();
    if sorted != listed {
        faults.push(format!("src/plugins/mod.rs: the list is not sorted: {}", listed.join(", ")));
    }
    let files: BTreeSet<String> =
        sources("src/plugins/").iter().filter_map(|source| source.module().get(1).cloned()).collect();
    for file in &files {
        if !listed.contains(&file.as_str()) {
            faults.push(format!("src/plugins/{file}.rs: not in the `plugins!` list"));
        }
    }
    for file in listed {
        let name = file.replace('_', "-");
        let text = read(&format!("src/plugins/{file}.rs")) + &read(&format!("src/plugins/{file}/mod.rs"));
        if !text.contains(&format!("const NAME: &'static str = \"{name}\";")) {
            faults.push(format!("src/plugins/{file}.rs: NAME is not \"{name}\""));
        }
        if !root().join(format!("docs/plugins/{name}.md")).exists() {
            faults.push(format!("docs/plugins/{name}.md: missing"));
        }
    }
    none(
        faults,
        "a plugin is one file, one line in the list and one page, all of one name (src/plugins/mod.rs)",
    );
}

#[test]
fn what_is_left_to_do_says_what_would_settle_it() {
    let mut faults = Vec::new();
    for path in tree().into_iter().filter(|path| !path.starts_with("tests/tidy")) {
        for (number, line) in read(&path).lines().enumerate() {
            for mark in ["TODO", "FIXME", "XXX", "HACK"] {
                let Some((before, after)) = line.split_once(mark) else { continue };
                let apart = |side: Option<char>| {
                    side.is_none_or(|sign| !sign.is_alphanumeric() && sign != '_' && sign != '`')
                };
                let sentence = after.strip_prefix(": ").is_some_and(|rest| rest.trim().len() >= 20);
                if apart(before.chars().next_back()) && apart(after.chars().next()) && !sentence {
                    faults.push(format!("{path}:{}: {}", number + 1, line.trim()));
                }
            }
        }
    }
    none(
        faults,
        "what is left open is a sentence on what would settle it, after `TODO: `, or it is not written down",
    );
}

#[test]
fn the_tree_speaks_only_of_itself() {
    // Put together here, so that this file does not contain them.
    let forbidden: [&[&str]; 11] = [
        &["/wo", "rk/"],
        &["/ro", "ot/"],
        &["/ho", "me/"],
        &["sub", "agent"],
        &["coding ", "agent"],
        &["language ", "model wrote"],
        &["this ", "session"],
        &["previous ", "session"],
        &["my ", "brief"],
        &["as asked ", "in the chat"],
        &["work", "tree/"],
    ];
    let forbidden: Vec<String> = forbidden.iter().map(|parts| parts.concat()).collect();
    let mut faults = Vec::new();
    for path in tree().into_iter().filter(|path| path != "Cargo.lock" && path != "LICENSE") {
        for (number, line) in read(&path).lines().enumerate() {
            let lower = line.to_lowercase();
            if let Some(word) = forbidden.iter().find(|word| lower.contains(&word.to_lowercase())) {
                faults.push(format!("{path}:{}: says \"{word}\"", number + 1));
            }
            if cites_an_issue(line) {
                faults.push(format!("{path}:{}: cites an issue by number; say what it is about", number + 1));
            }
        }
    }
    none(
        faults,
        "the project speaks only of itself: no machine's paths, no numbers of issues, no word on how it was made",
    );
}

/// A number sign with digits behind a space, bracket or letter.
fn cites_an_issue(line: &str) -> bool {
    line.match_indices('#').any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let digits = line[at + 1..].chars().take_while(char::is_ascii_digit).count();
        let after = line[at + 1 + digits..].chars().next();
        digits > 0
            && before.is_some_and(|sign| sign.is_alphanumeric() || sign == ' ' || sign == '(')
            && after.is_none_or(|sign| !sign.is_alphanumeric() && sign != '"')
    })
}

/// What stands in single backticks outside of fenced blocks.
fn code_spans(text: &str) -> Vec<String> {
    let mut spans = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    spans
}

#[test]
fn paths_named_in_documents_exist() {
    let tops = ["src/", "tests/", "docs/", "configs/", "scripts/", "bench/", "perf/", ".ci/"];
    let rooms: Vec<String> = FLOORS.iter().map(|(room, _)| format!("{room}/")).collect();
    let known = tree();
    let mut faults = Vec::new();
    for (document, text) in documents() {
        for span in code_spans(&text) {
            let path = span.split_whitespace().next().unwrap_or("").trim_end_matches('/');
            let placeholder =
                path.contains(['*', '<', '…', '$', '{']) || path.contains("NNNN") || path.contains("://");
            let full = if tops.iter().any(|top| path.starts_with(top)) {
                path.to_owned()
            } else if rooms.iter().any(|room| path.starts_with(room.as_str())) && path.ends_with(".rs") {
                format!("src/{path}")
            } else {
                continue;
            };
            let there = known.iter().any(|file| *file == full || file.starts_with(&format!("{full}/")));
            if !placeholder && !there {
                faults.push(format!("{document}: `{span}` does not exist"));
            }
        }
        for target in
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
        {
            let target = target.split('#').next().unwrap_or("");
            let folder = Path::new(&document).parent().unwrap_or_else(|| Path::new(""));
            if !target.is_empty() && !target.contains("://") && !root().join(folder).join(target).exists() {
                faults.push(format!("{document}: the link to {target} leads nowhere"));
            }
        }
    }
    none(faults, "a path in a document exists (docs/architecture.md is the walk a newcomer takes)");
}

#[test]
fn every_configuration_is_mentioned() {
    let pages: String = documents().into_iter().map(|(_, text)| text).collect();
    let unknown =
        tree().into_iter().filter(|path| path.starts_with("configs/") && !pages.contains(path.as_str()));
    none(unknown.collect(), "every file in configs/ is named, with its path, in README.md or docs/");
}

#[test]
fn decision_records_are_numbered_pages_of_four_answers() {
    let records: Vec<String> =
        tree().into_iter().filter(|path| path.starts_with("docs/decisions/")).collect();
    let mut faults = Vec::new();
    for (at, path) in records.iter().enumerate() {
        if !path.starts_with(&format!("docs/decisions/{:04}-", at + 1)) {
            faults.push(format!("{path}: the next number is {:04}", at + 1));
        }
        let text = read(path);
        for heading in
            ["## What we met", "## What we chose", "## What it costs", "## What would change our mind"]
        {
            if !text.lines().any(|line| line == heading) {
                faults.push(format!("{path}: lacks \"{heading}\""));
            }
        }
        let lines = text.lines().count();
        if lines > RECORD_LINES_MAX {
            faults.push(format!("{path}: {lines} lines are more than a page"));
        }
    }
    none(faults, "a decision record answers four questions on a page (docs/style.md)");
}

#[test]
fn every_dependency_has_one_version_or_a_dated_reason() {
    let mut direct: BTreeMap<String, usize> = BTreeMap::new();
    let manifest = read("Cargo.toml");
    let mut section = "";
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let renamed = line
                .split_once("package = \"")
                .and_then(|(_, rest)| rest.split_once('"'))
                .map(|(name, _)| name);
            if let Some((name, _)) = line.split_once('=') {
                *direct.entry(renamed.unwrap_or_else(|| name.trim()).to_owned()).or_default() += 1;
            }
        }
    }
    let mut faults: Vec<String> = direct
        .iter()
        .filter(|(_, times)| **times > 1)
        .map(|(name, times)| format!("Cargo.toml: {name} is named {times} times"))
        .collect();

    let lock = read("Cargo.lock");
    let excused = read("deny.toml");
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(value) = line.strip_prefix("name = ") {
            name = value.trim_matches('"');
        } else if let Some(value) = line.strip_prefix("version = \"") {
            versions.entry(name).or_default().push(value.trim_matches('"'));
        }
    }
    for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
        // Crates for other systems are never built here.
        if name.starts_with("windows")
            || name.starts_with("wasi")
            || name.starts_with("r-efi")
            || name.starts_with("wit-")
        {
            continue;
        }
        let reasons = excused.matches(&format!("{{ crate = \"{name}@")).count();
        if reasons + 1 < versions.len() {
            faults.push(format!(
                "Cargo.lock: {name} in versions {} without a reason in deny.toml",
                versions.join(" and ")
            ));
        }
    }
    none(faults, "one version of each dependency, or a dated reason in deny.toml");
}

#[test]
fn scripts_stop_at_the_first_failure() {
    let mut faults = Vec::new();
    for path in tree().into_iter().filter(|path| path.starts_with("scripts/") || path == ".ci/run") {
        let text = read(&path);
        if text.starts_with("#!") && text.contains("bash") && !text.contains("\nset -euo pipefail\n") {
            faults.push(path);
        }
    }
    none(faults, "a bash script begins with `set -euo pipefail`");
}

//! The command line from its words to its exit codes. Files are in a folder of the test, never of the machine.

use std::fs;
use std::path::Path;

use clap::CommandFactory as _;
use tempfile::TempDir;

use super::args::ReportFormat;
use super::load::{DriverName, FileArgs};
use super::*;

fn parsed(words: &str) -> Result<Cli, u8> {
    let words = std::iter::once("ringway").chain(words.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| usage_code(error.kind()))
}

fn code(words: &str) -> u8 {
    parsed(words).err().unwrap_or(OK)
}

#[test]
fn the_command_line_has_no_contradictions() {
    Cli::command().debug_assert();
}

#[test]
fn no_verb_means_run_with_the_same_options() {
    for words in ["-c a.yaml --cores 0-3 --driver epoll", "run -c a.yaml --cores 0-3 --driver epoll"] {
        let cli = parsed(words).expect("it is right");
        let run = match cli.verb {
            None => cli.run,
            Some(Verb::Run(run)) => run,
            Some(other) => panic!("{words}: {other:?}"),
        };
        assert_eq!(run.files.config.as_deref(), Some(Path::new("a.yaml")), "{words}");
        assert_eq!(run.overrides.cores.as_deref(), Some("0-3"), "{words}");
        assert_eq!(run.overrides.driver, Some(DriverName::Epoll), "{words}");
    }
}

#[test]
fn misuse_exits_with_64_and_help_with_0() {
    for words in
        ["--nonsense", "runn", "run --driver kqueue", "check --format xml", "-t run", "origin --threads 0"]
    {
        assert_eq!(code(words), USAGE, "{words}");
    }
    for words in
        ["--help", "-h", "--version", "check --help", "run", "-t", "-t -c x", "plugins", "schema cors"]
    {
        assert_eq!(code(words), OK, "{words}");
    }
}

/// A folder with these files, and nothing else in sight.
fn around(files: &[(&str, &str)]) -> (TempDir, Surroundings) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join(name), text).expect("written");
    }
    let around = Surroundings {
        vars: Vec::new(),
        folder: folder.path().to_owned(),
        config_paths: vec!["config.yaml".into(), "etc.yaml".into()],
    };
    (folder, around)
}

fn load_all(around: &Surroundings) -> Result<Loaded, load::Trouble> {
    load::load(&FileArgs::default(), &Overrides::default(), around)
}

const ROUTE: &str = "routes: [{id: 1, uri: /, upstream: {nodes: {'127.0.0.1:1': 1}}}]";

fn name(path: Option<&PathBuf>) -> &str {
    path.and_then(|path| path.file_name()?.to_str()).unwrap_or("")
}

#[test]
fn settings_are_found_in_the_documented_order() {
    let (_folder, mut around) =
        around(&[("etc.yaml", ""), ("config.yaml", ""), ("env.yaml", ""), ("option.yaml", "")]);
    let found = |files: &FileArgs, around: &Surroundings| {
        let loaded = load::load(files, &Overrides::default(), around).expect("valid");
        name(loaded.config_path.as_ref()).to_owned()
    };
    let option = FileArgs { config: Some("option.yaml".into()), resources: None };
    around.vars.push(("RINGWAY_CONFIG".to_owned(), "env.yaml".to_owned()));
    assert_eq!(found(&option, &around), "option.yaml");
    assert_eq!(found(&FileArgs::default(), &around), "env.yaml");
    around.vars.clear();
    assert_eq!(found(&FileArgs::default(), &around), "config.yaml");
    fs::remove_file(around.folder.join("config.yaml")).expect("removed");
    assert_eq!(found(&FileArgs::default(), &around), "etc.yaml");
    fs::remove_file(around.folder.join("etc.yaml")).expect("removed");
    assert_eq!(found(&FileArgs::default(), &around), "");
}

#[test]
fn resources_are_found_beside_the_settings_or_where_they_say() {
    let (_folder, mut around) =
        around(&[("config.yaml", "resources: named.yaml"), ("named.yaml", ROUTE), ("other.yaml", "")]);
    let loaded = load_all(&around).expect("valid");
    assert_eq!((name(loaded.resources_path.as_ref()), loaded.resources.objects.len()), ("named.yaml", 1));
    around.vars.push(("RINGWAY_RESOURCES".to_owned(), "other.yaml".to_owned()));
    assert_eq!(name(load_all(&around).expect("valid").resources_path.as_ref()), "other.yaml");
    around.vars.clear();
    fs::write(around.folder.join("config.yaml"), "").expect("written");
    assert_eq!(name(load_all(&around).expect("valid").resources_path.as_ref()), "");
    fs::write(around.folder.join("apisix.yaml"), ROUTE).expect("written");
    assert_eq!(name(load_all(&around).expect("valid").resources_path.as_ref()), "apisix.yaml");
    fs::write(around.folder.join("resources.yaml"), ROUTE).expect("written");
    assert_eq!(name(load_all(&around).expect("valid").resources_path.as_ref()), "resources.yaml");
}

#[test]
fn options_win_over_the_environment_and_that_over_the_file() {
    use crate::model::settings::Cores;
    let (_folder, mut around) = around(&[("config.yaml", "cores: 1")]);
    let cores = |overrides: &Overrides, around: &Surroundings| {
        load::load(&FileArgs::default(), overrides, around).expect("valid").settings.cores
    };
    let option = Overrides { cores: Some("3".to_owned()), ..Overrides::default() };
    assert_eq!(cores(&Overrides::default(), &around), Cores::Count(1));
    around.vars.push(("RINGWAY_CORES".to_owned(), "2".to_owned()));
    assert_eq!(cores(&Overrides::default(), &around), Cores::Count(2));
    assert_eq!(cores(&option, &around), Cores::Count(3));
}

fn checked(around: &Surroundings, format: ReportFormat) -> Told {
    check::check(&CheckArgs { format, ..CheckArgs::default() }, &Overrides::default(), around)
}

#[test]
fn check_tells_ok_faults_and_unreadable_files_apart() {
    let (_folder, around) = around(&[("config.yaml", ""), ("resources.yaml", ROUTE)]);
    let told = checked(&around, ReportFormat::Text);
    assert_eq!((told.code, told.text.as_str()), (OK, "ok; objects: 1\n"));
    fs::write(around.folder.join("config.yaml"), "resources: nowhere.yaml").expect("written");
    let told = checked(&around, ReportFormat::Text);
    assert_eq!(told.code, UNREADABLE);
    assert!(told.text.contains("nowhere.yaml: "), "{}", told.text);
}

#[test]
fn check_tells_the_faults_of_both_files_at_once() {
    let (_folder, around) =
        around(&[("config.yaml", "cores: many"), ("resources.yaml", "routes: 1\nupstream: 2")]);
    let told = checked(&around, ReportFormat::Text);
    assert_eq!(told.code, INVALID);
    for part in
        ["config.yaml:1:8: cores: ", "resources.yaml:1:9: routes: ", "found upstream", "refused; faults: 3,"]
    {
        assert!(told.text.contains(part), "{part} is missing in {}", told.text);
    }
    let told = checked(&around, ReportFormat::Json);
    let json: serde_json::Value = serde_json::from_str(&told.text).expect("JSON");
    assert_eq!((told.code, &json["ok"]), (INVALID, &false.into()));
    assert_eq!(json["faults"].as_array().map(Vec::len), Some(3));
    assert_eq!(json["faults"][0]["pointer"], "/cores");
}

const WARNED: &str = "\
routes:
  - id: 1
    uri: /hello
    upstream:
      tls: {verify: true}
      nodes: {\"127.0.0.1:1980\": 1}
#END
";

#[test]
fn what_is_not_there_yet_is_a_warning_and_a_fault_where_that_is_strict() {
    let (_folder, around) =
        around(&[("config.yaml", "nginx_config:\n  worker_processes: 4\n"), ("resources.yaml", WARNED)]);
    let told = checked(&around, ReportFormat::Text);
    assert_eq!(told.code, OK, "{}", told.text);
    assert!(told.text.ends_with("ok; objects: 1, warnings: 2\n"), "{}", told.text);
    for (file, warning) in [
        ("resources.yaml", ":5:12: routes/1: upstream.tls: "),
        ("config.yaml", ":2:21: nginx_config.worker_processes: is ignored"),
    ] {
        let path = around.folder.join(file);
        let line = format!("warning: {}{warning}", path.display());
        assert!(told.text.contains(&line), "{line} is missing in {}", told.text);
    }
    let strict = CheckArgs { strict: true, ..CheckArgs::default() };
    let told = check::check(&strict, &Overrides::default(), &around);
    assert_eq!(told.code, INVALID);
    assert!(told.text.ends_with("refused; faults: 2, unreadable: 0\n"), "{}", told.text);
    assert!(!told.text.contains("warning: "), "{}", told.text);
}

#[test]
fn a_scanner_is_told_files_and_lines() {
    let route = "routes:\n- id: 1\n  uri: /a\n  upstream: {nodes: {'127.0.0.1:1': 1}}\n";
    let bad = "upstreams:\n- {id: u, nodes: {'127.0.0.1:1': 1},\n   retries: ten}\n";
    let (_folder, around) = around(&[("config.yaml", "resources: conf.d")]);
    fs::create_dir(around.folder.join("conf.d")).expect("made");
    let write = |name: &str, text: &str| fs::write(around.folder.join("conf.d").join(name), text);
    write("1.yaml", route).and_then(|()| write("2.yaml", bad)).expect("written");
    let results = || {
        let told = checked(&around, ReportFormat::Sarif);
        assert_eq!(told.code, INVALID, "{}", told.text);
        let report: serde_json::Value = serde_json::from_str(&told.text).expect("JSON");
        assert_eq!(
            (&report["version"], &report["runs"][0]["tool"]["driver"]["rules"][1]["id"]),
            (&"2.1.0".into(), &"fault".into())
        );
        report["runs"][0]["results"].clone()
    };
    let found = results();
    let location = &found[0]["locations"][0]["physicalLocation"];
    assert!(
        location["artifactLocation"]["uri"].as_str().is_some_and(|uri| uri.ends_with("conf.d/2.yaml")),
        "{found}"
    );
    assert_eq!(location["region"], serde_json::json!({"startLine": 3, "startColumn": 13}));
    assert_eq!(found[0]["level"], "error");

    // An id in two files: the fault names both places, and is shown at the second.
    write("2.yaml", route).expect("written");
    let found = results();
    let text = found[0]["message"]["text"].as_str().unwrap_or_default();
    assert!(text.contains("2.yaml:2:3 and in ") && text.contains("1.yaml:2:3, expected it once"), "{found}");
    assert_eq!(found[0]["locations"][0]["physicalLocation"]["region"]["startLine"], 2);

    // What is not YAML is shown where it breaks.
    write("2.yaml", "routes:\n  - id: [1\nupstreams: {").expect("written");
    let found = results();
    assert_eq!(found[0]["locations"][0]["physicalLocation"]["region"]["startLine"], 3, "{found}");
}

#[test]
fn version_tells_build_and_driver_in_both_forms() {
    let told = inspect::version(&args::VersionArgs { json: true }, "epoll");
    let json: serde_json::Value = serde_json::from_str(&told.text).expect("JSON");
    assert_eq!((told.code, &json["driver"]), (OK, &"epoll".into()));
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let told = inspect::version(&args::VersionArgs { json: false }, "epoll");
    assert!(told.text.contains("driver:   epoll\n"), "{}", told.text);
}

#[test]
fn schemas_and_plugins_are_told_by_name_and_what_is_unknown_is_misuse() {
    let schema = |name: Option<&str>| {
        schema::schema(&args::SchemaArgs { name: name.map(str::to_owned), markdown: false })
    };
    let names = ["settings", "config", "resources", "routes", "route", "plugins", "_meta", "ip-restriction"];
    for name in names.map(Some).into_iter().chain([None]) {
        let told = schema(name);
        assert_eq!(told.code, OK, "{name:?}");
        assert!(serde_json::from_str::<serde_json::Value>(&told.text).is_ok(), "{name:?}");
    }
    assert_eq!(schema(Some("nothing")).code, USAGE);
    let plugins = |name: Option<&str>| inspect::plugins(&args::PluginsArgs { name: name.map(str::to_owned) });
    assert!(plugins(None).text.contains("\nip-restriction "));
    assert!(plugins(Some("ip-restriction")).text.contains("phases:   preread access\n"));
    assert_eq!(plugins(Some("nothing")).code, USAGE);
}

#[test]
fn plugins_that_may_be_used_and_are_not_there_are_told() {
    let config = "plugins: [key-auth, limit-cuont, wolf-rbac]\n";
    let (_folder, around) = around(&[("config.yaml", config), ("resources.yaml", "routes: []\n#END\n")]);
    let told = checked(&around, ReportFormat::Text);
    let expected =
        "plugins: not among those there are: limit-cuont; did you mean \"limit-count\"?, wolf-rbac";
    assert!(told.code == OK && told.text.contains(expected), "{}", told.text);
}

#[test]
fn a_pattern_that_is_matched_by_trying_is_a_warning_however_strict() {
    let dir = TempDir::new().expect("a folder");
    let path = dir.path().join("r.yaml");
    let objects = "routes:\n  - id: a\n    uri: /*\n    vars: [[uri, '~~', '^/a(?!b)']]\n    plugins:\n      \
                   proxy-rewrite: {regex_uri: ['^/(?!admin)(.*)', '/x/$1']}\n      response-rewrite: {body: a++b or (?=}\n";
    fs::write(&path, objects).expect("written");
    let around = Surroundings { vars: Vec::new(), folder: dir.path().to_owned(), config_paths: Vec::new() };
    for strict in [false, true] {
        let files = FileArgs { config: None, resources: Some(path.clone()) };
        let args = CheckArgs { files, strict, ..CheckArgs::default() };
        let told = check::check(&args, &Overrides::default(), &around);
        assert_eq!(told.code, OK, "{}", told.text);
        for part in [
            "r.yaml:4:24: routes/a: vars[0][2]: the pattern uses look-ahead: it is matched by trying",
            "routes/a: plugins.proxy-rewrite.regex_uri[0]: the pattern uses look-ahead",
            "warnings: 2\n",
        ] {
            assert!(told.text.contains(part), "{part:?} is not in {}", told.text);
        }
    }
}

//! Every YAML in the documentation is taken by `ringway check`, and every object of the reference pages by the Admin
//! API of a running gateway.

use std::fs;
use std::path::{Path, PathBuf};

use ringway::model::schema::check as check_schema;
use serde_json::{Value, json};

use super::configs::files as configurations;
use super::kit::{Certs, Gateway, check, ringway, yaml};

/// Pages below `docs`, and the README.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut folders, mut pages) = (vec![root.join("docs")], vec![root.join("README.md")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The blocks of YAML on a page.
fn examples(page: &Path) -> Vec<Value> {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text.split("\n```yaml\n").skip(1);
    blocks.map(|block| yaml(block.split_once("\n```").expect("a block ends").0)).collect()
}

/// What an example is a part of.
enum Example {
    /// A file of objects, or plugins as a route would have them.
    Objects(Value),
    Settings(Value),
    /// Tests of a configuration.
    Tests(Value),
}

impl Example {
    fn of(value: Value) -> Self {
        let is_list = |field: &Value| field.is_array();
        match value.as_object().expect("an example is an object") {
            fields if fields.len() == 1 && fields.get("plugins").is_some_and(Value::is_object) => {
                let upstream = json!({"nodes": {"127.0.0.1:1980": 1}});
                let plugins = &fields["plugins"];
                let route = json!({"id": "example", "uri": "/*", "upstream": upstream, "plugins": plugins});
                // What plugins may name.
                let canary = json!({"id": "canary", "nodes": {"127.0.0.1:1981": 1}});
                Self::Objects(json!({"routes": [route], "upstreams": [canary]}))
            }
            fields if fields.contains_key("cases") => Self::Tests(value),
            fields if fields.values().all(is_list) => Self::Objects(value),
            _ => Self::Settings(value),
        }
    }
}

#[test]
fn every_example_of_the_documentation_passes_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        let path = dir.path().join(name);
        fs::write(&path, serde_yaml_ng::to_string(value).unwrap()).unwrap();
        path.display().to_string()
    };
    let none = write("none.yaml", &json!({"routes": []}));
    let certs = Certs::new();
    certs.authority("ca");
    certs.here("ca", "server");
    let mut count = 0;
    for page in pages() {
        if page.ends_with("docs/plugins/crash.md") && !cfg!(feature = "test-plugins") {
            continue;
        }
        for example in examples(&page) {
            let (code, said) = match Example::of(example.clone()) {
                Example::Objects(objects) => check(&["--resources", &write("objects.yaml", &objects)]),
                // A page's tests are of the objects that it shows before.
                Example::Tests(tests) => ringway(dir.path(), &["test", &write("tests.yaml", &tests)]),
                Example::Settings(mut settings) => {
                    name_files_of(&mut settings, &certs);
                    check(&["--config", &write("config.yaml", &settings), "--resources", &none])
                }
            };
            assert_eq!(code, 0, "{}: {example:#}\n{said}", page.display());
            count += 1;
        }
    }
    assert!(count > 25, "only {count} examples were found");
}

/// Files that are there, in the place of those that an example names and a check reads.
pub(crate) fn name_files_of(settings: &mut Value, certs: &Certs) {
    let tls = settings.pointer_mut("/admin/tls").and_then(Value::as_object_mut);
    for (name, path) in tls.into_iter().flatten() {
        let ours = match name.as_str() {
            "cert" => "server.crt",
            "key" => "server",
            _ => "ca.crt",
        };
        *path = json!(certs.path(ours));
    }
}

/// A schema of `docs/schema`.
fn schema(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn every_configuration_and_every_example_fits_the_schema_of_its_file() {
    let (resources, config) = (schema("resources.json"), schema("config.json"));
    let tests = schema("tests.json");
    let fits = |page: &Path, schema: &Value, value: &Value| {
        let faults: Vec<String> = check_schema(schema, value).iter().map(ToString::to_string).collect();
        assert!(faults.is_empty(), "{}: {faults:?}", page.display());
    };
    // Of a plugin that no release has.
    for page in pages().into_iter().filter(|page| !page.ends_with("docs/plugins/crash.md")) {
        for example in examples(&page) {
            match Example::of(example) {
                Example::Objects(objects) => fits(&page, &resources, &objects),
                Example::Settings(settings) => fits(&page, &config, &settings),
                Example::Tests(value) => fits(&page, &tests, &value),
            }
        }
    }
    for path in configurations(".resources.yaml") {
        fits(&path, &resources, &yaml(&fs::read_to_string(&path).unwrap()));
    }
    for path in configurations(".tests.yaml") {
        fits(&path, &tests, &yaml(&fs::read_to_string(&path).unwrap()));
    }
    for path in configurations(".config.yaml") {
        fits(&path, &config, &yaml(&fs::read_to_string(&path).unwrap()));
    }
}

/// Where the Admin API has an object of a list, and what is put there.
fn place(plural: &str, object: &Value) -> (String, Value) {
    let name = object.get("id").or_else(|| object.get("username")).and_then(Value::as_str).expect("an id");
    let mut body = object.clone();
    body.as_object_mut().expect("an object").shift_remove("id");
    (format!("/{plural}/{name}"), body)
}

#[test]
fn every_object_of_the_reference_pages_is_taken_by_the_admin_api() {
    let certs = Certs::new();
    let key = certs.key("site", &["-algorithm", "ED25519"]);
    let certificate = certs.by_itself("site", "www.example.com");
    let mut count = 0;
    // As long as the process of the tests: variables are given to gateways by reference.
    let (certificate, key): (&'static str, &'static str) = (certificate.leak(), key.leak());
    for page in
        pages().into_iter().filter(|page| page.parent().is_some_and(|folder| folder.ends_with("objects")))
    {
        let gateway = Gateway::managed()
            .settings("admin: {stream_routes: true, secrets: shown}")
            .env("SITE_CERTIFICATE", certificate)
            .env("SITE_KEY", key)
            .start();
        let admin = gateway.admin();
        let examples = examples(&page);
        assert!(!examples.is_empty(), "{}: has no example", page.display());
        for (plural, objects) in examples.iter().filter_map(Value::as_object).flatten() {
            // Which plugins may be used is not for the API to say.
            for object in objects.as_array().into_iter().flatten().filter(|_| plural != "plugins") {
                let (path, body) = place(plural, object);
                admin.put(&path, &body.to_string());
                count += 1;
                let found = admin.ask("GET", &path, &[], "").expect_status(200).json();
                for (field, value) in body.as_object().expect("an object") {
                    // Private keys are not told.
                    let told = &found["value"][field];
                    assert!(told == value || told.is_null() && field == "key", "{path}: {field}: {told}");
                }
            }
        }
    }
    assert!(count > 20, "only {count} objects were found");
}

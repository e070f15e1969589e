//! Every file in `configs/` is accepted by `ringway check` and answers a request.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::examples::name_files_of;
use super::kit::{Certs, Gateway, Origin, check, yaml};

/// Files directly in `configs/` whose name ends so: `NAME.resources.yaml` are objects, `NAME.config.yaml` settings.
/// What lies in folders below is for other programs.
pub(crate) fn files(ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut all: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    all.sort();
    all
}

#[test]
fn every_configuration_passes_the_check() {
    for path in files(".resources.yaml") {
        let (code, said) = check(&["--resources", &path.display().to_string()]);
        assert_eq!(code, 0, "{}: {said}", path.display());
    }
    // Settings are checked together with objects that are known to be good.
    let dir = tempfile::tempdir().unwrap();
    let objects = dir.path().join("apisix.yaml");
    fs::write(&objects, "routes: []\n#END\n").unwrap();
    let certs = Certs::new();
    certs.authority("ca");
    certs.here("ca", "server");
    let config = dir.path().join("config.yaml");
    for path in files(".config.yaml") {
        let mut settings = yaml(&fs::read_to_string(&path).unwrap());
        name_files_of(&mut settings, &certs);
        fs::write(&config, settings.to_string()).unwrap();
        let (code, said) = check(&[
            "--config",
            &config.display().to_string(),
            "--resources",
            &objects.display().to_string(),
        ]);
        assert_eq!(code, 0, "{}: {said}", path.display());
    }
}

#[test]
fn a_bad_configuration_does_not_pass_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("apisix.yaml");
    fs::write(
        &path,
        "routes: [{id: '1', uri: /a, upstream: {type: roundrobin, nodes: {}}, hots: a.test}]\n#END\n",
    )
    .unwrap();
    let (code, said) = check(&["--resources", &path.display().to_string()]);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("routes/1") && said.contains("hots") && said.contains("\"host\""), "{said}");
}

#[test]
fn every_configuration_serves_a_request() {
    for path in files(".resources.yaml") {
        let origin = Origin::replying("hello");
        let mut objects = yaml(&fs::read_to_string(&path).unwrap());
        redirect(&mut objects, &origin);
        let gateway = Gateway::resources(&objects.to_string(), &[]).start();
        let route = &objects["routes"][0];
        let uri =
            route["uri"].as_str().or_else(|| route["uris"][0].as_str()).unwrap_or("/").replace('*', "x");
        let host = route["host"]
            .as_str()
            .or_else(|| route["hosts"][0].as_str())
            .unwrap_or("ringway.test")
            .replace('*', "x");
        let status = gateway.request("GET", &uri, &[("Host", &host)], b"").status;
        assert!(!matches!(status, 404 | 500..), "{}: {uri} at {host} gets {status}", path.display());
    }
}

/// Sends all upstreams to one origin.
fn redirect(value: &mut Value, origin: &Origin) {
    match value {
        Value::Object(fields) => {
            if let Some(nodes) = fields.get_mut("nodes") {
                *nodes = json!({origin.node(): 1});
                fields.insert("scheme".to_owned(), json!("http"));
            }
            fields.values_mut().for_each(|value| redirect(value, origin));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, origin)),
        _ => {}
    }
}

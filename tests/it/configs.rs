//! Every file in `configs/` is accepted by `ringway check` and answers a request.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::kit::{Gateway, Origin, check, yaml};

/// All files below a folder that are YAML.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            all.push(path);
        }
    }
    all.sort();
    all
}

/// Files of objects, as opposed to those of the process and to those of other programs.
fn resources() -> Vec<PathBuf> {
    let all = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("configs"));
    all.into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name == "apisix.yaml" || name == "resources.yaml"))
        .collect()
}

#[test]
fn every_configuration_passes_the_check() {
    for path in resources() {
        let (code, said) = check(&path);
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
    let (code, said) = check(&path);
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("routes/1") && said.contains("hots") && said.contains("hosts"), "{said}");
}

#[test]
fn every_configuration_serves_a_request() {
    for path in resources() {
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

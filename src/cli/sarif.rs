//! What `check` found as SARIF 2.1.0 (OASIS): code scanners show it beside the lines.

use std::path::Path;

use serde_json::{Value, json};

use super::check::{Finding, Rule};
use crate::base::text::push_percent;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// One run with all findings.
pub(super) fn report(findings: &[Finding]) -> Value {
    let rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| json!({"id": rule.name(), "shortDescription": {"text": rule.meaning()}}))
        .collect();
    let results: Vec<Value> = findings.iter().map(result).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "ringway check",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(finding: &Finding) -> Value {
    let mut result = json!({
        "ruleId": finding.rule.name(),
        "level": if finding.is_fault { "error" } else { "warning" },
        "message": {"text": finding.message()},
    });
    let mut location = json!({});
    if !finding.file.is_empty() {
        location["physicalLocation"] = json!({"artifactLocation": {"uri": uri(&finding.file)}});
        if let Some(position) = finding.position {
            location["physicalLocation"]["region"] =
                json!({"startLine": position.line, "startColumn": position.column});
        }
    }
    let fault = &finding.fault;
    if !fault.object.is_empty() && fault.object != finding.file {
        location["logicalLocations"] = json!([{"name": fault.object, "fullyQualifiedName": format!("{}{}", fault.object, fault.pointer())}]);
    }
    if location.as_object().is_some_and(|location| !location.is_empty()) {
        result["locations"] = json!([location]);
    }
    result
}

/// A path as a reference (RFC 3986): relative ones stay so, and are taken from where the report is read.
fn uri(path: &str) -> String {
    let mut out = Vec::new();
    if Path::new(path).is_absolute() {
        out.extend_from_slice(b"file://");
    }
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(byte);
        } else {
            push_percent(&mut out, byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConfigError;
    use crate::model::position::Position;

    #[test]
    fn a_finding_has_its_line_and_its_object() {
        let finding = Finding {
            rule: Rule::Fault,
            is_fault: true,
            file: "conf.d/a b.yaml".to_owned(),
            position: Some(Position { line: 3, column: 7 }),
            fault: ConfigError::at("upstream.retries", "expected a whole number").in_object("routes/1"),
        };
        let told = &report(&[finding])["runs"][0]["results"][0];
        assert_eq!(
            *told,
            json!({
                "ruleId": "fault",
                "level": "error",
                "message": {"text": "routes/1: upstream.retries: expected a whole number"},
                "locations": [{
                    "physicalLocation": {
                        "artifactLocation": {"uri": "conf.d/a%20b.yaml"},
                        "region": {"startLine": 3, "startColumn": 7},
                    },
                    "logicalLocations": [
                        {"name": "routes/1", "fullyQualifiedName": "routes/1/upstream/retries"},
                    ],
                }],
            })
        );
        assert_eq!(uri("/etc/ringway/r.yaml"), "file:///etc/ringway/r.yaml");
    }
}

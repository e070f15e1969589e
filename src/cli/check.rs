//! `check`: all that `run` would object to, in either file and between objects, for people, programs and code scanners.
//!
//! What is valid and does not get all that it asks for is a warning, as the gateway takes it; with `--strict` it is a
//! fault.

use serde_json::{Value, json};

use super::args::{CheckArgs, ReportFormat};
use super::load::{self, Loaded, Overrides, Surroundings, Trouble, in_file};
use super::places::Places;
use super::{INVALID, OK, Told, UNREADABLE, sarif, slow};
use crate::control::names::{self, Names};
use crate::control::secrets::{Files, environment};
use crate::control::{fault_of_tls, roots_of_nodes};
use crate::model::position::Position;
use crate::model::{ConfigError, object_name};
use crate::snapshot::{Compiler, is_reference_to_nothing};

/// What a finding is about; the names are for those who sort them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Unreadable,
    Fault,
    /// Valid, and not done here as it is asked for.
    NotThereYet,
    /// A reference to a secret that only the gateway will be told.
    Awaited,
    /// A key of the settings that means nothing here.
    Ignored,
    /// A pattern that needs backtracking.
    Slow,
}

impl Rule {
    pub(super) const ALL: [Self; 6] =
        [Self::Unreadable, Self::Fault, Self::NotThereYet, Self::Awaited, Self::Ignored, Self::Slow];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Fault => "fault",
            Self::NotThereYet => "not-there-yet",
            Self::Awaited => "awaited-secret",
            Self::Ignored => "ignored-setting",
            Self::Slow => "slow-pattern",
        }
    }

    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Unreadable => "A file can not be read",
            Self::Fault => "The configuration has a fault",
            Self::NotThereYet => "Valid, and not done here as it is asked for",
            Self::Awaited => "A secret that is looked up when the gateway runs",
            Self::Ignored => "A setting that has no meaning here",
            Self::Slow => {
                "A pattern that is matched by trying, which takes longer and is given up at some point"
            }
        }
    }

    /// Whether it speaks against the configuration. What is awaited never does: it can not be known here; nor does what is
    /// done, if slower.
    const fn is_fault(self, is_strict: bool) -> bool {
        match self {
            Self::Unreadable | Self::Fault => true,
            Self::NotThereYet | Self::Ignored => is_strict,
            Self::Awaited | Self::Slow => false,
        }
    }
}

/// One thing that was found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) rule: Rule,
    pub(super) is_fault: bool,
    /// The file it is in, where that is known.
    pub(super) file: String,
    pub(super) position: Option<Position>,
    pub(super) fault: ConfigError,
}

impl Finding {
    fn new(rule: Rule, is_strict: bool, file: String, fault: ConfigError, places: &mut Places) -> Self {
        let (file, position) = places.of(file, &fault);
        Self { rule, is_fault: rule.is_fault(is_strict), file, position, fault }
    }

    /// The fault, without the file where that stands in place of the object.
    pub(super) fn message(&self) -> String {
        if self.fault.object == self.file {
            ConfigError { object: String::new(), ..self.fault.clone() }.to_string()
        } else {
            self.fault.to_string()
        }
    }

    fn line(&self) -> String {
        let text = match (self.file.as_str(), self.position) {
            ("", _) => self.fault.to_string(),
            (file, None) => in_file(file, &self.fault),
            (file, Some(position)) => format!("{file}:{position}: {}", self.message()),
        };
        if self.is_fault { text } else { format!("warning: {text}") }
    }

    fn json(&self) -> Value {
        json!({
            "rule": self.rule.name(),
            "file": self.file,
            "line": self.position.map(|position| position.line),
            "column": self.position.map(|position| position.column),
            "object": self.fault.object,
            "path": self.fault.path,
            "pointer": self.fault.pointer(),
            "problem": self.fault.problem,
            "text": self.line(),
        })
    }
}

/// `check`.
pub(super) fn check(args: &CheckArgs, overrides: &Overrides, around: &Surroundings) -> Told {
    let (findings, objects) = findings(args, overrides, around);
    let of = |rule: Rule| findings.iter().filter(|finding| finding.rule == rule).count();
    let faults = findings.iter().filter(|finding| finding.is_fault).count() - of(Rule::Unreadable);
    let code = match (of(Rule::Unreadable), faults) {
        (0, 0) => OK,
        (0, _) => INVALID,
        (_, _) => UNREADABLE,
    };
    let text = match args.format {
        ReportFormat::Text => {
            let mut lines: Vec<String> = findings.iter().map(Finding::line).collect();
            lines.push(match (code, findings.len()) {
                (OK, 0) => format!("ok; objects: {objects}"),
                (OK, warnings) => format!("ok; objects: {objects}, warnings: {warnings}"),
                (_, _) => format!("refused; faults: {faults}, unreadable: {}", of(Rule::Unreadable)),
            });
            lines.join("\n")
        }
        ReportFormat::Json => {
            let those = |is_wanted: &dyn Fn(&Finding) -> bool| -> Vec<Value> {
                findings.iter().filter(|finding| is_wanted(finding)).map(Finding::json).collect()
            };
            let unreadable: Vec<&str> = findings
                .iter()
                .filter(|finding| finding.rule == Rule::Unreadable)
                .map(|finding| finding.fault.problem.as_str())
                .collect();
            json!({
                "ok": code == OK,
                "objects": objects,
                "unreadable": unreadable,
                "faults": those(&|finding| finding.is_fault && finding.rule != Rule::Unreadable),
                "warnings": those(&|finding| !finding.is_fault),
            })
            .to_string()
        }
        ReportFormat::Sarif => format!("{:#}", sarif::report(&findings)),
    };
    Told { code, text: text + "\n" }
}

/// All that is found, and how many objects there are.
fn findings(args: &CheckArgs, overrides: &Overrides, around: &Surroundings) -> (Vec<Finding>, usize) {
    let strict = args.strict;
    let mut found: Vec<(Rule, String, ConfigError)> = Vec::new();
    let (mut objects, mut resources) = (0, None);
    match load::load(&args.files, overrides, around) {
        Err(Trouble { unreadable, faults }) => {
            let unread = |why| (Rule::Unreadable, String::new(), ConfigError::new(why));
            found.extend(unreadable.into_iter().map(unread));
            found.extend(faults.into_iter().map(|(file, fault)| (Rule::Fault, file, fault)));
        }
        Ok(loaded) => {
            let name = |path: &Option<std::path::PathBuf>| {
                path.as_ref().map_or_else(String::new, |path| path.display().to_string())
            };
            objects = loaded.resources.objects.len();
            resources.clone_from(&loaded.resources_path);
            let file = name(&loaded.resources_path);
            found.extend(compile(&loaded).into_iter().map(|(rule, fault)| (rule, file.clone(), fault)));
            let settings = name(&loaded.config_path);
            let fault = loaded.settings.admin.tls.as_ref().and_then(fault_of_tls);
            found.extend(fault.map(|why| (Rule::Fault, settings.clone(), ConfigError::at("admin.tls", why))));
            for warning in &loaded.settings.warnings {
                found.push((Rule::Ignored, settings.clone(), of_warning(warning)));
            }
        }
    }
    let mut places = Places::new(resources);
    let finding = |(rule, file, fault)| Finding::new(rule, strict, file, fault, &mut places);
    (found.into_iter().map(finding).collect(), objects)
}

/// A warning of the settings begins with the field.
fn of_warning(warning: &str) -> ConfigError {
    match warning.split_once(' ') {
        Some((path, problem)) if problem.starts_with("is ignored") => ConfigError::at(path, problem),
        _ => ConfigError::new(warning),
    }
}

fn compile(loaded: &Loaded) -> Vec<(Rule, ConfigError)> {
    // As `run` does: a node whose name is unknown is a fault that is better met here.
    let mut compiler =
        Compiler::new(&loaded.settings, Names::new(&loaded.settings).resolve_within(names::START))
            .reading_env(Box::new(environment))
            .reading_files(Files::new(&loaded.settings).reader())
            .trusting(roots_of_nodes(&loaded.settings));
    let outcome = compiler.compile(&loaded.resources);
    let set_aside: Vec<String> =
        outcome.quarantined.iter().map(|object| object_name(object.kind, &object.id)).collect();
    let rule_of = |fault: &ConfigError| {
        let counts = set_aside.contains(&fault.object)
            || is_reference_to_nothing(fault)
            || fault.path.rsplit('.').next() == Some("nodes");
        match (fault.may_pass, counts) {
            (true, _) => Rule::Awaited,
            (false, true) => Rule::Fault,
            (false, false) => Rule::NotThereYet,
        }
    };
    let mut found: Vec<(Rule, ConfigError)> =
        outcome.faults.into_iter().map(|fault| (rule_of(&fault), fault)).collect();
    let taken = loaded.resources.objects.iter().filter(|raw| !set_aside.contains(&raw.name()));
    found.extend(taken.flat_map(slow::patterns).map(|fault| (Rule::Slow, fault)));
    found
}

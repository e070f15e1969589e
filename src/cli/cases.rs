//! `test`: requests that a file describes, made to a real gateway of one core in this process, and what became of them
//! held against what is expected (decision 0030).
//!
//! The clock of the process stands still but when a test lets time pass, so that a run is like every other. Cases are
//! tried one after the other, each on a core and a compilation of its own.

mod caller;
mod form;
mod ground;
mod house;
mod judge;
mod junit;
mod moment;
mod tell;
mod town;
mod wish;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;

use super::args::TestArgs;
use super::load::Surroundings;
use super::{FAILED, OK, Told};
use crate::base::clock;
use crate::model::ConfigError;
use crate::model::position::{Position, broken_at, locate};
use crate::model::resources::{Format, read_document};
use crate::model::schema::{parse, schema_of};
use crate::runtime::sys;

use form::{Answer, Case, OneOrMore, TestFile, Turn};
use ground::Ground;
use house::House;
use judge::{Found, Miss};
use town::Town;

/// A file of tests can not be used, or the configuration that it names.
const FAULTY: u8 = 2;

/// The JSON schema of a file of tests.
pub(super) fn schema() -> serde_json::Value {
    (*schema_of::<TestFile>()).clone()
}

/// What came of one case.
struct Verdict {
    name: String,
    /// Where it begins.
    position: Option<Position>,
    /// In the words of a line each, with their places; none: it passed.
    failures: Vec<(Option<Position>, String)>,
}

/// What came of one file.
#[derive(Default)]
struct Report {
    file: String,
    faults: Vec<String>,
    verdicts: Vec<Verdict>,
    left_out: usize,
    /// All routes, and those that a request reached.
    routes: BTreeSet<String>,
    reached: BTreeSet<String>,
}

impl Report {
    fn failed(&self) -> usize {
        self.verdicts.iter().filter(|verdict| !verdict.failures.is_empty()).count()
    }
}

/// Tries all files.
pub(super) fn test(args: &TestArgs, around: &Surroundings) -> Result<Told, Told> {
    sys::raise_descriptor_limit();
    let town = Arc::new(Town::default());
    let reports: Vec<Report> =
        args.files.iter().map(|path| try_file(path, args.filter.as_deref(), &town, around)).collect();
    let is_plain = around.var("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = tell::Style { is_coloured: !is_plain && io::stdout().is_terminal(), is_quiet: args.quiet };
    let (mut text, covered) = (tell::text(&reports, &style), tell::coverage(&reports));
    let mut code = match () {
        () if reports.iter().any(|report| !report.faults.is_empty()) => FAULTY,
        () if reports.iter().any(|report| report.failed() > 0) => FAILED,
        () => OK,
    };
    if let Some(min) = args.coverage_min.filter(|min| covered < f64::from(*min)) {
        text.push_str(&format!("expected {min} % of the routes to be reached, got {covered:.1} %\n"));
        code = code.max(FAILED);
    }
    if let Some(path) = &args.junit
        && let Err(error) = fs::write(path, junit::document(&reports))
    {
        return Err(Told { code: FAULTY, text: format!("{text}{}: {error}\n", path.display()) });
    }
    Ok(Told { code, text })
}

/// Tries the cases of a file, or tells what keeps it from being tried.
fn try_file(path: &Path, filter: Option<&str>, town: &Arc<Town>, around: &Surroundings) -> Report {
    let mut report = Report { file: path.display().to_string(), ..Report::default() };
    let text = match fs::read_to_string(around.folder.join(path)) {
        Ok(text) => text,
        Err(error) => {
            report.faults.push(format!("{}: {error}", report.file));
            return report;
        }
    };
    let file = match read(&text, Format::of_path(path)) {
        Ok(file) => file,
        Err(faults) => {
            report.faults = faults.iter().map(|fault| line_of(&report.file, &text, fault)).collect();
            return report;
        }
    };
    let folder = ground::folder_of(&around.folder.join(path));
    let ground = match Ground::open(&file, &folder, around) {
        Ok(ground) => ground,
        Err(faults) => {
            report.faults = faults.iter().map(|fault| format!("{}: {fault}", report.file)).collect();
            return report;
        }
    };
    let faults = faults_of_calls(&file, &ground);
    if !faults.is_empty() {
        report.faults = faults.iter().map(|fault| line_of(&report.file, &text, fault)).collect();
        return report;
    }
    report.routes = ground.routes().into_iter().collect();
    for (at, case) in file.cases.iter().enumerate() {
        if filter.is_some_and(|part| !case.name.contains(part)) {
            report.left_out += 1;
            continue;
        }
        let mut trial = Trial { file: &file, ground: &ground, town, reached: &mut report.reached };
        let misses = trial.run(case).unwrap_or_else(|error| vec![(String::new(), error.to_string())]);
        let place =
            |path: &str| locate(&text, &ConfigError::at(path, "").under(&format!("cases[{at}]")).path);
        report.verdicts.push(Verdict {
            name: case.name.clone(),
            position: place(""),
            failures: misses.into_iter().map(|(path, miss)| (place(&path), miss)).collect(),
        });
    }
    report
}

fn read(text: &str, format: Format) -> Result<TestFile, Vec<ConfigError>> {
    let value = read_document(text, format).map_err(|fault| vec![fault])?;
    let file: TestFile = parse(value)?;
    let faults = form::faults(&file);
    if faults.is_empty() { Ok(file) } else { Err(faults) }
}

/// A fault with the file and the line it is on.
fn line_of(file: &str, text: &str, fault: &ConfigError) -> String {
    let is_broken = fault.problem.starts_with("not YAML") || fault.problem.starts_with("not JSON");
    let position = if is_broken { broken_at(text) } else { locate(text, &fault.path) };
    let position = position.map_or_else(String::new, |position| format!(":{position}"));
    format!("{file}{position}: {fault}")
}

/// What is wrong with requests, and with names of nodes and phases: known only with the configuration.
fn faults_of_calls(file: &TestFile, ground: &Ground) -> Vec<ConfigError> {
    let mut faults = Vec::new();
    let mut nodes = |of: &std::collections::BTreeMap<String, OneOrMore<Answer>>, under: &str| {
        for (node, answers) in of {
            let path = format!("[{}]", serde_json::Value::from(node.as_str()));
            if node != "*" && ground.names.of(node).is_none() {
                let problem = "expected the HOST:PORT of a node that an upstream has, or *";
                faults.push(ConfigError::at(path.as_str(), problem).under(under));
            }
            if answers.all().is_empty() {
                faults.push(ConfigError::at(path, "expected at least one answer").under(under));
            }
        }
    };
    nodes(&file.nodes, "nodes");
    for (at, case) in file.cases.iter().enumerate() {
        nodes(&case.nodes, &format!("cases[{at}].nodes"));
    }
    for (at, case) in file.cases.iter().enumerate() {
        for turn in case.turns() {
            let mut fault = |field: &str, problem: String| {
                let path = format!("cases[{at}].{}{field}", turn.step());
                faults.push(ConfigError::at(path, problem).in_object(format!("case {:?}", case.name)));
            };
            if let Some(Err(problem)) = turn.request.map(caller::call_of) {
                fault("request", problem);
            }
            if let Some(phase) = turn.expect.and_then(judge::unknown_phase) {
                let known = form::PHASES.join(", ");
                fault("expect.plugins", format!("expected phases of {known}, got {phase}"));
            }
        }
    }
    faults
}

/// A case under way.
struct Trial<'a> {
    file: &'a TestFile,
    ground: &'a Ground,
    town: &'a Arc<Town>,
    reached: &'a mut BTreeSet<String>,
}

impl Trial<'_> {
    /// What was not as expected, each with its place in the case. Ends at the first request that fails: what comes
    /// after it builds on it.
    fn run(&mut self, case: &Case) -> io::Result<Vec<(String, String)>> {
        clock::hold(case.time.unwrap_or(self.file.time).0);
        let others = case.nodes.get("*").or_else(|| self.file.nodes.get("*"));
        let known = self.file.nodes.iter().chain(&case.nodes);
        let known = known.filter_map(|(node, answers)| Some((self.ground.names.of(node)?, answers)));
        self.town.begin(known, others);
        let house = House::open(self.ground, self.town)?;
        let mut failures = Vec::new();
        for turn in case.turns() {
            failures = self.take(&house, &turn)?;
            if !failures.is_empty() {
                break;
            }
        }
        drop(house);
        self.town.end();
        Ok(failures)
    }

    fn take(&mut self, house: &House, turn: &Turn<'_>) -> io::Result<Vec<(String, String)>> {
        if let Some(time) = turn.wait {
            house.wait(time.get());
        }
        let Some(request) = turn.request else { return Ok(Vec::new()) };
        let call = caller::call_of(request).map_err(io::Error::other)?;
        let step = turn.step();
        for time in 1..=turn.times {
            let answer = caller::make(&call, house);
            let (record, notes) = house.record(answer.as_ref().is_ok_and(Option::is_some));
            let (seen, tried) = self.town.take();
            let found = Found { answer: None, record, ran: house.ran(), seen, tried };
            self.reached.extend(found.route().map(str::to_owned));
            let (found, broken) = match answer {
                Ok(answer) => (Found { answer, ..found }, None),
                Err(error) => (found, Some(format!("the answer can not be read: {}", words(&error)))),
            };
            let expect = turn.expect.filter(|_| broken.is_none());
            let misses = expect.map(|it| judge::judge(it, &found, &self.ground.names, &house.snapshot));
            let nth =
                if turn.times > 1 { format!("request {time} of {}: ", turn.times) } else { String::new() };
            let misses = misses.into_iter().flatten();
            let mut told: Vec<(String, String)> = misses
                .map(|Miss { path, expected, found }| {
                    let path = format!("{step}expect.{path}");
                    let text = format!("{nth}{path}: expected {expected}, found {found}");
                    (path, text)
                })
                .collect();
            told.extend(broken.map(|why| (format!("{step}request"), format!("{nth}{step}request: {why}"))));
            if !told.is_empty() {
                told.extend(
                    notes
                        .into_iter()
                        .map(|note| (format!("{step}request"), format!("the gateway said: {note}"))),
                );
                return Ok(told);
            }
        }
        Ok(Vec::new())
    }
}

/// What ended an answer before its end.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("nothing came within {} s", house::PATIENCE.as_secs())
        }
        _ => error.to_string(),
    }
}

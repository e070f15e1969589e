//! What came of tests, for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Report;

/// Routes that are named as never reached.
const NAMED_MAX: usize = 20;

/// How it is told.
pub(super) struct Style {
    pub(super) is_coloured: bool,
    /// Cases that pass are not told.
    pub(super) is_quiet: bool,
}

impl Style {
    fn paint(&self, colour: u8, text: &str) -> String {
        if self.is_coloured { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

const RED: u8 = 31;
const GREEN: u8 = 32;

/// All of it.
pub(super) fn text(reports: &[Report], style: &Style) -> String {
    let mut out = String::new();
    for report in reports {
        // Writing to a String can not fail.
        let _ = writeln!(out, "{}", report.file);
        for fault in &report.faults {
            let _ = writeln!(out, "  {}  {fault}", style.paint(RED, "FAULT"));
        }
        for verdict in &report.verdicts {
            if verdict.failures.is_empty() {
                if !style.is_quiet {
                    let _ = writeln!(out, "  {}  {}", style.paint(GREEN, "pass"), verdict.name);
                }
                continue;
            }
            let _ = writeln!(out, "  {}  {}", style.paint(RED, "FAIL"), verdict.name);
            for (position, failure) in &verdict.failures {
                let place = position.map_or_else(String::new, |position| format!(":{position}"));
                let _ = writeln!(out, "        {}{place}: {failure}", report.file);
            }
        }
        let missed: Vec<&String> = report.routes.difference(&report.reached).collect();
        if report.faults.is_empty() && report.left_out == 0 && !missed.is_empty() {
            let named: Vec<&str> = missed.iter().take(NAMED_MAX).map(|route| route.as_str()).collect();
            let more = missed.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = writeln!(out, "  routes that no request reached: {}{more}", named.join(", "));
        }
    }
    out + &sum(reports, style)
}

fn sum(reports: &[Report], style: &Style) -> String {
    let tried: usize = reports.iter().map(|report| report.verdicts.len()).sum();
    let failed: usize = reports.iter().map(Report::failed).sum();
    let faulty = reports.iter().filter(|report| !report.faults.is_empty()).count();
    let left_out: usize = reports.iter().map(|report| report.left_out).sum();
    let mut parts = vec![format!("{} passed", tried - failed), format!("{failed} failed")];
    if faulty > 0 {
        parts.push(format!("{faulty} {} with faults", if faulty == 1 { "file" } else { "files" }));
    }
    if left_out > 0 {
        parts.push(format!("{left_out} left out"));
    } else {
        let (routes, reached) = counts(reports);
        parts.push(format!("{reached} of {routes} routes reached"));
    }
    let colour = if failed + faulty > 0 { RED } else { GREEN };
    style.paint(colour, &parts.join(", ")) + "\n"
}

/// Routes there are, and those that were reached.
fn counts(reports: &[Report]) -> (usize, usize) {
    let reached = |report: &Report| -> BTreeSet<String> {
        report.routes.intersection(&report.reached).cloned().collect()
    };
    let routes = reports.iter().map(|report| report.routes.len()).sum();
    (routes, reports.iter().map(|report| reached(report).len()).sum())
}

/// Percent of the routes that were reached; all, where there are none.
pub(super) fn coverage(reports: &[Report]) -> f64 {
    let (routes, reached) = counts(reports);
    if routes == 0 { 100.0 } else { reached as f64 * 100.0 / routes as f64 }
}

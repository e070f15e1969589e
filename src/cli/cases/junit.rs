//! What came of tests in the form of JUnit's reports, which every server for continuous integration reads.

use std::fmt::Write as _;

use super::Report;

/// The document.
pub(super) fn document(reports: &[Report]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let (file, faults) = (quoted(&report.file), usize::from(!report.faults.is_empty()));
        // Writing to a String can not fail.
        let _ = writeln!(
            out,
            "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{}\" errors=\"{faults}\">",
            report.verdicts.len() + faults,
            report.failed(),
        );
        if faults > 0 {
            let _ = writeln!(out, "    <testcase classname=\"{file}\" name=\"(the file)\" file=\"{file}\">");
            let _ = writeln!(
                out,
                "      <error message=\"{}\">{}</error>\n    </testcase>",
                quoted(report.faults.first().map_or("", String::as_str)),
                quoted(&report.faults.join("\n")),
            );
        }
        for verdict in &report.verdicts {
            let line =
                verdict.position.map_or_else(String::new, |position| format!(" line=\"{}\"", position.line));
            let name = quoted(&verdict.name);
            let _ = write!(out, "    <testcase classname=\"{file}\" name=\"{name}\" file=\"{file}\"{line}");
            let Some((_, first)) = verdict.failures.first() else {
                out.push_str("/>\n");
                continue;
            };
            let lines: Vec<String> = verdict
                .failures
                .iter()
                .map(|(position, failure)| {
                    let place = position.map_or_else(String::new, |position| format!(":{position}"));
                    format!("{}{place}: {failure}", report.file)
                })
                .collect();
            let (first, all) = (quoted(first), quoted(&lines.join("\n")));
            let _ = writeln!(out, ">\n      <failure message=\"{first}\">{all}</failure>\n    </testcase>");
        }
        out.push_str("  </testsuite>\n");
    }
    out + "</testsuites>\n"
}

/// A text as XML has it; what XML can not have becomes `?`.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push(c),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_can_not_have_is_written_so_that_it_can() {
        assert_eq!(quoted("a<b> & \"c\"\n\x01é"), "a&lt;b&gt; &amp; &quot;c&quot;&#10;?é");
    }
}

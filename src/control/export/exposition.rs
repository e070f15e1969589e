//! The text format of metrics, version 0.0.4: a family's `# HELP` and `# TYPE`, then its samples.

use std::fmt::{Display, Write as _};

/// Of what kind a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A page being written.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    /// What names begin with that APISIX has as well.
    prefix: String,
}

impl Page {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { text: String::new(), prefix: prefix.to_owned() }
    }

    /// The name of a family that APISIX has as well.
    pub(crate) fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Opens a family. Its samples follow before the next family is opened.
    pub(crate) fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &str) -> Family<'a> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { page: self, name }
    }

    /// A family of one sample without labels.
    pub(crate) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample("", value);
    }

    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// A family being written.
#[derive(Debug)]
pub(crate) struct Family<'a> {
    page: &'a mut Page,
    name: &'a str,
}

impl Family<'_> {
    /// One line. `labels` are as between the braces.
    pub(crate) fn sample(&mut self, labels: &str, value: impl Display) -> &mut Self {
        let Self { page, name } = self;
        let _ = if labels.is_empty() {
            writeln!(page.text, "{name} {value}")
        } else {
            writeln!(page.text, "{name}{{{labels}}} {value}")
        };
        self
    }

    /// The lines of one histogram. `counts` are per bucket, the last one that beyond all bounds; printed they
    /// are cumulative. `scale` divides the bounds into the printed unit, as `sum` is already.
    pub(crate) fn histogram(&mut self, labels: &str, bounds: &[u64], scale: u64, counts: &[u64], sum: f64) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (at, count) in counts.iter().enumerate() {
            below += count;
            let Self { page, name } = &mut *self;
            let _ = match bounds.get(at) {
                Some(bound) => {
                    let le = *bound as f64 / scale as f64;
                    writeln!(page.text, "{name}_bucket{{{labels}{comma}le=\"{le}\"}} {below}")
                }
                None => writeln!(page.text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {below}"),
            };
        }
        let Self { page, name } = self;
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        let _ = writeln!(page.text, "{name}_sum{open}{labels}{close} {sum}");
        let _ = writeln!(page.text, "{name}_count{open}{labels}{close} {below}");
    }
}

/// A label's value as it may stand between quotes.
pub(crate) fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_with_infinity() {
        let mut page = Page::new("apisix_");
        page.family("lag_seconds", Kind::Histogram, "How late.").histogram(
            "core=\"0\"",
            &[100, 250_000],
            1_000_000,
            &[2, 3, 1],
            0.5,
        );
        assert_eq!(
            page.finish(),
            "# HELP lag_seconds How late.\n# TYPE lag_seconds histogram\n\
             lag_seconds_bucket{core=\"0\",le=\"0.0001\"} 2\n\
             lag_seconds_bucket{core=\"0\",le=\"0.25\"} 5\n\
             lag_seconds_bucket{core=\"0\",le=\"+Inf\"} 6\n\
             lag_seconds_sum{core=\"0\"} 0.5\n\
             lag_seconds_count{core=\"0\"} 6\n"
        );
    }

    #[test]
    fn a_sample_without_labels_has_no_braces() {
        let mut page = Page::new("apisix_");
        page.single("up", Kind::Gauge, "Whether.", 1);
        assert_eq!(page.finish(), "# HELP up Whether.\n# TYPE up gauge\nup 1\n");
    }

    #[test]
    fn label_values_can_not_leave_their_quotes() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}

//! What is wrong with a piece of configuration: which object, which field, what was expected and found.

use std::fmt;

use super::path;

/// One fault. Faults are collected, never reported one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The object as `kind/id`, such as `routes/7`; empty when the fault is not in an object.
    pub object: String,
    /// The field, dotted from the object, such as `plugins.limit-count.count`; empty for the whole object.
    pub path: String,
    /// What was expected and what was found.
    pub problem: String,
    /// Whether something is awaited that ends the fault without a change of the object.
    pub may_pass: bool,
}

impl ConfigError {
    /// A fault of the whole value at hand; callers further out say where it lies.
    pub fn new(problem: impl Into<String>) -> Self {
        Self { object: String::new(), path: String::new(), problem: problem.into(), may_pass: false }
    }

    /// A fault of one field.
    pub fn at(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { object: String::new(), path: path.into(), problem: problem.into(), may_pass: false }
    }

    /// Something is awaited that may end it.
    #[must_use]
    pub fn that_may_pass(mut self) -> Self {
        self.may_pass = true;
        self
    }

    /// Names the object it was found in.
    #[must_use]
    pub fn in_object(mut self, object: impl Into<String>) -> Self {
        self.object = object.into();
        self
    }

    /// Puts an outer field before the path.
    #[must_use]
    pub fn under(mut self, outer: &str) -> Self {
        self.path = match self.path.as_bytes().first() {
            None => outer.to_owned(),
            Some(b'[') => format!("{outer}{}", self.path),
            Some(_) => format!("{outer}.{}", self.path),
        };
        self
    }

    /// The field as a JSON pointer (RFC 6901) into the object, for clients that mark it.
    pub fn pointer(&self) -> String {
        path::pointer(&self.path)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.object, &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::ConfigError;

    #[test]
    fn it_reads_from_the_outside_in() {
        let error = ConfigError::at("count", "expected a whole number above 0, got \"ten\"")
            .under("limit-count")
            .under("plugins")
            .in_object("routes/7");
        assert_eq!(
            error.to_string(),
            "routes/7: plugins.limit-count.count: expected a whole number above 0, got \"ten\""
        );
    }
}

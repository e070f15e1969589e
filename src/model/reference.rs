//! Texts that refer to a value kept elsewhere, and the values in their place: `$env://NAME` in the environment,
//! `$file:///PATH` in a file, `$secret://MANAGER/ID/PATH/KEY` in a store of secrets.
//!
//! A text is a reference as a whole or not at all. What it stands for is a secret: it is put into a copy that only a
//! plugin reads, and a fault of that copy is told with the reference in its place, see [`Filled::discreet`].

use serde_json::Value;

use super::ConfigError;
use super::path::{Step, render};
use super::substitute::Lookup;

const ENV: &str = "$env://";
const FILE: &str = "$file://";
const SECRET: &str = "$secret://";

/// A reference, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// A variable, and where in it, if it is JSON.
    Env { name: &'a str, inner: &'a str },
    /// A file, by its path from the root.
    File { path: &'a str },
    /// A store of secrets by its id, `vault/1`; what is asked of it, and the field of the answer.
    Secret { store: &'a str, path: &'a str, key: &'a str },
}

impl<'a> Reference<'a> {
    /// Reads a text that [`is_reference`].
    ///
    /// # Errors
    /// What was expected.
    pub fn of(text: &'a str) -> Result<Self, String> {
        if let Some(rest) = behind(text, ENV) {
            let (name, inner) = rest.split_once('/').unwrap_or((rest, ""));
            let named = (!name.is_empty()).then_some(Self::Env { name, inner });
            return named.ok_or_else(|| format!("expected $env://NAME, got {text}"));
        }
        if let Some(path) = behind(text, FILE) {
            // A step upwards is no way to a file below a folder, and would tell what is beside it.
            let is_whole = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
            let is_path = is_whole && path.split('/').all(|part| !matches!(part, "." | ".."));
            return is_path
                .then_some(Self::File { path })
                .ok_or_else(|| format!("expected $file:// and a path from the root, got {text}"));
        }
        let expected = || format!("expected $secret://MANAGER/ID/PATH/KEY, got {text}");
        let rest = behind(text, SECRET).ok_or_else(expected)?;
        let manager = rest.find('/').ok_or_else(expected)?;
        let id = rest.get(manager + 1..).and_then(|rest| rest.find('/')).ok_or_else(expected)?;
        let (store, rest) = (&rest[..manager + 1 + id], &rest[manager + id + 2..]);
        let (path, key) = rest.rsplit_once('/').ok_or_else(expected)?;
        // A step upwards would leave what the store's prefix allows.
        let is_path = !path.is_empty() && path.split('/').all(|part| !matches!(part, "." | ".."));
        if manager == 0 || id == 0 || key.is_empty() || !is_path {
            return Err(expected());
        }
        Ok(Self::Secret { store, path, key })
    }
}

/// Whether a text refers to a value kept elsewhere.
pub fn is_reference(text: &str) -> bool {
    behind(text, ENV).is_some() || behind(text, FILE).is_some() || text.starts_with(SECRET)
}

/// What comes behind a prefix, in letters of either case.
fn behind<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Whether a value has a reference in it, at any depth.
pub fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => is_reference(text),
        Value::Array(items) => items.iter().any(has_reference),
        Value::Object(fields) => fields.values().any(has_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What a variable of the environment says, or a place in it.
///
/// # Errors
/// Why it says nothing; without its value.
pub fn of_env(name: &str, inner: &str, env: Lookup<'_>) -> Result<Value, String> {
    let text = env(name).ok_or_else(|| format!("the variable {name} is not set"))?;
    if inner.is_empty() {
        return usable(Value::String(text)).ok_or_else(|| format!("the variable {name} is empty"));
    }
    let value: Value = serde_json::from_str(&text).map_err(|_| format!("the variable {name} is not JSON"))?;
    let found = inside(&value, inner).cloned().and_then(usable);
    found.ok_or_else(|| format!("the variable {name} has no value at {inner}"))
}

/// A field by its name, slashes and all, else by the steps that lead to it.
fn inside<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    value.get(path).or_else(|| path.split('/').try_fold(value, |at, step| at.get(step)))
}

/// A value that may stand for something: an empty key would let in whoever shows none.
pub fn usable(value: Value) -> Option<Value> {
    let is_empty = matches!(&value, Value::Null) || value.as_str() == Some("");
    (!is_empty).then_some(value)
}

/// A value whose references were replaced by what they stand for.
pub struct Filled {
    pub value: Value,
    /// Where a reference stood, and which.
    places: Vec<(String, String)>,
    /// What was put there, as text.
    secrets: Vec<String>,
}

/// Replaces every reference in a value.
///
/// # Errors
/// A fault for each that there is no value for, at its place.
pub fn fill(
    value: &Value,
    ask: &mut dyn FnMut(&str) -> Result<Value, ConfigError>,
) -> Result<Filled, Vec<ConfigError>> {
    let mut filled = Filled { value: value.clone(), places: Vec::new(), secrets: Vec::new() };
    let (mut place, mut faults) = (Vec::new(), Vec::new());
    each(value, &mut place, &mut |place, text| match ask(text) {
        Ok(found) => {
            filled.places.push((render(place.iter().copied()), text.to_owned()));
            filled.secrets.push(found.as_str().map_or_else(|| found.to_string(), str::to_owned));
            if let Some(at) = place.iter().try_fold(&mut filled.value, step_in) {
                *at = found;
            }
        }
        Err(fault) => faults.push(fault.under(&render(place.iter().copied()))),
    });
    if faults.is_empty() { Ok(filled) } else { Err(faults) }
}

fn step_in<'a>(value: &'a mut Value, step: &Step<'_>) -> Option<&'a mut Value> {
    match step {
        Step::Key(key) => value.get_mut(*key),
        Step::Index(index) => value.get_mut(*index),
    }
}

fn each<'a>(value: &'a Value, place: &mut Vec<Step<'a>>, take: &mut dyn FnMut(&[Step<'a>], &'a str)) {
    match value {
        Value::String(text) if is_reference(text) => take(place, text),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                place.push(Step::Index(index));
                each(item, place, take);
                place.pop();
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                place.push(Step::Key(name));
                each(field, place, take);
                place.pop();
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Filled {
    /// [`Self::discreet`] for a fault of a value that this one is in, at `under`.
    #[must_use]
    pub fn discreet_under(&self, under: &str, fault: ConfigError) -> ConfigError {
        let Some(inner) = fault.path.strip_prefix(under) else { return fault };
        if !(inner.is_empty() || inner.starts_with(['.', '['])) {
            return fault;
        }
        let inner = inner.strip_prefix('.').unwrap_or(inner).to_owned();
        self.discreet(ConfigError { path: inner, ..fault }).under(under)
    }

    /// A fault of the filled value as it may be told: what was put in is not shown.
    #[must_use]
    pub fn discreet(&self, fault: ConfigError) -> ConfigError {
        let concerned = self.places.iter().find(|(place, _)| is_within(place, &fault.path));
        // What is quoted is escaped, and cut when it is long, so any trace of a value counts.
        let shows = || self.secrets.iter().any(|secret| is_traced(&fault.problem, secret));
        let (expected, _) = fault.problem.split_once(", got ").unwrap_or((&fault.problem, ""));
        let problem = match concerned {
            None if !shows() => return fault,
            None => "does not hold with what its references stand for, which is not shown".to_owned(),
            Some((_, reference)) if self.secrets.iter().any(|secret| is_traced(expected, secret)) => {
                format!("does not hold with what {reference} stands for, which is not shown")
            }
            Some((_, reference)) => {
                format!("{expected}, got what {reference} stands for, which is not shown")
            }
        };
        ConfigError { problem, ..fault }
    }
}

/// Whether one place is inside the other, or the same.
fn is_within(one: &str, other: &str) -> bool {
    let (shorter, longer) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let rest = longer.strip_prefix(shorter);
    rest.is_some_and(|rest| shorter.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Whether a text shows a part of a secret that could be told from chance.
fn is_traced(text: &str, secret: &str) -> bool {
    const TELLING: usize = 4;
    let start = secret.char_indices().nth(TELLING).map_or(secret, |(end, _)| &secret[..end]);
    text.contains(start)
}

/// Faults of a value in which references were left standing, but for those at references: of these it can only be
/// said later whether they fit.
pub fn beside_references(value: &Value, mut faults: Vec<ConfigError>) -> Vec<ConfigError> {
    let mut places = Vec::new();
    each(value, &mut Vec::new(), &mut |place, _| places.push(render(place.iter().copied())));
    faults.retain(|fault| !places.iter().any(|place| is_within(place, &fault.path)));
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_is_taken_apart_and_half_of_one_is_refused() {
        let of = |text| Reference::of(text).map_err(|problem| problem.split(", got").count());
        assert_eq!(of("$env://A"), Ok(Reference::Env { name: "A", inner: "" }));
        assert_eq!(of("$ENV://A/b/c"), Ok(Reference::Env { name: "A", inner: "b/c" }));
        let (store, path, key) = ("vault/1", "apisix/jack", "auth-key");
        assert_eq!(of("$secret://vault/1/apisix/jack/auth-key"), Ok(Reference::Secret { store, path, key }));
        assert_eq!(of("$file:///run/secrets/a b"), Ok(Reference::File { path: "/run/secrets/a b" }));
        for bad in [
            "$file://",
            "$file:///",
            "$file://run/secrets/a",
            "$file:///run/secrets/../a",
            "$file:///run/secrets/\0",
            "$env://",
            "$env:///a",
            "$secret://",
            "$secret://vault",
            "$secret://vault/1",
            "$secret://vault/1/key",
            "$secret://vault//path/key",
            "$secret:///1/path/key",
            "$secret://vault/1/path/",
            "$secret://vault/1//key",
            "$secret://vault/1/../sys/key",
        ] {
            assert_eq!(of(bad), Err(2), "{bad}");
        }
        assert!(is_reference("$Env://A") && !is_reference("$envv://A") && !is_reference("x $env://A"));
        assert!(!is_reference("$SECRET://vault/1/a/b") && !is_reference("$en"));
    }

    #[test]
    fn a_variable_is_text_or_a_place_in_json_and_never_empty() {
        let env = |name: &str| match name {
            "TEXT" => Some("t".to_owned()),
            "JSON" => Some(r#"{"a":{"b":"deep"},"a/b/c":"flat","n":7,"none":null}"#.to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let of = |name, inner| of_env(name, inner, &env);
        assert_eq!(of("TEXT", ""), Ok(json!("t")));
        assert_eq!((of("JSON", "a/b"), of("JSON", "a/b/c")), (Ok(json!("deep")), Ok(json!("flat"))));
        assert_eq!(of("JSON", "n"), Ok(json!(7)));
        for (name, inner, problem) in [
            ("NONE", "", "the variable NONE is not set"),
            ("EMPTY", "", "the variable EMPTY is empty"),
            ("TEXT", "a", "the variable TEXT is not JSON"),
            ("JSON", "none", "the variable JSON has no value at none"),
            ("JSON", "a/x", "the variable JSON has no value at a/x"),
        ] {
            assert_eq!(of(name, inner), Err(problem.to_owned()));
        }
    }

    #[test]
    fn what_was_put_in_is_never_told() {
        let config = json!({"a": {"b": ["x", "$env://LONG"]}, "c": 1});
        let long = "s3cret".repeat(40);
        let filled = fill(&config, &mut |_| Ok(json!(long))).map_err(drop).expect("all is known");
        assert_eq!(filled.value["a"]["b"][1], json!(long));
        let told = |path: &str, problem: String| {
            let told = filled.discreet(ConfigError::at(path, problem)).to_string();
            assert!(!told.contains("s3cre"), "{told}");
            told
        };
        assert_eq!(
            told("a.b[1]", format!("expected a number, got {:?}", &long[..20])),
            "a.b[1]: expected a number, got what $env://LONG stands for, which is not shown"
        );
        told("a", format!("expected an object, got {config}").replace("$env://LONG", &long));
        told("", format!("strange: {long}"));
        told("a.b[1]", format!("strange: {long}"));
        assert_eq!(told("c", "expected text, got 1".to_owned()), "c: expected text, got 1");
        told("c", format!("expected {long}, got 1"));
    }

    #[test]
    fn each_reference_without_a_value_is_a_fault_at_its_place() {
        let config = json!({"a": ["$env://A"], "b.c": "$env://B", "d": "plain"});
        let faults = fill(&config, &mut |text| Err(ConfigError::new(text))).err().unwrap_or_default();
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["a[0]: $env://A", "[\"b.c\"]: $env://B"]);
        let beside = ["a[0]", "a", "d", ""].map(|path| ConfigError::at(path, "x")).to_vec();
        let left: Vec<String> = beside_references(&config, beside).into_iter().map(|f| f.path).collect();
        assert_eq!(left, ["d"]);
    }
}

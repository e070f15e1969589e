//! Rules over variables, `[["arg_x", "==", "1"], ...]`, compiled to a small tree.
//!
//! Asking a rule allocates nothing: texts are compared in place, patterns and address lists were built before.
//! Stricter than APISIX where it would accept a rule that can never mean what it says: an operator with a value
//! of the wrong kind is a fault here, and silently false there.

mod why;

use std::fmt;
use std::net::IpAddr;

use serde_json::Value;

use super::pattern::{Pattern, compile_regex};
use super::var::{Var, Vars};
use crate::base::address;
use crate::base::cidr::{Cidr, CidrSet};
use crate::base::hash::Set;

pub use self::why::{Unmet, condition_at};

/// Deepest nesting of a rule, which is also how deep compiling and asking recurse.
pub const RULE_DEPTH_MAX: usize = 16;

/// Up to this many texts, looking at each is quicker than hashing.
const IN_LINEAR_MAX: usize = 8;

/// A condition on variables; the empty one always holds.
#[derive(Clone, Debug)]
pub struct Rule {
    root: Node,
    remarks: Box<[String]>,
}

/// Why a rule is refused, in the words APISIX uses where it refuses it, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError(String);

/// A value in a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// Asks whether a variable is unset.
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<[u8]>),
}

#[derive(Clone, Debug)]
enum Node {
    Group { any: bool, negated: bool, nodes: Box<[Self]> },
    Test { var: Var, negated: bool, check: Check },
}

#[derive(Clone, Debug)]
enum Check {
    Equals(Literal),
    Differs(Literal),
    Orders(Order, f64),
    Finds(Pattern),
    In(Texts),
    Has(Literal),
    IpIn(CidrSet),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Above,
    AtLeast,
    Below,
    AtMost,
}

#[derive(Clone, Debug)]
enum Texts {
    Few(Box<[Box<[u8]>]>),
    Many(Set<Box<[u8]>>),
}

impl Rule {
    /// The rule that always holds, as `[]` does.
    pub fn always() -> Self {
        Self { root: Node::all(Vec::new()), remarks: Box::default() }
    }

    /// Reads a rule as it stands in an object.
    pub fn compile(rule: &Value) -> Result<Self, RuleError> {
        let Value::Array(items) = rule else { return Err(RuleError::bare()) };
        let Some(first) = items.first() else { return Ok(Self::always()) };
        if !first.is_array() && logic(first).is_none() {
            return Err(RuleError::bare());
        }
        let mut remarks = Vec::new();
        let root = Node::compile(rule, 1, &mut remarks)?;
        Ok(Self { root, remarks: remarks.into() })
    }

    /// The rule that holds where both do.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self.is_always(), other.is_always()) {
            (_, true) => self,
            (true, false) => other,
            (false, false) => {
                let remarks = self.remarks.into_iter().chain(other.remarks).collect();
                Self { root: Node::all(vec![self.root, other.root]), remarks }
            }
        }
    }

    /// Whether it holds for these answers.
    pub fn holds<V: Vars + ?Sized>(&self, vars: &V) -> bool {
        self.root.holds(vars)
    }

    /// Whether it holds whatever the answers.
    pub fn is_always(&self) -> bool {
        matches!(&self.root, Node::Group { any: false, negated: false, nodes } if nodes.is_empty())
    }

    /// What it accepts but hardly can mean: variables nobody knows, numbers in a list of texts.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Calls `see` with every variable it asks for, in order, repeats included.
    pub fn each_var<'a>(&'a self, mut see: impl FnMut(&'a Var)) {
        self.root.each_var(&mut see);
    }
}

/// `(any, negated)` of a word that joins expressions.
fn logic(word: &Value) -> Option<(bool, bool)> {
    let word = word.as_str()?;
    let is = |name: &str| word.eq_ignore_ascii_case(name);
    match () {
        () if is("AND") => Some((false, false)),
        () if is("OR") => Some((true, false)),
        () if is("!AND") => Some((false, true)),
        () if is("!OR") => Some((true, true)),
        () => None,
    }
}

impl Node {
    fn all(nodes: Vec<Self>) -> Self {
        Self::Group { any: false, negated: false, nodes: nodes.into() }
    }

    fn compile(rule: &Value, depth: usize, remarks: &mut Vec<String>) -> Result<Self, RuleError> {
        if depth > RULE_DEPTH_MAX {
            return Err(RuleError(format!("rule is nested more than {RULE_DEPTH_MAX} levels deep")));
        }
        let Value::Array(items) = rule else { return Err(RuleError::invalid()) };
        let (first, behind) = items.split_first().ok_or_else(RuleError::short)?;
        let mut each = |items: &[Value]| -> Result<Vec<Self>, RuleError> {
            items.iter().map(|item| Self::compile(item, depth + 1, remarks)).collect()
        };
        if first.is_array() {
            return each(items).map(Self::all);
        }
        if let Some((any, negated)) = logic(first) {
            if behind.len() < 2 {
                return Err(RuleError::short());
            }
            return Ok(Self::Group { any, negated, nodes: each(behind)?.into() });
        }
        Self::compile_test(items, remarks)
    }

    fn compile_test(items: &[Value], remarks: &mut Vec<String>) -> Result<Self, RuleError> {
        let (name, negated, operator, value) = match items {
            [name, value] if !value.as_str().is_some_and(is_operator) => (name, false, "==", value),
            [name, operator, value] => (name, false, text_of(operator)?, value),
            [name, not, operator, value] => {
                if not.as_str() != Some("!") {
                    return Err(RuleError("bad 'not' expression".to_owned()));
                }
                (name, true, text_of(operator)?, value)
            }
            _ => return Err(RuleError::invalid()),
        };
        let var = Var::parse(name.as_str().ok_or_else(RuleError::invalid)?);
        if var.is_unknown() {
            remarks.push(format!("no variable is called '{var}', so it is always unset"));
        }
        let check = Check::compile(operator, value, &var, remarks)?;
        Ok(Self::Test { var, negated, check })
    }

    fn holds<V: Vars + ?Sized>(&self, vars: &V) -> bool {
        match self {
            Self::Group { any: true, negated, nodes } => {
                nodes.iter().any(|node| node.holds(vars)) != *negated
            }
            Self::Group { any: false, negated, nodes } => {
                nodes.iter().all(|node| node.holds(vars)) != *negated
            }
            Self::Test { var, negated, check } => check.holds(var, vars) != *negated,
        }
    }

    fn each_var<'a>(&'a self, see: &mut impl FnMut(&'a Var)) {
        match self {
            Self::Group { nodes, .. } => nodes.iter().for_each(|node| node.each_var(see)),
            Self::Test { var, .. } => see(var),
        }
    }
}

const OPERATORS: [&str; 11] = ["==", "~=", ">", ">=", "<", "<=", "~~", "~*", "in", "has", "ipmatch"];

fn is_operator(word: &str) -> bool {
    OPERATORS.iter().any(|operator| operator.eq_ignore_ascii_case(word))
}

fn text_of(operator: &Value) -> Result<&str, RuleError> {
    match operator {
        Value::String(text) => Ok(text),
        other => Err(RuleError(format!("invalid operator '{other}'"))),
    }
}

impl Check {
    fn compile(
        operator: &str,
        value: &Value,
        var: &Var,
        remarks: &mut Vec<String>,
    ) -> Result<Self, RuleError> {
        let known = OPERATORS.iter().find(|known| known.eq_ignore_ascii_case(operator)).copied();
        let literal = || {
            Literal::of(value).ok_or_else(|| expects(operator, "a string, number, boolean or null", value))
        };
        let order = |order| Ok(Self::Orders(order, number_in(operator, value)?));
        let find = |ignore_case| match value {
            Value::String(text) => compile_regex(text, ignore_case).map(Self::Finds).map_err(RuleError),
            other => Err(expects(operator, "a regular expression", other)),
        };
        match known {
            Some("==") => literal().map(Self::Equals),
            Some("~=") => literal().map(Self::Differs),
            Some(">") => order(Order::Above),
            Some(">=") => order(Order::AtLeast),
            Some("<") => order(Order::Below),
            Some("<=") => order(Order::AtMost),
            Some("~~") => find(false),
            Some("~*") => find(true),
            Some("has") => literal().map(Self::Has),
            Some("ipmatch") => ranges(value).map(Self::IpIn),
            Some("in") => {
                let Value::Array(items) = value else { return Err(expects(operator, "an array", value)) };
                let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
                if texts.len() < items.len() {
                    remarks.push(format!(
                        "'in' compares '{var}' with strings only; its other values never match"
                    ));
                }
                Ok(Self::In(Texts::of(&texts)))
            }
            _ => Err(RuleError(format!("invalid operator '{operator}'"))),
        }
    }

    fn holds<V: Vars + ?Sized>(&self, var: &Var, vars: &V) -> bool {
        if let Self::Has(member) = self {
            return vars.has(var, member);
        }
        let value = vars.var(var);
        let value = value.as_deref();
        match self {
            Self::Equals(literal) => literal.equals(var, value),
            Self::Differs(literal) => !literal.equals(var, value),
            Self::Orders(order, bound) => {
                value.and_then(number).is_some_and(|found| order.holds(found, *bound))
            }
            Self::Finds(regex) => value.is_some_and(|found| regex.is_match(found)),
            Self::In(texts) => value.is_some_and(|found| texts.contains(found)),
            Self::IpIn(ranges) => value.and_then(address).is_some_and(|found| ranges.contains(found)),
            Self::Has(_) => false,
        }
    }
}

impl Order {
    fn holds(self, found: f64, bound: f64) -> bool {
        match self {
            Self::Above => found > bound,
            Self::AtLeast => found >= bound,
            Self::Below => found < bound,
            Self::AtMost => found <= bound,
        }
    }
}

impl Literal {
    fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(value) => Some(Self::Bool(*value)),
            Value::Number(value) => value.as_f64().map(Self::Number),
            Value::String(value) => Some(Self::Text(value.as_bytes().into())),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// A number converts the variable, any other kind does not: `true` is never the word `true`.
    fn equals(&self, var: &Var, value: Option<&[u8]>) -> bool {
        match (self, value) {
            (Self::Null, value) => value.is_none(),
            (_, None) => false,
            (Self::Bool(expected), Some(value)) => {
                var.is_typed() && value == if *expected { b"true".as_slice() } else { b"false" }
            }
            (Self::Number(expected), Some(value)) => number(value) == Some(*expected),
            (Self::Text(expected), Some(value)) => **expected == *value,
        }
    }
}

impl Texts {
    fn of(texts: &[&str]) -> Self {
        let texts = texts.iter().map(|text| Box::from(text.as_bytes()));
        if texts.len() <= IN_LINEAR_MAX { Self::Few(texts.collect()) } else { Self::Many(texts.collect()) }
    }

    fn contains(&self, found: &[u8]) -> bool {
        match self {
            Self::Few(texts) => texts.iter().any(|text| **text == *found),
            Self::Many(texts) => texts.contains(found),
        }
    }
}

/// The number a text stands for, as Lua reads it: blanks around, decimal with exponent, or `0x` and hex digits.
/// Names of infinities are texts.
pub fn number(text: &[u8]) -> Option<f64> {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if let [b'0', b'x' | b'X', hex @ ..] = digits {
        let fits = !hex.is_empty() && hex.len() <= 16 && hex.iter().all(u8::is_ascii_hexdigit);
        let magnitude = fits.then(|| u64::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok())?? as f64;
        return Some(if negative { -magnitude } else { magnitude });
    }
    if !digits.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.') {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn address(text: &[u8]) -> Option<IpAddr> {
    if text == address::UNIX.as_bytes() {
        return Some(address::NO_ADDRESS.ip());
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn number_in(operator: &str, value: &Value) -> Result<f64, RuleError> {
    let found = match value {
        Value::Number(value) => value.as_f64(),
        Value::String(text) => number(text.as_bytes()),
        _ => None,
    };
    found.ok_or_else(|| expects(operator, "a number", value))
}

fn ranges(value: &Value) -> Result<CidrSet, RuleError> {
    let one = |value: &Value| value.as_str().and_then(|text| text.parse::<Cidr>().ok());
    let set = match value {
        Value::Array(items) if !items.is_empty() => items.iter().map(one).collect(),
        other => one(other).map(|cidr| [cidr].into_iter().collect()),
    };
    set.ok_or_else(|| RuleError("invalid ip address".to_owned()))
}

fn expects(operator: &str, what: &str, found: &Value) -> RuleError {
    RuleError(format!("operator '{operator}' expects {what}, got {found}"))
}

impl RuleError {
    fn bare() -> Self {
        Self("rule should be wrapped inside brackets".to_owned())
    }

    fn short() -> Self {
        Self("rule too short".to_owned())
    }

    fn invalid() -> Self {
        Self("invalid expression".to_owned())
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RuleError {}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;

//! Predicates in Lua, `function(vars) return vars.arg_name == "json" end`, read as rules.
//!
//! What is understood is what such functions nearly always say: one `return` of comparisons of variables with constants,
//! joined by `and`, `or` and `not`. Anything else is refused with the place and what to write in its stead; nothing is
//! ever run.
//!
//! ```text
//! or   := and { "or" and }         cmp  := side [ ("==" | "~=" | "<" | "<=" | ">" | ">=") side ]
//! and  := not { "and" not }        side := NAME "." word | NAME "[" text "]" | "tonumber" "(" side ")"
//! not  := "not" not | "(" or ")" | cmp         | text | number | "true" | "false" | "nil"
//! ```

use serde_json::{Value, json};

use super::rule::RULE_DEPTH_MAX;

/// Reads a predicate as the rule that says the same.
///
/// # Errors
/// Says what is not understood.
pub fn rule_of(text: &str) -> Result<Value, String> {
    let mut reader = Reader { words: words(text)?, at: 0, vars: String::new(), depth: 0 };
    let rule = reader.function()?;
    // The rule that always holds is a list without a condition; any other is one condition in a list.
    Ok(if rule == json!([]) { rule } else { json!([rule]) })
}

#[derive(Clone, Debug, PartialEq)]
enum Word {
    Name(String),
    Text(String),
    Number(f64),
    Sign(&'static str),
}

impl Word {
    fn shown(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::Text(text) => format!("'{text}'"),
            Self::Number(number) => number.to_string(),
            Self::Sign(sign) => (*sign).to_owned(),
        }
    }
}

/// One side of a comparison.
enum Side {
    /// A variable, and whether it is taken as a number.
    Var(String, bool),
    Constant(Value),
}

/// Longer ones first.
const SIGNS: [&str; 15] = ["==", "~=", "<=", ">=", "..", "<", ">", "(", ")", "[", "]", ".", ",", ";", ":"];

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, behind) = if first.is_ascii_alphabetic() || first == '_' {
            let (name, behind) = split(rest, |char| char.is_ascii_alphanumeric() || char == '_');
            (Word::Name(name.to_owned()), behind)
        } else if first.is_ascii_digit() {
            let (digits, behind) = split(rest, |char| char.is_ascii_digit() || char == '.');
            let number = digits.parse().map_err(|_| format!("expected a number, got {digits}"))?;
            (Word::Number(number), behind)
        } else if first == '\'' || first == '"' {
            let (inside, behind) =
                rest[1..].split_once(first).ok_or_else(|| format!("a text is not closed: {rest}"))?;
            if inside.contains(['\\', '\n']) {
                return Err(format!("expected a text without escapes, got {first}{inside}{first}"));
            }
            (Word::Text(inside.to_owned()), behind)
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign = sign.ok_or_else(|| format!("{first} is not understood"))?;
            (Word::Sign(sign), &rest[sign.len()..])
        };
        words.push(word);
        rest = behind.trim_start();
    }
    Ok(words)
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|char| !belongs(char)).unwrap_or(text.len()))
}

struct Reader {
    words: Vec<Word>,
    at: usize,
    /// What the function calls its argument.
    vars: String,
    depth: usize,
}

impl Reader {
    fn peek(&self) -> Option<&Word> {
        self.words.get(self.at)
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Word::Name(word)) if word == name);
        self.at += usize::from(is_it);
        is_it
    }

    fn takes_sign(&mut self, sign: &str) -> bool {
        let is_it = matches!(self.peek(), Some(Word::Sign(word)) if *word == sign);
        self.at += usize::from(is_it);
        is_it
    }

    fn wants(&self, expected: &str) -> String {
        let found = self.peek().map_or_else(|| "the end".to_owned(), Word::shown);
        format!("expected {expected}, got {found}")
    }

    fn sign(&mut self, sign: &str) -> Result<(), String> {
        if self.takes_sign(sign) { Ok(()) } else { Err(self.wants(sign)) }
    }

    fn name(&mut self, expected: &str) -> Result<String, String> {
        match self.peek() {
            Some(Word::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.wants(expected)),
        }
    }

    fn function(&mut self) -> Result<Value, String> {
        if !self.takes_name("function") {
            return Err(self.wants("function"));
        }
        self.sign("(")?;
        self.vars = self.name("the name of its one argument")?;
        self.sign(")")?;
        if !self.takes_name("return") {
            return Err(self.wants("one return, and nothing before it"));
        }
        let rule = self.any()?;
        self.takes_sign(";");
        if !self.takes_name("end") {
            return Err(self.wants("end"));
        }
        if self.at < self.words.len() { Err(self.wants("nothing behind end")) } else { Ok(rule) }
    }

    fn any(&mut self) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > RULE_DEPTH_MAX {
            return Err(format!("expected conditions nested at most {RULE_DEPTH_MAX} deep"));
        }
        let mut rules = vec![self.all()?];
        while self.takes_name("or") {
            rules.push(self.all()?);
        }
        self.depth -= 1;
        Ok(joined("OR", rules))
    }

    fn all(&mut self) -> Result<Value, String> {
        let mut rules = vec![self.negated()?];
        while self.takes_name("and") {
            rules.push(self.negated()?);
        }
        Ok(joined("AND", rules))
    }

    fn negated(&mut self) -> Result<Value, String> {
        let mut is_negated = false;
        while self.takes_name("not") {
            is_negated = !is_negated;
        }
        let rule = if self.takes_sign("(") {
            let rule = self.any()?;
            self.sign(")")?;
            rule
        } else {
            self.comparison()?
        };
        match is_negated {
            false => Ok(rule),
            true if rule == json!([]) => Err("it never holds: `status: 0` says so".to_owned()),
            true => Ok(opposite(rule)),
        }
    }

    fn comparison(&mut self) -> Result<Value, String> {
        let left = self.side()?;
        let signs = ["==", "~=", "<=", ">=", "<", ">"];
        let Some(sign) = signs.into_iter().find(|sign| self.takes_sign(sign)) else {
            return match left {
                Side::Var(name, false) => Ok(json!([name, "~=", null])),
                Side::Constant(Value::Bool(true)) => Ok(json!([])),
                Side::Constant(Value::Bool(false)) => Err("it never holds: `status: 0` says so".to_owned()),
                Side::Var(..) | Side::Constant(_) => Err(self.wants("a comparison")),
            };
        };
        let right = self.side()?;
        let (name, is_number, sign, constant) = match (left, right) {
            (Side::Var(name, is_number), Side::Constant(constant)) => (name, is_number, sign, constant),
            (Side::Constant(constant), Side::Var(name, is_number)) => {
                (name, is_number, mirrored(sign), constant)
            }
            _ => return Err("expected a variable compared with a constant".to_owned()),
        };
        match (&constant, is_number) {
            (Value::Number(_), false) => {
                Err(format!("a variable is text: write tonumber({}.{name}), or '{constant}'", self.vars))
            }
            (Value::String(_), false) if sign != "==" && sign != "~=" => {
                Err(format!("texts are not ordered: write tonumber({}.{name}) and a number", self.vars))
            }
            (Value::Number(_), true) | (Value::String(_) | Value::Null, false) => {
                ordered(name, sign, constant)
            }
            _ => Err(format!("expected {name} compared with a text, a number or nil, got {constant}")),
        }
    }

    fn side(&mut self) -> Result<Side, String> {
        let Some(word) = self.peek().cloned() else { return Err(self.wants("a variable or a constant")) };
        self.at += 1;
        match word {
            Word::Text(text) => Ok(Side::Constant(text.into())),
            Word::Number(number) => Ok(Side::Constant(number_of(number))),
            Word::Name(name) if name == self.vars => {
                if self.takes_sign(".") {
                    return Ok(Side::Var(self.name("the name of a variable")?, false));
                }
                self.sign("[")?;
                let Some(Word::Text(variable)) = self.peek().cloned() else {
                    return Err(self.wants("the name of a variable as text"));
                };
                self.at += 1;
                self.sign("]")?;
                Ok(Side::Var(variable, false))
            }
            Word::Name(name) => match name.as_str() {
                "true" => Ok(Side::Constant(true.into())),
                "false" => Ok(Side::Constant(false.into())),
                "nil" => Ok(Side::Constant(Value::Null)),
                "tonumber" => {
                    self.sign("(")?;
                    let Side::Var(variable, _) = self.side()? else { return Err(self.wants("a variable")) };
                    self.sign(")")?;
                    Ok(Side::Var(variable, true))
                }
                _ => Err(format!("{name} is not understood")),
            },
            Word::Sign(sign) => Err(format!("expected a variable or a constant, got {sign}")),
        }
    }
}

fn number_of(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 { json!(number as i64) } else { json!(number) }
}

fn mirrored(sign: &'static str) -> &'static str {
    match sign {
        "<" => ">",
        ">" => "<",
        "<=" => ">=",
        ">=" => "<=",
        same => same,
    }
}

fn ordered(name: String, sign: &str, constant: Value) -> Result<Value, String> {
    if constant.is_null() && sign != "==" && sign != "~=" {
        return Err("nil is not ordered".to_owned());
    }
    Ok(json!([name, sign, constant]))
}

/// The rule that holds where this one does not.
fn opposite(rule: Value) -> Value {
    let Value::Array(mut parts) = rule else { return rule };
    match parts.first().and_then(Value::as_str) {
        Some(word @ ("AND" | "OR")) => parts[0] = format!("!{word}").into(),
        Some("!AND") => parts[0] = "AND".into(),
        Some("!OR") => parts[0] = "OR".into(),
        // Of a condition, `name, "!", sign, constant`.
        _ if parts.len() == 4 => drop(parts.remove(1)),
        _ => parts.insert(1, "!".into()),
    }
    Value::Array(parts)
}

fn joined(word: &str, mut rules: Vec<Value>) -> Value {
    if rules.len() == 1 {
        return rules.remove(0);
    }
    let always = json!([]);
    if word == "OR" && rules.contains(&always) {
        return always;
    }
    rules.retain(|rule| *rule != always);
    match rules.len() {
        0 => always,
        1 => rules.remove(0),
        _ => std::iter::once(word.into()).chain(rules).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expr::Rule;

    fn check(body: &str, expected: Value) {
        let rule = rule_of(&format!("function(vars) return {body} end"))
            .unwrap_or_else(|why| panic!("{body}: {why}"));
        assert_eq!(rule, expected, "{body}");
        Rule::compile(&rule).unwrap_or_else(|why| panic!("{body}: {why:?}"));
    }

    #[test]
    fn comparisons_are_conditions() {
        check("vars.arg_name == 'json'", json!([["arg_name", "==", "json"]]));
        check("vars['http_x_a'] ~= \"b\"", json!([["http_x_a", "~=", "b"]]));
        check("'json' == vars.arg_name", json!([["arg_name", "==", "json"]]));
        check("tonumber(vars.arg_n) >= 5", json!([["arg_n", ">=", 5]]));
        check("1.5 < tonumber(vars.arg_n);", json!([["arg_n", ">", 1.5]]));
        check("vars.cookie_a == nil", json!([["cookie_a", "==", null]]));
        check("vars.cookie_a", json!([["cookie_a", "~=", null]]));
        check("true", json!([]));
    }

    #[test]
    fn and_binds_before_or_and_not_before_both() {
        let (a, b, c) = (json!(["a", "==", "1"]), json!(["b", "==", "2"]), json!(["c", "~=", null]));
        check("vars.a == '1' and vars.b == '2'", json!([["AND", a, b]]));
        check("vars.a == '1' or vars.b == '2' and vars.c", json!([["OR", a, ["AND", b, c]]]));
        check("(vars.a == '1' or vars.b == '2') and vars.c", json!([["AND", ["OR", a, b], c]]));
        check("not vars.c and vars.a == '1'", json!([["AND", ["c", "!", "~=", null], a]]));
        check("not not vars.c", json!([c]));
        check("not (vars.a == '1' or vars.b == '2')", json!([["!OR", a, b]]));
        check("true and vars.c", json!([c]));
        check("vars.c or true", json!([]));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_it_is() {
        for (text, why) in [
            ("return true", "expected function, got return"),
            ("function() return true end", "expected the name of its one argument, got )"),
            ("function(vars) local a = 1 return a end", "= is not understood"),
            (
                "function(vars) if vars.a then return true end end",
                "expected one return, and nothing before it, got if",
            ),
            ("function(vars) return string.find(vars.a, 'b') end", "string is not understood"),
            ("function(vars) return vars.a == 1 end", "write tonumber(vars.a), or '1'"),
            ("function(vars) return vars.a < 'b' end", "texts are not ordered"),
            ("function(vars) return vars.a == vars.b end", "a variable compared with a constant"),
            ("function(vars) return vars.a == 'b", "a text is not closed"),
            ("function(vars) return vars.a == 'b' end end", "expected nothing behind end, got end"),
            ("function(vars) return false end", "it never holds"),
            ("function(vars) return vars.a == 'x\\'' end", "without escapes"),
            ("", "expected function, got the end"),
        ] {
            let error = rule_of(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        let deep = format!("function(v) return {}v.a{} end", "(".repeat(10_000), ")".repeat(10_000));
        assert!(rule_of(&deep).is_err());
    }
}

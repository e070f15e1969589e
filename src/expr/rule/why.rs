//! Why a rule does not hold: the conditions that made it so, each with what was found. Never asked on a core.

use serde_json::Value;

use super::{Node, Rule};
use crate::expr::{Var, Vars};

/// Conditions of one rule that are told, at most.
const UNMET_MAX: usize = 8;

/// A condition because of which a rule does not hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmet<'r> {
    /// The way to it from the outside: which of the conditions at each level.
    pub place: Vec<usize>,
    pub var: &'r Var,
    /// What the variable is; `None` when it is unset.
    pub found: Option<Vec<u8>>,
}

impl Rule {
    /// The conditions because of which it does not hold; none when it does. Of several that must all hold it is the
    /// first that does not; of several of which one must hold, all.
    pub fn unmet<V: Vars + ?Sized>(&self, vars: &V) -> Vec<Unmet<'_>> {
        let mut unmet = Vec::new();
        if !self.holds(vars) {
            self.root.explain(false, vars, &mut Vec::new(), &mut unmet);
        }
        unmet
    }
}

impl Node {
    /// Adds what made the node come to `outcome`, which it did.
    fn explain<'r, V: Vars + ?Sized>(
        &'r self,
        outcome: bool,
        vars: &V,
        place: &mut Vec<usize>,
        unmet: &mut Vec<Unmet<'r>>,
    ) {
        match self {
            Self::Test { var, .. } if unmet.len() < UNMET_MAX => {
                let found = vars.var(var).map(|value| value.into_owned());
                unmet.push(Unmet { place: place.clone(), var, found });
            }
            Self::Test { .. } => {}
            Self::Group { any, negated, nodes } => {
                let inner = outcome != *negated;
                // One is enough for `any` to hold, and for `all` not to.
                let one_decides = *any == inner;
                for (at, node) in nodes.iter().enumerate() {
                    if node.holds(vars) != inner {
                        continue;
                    }
                    place.push(at);
                    node.explain(inner, vars, place, unmet);
                    place.pop();
                    if one_decides {
                        return;
                    }
                }
            }
        }
    }
}

/// The condition at a place in a rule as it is written, and the way to it there.
pub fn condition_at<'v>(rule: &'v Value, place: &[usize]) -> Option<(Vec<usize>, &'v Value)> {
    let mut way = Vec::with_capacity(place.len());
    let mut found = rule;
    for at in place {
        let items = found.as_array()?;
        // A word such as `OR` stands before its conditions.
        let at = at + usize::from(!items.first()?.is_array());
        found = items.get(at)?;
        way.push(at);
    }
    Some((way, found))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::expr::var::Table;

    /// What is unmet, as `CONDITION found VALUE`.
    fn check(rule: Value, vars: &[(&str, &str)], expected: &[&str]) {
        let compiled = Rule::compile(&rule).expect("a rule");
        let vars = Table(vars);
        let line = |reason: &Unmet<'_>| {
            let (_, condition) = condition_at(&rule, &reason.place).expect("it is there");
            let found = reason.found.as_ref().map(|found| String::from_utf8_lossy(found).into_owned());
            format!("{condition} {}", found.unwrap_or_else(|| "-".to_owned()))
        };
        let told: Vec<String> = compiled.unmet(&vars).iter().map(line).collect();
        assert_eq!(told, expected, "{rule}");
        assert_eq!(told.is_empty(), compiled.holds(&vars), "{rule}");
    }

    #[test]
    fn of_conditions_that_must_all_hold_the_first_that_does_not_is_named() {
        let rule = json!([["arg_a", "==", "1"], ["arg_b", "==", "2"], ["arg_c", "==", "3"]]);
        check(rule.clone(), &[("arg_a", "1"), ("arg_b", "9")], &[r#"["arg_b","==","2"] 9"#]);
        check(rule.clone(), &[("arg_a", "1"), ("arg_b", "2")], &[r#"["arg_c","==","3"] -"#]);
        check(rule, &[("arg_a", "1"), ("arg_b", "2"), ("arg_c", "3")], &[]);
    }

    #[test]
    fn of_conditions_of_which_one_must_hold_all_are_named() {
        let rule = json!([["OR", ["arg_a", "==", "1"], ["arg_b", "!", "in", ["2"]]]]);
        check(rule, &[("arg_b", "2")], &[r#"["arg_a","==","1"] -"#, r#"["arg_b","!","in",["2"]] 2"#]);
    }

    #[test]
    fn a_negated_group_is_explained_by_what_holds_in_it() {
        let rule = json!(["!OR", ["arg_a", "==", "1"], ["arg_b", "==", "2"]]);
        check(rule.clone(), &[("arg_b", "2")], &[r#"["arg_b","==","2"] 2"#]);
        check(rule, &[], &[]);
        let rule = json!(["!AND", ["arg_a", "==", "1"], ["arg_b", "==", "2"]]);
        check(
            rule,
            &[("arg_a", "1"), ("arg_b", "2")],
            &[r#"["arg_a","==","1"] 1"#, r#"["arg_b","==","2"] 2"#],
        );
    }
}

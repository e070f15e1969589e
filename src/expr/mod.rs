//! What the user may ask of a request: variables by name, rules over them, and templates with them inside.
//!
//! Everything is read once, when configuration is compiled. Who answers is an argument ([`Vars`]), so nothing
//! here knows what a request is.

pub mod pattern;
pub mod predicate;
pub mod rule;
pub mod template;
pub mod var;

pub use pattern::{Pattern, compile_linear, compile_regex};
pub use rule::{Literal, Rule, RuleError, Unmet, condition_at};
pub use template::Template;
pub use var::{Var, Vars};

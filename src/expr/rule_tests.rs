//! What rules accept, refuse and mean, as tables.

use serde_json::json;

use super::*;
use crate::expr::var::Table;

const ANSWERS: Table<'static> = Table(&[
    ("arg_name", "json"),
    ("arg_age", "18"),
    ("arg_price", " 1.50 "),
    ("arg_hex", "0x10"),
    ("arg_empty", ""),
    ("arg_word", "ten"),
    ("arg_true", "true"),
    ("arg_inf", "inf"),
    ("http_user_agent", "Mozilla/5.0 (X11)"),
    ("remote_addr", "10.1.2.3"),
    ("post_arg.ok", "true"),
    ("graphql_root_fields", "owner|repo"),
]);

fn compile(rule: &Value) -> Rule {
    Rule::compile(rule).unwrap_or_else(|error| panic!("{rule}: {error}"))
}

fn holds(rule: Value) {
    assert!(compile(&rule).holds(&ANSWERS), "{rule} should hold");
}

fn fails(rule: Value) {
    assert!(!compile(&rule).holds(&ANSWERS), "{rule} should not hold");
}

/// One condition that holds; with `!` it does not.
fn yes(condition: Value) {
    holds(json!([condition]));
    fails(json!([negation(&condition)]));
}

/// One condition that does not hold; with `!` it does.
fn no(condition: Value) {
    fails(json!([condition]));
    holds(json!([negation(&condition)]));
}

fn negation(condition: &Value) -> Value {
    let mut items = condition.as_array().cloned().unwrap_or_default();
    items.insert(1, json!("!"));
    Value::Array(items)
}

fn refused(rule: Value, message: &str) {
    let error = Rule::compile(&rule).expect_err(&rule.to_string()).to_string();
    assert_eq!(error, message, "{rule}");
}

#[test]
fn equality_is_typed_and_numbers_convert_the_variable() {
    yes(json!(["arg_name", "==", "json"]));
    no(json!(["arg_name", "==", "JSON"]));
    yes(json!(["arg_age", "==", 18]));
    yes(json!(["arg_age", "==", "18"]));
    no(json!(["arg_age", "==", "18.0"]));
    yes(json!(["arg_price", "==", 1.5]));
    yes(json!(["arg_hex", "==", 16]));
    no(json!(["arg_word", "==", 10]));
    no(json!(["arg_unset", "==", 10]));
    no(json!(["arg_unset", "==", "x"]));
    no(json!(["arg_true", "==", true]));
    yes(json!(["post_arg.ok", "==", true]));
    no(json!(["post_arg.ok", "==", false]));
}

#[test]
fn inequality_is_its_contrary_even_for_what_is_unset() {
    no(json!(["arg_name", "~=", "json"]));
    yes(json!(["arg_name", "~=", "xml"]));
    no(json!(["arg_age", "~=", 18]));
    yes(json!(["arg_word", "~=", 10]));
    yes(json!(["arg_unset", "~=", 10]));
    yes(json!(["arg_unset", "~=", "x"]));
}

#[test]
fn null_asks_whether_it_is_unset() {
    yes(json!(["arg_unset", "==", null]));
    no(json!(["arg_empty", "==", null]));
    yes(json!(["arg_empty", "~=", null]));
    no(json!(["arg_unset", "~=", null]));
    yes(json!(["arg_empty", "==", ""]));
    holds(json!([["arg_unset", null]]));
}

#[test]
fn order_is_of_numbers_only() {
    yes(json!(["arg_age", ">", 17]));
    no(json!(["arg_age", ">", 18]));
    yes(json!(["arg_age", ">=", "18"]));
    no(json!(["arg_age", "<", 18]));
    yes(json!(["arg_age", "<=", 18]));
    for operator in [">", ">=", "<", "<="] {
        no(json!(["arg_word", operator, 1]));
        no(json!(["arg_inf", operator, 1]));
        no(json!(["arg_unset", operator, 1]));
    }
}

#[test]
fn patterns_are_found_anywhere_and_never_in_what_is_unset() {
    yes(json!(["http_user_agent", "~~", "zilla/\\d"]));
    no(json!(["http_user_agent", "~~", "^zilla"]));
    no(json!(["http_user_agent", "~~", "MOZILLA"]));
    yes(json!(["http_user_agent", "~*", "MOZILLA"]));
    no(json!(["arg_unset", "~~", ""]));
    no(json!(["arg_unset", "~*", ".*"]));
}

#[test]
fn lists_hold_texts_only() {
    yes(json!(["arg_name", "in", ["xml", "json"]]));
    yes(json!(["arg_name", "IN", ["a", "b", "c", "d", "e", "f", "g", "h", "json"]]));
    no(json!(["arg_name", "in", ["a", "b", "c", "d", "e", "f", "g", "h", "i"]]));
    no(json!(["arg_name", "in", []]));
    no(json!(["arg_age", "in", [18]]));
    no(json!(["arg_unset", "in", [null]]));
    let remarks = compile(&json!([["arg_age", "in", [18, "19"]]])).remarks().join("\n");
    assert_eq!(remarks, "'in' compares 'arg_age' with strings only; its other values never match");
}

#[test]
fn has_asks_lists_for_a_member() {
    yes(json!(["graphql_root_fields", "has", "owner"]));
    no(json!(["graphql_root_fields", "has", "own"]));
    no(json!(["arg_name", "has", "json"]));
    no(json!(["arg_unset", "has", "json"]));
}

#[test]
fn addresses_match_one_range_or_several() {
    yes(json!(["remote_addr", "ipmatch", "10.0.0.0/8"]));
    yes(json!(["remote_addr", "ipmatch", ["::1", "10.1.2.3"]]));
    no(json!(["remote_addr", "ipmatch", ["::1", "10.1.2.4"]]));
    no(json!(["arg_name", "ipmatch", "10.0.0.0/8"]));
    no(json!(["arg_unset", "ipmatch", "0.0.0.0/0"]));
}

#[test]
fn expressions_nest_and_negate() {
    let (t, f) = (json!(["arg_name", "==", "json"]), json!(["arg_name", "==", "xml"]));
    holds(json!([]));
    holds(json!([t, t]));
    fails(json!([t, f]));
    holds(json!(["AND", t, t]));
    fails(json!(["AND", t, f]));
    holds(json!(["OR", f, t]));
    fails(json!(["OR", f, f]));
    fails(json!(["!AND", t, t]));
    holds(json!(["!AND", t, f]));
    fails(json!(["!OR", f, t]));
    holds(json!(["!OR", f, f]));
    holds(json!(["or", ["AND", t, f], ["!OR", f, ["AND", f, t]]]));
    holds(json!([["OR", f, t], t]));
    holds(json!(["OR", [t, f], [t, t]]));
    holds(json!([["arg_name", "json"]]));
    holds(json!([["arg_age", 18]]));
}

#[test]
fn broken_rules_are_refused_in_apisix_words() {
    refused(json!(["arg_x", "==", "1"]), "rule should be wrapped inside brackets");
    refused(json!("arg_x"), "rule should be wrapped inside brackets");
    refused(json!({"arg_x": 1}), "rule should be wrapped inside brackets");
    refused(json!([1, 2]), "rule should be wrapped inside brackets");
    refused(json!(["AND"]), "rule too short");
    refused(json!(["OR", ["a", "==", "1"]]), "rule too short");
    refused(json!([["OR", ["a", "==", "1"]]]), "rule too short");
    refused(json!([[]]), "rule too short");
    refused(json!([["arg_x", "=", "1"]]), "invalid operator '='");
    refused(json!([["arg_x", "!", "1"]]), "invalid operator '!'");
    refused(json!([["arg_x", "!", "=~", "1"]]), "invalid operator '=~'");
    refused(json!([["arg_x", 1, "1"]]), "invalid operator '1'");
    refused(json!([["arg_x", "not", "==", "1"]]), "bad 'not' expression");
    refused(json!([["arg_x", "==", "1", "2"]]), "bad 'not' expression");
    refused(json!([["arg_x"]]), "invalid expression");
    refused(json!([["arg_x", "=="]]), "invalid expression");
    refused(json!([["arg_x", "!", "==", "1", "2"]]), "invalid expression");
    refused(json!([[1, "==", "1"]]), "invalid expression");
    refused(json!([["a", "==", "1"], "b"]), "invalid expression");
    for value in [json!("10.0.0.0/33"), json!(["10.0.0.1", "x"]), json!([]), json!(1), json!(null)] {
        refused(json!([["remote_addr", "ipmatch", value]]), "invalid ip address");
    }
}

#[test]
fn a_value_of_the_wrong_kind_is_refused() {
    refused(json!([["arg_x", "in", "a"]]), "operator 'in' expects an array, got \"a\"");
    refused(json!([["arg_x", ">", "ten"]]), "operator '>' expects a number, got \"ten\"");
    refused(json!([["arg_x", "<=", null]]), "operator '<=' expects a number, got null");
    refused(json!([["arg_x", "~~", 1]]), "operator '~~' expects a regular expression, got 1");
    refused(
        json!([["arg_x", "==", ["a"]]]),
        "operator '==' expects a string, number, boolean or null, got [\"a\"]",
    );
    refused(
        json!([["arg_x", "~~", "a(?=b"]]),
        "regular expression \"a(?=b\" is not valid: missing closing parenthesis",
    );
}

#[test]
fn nesting_has_a_bound() {
    let nested =
        |levels: usize| (1..levels).fold(json!(["arg_name", "==", "json"]), |inner, _| json!([inner]));
    holds(nested(RULE_DEPTH_MAX));
    refused(nested(RULE_DEPTH_MAX + 1), "rule is nested more than 16 levels deep");
}

#[test]
fn unknown_variables_are_remarked_and_every_variable_is_shown() {
    let rule = compile(&json!(["OR", ["nonsense", "==", "1"], [["uri", "/"], ["arg_x", "!", "has", 1]]]));
    assert_eq!(rule.remarks(), ["no variable is called 'nonsense', so it is always unset"]);
    let mut names = Vec::new();
    rule.each_var(|var| names.push(var.name().into_owned()));
    assert_eq!(names, ["nonsense", "uri", "arg_x"]);
    assert!(!rule.is_always());
    assert!(compile(&json!([])).is_always() && Rule::always().is_always());
}

#[test]
fn numbers_are_read_as_lua_reads_them() {
    for (text, expected) in [
        ("10", Some(10.0)),
        (" -1.5e2\t", Some(-150.0)),
        (".5", Some(0.5)),
        ("5.", Some(5.0)),
        ("+7", Some(7.0)),
        ("0x1F", Some(31.0)),
        ("-0xa", Some(-10.0)),
        ("", None),
        ("-", None),
        (".", None),
        ("0x", None),
        ("inf", None),
        ("-nan", None),
        ("1 2", None),
        ("1_000", None),
        ("e5", None),
    ] {
        assert_eq!(number(text.as_bytes()), expected, "{text:?}");
    }
}

//! The validator: each keyword with a value that holds and one that does not, and what is said.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{check, parse, schema_of};
use crate::model::field::{InRange, NonEmpty, Secret};

fn faults(schema: &Value, instance: &Value) -> Vec<String> {
    check(schema, instance).iter().map(ToString::to_string).collect()
}

/// The first value is taken, the second refused with just this.
fn pair(schema: Value, taken: Value, refused: Value, fault: &str) {
    assert_eq!(faults(&schema, &taken), [""; 0], "{schema} should take {taken}");
    assert_eq!(faults(&schema, &refused), [fault], "{schema} should refuse {refused}");
}

#[test]
fn scalars_say_all_that_was_expected_in_one_fault() {
    let whole = json!({"type": "integer", "minimum": 1});
    pair(whole.clone(), json!(1), json!(0), "expected a whole number above 0, got 0");
    pair(whole.clone(), json!(1), json!("ten"), "expected a whole number above 0, got \"ten\"");
    pair(whole.clone(), json!(1.0), json!(1.5), "expected a whole number above 0, got 1.5");
    pair(whole, json!(7.0), json!(1e300), "expected a whole number above 0, got 1e+300");
    pair(
        json!({"type": "integer", "minimum": 0, "maximum": 65535}),
        json!(65535),
        json!(70000),
        "expected a whole number from 0 to 65535, got 70000",
    );
    pair(
        json!({"type": "integer", "format": "uint8"}),
        json!(255),
        json!(256),
        "expected a whole number from 0 to 255, got 256",
    );
    pair(
        json!({"type": "number", "exclusiveMinimum": 0}),
        json!(0.1),
        json!(0),
        "expected a number above 0, got 0",
    );
    pair(
        json!({"type": "number", "multipleOf": 0.1}),
        json!(0.3),
        json!(0.35),
        "expected a number, got 0.35",
    );
    pair(json!({"type": "boolean"}), json!(true), json!("true"), "expected true or false, got \"true\"");
    pair(
        json!({"type": "string", "minLength": 1, "maxLength": 3}),
        json!("äöü"),
        json!("äöüß"),
        "expected text of 1 to 3 characters, got \"äöüß\"",
    );
    pair(
        json!({"type": "string", "minLength": 1}),
        json!("a"),
        json!(""),
        "expected text that is not empty, got \"\"",
    );
    pair(
        json!({"type": "string", "pattern": "^a+$"}),
        json!("aa"),
        json!("ab"),
        "expected text matching ^a+$, got \"ab\"",
    );
    pair(json!({"type": ["string", "null"]}), json!(null), json!(7), "expected text, got 7");
    pair(json!({"format": "ipv4"}), json!("10.0.0.1"), json!("::1"), "expected anything, got \"::1\"");
    pair(json!({"const": 1}), json!(1), json!(2), "expected 1, got 2");
}

#[test]
fn the_refusal_of_everything_refuses_everything() {
    assert_eq!(faults(&json!(false), &json!(null)), ["not allowed here"]);
    assert_eq!(faults(&json!(true), &json!(null)), [""; 0]);
}

#[test]
fn a_slip_in_a_choice_or_a_name_is_recognised() {
    let choice = json!({"enum": ["http", "https", "grpc"]});
    pair(
        choice,
        json!("http"),
        json!("htp"),
        "expected one of http, https or grpc, got \"htp\"; did you mean \"http\"?",
    );
    pair(
        json!({"oneOf": [{"const": "stdout", "description": "x"}, {"const": "stderr"}]}),
        json!("stderr"),
        json!("strerr"),
        "expected one of stdout or stderr, got \"strerr\"; did you mean \"stderr\"?",
    );
    let closed = json!({"properties": {"host": true, "uri": true}, "additionalProperties": false});
    pair(
        closed.clone(),
        json!({"host": 1}),
        json!({"hots": 1}),
        "additional properties forbidden, found hots; did you mean \"host\"?",
    );
    pair(closed, json!({}), json!({"colour": 1}), "additional properties forbidden, found colour");
}

#[test]
fn lists_and_objects_are_counted_and_walked() {
    pair(
        json!({"type": "array", "minItems": 1}),
        json!([1]),
        json!([]),
        "expected a list of at least 1, got an empty list",
    );
    pair(
        json!({"type": "array", "minItems": 1, "maxItems": 2}),
        json!([1, 2]),
        json!([1, 2, 3]),
        "expected a list of 1 to 2, got 3",
    );
    pair(
        json!({"uniqueItems": true}),
        json!(["a", "b", 1, "1"]),
        json!(["a", "b", "a"]),
        "expected each item once, got \"a\" again",
    );
    pair(json!({"items": {"type": "string"}}), json!(["a"]), json!(["a", 2]), "[1]: expected text, got 2");
    pair(
        json!({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}),
        json!(["a", 2]),
        json!(["a", "b"]),
        "[1]: expected a whole number, got \"b\"",
    );
    pair(json!({"contains": {"const": 1}}), json!([2, 1]), json!([2]), "expected a list with 1 in it");
    pair(
        json!({"type": "object", "maxProperties": 1}),
        json!({"a": 1}),
        json!({"a": 1, "b": 2}),
        "expected an object of at most 1 field, got 2",
    );
    pair(
        json!({"patternProperties": {"^x-": {"type": "integer"}}, "additionalProperties": false}),
        json!({"x-a": 1}),
        json!({"x-a": "b"}),
        "x-a: expected a whole number, got \"b\"",
    );
    pair(
        json!({"additionalProperties": {"type": "object"}}),
        json!({"limit-count": {}}),
        json!({"limit-count": 1}),
        "limit-count: expected an object, got 1",
    );
    pair(
        json!({"propertyNames": {"type": "string", "pattern": "^[a-z]+$"}}),
        json!({"a": 1}),
        json!({"B": 1}),
        "expected text matching ^[a-z]+$ as the name of a field, got \"B\"",
    );
}

#[test]
fn which_fields_go_together_is_said_by_name() {
    pair(json!({"required": ["a"]}), json!({"a": null}), json!({}), "a is required");
    let one = json!({"oneOf": [{"required": ["whitelist"]}, {"required": ["blacklist"]}]});
    let exactly = "expected exactly one of `whitelist` and `blacklist`";
    pair(one.clone(), json!({"whitelist": 1}), json!({}), exactly);
    pair(one.clone(), json!({"blacklist": 1}), json!({"whitelist": 1, "blacklist": 1}), exactly);
    pair(one, json!({"whitelist": null, "blacklist": 1}), json!({"whitelist": null}), exactly);
    pair(
        json!({"anyOf": [{"required": ["a"]}, {"required": ["b", "c"]}]}),
        json!({"a": 1, "b": 1, "c": 1}),
        json!({"b": 1}),
        "expected at least one of `a` and `b` with `c`",
    );
    pair(
        json!({"not": {"required": ["host", "hosts"]}}),
        json!({"host": 1}),
        json!({"host": 1, "hosts": 1}),
        "expected at most one of `host` and `hosts`",
    );
    pair(
        json!({"not": {"required": ["script"]}}),
        json!({}),
        json!({"script": 1}),
        "`script` is not allowed here",
    );
    pair(
        json!({"dependentRequired": {"cert": ["key"]}}),
        json!({"key": 1}),
        json!({"cert": 1}),
        "key is required when cert is given",
    );
    pair(
        json!({"dependentSchemas": {"a": {"properties": {"b": {"type": "string"}}}}}),
        json!({"b": 1}),
        json!({"a": 1, "b": 1}),
        "b: expected text, got 1",
    );
}

#[test]
fn of_several_forms_the_one_that_was_meant_tells_its_faults() {
    let either = json!({"anyOf": [
        {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
        {"type": "array", "items": {"type": "object", "required": ["host"]}},
    ]});
    pair(
        either.clone(),
        json!({"a:80": 1}),
        json!({"a:80": -1}),
        "[\"a:80\"]: expected a whole number of at least 0, got -1",
    );
    pair(either.clone(), json!([{"host": 1}]), json!([{}]), "[0]: host is required");
    pair(either, json!([]), json!("a:80"), "expected an object or a list, got \"a:80\"");

    let tagged = json!({"oneOf": [
        {"type": "object", "properties": {"policy": {"const": "local"}}, "required": ["policy"]},
        {"type": "object", "properties": {"policy": {"const": "redis"}, "host": {"type": "string"}},
         "required": ["policy", "host"]},
    ]});
    pair(tagged, json!({"policy": "local"}), json!({"policy": "redis"}), "host is required");
    pair(
        json!({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 5}]}),
        json!(4),
        json!(6),
        "matches more than one of the forms it may have; leave some fields out",
    );
    pair(
        json!({"if": {"properties": {"a": {"const": 1}}}, "then": {"required": ["b"]}, "else": {"required": ["c"]}}),
        json!({"a": 1, "b": 1}),
        json!({"a": 2}),
        "c is required",
    );
    pair(json!({"not": {"type": "string"}}), json!(1), json!("a"), "expected anything but text, got \"a\"");
}

#[test]
fn references_are_followed_and_endless_ones_end() {
    let tree = json!({
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {
            "type": "object",
            "properties": {"leaf": {"type": "integer"}, "inner": {"$ref": "#/$defs/tree"}},
            "additionalProperties": false,
        }},
    });
    pair(
        tree,
        json!({"inner": {"inner": {"leaf": 1}}}),
        json!({"inner": {"inner": {"leef": 1}}}),
        "inner.inner: additional properties forbidden, found leef; did you mean \"leaf\"?",
    );
    assert_eq!(faults(&json!({"$ref": "#"}), &json!(1)), [""; 0]);
    assert_eq!(faults(&json!({"allOf": [{"$ref": "#"}]}), &json!(1)), ["nested too deeply"]);
    assert_eq!(faults(&json!({"$ref": "#/$defs/none"}), &json!(1)), [""; 0]);
}

#[test]
fn all_faults_are_told_and_a_flood_of_them_ends() {
    let schema = json!({
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"minItems": 1}},
        "required": ["d"],
        "additionalProperties": false,
    });
    assert_eq!(
        faults(&schema, &json!({"a": 1, "b": "x", "c": [], "e": 1})),
        [
            "a: expected text, got 1",
            "b: expected a whole number, got \"x\"",
            "c: expected a list of at least 1, got an empty list",
            "additional properties forbidden, found e",
            "d is required",
        ]
    );
    let many: Value = (0..100_000).collect();
    assert_eq!(faults(&json!({"items": {"type": "string"}}), &many).len(), 500);
}

#[test]
fn a_long_value_is_cut_and_a_secret_is_not_shown() {
    let long = "ä".repeat(300);
    let told = faults(&json!({"maxLength": 256, "type": "string"}), &json!(long));
    let shown = "ä".repeat(48);
    assert_eq!(
        told,
        [format!("expected text of at most 256 characters, got \"{shown}\" and so on, 300 characters")]
    );
    let told = faults(&json!({"type": "integer", "writeOnly": true}), &json!("hunter2"));
    assert_eq!(told, ["expected a whole number, got something else, not shown"]);
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sample {
    /// How many.
    count: InRange<1, 100>,
    names: Option<NonEmpty<String>>,
    inner: Option<Inner>,
    key: Option<Secret>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Inner {
    #[serde(default)]
    even: Even,
}

/// A type whose schema says less than it wants.
#[derive(Debug, Default, JsonSchema)]
struct Even(i64);

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(input)?;
        if number % 2 == 0 {
            Ok(Self(number))
        } else {
            Err(serde::de::Error::custom("expected an even number"))
        }
    }
}

#[test]
fn a_type_is_read_or_every_fault_of_it_told() {
    let sample: Sample =
        parse(json!({"count": 3, "names": ["a"], "inner": {"even": 2}, "key": "k"})).unwrap();
    assert_eq!((sample.count.get(), &sample.names.unwrap()[..]), (3, &["a".to_owned()][..]));
    assert_eq!((sample.inner.unwrap().even.0, sample.key.unwrap().expose()), (2, "k"));

    let told = |value: Value| -> Vec<String> {
        parse::<Sample>(value).unwrap_err().iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        told(json!({"count": 0, "names": [], "inner": 7, "key": 1, "cuont": 1})),
        [
            "count: expected a whole number from 1 to 100, got 0",
            "names: expected a list of at least 1, got an empty list",
            "inner: expected an object, got 7",
            "key: expected text that is not empty, got something else, not shown",
            "additional properties forbidden, found cuont; did you mean \"count\"?",
        ]
    );
    assert!(parse::<Sample>(json!({"count": 1.0, "inner": {"even": 2.0}})).is_ok());
    // What the schema does not know, the type says, with its place.
    assert_eq!(told(json!({"count": 1, "inner": {"even": 3}})), ["inner.even: expected an even number"]);
}

#[test]
fn a_schema_carries_the_descriptions_and_is_made_once() {
    let schema = schema_of::<Sample>();
    assert_eq!(schema["properties"]["count"]["description"], "How many.");
    assert_eq!(schema["additionalProperties"], json!(false));
    assert!(std::sync::Arc::ptr_eq(&schema, &schema_of::<Sample>()));
}

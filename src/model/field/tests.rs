//! Each field type: what it takes, a neighbour it refuses, and the words it refuses with.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;
use crate::model::schema::{check, parse, schema_of};

/// Schema and `Deserialize` must agree on every sample, and the message be the given one.
fn pair<T: DeserializeOwned + JsonSchema + 'static>(taken: &[Value], refused: &[(Value, &str)]) {
    for sample in taken {
        assert_eq!(check(&schema_of::<T>(), sample), [], "the schema should take {sample}");
        assert!(T::deserialize(sample).is_ok(), "the type should take {sample}");
    }
    for (sample, message) in refused {
        let faults = parse::<T>(sample.clone()).err().unwrap_or_default();
        let told: Vec<&str> = faults.iter().map(|fault| fault.problem.as_str()).collect();
        assert_eq!(told, [*message], "for {sample}");
        assert!(T::deserialize(sample).is_err(), "the type should refuse {sample}");
        assert!(!check(&schema_of::<T>(), sample).is_empty(), "the schema should refuse {sample}");
    }
}

#[test]
fn an_address_range_is_an_address_and_perhaps_bits() {
    let refused =
        ["10.0.0.0/33", "10.0.0", "::1/129", "10.0.0.1/", "10.0.0.1/+8", "a", "", "10.0.0.1/8/8", " ::1"];
    let refused: Vec<(Value, String)> = refused
        .iter()
        .map(|text| {
            (json!(text), format!("expected an IP address or a range such as 10.0.0.0/8, got \"{text}\""))
        })
        .collect();
    let refused: Vec<(Value, &str)> =
        refused.iter().map(|(value, text)| (value.clone(), text.as_str())).collect();
    pair::<AddressRange>(
        &[json!("10.0.0.1"), json!("10.0.0.0/8"), json!("0.0.0.0/0"), json!("::1"), json!("fd00::/128")],
        &refused,
    );
    let range: AddressRange = "10.0.0.0/8".parse().unwrap();
    assert_eq!(range.parts(), ("10.0.0.0".parse().unwrap(), 8));
    assert_eq!("::1".parse::<AddressRange>().unwrap().parts().1, 128);
}

#[test]
fn patterns_of_hosts_and_paths() {
    pair::<HostPattern>(
        &[json!("*"), json!("a.test"), json!("*.a.test"), json!("a_b.test:80"), json!("[::1]:80")],
        &[
            (json!("a.*.test"), "expected a host such as example.com or *.example.com, got \"a.*.test\""),
            (json!("**"), "expected a host such as example.com or *.example.com, got \"**\""),
            (json!("a/b"), "expected a host such as example.com or *.example.com, got \"a/b\""),
            (json!(""), "expected a host such as example.com or *.example.com, got \"\""),
        ],
    );
    let expected = "expected a path of at most 4096 characters that starts with / or *";
    let long = "/".repeat(4097);
    let cut = format!("{expected}, got \"{}\" and so on, 4097 characters", "/".repeat(48));
    pair::<UriPattern>(
        &[json!("/"), json!("/*"), json!("*"), json!("/user/:id"), json!("/".repeat(4096))],
        &[
            (json!("a"), &format!("{expected}, got \"a\"")),
            (json!(""), &format!("{expected}, got \"\"")),
            (json!(long), &cut),
        ],
    );
}

#[test]
fn numbers_have_bounds() {
    pair::<Port>(
        &[json!(1), json!(65535)],
        &[
            (json!(0), "expected a whole number from 1 to 65535, got 0"),
            (json!(65536), "expected a whole number from 1 to 65535, got 65536"),
            (json!("80"), "expected a whole number from 1 to 65535, got \"80\""),
        ],
    );
    pair::<Weight>(
        &[json!(0), json!(4294967295u32)],
        &[
            (json!(-1), "expected a whole number from 0 to 4294967295, got -1"),
            (json!(4294967296u64), "expected a whole number from 0 to 4294967295, got 4294967296"),
        ],
    );
    pair::<Percent>(
        &[json!(0), json!(100)],
        &[(json!(101), "expected a whole number from 0 to 100, got 101")],
    );
    pair::<InRange<403, 404>>(
        &[json!(403), json!(404)],
        &[
            (json!(402), "expected a whole number from 403 to 404, got 402"),
            (json!(u64::MAX), "expected a whole number from 403 to 404, got 18446744073709551615"),
        ],
    );
    assert_eq!(InRange::<403, 404>::default().u16(), 403);
    assert_eq!(
        (InRange::<-5, 5>::literal(-5).usize(), InRange::<0, 70_000>::literal(70_000).u16()),
        (0, 65535)
    );
}

#[test]
fn times_are_written_in_seconds() {
    pair::<Seconds>(
        &[json!(1), json!(0.5), json!(1e9)],
        &[
            (json!(0), "expected a number above 0, got 0"),
            (json!(-1), "expected a number above 0, got -1"),
            (json!(2e9), "expected a number above 0, got 2000000000.0"),
            (json!("1"), "expected a number above 0, got \"1\""),
        ],
    );
    pair::<SecondsOrOff>(
        &[json!(0), json!(0.5)],
        &[(json!(-0.5), "expected a number of at least 0, got -0.5")],
    );
    assert_eq!(parse::<Seconds>(json!(0.25)).unwrap().get(), Duration::from_millis(250));
    assert_eq!(SecondsOrOff::literal(0).bound(), None);
    assert_eq!(SecondsOrOff::literal(3).bound(), Some(Duration::from_secs(3)));
}

#[test]
fn texts_have_lengths_and_names_have_letters() {
    pair::<ShortText>(
        &[json!("a"), json!("ä".repeat(256))],
        &[
            (json!(""), "expected text of 1 to 256 characters, got \"\""),
            (json!(1), "expected text of 1 to 256 characters, got 1"),
        ],
    );
    pair::<Username>(
        &[json!("jack_1-x")],
        &[(json!("jack.x"), "expected a name of 1 to 256 letters, digits, _ and -, got \"jack.x\"")],
    );
    pair::<LabelText>(
        &[json!("v1.2")],
        &[(json!("a b"), "expected text of 1 to 256 characters without spaces, got \"a b\"")],
    );
    pair::<TemplateText>(
        &[json!(""), json!("$remote_addr")],
        &[(json!(1), "expected text, in which $name stands for a variable, got 1")],
    );
    pair::<HttpMethod>(
        &[json!("GET"), json!("PURGE")],
        &[(
            json!("get"),
            "expected one of GET, POST, PUT, DELETE, PATCH, HEAD, OPTIONS, CONNECT, TRACE or PURGE, got \"get\"; \
             did you mean \"GET\"?",
        )],
    );
    assert_eq!(ShortText::literal("hello").as_str(), "hello");
    assert_eq!(format!("{:?}", parse::<Secret>(json!("hunter2")).unwrap()), "Secret(***)");
}

#[test]
fn an_id_is_text_or_a_number_and_both_are_one() {
    let expected = ObjectId::EXPECTED;
    pair::<ObjectId>(
        &[json!("a-B_1.x"), json!("1"), json!(1), json!("a".repeat(64))],
        &[
            (json!(0), &format!("expected {expected}, got 0")),
            (json!(-1), &format!("expected {expected}, got -1")),
            (json!("a/b"), &format!("expected {expected}, got \"a/b\"")),
            (json!(""), &format!("expected {expected}, got \"\"")),
            (json!(1.5), &format!("expected {expected}, got 1.5")),
        ],
    );
    assert_eq!(parse::<ObjectId>(json!(7)).unwrap(), parse::<ObjectId>(json!("7")).unwrap());
    assert_eq!(ObjectId::joined("vault/1").unwrap().as_str(), "vault/1");
    assert!(ObjectId::joined("vault/").is_err());
}

#[test]
fn lists_are_long_enough_and_without_doubles() {
    pair::<NonEmpty<u8>>(
        &[json!([1]), json!([1, 1])],
        &[(json!([]), "expected a list of at least 1, got an empty list")],
    );
    pair::<Unique<u8>>(
        &[json!([]), json!([1, 2])],
        &[(json!([1, 1]), "expected each item once, got 1 again")],
    );
    pair::<Unique<u8, 1>>(&[json!([1])], &[(json!([]), "expected a list of at least 1, got an empty list")]);
}

#[test]
fn what_is_written_out_reads_back() {
    fn check<T: Serialize + DeserializeOwned + JsonSchema + 'static>(written: Value) {
        let value: T = parse(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&value).unwrap(), written);
    }
    check::<AddressRange>(json!("10.0.0.0/8"));
    check::<Seconds>(json!(60));
    check::<Seconds>(json!(0.5));
    check::<InRange<1, 5>>(json!(3));
    check::<Unique<HttpMethod>>(json!(["GET", "POST"]));
    check::<ShortText>(json!("a"));
}

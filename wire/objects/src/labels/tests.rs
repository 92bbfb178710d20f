//! Selector texts and objects against labels.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn selects(text: &str, labels: Value) -> bool {
    Selector::parse(text).expect(text).matches(&labels)
}

#[test]
fn each_operator_selects_what_it_says() {
    let web = json!({"app": "web", "tier": "a", "n": "5"});
    for (text, holds) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier in (a,b)", true),
        ("app!=web", false),
        ("missing!=x", true),
        ("tier notin (b,c)", true),
        ("missing notin (b)", true),
        ("tier in (b)", false),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("n>4,n<6", true),
        ("n>5", false),
        ("app>5", false),
        ("app=", false),
        ("in in (in)", false),
        ("tier in (a,b),!d,app!=x", true),
    ] {
        assert_eq!(selects(text, web.clone()), holds, "{text}");
    }
}

#[test]
fn an_object_without_labels_matches_only_negative_terms() {
    assert!(selects("!a,b!=c", Value::Null));
    assert!(!selects("a", Value::Null));
}

#[test]
fn malformed_selectors_are_refused_with_the_reason() {
    let mut out = String::new();
    for text in [
        "a b", "a in", "a in (", "a in b", "a,", ",a", "=b", "a=b c", "a>x", "a=b!", "!a=b",
        "_a=b", "a=-b", "a/b/c",
    ] {
        let why = Selector::parse(text).expect_err(text);
        out.push_str(&format!("{text}: {why}\n"));
    }
    expect_test::expect![[r#"
        a b: unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt or 'end of string'
        a in: unable to parse requirement: found '', expected: '('
        a in (: unable to parse requirement: found '', expected: ',', ')' or identifier
        a in b: unable to parse requirement: found 'b', expected: '('
        a,: found '', expected: identifier after ','
        ,a: unable to parse requirement: found ',', expected: !, identifier, or 'end of string'
        =b: unable to parse requirement: found '=', expected: !, identifier, or 'end of string'
        a=b c: found 'c', expected: ',' or 'end of string'
        a>x: unable to parse requirement: values[0]: Invalid value: "x": for 'Gt', 'Lt' operators, the value must be an integer
        a=b!: found '!', expected: ',' or 'end of string'
        !a=b: found '=', expected: ',' or 'end of string'
        _a=b: unable to parse requirement: key: Invalid value: "_a": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        a=-b: unable to parse requirement: values[0][a]: Invalid value: "-b": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
        a/b/c: unable to parse requirement: key: Invalid value: "a/b/c": a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')
    "#]].assert_eq(&out);
}

#[test]
fn printing_sorts_by_key_and_parses_again() {
    let text = "z, b in (y,x) ,a!=1,!c,d notin (q),e>1,f=";
    let selector = Selector::parse(text).expect(text);
    assert_eq!(selector.to_string(), "a!=1,b in (x,y),!c,d notin (q),e>1,f=,z");
    let again = Selector::parse(&selector.to_string()).expect("printed form");
    assert_eq!(again.to_string(), selector.to_string());
}

#[test]
fn an_absent_selector_object_selects_nothing_and_an_empty_one_everything() {
    let absent = Selector::from_object(&Value::Null).expect("null");
    let empty = Selector::from_object(&json!({})).expect("empty");
    assert!(!absent.matches(&json!({"a": "b"})));
    assert!(empty.matches(&json!({"a": "b"})) && empty.is_everything());
}

#[test]
fn labels_and_expressions_of_an_object_must_all_hold() {
    let selector = json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["b", "a"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    });
    let it = Selector::from_object(&selector).expect("valid");
    assert!(it.matches(&json!({"app": "web", "tier": "a"})));
    assert!(!it.matches(&json!({"app": "web", "tier": "a", "old": ""})));
    assert_eq!(print_object(&selector), "app=web,!old,tier in (a,b)");
    assert_eq!(print_object(&Value::Null), "<none>");
}

#[test]
fn faulty_selector_objects_are_described_field_by_field() {
    let selector = json!({
        "matchLabels": {"-bad": "ok", "ok": "not ok"},
        "matchExpressions": [
            {"key": "a", "operator": "In"},
            {"key": "a", "operator": "Exists", "values": ["x"]},
            {"key": "", "operator": "Like"},
        ],
    });
    let errors: Vec<String> =
        validate(&selector, &Path::new("spec.selector")).iter().map(ToString::to_string).collect();
    expect_test::expect![[r#"
        spec.selector.matchLabels: Invalid value: "-bad": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        spec.selector.matchLabels[ok]: Invalid value: "not ok": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
        spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
        spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'
        spec.selector.matchExpressions[2].operator: Invalid value: "Like": not a valid selector operator
        spec.selector.matchExpressions[2].key: Invalid value: "": name part must be non-empty
        spec.selector.matchExpressions[2].key: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#]].assert_eq(&errors.join("\n"));
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused_without_panic(text in "\\PC{0,60}") {
        let _ = Selector::parse(&text);
    }

    #[test]
    fn what_parses_prints_to_something_that_parses_to_the_same(text in "[a-c =!<>(),in0-9]{0,30}") {
        if let Ok(first) = Selector::parse(&text) {
            let again = Selector::parse(&first.to_string()).expect("printed form");
            prop_assert_eq!(again.to_string(), first.to_string());
        }
    }
}

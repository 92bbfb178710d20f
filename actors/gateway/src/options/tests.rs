//! Options, well formed and not.

use super::*;

fn read(query: &str, of: Use) -> Result<Options, Status> {
    parse(&Query::parse(query), of, Form::Object)
}

#[test]
fn options_are_read_for_the_verb_that_has_them() {
    let list = read(
        "labelSelector=a%3Db&fieldSelector=metadata.name%3Dx&limit=500&continue=abc&resourceVersion=7",
        Use::List,
    )
    .unwrap();
    assert_eq!(list.label_selector.as_deref(), Some("a=b"));
    assert_eq!(list.field_selector.as_deref(), Some("metadata.name=x"));
    assert_eq!((list.limit, list.continue_token.as_deref()), (500, Some("abc")));
    assert_eq!(list.resource_version.as_deref(), Some("7"));

    let patch = read("dryRun=All&force=true&fieldValidation=Strict&limit=zz", Use::Patch).unwrap();
    assert_eq!(patch.dry_run, DryRun::All);
    assert_eq!(patch.conflicts, Conflicts::Force);
    assert_eq!(patch.field_validation, FieldValidation::Strict);

    let delete = read("gracePeriodSeconds=0&propagationPolicy=Foreground", Use::Delete).unwrap();
    assert_eq!(delete.grace_period_seconds, Some(0));
    assert_eq!(delete.propagation, Some(Propagation::Foreground));
    let orphan = read("orphanDependents=true", Use::Delete).unwrap();
    assert_eq!(orphan.propagation, Some(Propagation::Orphan));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    for (query, of, code, message) in [
        ("limit=abc", Use::List, 400, r#"strconv.ParseInt: parsing "abc": invalid syntax"#),
        (
            "gracePeriodSeconds=1s",
            Use::Delete,
            400,
            r#"strconv.ParseInt: parsing "1s": invalid syntax"#,
        ),
        (
            "dryRun=Some",
            Use::Create,
            422,
            r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: "Some": supported values: "All""#,
        ),
        (
            "fieldValidation=strict",
            Use::Update,
            422,
            r#"UpdateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "strict": supported values: "", "Ignore", "Strict", "Warn""#,
        ),
        (
            "resourceVersionMatch=Exact",
            Use::List,
            422,
            r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#,
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=0",
            Use::List,
            422,
            r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0""#,
        ),
        (
            "sendInitialEvents=true",
            Use::List,
            422,
            r#"ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"#,
        ),
    ] {
        let status = read(query, of).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message), "{query}");
    }
}

#[test]
fn a_watch_list_needs_not_older_than() {
    let watch = |query| parse_watch(&Query::parse(query));
    assert_eq!(watch("sendInitialEvents=true").unwrap_err().code, 422);
    let good = watch(
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=1&timeoutSeconds=9",
    );
    let good = good.unwrap();
    assert_eq!(good.initial, InitialEvents::Send);
    assert_eq!(good.bookmarks, Bookmarks::Allow);
    assert_eq!(good.timeout_seconds, Some(9));
    assert_eq!(watch("timeoutSeconds=0").unwrap().timeout_seconds, None);
}

//! What is answered to which `Accept`, and which bodies are taken.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn asking(accept: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !accept.is_empty() {
        headers.insert(ACCEPT, HeaderValue::from_str(accept).unwrap());
    }
    headers
}

fn chosen(accept: &str, shape: Shape) -> Result<(Encoding, Form), u16> {
    negotiate(&asking(accept), &Query::default(), shape)
        .map(|it| (it.encoding, it.form))
        .map_err(|it| it.code)
}

#[test]
fn the_first_clause_that_can_be_served_wins() {
    let table = Form::Table(IncludeObject::Metadata);
    let json = |form| Ok((Encoding::Json, form));
    for (accept, shape, expected) in [
        ("", Shape::Single, json(Form::Object)),
        ("*/*", Shape::Single, json(Form::Object)),
        ("application/*", Shape::Single, json(Form::Object)),
        ("application/json", Shape::Single, json(Form::Object)),
        ("application/yaml", Shape::Single, Ok((Encoding::Yaml, Form::Object))),
        (
            "application/json;q=0.5, application/yaml",
            Shape::Single,
            Ok((Encoding::Yaml, Form::Object)),
        ),
        ("application/yaml", Shape::Stream, Err(406)),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            Shape::Single,
            json(table),
        ),
        (
            "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
            Shape::Single,
            json(Form::Object),
        ),
        ("application/json;as=Table;v=v9;g=meta.k8s.io", Shape::Single, Err(406)),
        ("application/json;as=Table;v=v1;g=meta.k8s.io", Shape::Review, Err(406)),
        (
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Shape::Review,
            json(Form::Object),
        ),
        (
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Shape::Single,
            json(Form::Metadata),
        ),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
            Shape::Single,
            json(Form::Metadata),
        ),
        ("application/vnd.kubernetes.protobuf", Shape::Single, Err(406)),
        ("application/vnd.kubernetes.protobuf,application/json", Shape::Single, json(Form::Object)),
        ("application/json;stream=watch", Shape::Stream, json(Form::Object)),
        ("text/html", Shape::Single, Err(406)),
        ("application/json;q=0", Shape::Single, Err(406)),
    ] {
        assert_eq!(chosen(accept, shape), expected, "{accept}");
    }
}

#[test]
fn people_get_indented_json() {
    let of = |agent: &'static str, query: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static(agent));
        negotiate(&headers, &Query::parse(query), Shape::Single).unwrap().encoding
    };
    assert_eq!(of("curl/8.5", ""), Encoding::PrettyJson);
    assert_eq!(of("curl/8.5", "pretty=false"), Encoding::Json);
    assert_eq!(of("kubectl/v1.33", ""), Encoding::Json);
    assert_eq!(of("kubectl/v1.33", "pretty=true"), Encoding::PrettyJson);
}

#[test]
fn bodies_that_cannot_be_read_are_415_and_say_what_can() {
    let sent = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
        headers
    };
    assert_eq!(body_type(&HeaderMap::new()).unwrap(), reply::JSON);
    assert_eq!(body_type(&sent("application/json; charset=utf-8")).unwrap(), reply::JSON);
    assert_eq!(body_type(&sent("application/yaml")).unwrap(), reply::YAML);
    let protobuf = "application/vnd.kubernetes.protobuf";
    assert_eq!(body_type(&sent(protobuf)).unwrap(), protobuf);
    let refused = body_type(&sent("application/cbor")).unwrap_err();
    assert_eq!(refused.code, 415);
    assert_eq!(
        refused.message,
        "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
    let merge = patch_type(&sent("application/merge-patch+json")).unwrap();
    assert_eq!(merge.1, PatchType::Merge);
    assert_eq!(patch_type(&sent("application/json")).unwrap_err().code, 415);
}

proptest! {
    #[test]
    fn no_accept_header_makes_it_panic(accept in "[ -~]{0,80}") {
        let _ = negotiate(&asking(&accept), &Query::default(), Shape::Single);
    }
}

//! Every constructor's object on the wire.

use super::*;
use crate::field_error::Path;
use crate::registry::registry;

fn kind(group: &str, resource: &str) -> &'static Kind {
    registry().by_group_resource(group, resource).expect("a registered kind")
}

#[test]
fn each_status_is_worded_as_upstream_words_it() {
    let (pods, deployments) = (kind("", "pods"), kind("apps", "deployments"));
    let required = FieldError::required(Path::new("spec.containers[0].image"), "");
    let invalid =
        FieldError::invalid(Path::new("spec.replicas"), -1, "must be greater than or equal to 0");
    let one = std::slice::from_ref(&required);
    let all = [
        Status::deleted(deployments, "web", "u1"),
        Status::success(),
        Status::not_found(pods, "x"),
        Status::path_not_found(),
        Status::already_exists(deployments, "web"),
        Status::generated_name_exists(pods, "web-abcde"),
        Status::modified(deployments, "x"),
        Status::uid_precondition(pods, "x", "a", "b"),
        Status::revision_precondition(pods, "x", "1", "2"),
        Status::apply_conflict(
            "Apply failed with 1 conflict",
            vec![Cause {
                reason: "FieldManagerConflict".into(),
                message: "conflict with \"kubectl\"".into(),
                field: ".spec.replicas".into(),
            }],
        ),
        Status::invalid(deployments, "web", one),
        Status::invalid(deployments, "web", &[required.clone(), invalid, required]),
        Status::invalid(pods, "web", &[]),
        Status::forbidden(
            pods,
            "",
            "User \"a\" cannot list resource \"pods\" in API group \"\" in the namespace \"b\"",
        ),
        Status::forbidden(pods, "x", "no"),
        Status::forbidden(GroupResource { group: "", resource: "" }, "", "no"),
        Status::unauthorized(),
        Status::bad_request("bad"),
        Status::method_not_allowed(deployments, "list"),
        Status::not_acceptable(&["application/json", "application/yaml"]),
        Status::unsupported_media_type(&["application/json-patch+json"]),
        Status::request_too_large(3_145_728),
        Status::gone("gone"),
        Status::revision_too_old(5, 9),
        Status::continue_expired(Some("token".into())),
        Status::timeout("request did not complete within requested timeout", 0),
        Status::revision_too_large(9, 5),
        Status::server_timeout(pods, "create", 2),
        Status::too_many_requests(
            "Cannot evict pod as it would violate the pod's disruption budget.",
            10,
        ),
        Status::service_unavailable("no leader"),
        Status::internal("boom"),
    ];
    let printed: Vec<String> = all.iter().map(|it| it.to_json().to_string()).collect();
    expect_test::expect![[r#"
        {"apiVersion":"v1","details":{"group":"apps","kind":"deployments","name":"web","uid":"u1"},"kind":"Status","metadata":{},"status":"Success"}
        {"apiVersion":"v1","kind":"Status","metadata":{},"status":"Success"}
        {"apiVersion":"v1","code":404,"details":{"kind":"pods","name":"x"},"kind":"Status","message":"pods \"x\" not found","metadata":{},"reason":"NotFound","status":"Failure"}
        {"apiVersion":"v1","code":404,"details":{},"kind":"Status","message":"the server could not find the requested resource","metadata":{},"reason":"NotFound","status":"Failure"}
        {"apiVersion":"v1","code":409,"details":{"group":"apps","kind":"deployments","name":"web"},"kind":"Status","message":"deployments.apps \"web\" already exists","metadata":{},"reason":"AlreadyExists","status":"Failure"}
        {"apiVersion":"v1","code":409,"details":{"kind":"pods","name":"web-abcde","retryAfterSeconds":1},"kind":"Status","message":"pods \"web-abcde\" already exists, the server was not able to generate a unique name for the object","metadata":{},"reason":"AlreadyExists","status":"Failure"}
        {"apiVersion":"v1","code":409,"details":{"group":"apps","kind":"deployments","name":"x"},"kind":"Status","message":"Operation cannot be fulfilled on deployments.apps \"x\": the object has been modified; please apply your changes to the latest version and try again","metadata":{},"reason":"Conflict","status":"Failure"}
        {"apiVersion":"v1","code":409,"details":{"kind":"pods","name":"x"},"kind":"Status","message":"Operation cannot be fulfilled on pods \"x\": Precondition failed: UID in precondition: a, UID in object meta: b","metadata":{},"reason":"Conflict","status":"Failure"}
        {"apiVersion":"v1","code":409,"details":{"kind":"pods","name":"x"},"kind":"Status","message":"Operation cannot be fulfilled on pods \"x\": Precondition failed: ResourceVersion in precondition: 1, ResourceVersion in object meta: 2","metadata":{},"reason":"Conflict","status":"Failure"}
        {"apiVersion":"v1","code":409,"details":{"causes":[{"field":".spec.replicas","message":"conflict with \"kubectl\"","reason":"FieldManagerConflict"}]},"kind":"Status","message":"Apply failed with 1 conflict","metadata":{},"reason":"Conflict","status":"Failure"}
        {"apiVersion":"v1","code":422,"details":{"causes":[{"field":"spec.containers[0].image","message":"Required value","reason":"FieldValueRequired"}],"group":"apps","kind":"Deployment","name":"web"},"kind":"Status","message":"Deployment.apps \"web\" is invalid: spec.containers[0].image: Required value","metadata":{},"reason":"Invalid","status":"Failure"}
        {"apiVersion":"v1","code":422,"details":{"causes":[{"field":"spec.containers[0].image","message":"Required value","reason":"FieldValueRequired"},{"field":"spec.replicas","message":"Invalid value: -1: must be greater than or equal to 0","reason":"FieldValueInvalid"},{"field":"spec.containers[0].image","message":"Required value","reason":"FieldValueRequired"}],"group":"apps","kind":"Deployment","name":"web"},"kind":"Status","message":"Deployment.apps \"web\" is invalid: [spec.containers[0].image: Required value, spec.replicas: Invalid value: -1: must be greater than or equal to 0]","metadata":{},"reason":"Invalid","status":"Failure"}
        {"apiVersion":"v1","code":422,"details":{"kind":"Pod","name":"web"},"kind":"Status","message":"Pod \"web\" is invalid","metadata":{},"reason":"Invalid","status":"Failure"}
        {"apiVersion":"v1","code":403,"details":{"kind":"pods"},"kind":"Status","message":"pods is forbidden: User \"a\" cannot list resource \"pods\" in API group \"\" in the namespace \"b\"","metadata":{},"reason":"Forbidden","status":"Failure"}
        {"apiVersion":"v1","code":403,"details":{"kind":"pods","name":"x"},"kind":"Status","message":"pods \"x\" is forbidden: no","metadata":{},"reason":"Forbidden","status":"Failure"}
        {"apiVersion":"v1","code":403,"details":{},"kind":"Status","message":"forbidden: no","metadata":{},"reason":"Forbidden","status":"Failure"}
        {"apiVersion":"v1","code":401,"kind":"Status","message":"Unauthorized","metadata":{},"reason":"Unauthorized","status":"Failure"}
        {"apiVersion":"v1","code":400,"kind":"Status","message":"bad","metadata":{},"reason":"BadRequest","status":"Failure"}
        {"apiVersion":"v1","code":405,"details":{"group":"apps","kind":"deployments"},"kind":"Status","message":"list is not supported on resources of kind \"deployments.apps\"","metadata":{},"reason":"MethodNotAllowed","status":"Failure"}
        {"apiVersion":"v1","code":406,"kind":"Status","message":"only the following media types are accepted: application/json, application/yaml","metadata":{},"reason":"NotAcceptable","status":"Failure"}
        {"apiVersion":"v1","code":415,"kind":"Status","message":"the body of the request was in an unknown format - accepted media types include: application/json-patch+json","metadata":{},"reason":"UnsupportedMediaType","status":"Failure"}
        {"apiVersion":"v1","code":413,"kind":"Status","message":"Request entity too large: limit is 3145728","metadata":{},"reason":"RequestEntityTooLarge","status":"Failure"}
        {"apiVersion":"v1","code":410,"kind":"Status","message":"gone","metadata":{},"reason":"Gone","status":"Failure"}
        {"apiVersion":"v1","code":410,"kind":"Status","message":"too old resource version: 5 (9)","metadata":{},"reason":"Expired","status":"Failure"}
        {"apiVersion":"v1","code":410,"kind":"Status","message":"The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.","metadata":{"continue":"token"},"reason":"Expired","status":"Failure"}
        {"apiVersion":"v1","code":504,"details":{},"kind":"Status","message":"Timeout: request did not complete within requested timeout","metadata":{},"reason":"Timeout","status":"Failure"}
        {"apiVersion":"v1","code":504,"details":{"causes":[{"message":"Too large resource version","reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1},"kind":"Status","message":"Timeout: Too large resource version: 9, current: 5","metadata":{},"reason":"Timeout","status":"Failure"}
        {"apiVersion":"v1","code":500,"details":{"kind":"pods","name":"create","retryAfterSeconds":2},"kind":"Status","message":"The create operation against pods could not be completed at this time, please try again.","metadata":{},"reason":"ServerTimeout","status":"Failure"}
        {"apiVersion":"v1","code":429,"details":{"retryAfterSeconds":10},"kind":"Status","message":"Cannot evict pod as it would violate the pod's disruption budget.","metadata":{},"reason":"TooManyRequests","status":"Failure"}
        {"apiVersion":"v1","code":503,"kind":"Status","message":"no leader","metadata":{},"reason":"ServiceUnavailable","status":"Failure"}
        {"apiVersion":"v1","code":500,"details":{"causes":[{"message":"boom"}]},"kind":"Status","message":"Internal error occurred: boom","metadata":{},"reason":"InternalError","status":"Failure"}"#]].assert_eq(&printed.join("\n"));
}

#[test]
fn a_status_prints_as_its_message() {
    assert_eq!(Status::not_found(kind("", "pods"), "x").to_string(), "pods \"x\" not found");
    assert_eq!(Status::server_timeout(kind("", "pods"), "get", 7).retry_after_seconds(), Some(7));
}

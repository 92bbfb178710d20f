//! A node's `CallApi` as an API request under the node's own name. Pure.

use kactor_api::request::{Body, Options};
use kactor_api::{
    Caller, Operation, PatchType, Preconditions, Request, Resource, Response, Status, User,
};
use kactor_protocol::TraceId;
use kactor_protocol::node::{ApiReply, ApiTarget, ApiVerb, CallApi};
use kactor_protocol::time::Deadline;

/// Who a node is to the API: `system:node:NAME` in `system:nodes`, with the kubelet's field manager.
pub fn caller(node: &str, trace: TraceId) -> Caller {
    Caller::internal(User::node(node), "kubelet", trace)
}

fn resource(target: &ApiTarget) -> Resource {
    Resource {
        group: target.group.clone(),
        version: target.version.clone(),
        resource: target.resource.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
    }
}

/// The request that the message stands for. Options that a node has no use for are not known here.
pub fn request(node: &str, call: CallApi, trace: TraceId, deadline: Deadline) -> Request {
    let operation = match call.verb {
        ApiVerb::Get => Operation::Get,
        ApiVerb::List => Operation::List,
        ApiVerb::Create => Operation::Create,
        ApiVerb::Update => Operation::Update,
        ApiVerb::MergePatch => Operation::Patch(PatchType::Merge),
        ApiVerb::StrategicPatch => Operation::Patch(PatchType::Strategic),
        ApiVerb::Delete => Operation::Delete,
    };
    let mut caller = caller(node, trace);
    let mut options = Options::default();
    for (name, value) in call.options {
        match name.as_str() {
            "fieldManager" => caller.field_manager = Some(value),
            "labelSelector" => options.label_selector = Some(value),
            "fieldSelector" => options.field_selector = Some(value),
            "resourceVersion" => options.resource_version = Some(value),
            "preconditionUid" => {
                options.preconditions =
                    Preconditions { uid: Some(value), ..Preconditions::default() }
            }
            _ => {}
        }
    }
    let body = (!call.body.is_empty()).then(|| Body::json(call.body));
    Request { caller, resource: resource(&call.target), operation, options, body, deadline }
}

/// What the API said, as the node hears it.
pub fn reply(answer: Result<Response, Status>) -> ApiReply {
    match answer {
        Ok(response) => ApiReply { code: response.code, body: response.object.to_bytes() },
        Err(status) => {
            let json = status.to_json();
            let code = json["code"].as_u64().and_then(|it| u16::try_from(it).ok()).unwrap_or(500);
            ApiReply { code, body: json.to_string().into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_speaks_under_its_own_name_and_no_other() {
        let target = ApiTarget {
            group: String::new(),
            version: "v1".to_owned(),
            resource: "pods".to_owned(),
            subresource: Some("status".to_owned()),
            namespace: Some("default".to_owned()),
            name: Some("web".to_owned()),
        };
        let options = vec![
            ("fieldManager".to_owned(), "m".to_owned()),
            ("impersonate".to_owned(), "root".to_owned()),
        ];
        let call = CallApi { verb: ApiVerb::StrategicPatch, target, options, body: "{}".into() };
        let it = request("n1", call, TraceId(7), Deadline(5));
        assert_eq!(it.caller.user.name, "system:node:n1");
        assert_eq!(it.caller.manager(), "m");
        assert!(it.caller.impersonator.is_none());
        assert_eq!(it.operation, Operation::Patch(PatchType::Strategic));
        assert_eq!(it.resource.subresource.as_deref(), Some("status"));
    }

    #[test]
    fn refusals_keep_their_code_and_words() {
        let it = reply(Err(Status::bad_request("no")));
        assert_eq!(it.code, 400);
        assert!(String::from_utf8_lossy(&it.body).contains("\"message\":\"no\""));
    }
}

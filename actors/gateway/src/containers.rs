//! Which container of which pod on which node a stream is for, and the refusals on the way there.
//!
//! The order and the texts are those of kubernetes pkg/registry/core/pod/strategy.go.

use kactor_api::{Attributes, Caller, Operation, Options, Request, Resource, Status, User};
use kactor_streams::{ContainerTarget, PodTarget, StreamError};
use serde_json::Value;

use crate::gateway::{Asked, Gateway};

/// Who looks pods up on behalf of a stream that was permitted; the stream's right does not need `get pods`.
const LOOKUP_AGENT: &str = "kactor-gateway";

/// A pod that is to be streamed from.
pub(crate) struct Pod {
    tree: Value,
    namespace: String,
    name: String,
}

/// Checks the permission for `verb` on the subresource, then finds the pod.
pub(crate) async fn find_pod(
    gateway: &Gateway,
    asked: &Asked,
    verb: &str,
    resource: &Resource,
) -> Result<Pod, Status> {
    gateway.api.require(&Attributes::new(&asked.caller.user, verb, resource))?;
    let namespace = resource.namespace.clone().unwrap_or_default();
    let name = resource.name.clone().unwrap_or_default();
    let request = Request {
        caller: Caller::internal(User::api(), LOOKUP_AGENT, asked.caller.trace),
        resource: Resource::new("", "v1", "pods").in_namespace(&namespace).named(&name),
        operation: Operation::Get,
        options: Options::default(),
        body: None,
        deadline: asked.deadline,
    };
    let tree = gateway.api.handle(request).await?.object.to_tree();
    Ok(Pod { tree, namespace, name })
}

impl Pod {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node that it is bound to.
    pub fn node(&self) -> Option<&str> {
        self.tree["spec"]["nodeName"].as_str().filter(|it| !it.is_empty())
    }

    pub fn target(&self) -> Result<PodTarget, Status> {
        let node = self.node().ok_or_else(|| {
            Status::bad_request(format!("pod {} does not have a host assigned", self.name))
        })?;
        Ok(PodTarget {
            node: node.to_owned(),
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            uid: self.tree["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        })
    }

    /// The container that was asked for, or the only one.
    pub fn container(&self, asked: Option<&str>) -> Result<String, Status> {
        choose_container(&self.tree, &self.name, asked)
    }

    pub fn container_target(&self, asked: Option<&str>) -> Result<ContainerTarget, Status> {
        let container = self.container(asked)?;
        Ok(ContainerTarget { pod: self.target()?, container })
    }
}

fn choose_container(pod: &Value, name: &str, asked: Option<&str>) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(|it| it["name"].as_str().map(str::to_owned)).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if let Some(asked) = asked.filter(|it| !it.is_empty()) {
        let known = main.iter().chain(&init).any(|it| it == asked)
            || names("ephemeralContainers").iter().any(|it| it == asked);
        return match known {
            true => Ok(asked.to_owned()),
            false => {
                Err(Status::bad_request(format!("container {asked} is not valid for pod {name}")))
            }
        };
    }
    match main.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            Err(Status::bad_request(format!("a container name must be specified for pod {name}")))
        }
        several => {
            let mut text = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            );
            if !init.is_empty() {
                text.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(text))
        }
    }
}

/// What a node's refusal is to the client.
pub(crate) fn refused(error: StreamError) -> Status {
    match error {
        StreamError::BadRequest(why) => Status::bad_request(why),
        StreamError::NotFound { .. } => {
            Status::new(kactor_api::Reason::NotFound, error.to_string())
        }
        StreamError::NodeUnreachable { .. } | StreamError::Failed(_) => {
            Status::internal(&error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_the_one_asked_for_or_the_only_one() {
        let one = json!({"spec": {"containers": [{"name": "app"}], "initContainers": [{"name": "init"}]}});
        let two = json!({"spec": {
            "containers": [{"name": "app"}, {"name": "log"}],
            "initContainers": [{"name": "init"}],
            "ephemeralContainers": [{"name": "debug"}],
        }});
        let choose = |pod, asked| choose_container(pod, "web", asked).map_err(|it| it.message);
        assert_eq!(choose(&one, None).as_deref(), Ok("app"));
        assert_eq!(choose(&one, Some("init")).as_deref(), Ok("init"));
        assert_eq!(choose(&two, Some("debug")).as_deref(), Ok("debug"));
        assert_eq!(
            choose(&two, None).unwrap_err(),
            "a container name must be specified for pod web, choose one of: [app log] or one of the init containers: [init]"
        );
        assert_eq!(choose(&one, Some("no")).unwrap_err(), "container no is not valid for pod web");
    }
}

//! From an authorized request to the function that answers it: by the kind's row, never by its name.

use kactor_objects::registry::{Access, Kind, Storage, Subresource, Verb, registry};
use kactor_objects::status::{Reason, Status};

use crate::api::Api;
use crate::authorize::attributes::Attributes;
use crate::notes::Outcome;
use crate::request::{Operation, Request, Resource, Response};

/// The question that a request is to the authorizers.
pub(crate) fn attributes_of(request: &Request) -> Attributes {
    let question =
        Attributes::new(&request.caller.user, request.operation.verb(), &request.resource)
            .inside_namespace();
    match request.operation {
        Operation::List | Operation::DeleteCollection => {
            question.selecting(request.options.field_selector.as_deref())
        }
        _ => question,
    }
}

/// The row that the request is for.
pub(crate) fn kind_of(resource: &Resource) -> Result<&'static Kind, Status> {
    registry()
        .by_resource(&resource.group, &resource.version, &resource.resource)
        .ok_or_else(Status::path_not_found)
}

impl Operation {
    fn registry_verb(self) -> Verb {
        match self {
            Self::Get => Verb::Get,
            Self::List => Verb::List,
            Self::Create => Verb::Create,
            Self::Update => Verb::Update,
            Self::Patch(_) => Verb::Patch,
            Self::Delete => Verb::Delete,
            Self::DeleteCollection => Verb::DeleteCollection,
        }
    }
}

impl Api {
    pub(crate) async fn perform(&self, request: &Request) -> Result<Response, Status> {
        let kind = kind_of(&request.resource)?;
        check_scope(kind, request)?;
        check_manager(request)?;
        match request.resource.subresource.as_deref() {
            None => self.perform_main(request, kind).await,
            Some(name) => {
                let sub = kind.subresource(name).ok_or_else(Status::path_not_found)?;
                self.perform_sub(request, kind, sub).await
            }
        }
    }

    async fn perform_main(
        &self,
        request: &Request,
        kind: &'static Kind,
    ) -> Result<Response, Status> {
        let verb = request.operation.registry_verb();
        if !kind.allows(verb) {
            return Err(Status::method_not_allowed(kind, verb.as_str()));
        }
        if matches!(kind.storage, Storage::Virtual) {
            return self.answer_virtual(request, kind).await;
        }
        match request.operation {
            Operation::Get => self.get(request, kind).await,
            Operation::List => self.list(request, kind).await,
            Operation::Create => self.create(request, kind).await,
            Operation::Update => self.update(request, kind, None).await,
            Operation::Patch(patch_type) => self.patch(request, kind, None, patch_type).await,
            Operation::Delete => self.delete(request, kind).await,
            Operation::DeleteCollection => self.delete_collection(request, kind).await,
        }
    }

    async fn perform_sub(
        &self,
        request: &Request,
        kind: &'static Kind,
        sub: &'static Subresource,
    ) -> Result<Response, Status> {
        let verb = request.operation.registry_verb();
        if !sub.verbs.contains(&verb) || request.resource.name.is_none() {
            return Err(Status::method_not_allowed(kind, verb.as_str()));
        }
        match (sub.access, request.operation) {
            (Access::Connect, _) => Err(Status::bad_request(format!(
                "{}/{} is a stream: it is served by the gateway, not as an object",
                kind.resource, sub.name
            ))),
            (Access::Action, _) => self.act(request, kind, sub).await,
            (Access::Object(_), Operation::Get) => self.get(request, kind).await,
            (Access::Scale, Operation::Get) => self.get_scale(request, kind).await,
            (_, Operation::Update) => self.update(request, kind, Some(sub)).await,
            (_, Operation::Patch(patch_type)) => {
                self.patch(request, kind, Some(sub), patch_type).await
            }
            _ => Err(Status::method_not_allowed(kind, verb.as_str())),
        }
    }
}

/// Names of field managers stay short: every object carries them.
fn check_manager(request: &Request) -> Result<(), Status> {
    const MANAGER_BYTES_MAX: usize = 128;
    if request.caller.field_manager.as_ref().is_some_and(|it| it.len() > MANAGER_BYTES_MAX) {
        return Err(Status::new(
            Reason::Invalid,
            "fieldManager: Too long: may not be more than 128 bytes".to_owned(),
        ));
    }
    Ok(())
}

/// A namespace where there must be one, none where there is none, a name where one object is meant.
pub(crate) fn check_scope(kind: &Kind, request: &Request) -> Result<(), Status> {
    let resource = &request.resource;
    let has_namespace = resource.namespace.as_deref().is_some_and(|it| !it.is_empty());
    if has_namespace && !kind.is_namespaced() {
        return Err(Status::path_not_found());
    }
    let collection = matches!(
        request.operation,
        Operation::List | Operation::DeleteCollection | Operation::Create
    );
    let named = resource.name.as_deref().is_some_and(|it| !it.is_empty());
    if !collection && !named {
        return Err(Status::method_not_allowed(kind, request.operation.verb()));
    }
    let across = matches!(request.operation, Operation::List);
    if kind.is_namespaced() && !has_namespace && !across {
        return Err(Status::bad_request(format!(
            "an empty namespace may not be set when {} is asked for one of {}",
            request.operation.verb(),
            kind.resource
        )));
    }
    Ok(())
}

impl Response {
    /// What the note of this answer says.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.revision {
            Some(revision) => Outcome::Written { revision },
            None => Outcome::Answered,
        }
    }
}

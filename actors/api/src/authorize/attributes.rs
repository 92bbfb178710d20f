//! What authorization is asked: who, which verb, on what; and what it answers.

use crate::request::{Resource, User};

/// One question to the authorizers.
#[derive(Debug, Clone)]
pub struct Attributes {
    pub user: User,
    pub verb: String,
    pub target: Target,
    /// `fieldSelector` of a list, watch or deletecollection: the node authorizer narrows by it.
    pub field_selector: Option<String>,
}

/// An object of the API, or a path beside it (`/metrics`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Resource(Resource),
    Path(String),
}

impl Attributes {
    pub fn new(user: &User, verb: &str, resource: &Resource) -> Self {
        Self {
            user: user.clone(),
            verb: verb.to_owned(),
            target: Target::Resource(resource.clone()),
            field_selector: None,
        }
    }

    /// A question about a path that is no resource; `verb` is the HTTP method in lower case.
    pub fn path(user: &User, verb: &str, path: &str) -> Self {
        Self {
            user: user.clone(),
            verb: verb.to_owned(),
            target: Target::Path(path.to_owned()),
            field_selector: None,
        }
    }

    /// A request for a namespace is one inside it, so that a RoleBinding there can allow it
    /// (k8s.io/apiserver requestinfo).
    #[must_use]
    pub fn inside_namespace(mut self) -> Self {
        if let Target::Resource(it) = &mut self.target
            && it.group.is_empty()
            && it.resource == "namespaces"
            && it.namespace.is_none()
        {
            it.namespace.clone_from(&it.name);
        }
        self
    }

    /// A selector that names one object (`metadata.name=x`) makes it a question about that object.
    #[must_use]
    pub fn selecting(mut self, field_selector: Option<&str>) -> Self {
        self.field_selector = field_selector.map(str::to_owned);
        let named =
            field_selector.and_then(|it| required_value(it, "metadata.name")).map(str::to_owned);
        if let Target::Resource(resource) = &mut self.target
            && resource.name.is_none()
        {
            resource.name = named;
        }
        self
    }

    /// The value that the selector requires of `field`, if it does.
    pub fn required(&self, field: &str) -> Option<&str> {
        self.field_selector.as_deref().and_then(|it| required_value(it, field))
    }

    pub fn resource(&self) -> Option<&Resource> {
        match &self.target {
            Target::Resource(it) => Some(it),
            Target::Path(_) => None,
        }
    }
}

fn required_value<'a>(selector: &'a str, field: &str) -> Option<&'a str> {
    selector.split(',').find_map(|term| {
        let (name, value) = term.split_once('=')?;
        let value = value.strip_prefix('=').unwrap_or(value);
        (name.trim() == field && !value.is_empty()).then(|| value.trim())
    })
}

/// What the authorizers say. Silence of all of them is a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// `reason` names the binding and role that allowed it.
    Allow { reason: String },
    /// Nobody allowed it; `reason` is printed after the refusal when there is one.
    Refuse { reason: String },
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Allow { reason } | Self::Refuse { reason } => reason,
        }
    }
}

/// What Kubernetes prints when nothing allows a request.
pub fn refusal(attributes: &Attributes, reason: &str) -> String {
    let user = &attributes.user.name;
    let verb = &attributes.verb;
    let mut text = match &attributes.target {
        Target::Path(path) => format!("User {user:?} cannot {verb} path {path:?}"),
        Target::Resource(it) => {
            let resource = match &it.subresource {
                Some(sub) => format!("{}/{sub}", it.resource),
                None => it.resource.clone(),
            };
            let place = match it.namespace.as_deref().filter(|it| !it.is_empty()) {
                Some(namespace) => format!(" in the namespace {namespace:?}"),
                None => " at the cluster scope".to_owned(),
            };
            format!(
                "User {user:?} cannot {verb} resource {resource:?} in API group {:?}{place}",
                it.group
            )
        }
    };
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_kubernetes_prints_them() {
        let user = User { name: "jane".into(), ..User::default() };
        let pods = Resource::new("", "v1", "pods");
        for (attributes, expected) in [
            (
                Attributes::new(&user, "list", &pods.clone().in_namespace("default")),
                r#"User "jane" cannot list resource "pods" in API group "" in the namespace "default""#,
            ),
            (
                Attributes::new(&user, "list", &pods),
                r#"User "jane" cannot list resource "pods" in API group "" at the cluster scope"#,
            ),
            (
                Attributes::new(
                    &user,
                    "get",
                    &pods.in_namespace("a").named("x").subresource("log"),
                ),
                r#"User "jane" cannot get resource "pods/log" in API group "" in the namespace "a""#,
            ),
            (
                Attributes::path(&user, "get", "/metrics"),
                r#"User "jane" cannot get path "/metrics""#,
            ),
        ] {
            assert_eq!(refusal(&attributes, ""), expected);
        }
    }

    #[test]
    fn a_namespace_is_asked_for_inside_itself() {
        let ask = |it: Resource| Attributes::new(&User::default(), "get", &it).inside_namespace();
        let namespace = |it: Attributes| it.resource().and_then(|it| it.namespace.clone());
        let one = Resource::new("", "v1", "namespaces").named("a");
        assert_eq!(namespace(ask(one)).as_deref(), Some("a"));
        assert_eq!(namespace(ask(Resource::new("", "v1", "namespaces"))), None);
        assert_eq!(namespace(ask(Resource::new("", "v1", "nodes").named("a"))), None);
    }

    #[test]
    fn a_selector_that_names_one_object_asks_about_that_object() {
        let secrets = Resource::new("", "v1", "secrets").in_namespace("a");
        let ask = |selector| {
            Attributes::new(&User::node("n"), "list", &secrets).selecting(Some(selector))
        };
        let name = |it: &Attributes| it.resource().and_then(|it| it.name.clone());
        assert_eq!(name(&ask("metadata.name=x")).as_deref(), Some("x"));
        assert_eq!(name(&ask("type=Opaque,metadata.name==x")).as_deref(), Some("x"));
        assert_eq!(name(&ask("metadata.name!=x")), None);
    }
}

//! API resources: method, path and query become one request of kactor-api, and its answer becomes HTTP.
//!
//! Nothing is decided here that depends on a kind, except which subresources are streams. A watch is an endless
//! body of JSON frames, each sent as it happens.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, stream};
use http::Method;
use kactor_api::{Body, ObjectWatch, Operation, Request, Resource, Response, Status, WatchRequest};
use kactor_objects::registry::registry;

use crate::gateway::{Asked, Gateway, method_not_allowed};
use crate::in_flight::Weight;
use crate::logs;
use crate::metrics::Labels;
use crate::negotiate::{self, Encoding, Negotiated, Shape};
use crate::node_proxy;
use crate::options::{self, Use};
use crate::protobuf;
use crate::query::Query;
use crate::reply::{self, Reply, ReplyBody};
use crate::route::Route;
use crate::upgrade;

/// How a request is counted and what it occupies.
pub(crate) struct Class {
    pub labels: Labels,
    pub weight: Weight,
}

/// Judged by method and path alone, before anybody is asked who they are.
pub(crate) fn classify(method: &Method, route: &Route, query: &Query) -> Class {
    let Route::Resource { resource, prefixed_watch, .. } = route else {
        return Class { labels: Labels::other(metric_method(method)), weight: Weight::Read };
    };
    let streams = is_stream(resource) || node_proxy::is_node_proxy(resource);
    let watches = is_watch(method, resource, *prefixed_watch, query);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let weight = match () {
        () if streams || watches => Weight::LongRunning,
        () if reads => Weight::Read,
        () => Weight::Write,
    };
    let verb = match () {
        () if streams && resource.subresource.as_deref() != Some("log") => "CONNECT",
        () if watches => "WATCH",
        () if reads && resource.name.is_none() => "LIST",
        () if *method == Method::DELETE && resource.name.is_none() => "DELETECOLLECTION",
        () => metric_method(method),
    };
    Class { labels: labels(verb, resource), weight }
}

/// Only words of the registry become labels.
fn labels(verb: &'static str, resource: &Resource) -> Labels {
    let Some(kind) = registry().by_resource(&resource.group, &resource.version, &resource.resource)
    else {
        return Labels::other(verb);
    };
    let subresource = resource
        .subresource
        .as_deref()
        .and_then(|it| kind.subresource(it))
        .map_or("", |it| it.name);
    let scope = match (&resource.name, &resource.namespace) {
        (Some(_), _) => "resource",
        (None, Some(_)) => "namespace",
        (None, None) => "cluster",
    };
    Labels {
        verb,
        group: kind.group,
        version: kind.version,
        resource: kind.resource,
        subresource,
        scope,
    }
}

fn metric_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

/// Subresources that are byte streams of a container, not objects.
fn is_stream(resource: &Resource) -> bool {
    resource.group.is_empty()
        && resource.resource == "pods"
        && matches!(
            resource.subresource.as_deref(),
            Some("log" | "exec" | "attach" | "portforward")
        )
}

fn is_watch(method: &Method, resource: &Resource, prefixed: bool, query: &Query) -> bool {
    let collection = resource.name.is_none() && query.flag("watch");
    *method == Method::GET && resource.subresource.is_none() && (prefixed || collection)
}

pub(crate) async fn serve(
    gateway: &Arc<Gateway>,
    asked: Asked,
    resource: Resource,
    prefixed_watch: bool,
    rest: &[String],
) -> Result<Reply, Status> {
    if node_proxy::is_node_proxy(&resource) {
        return node_proxy::serve(gateway, asked, resource).await;
    }
    if !rest.is_empty() {
        return Err(Status::path_not_found()); // Only proxies have deeper paths.
    }
    if is_stream(&resource) {
        return match resource.subresource.as_deref() {
            Some("log") => logs::serve(gateway, &asked, resource).await,
            _ => upgrade::serve(gateway, asked, resource).await,
        };
    }
    if is_watch(&asked.method, &resource, prefixed_watch, &asked.query) {
        return watch(gateway, &asked, resource).await;
    }
    handle(gateway, asked, resource).await
}

async fn handle(gateway: &Gateway, asked: Asked, resource: Resource) -> Result<Reply, Status> {
    let negotiated = negotiate::negotiate(&asked.headers, &asked.query, shape(&resource))?;
    let named = resource.name.is_some();
    let (operation, of, content_type) = match (asked.method.as_str(), named) {
        ("GET" | "HEAD", true) => (Operation::Get, Use::Get, None),
        ("GET" | "HEAD", false) => (Operation::List, Use::List, None),
        ("POST", _) => {
            (Operation::Create, Use::Create, Some(negotiate::body_type(&asked.headers)?))
        }
        ("PUT", true) => {
            (Operation::Update, Use::Update, Some(negotiate::body_type(&asked.headers)?))
        }
        ("PATCH", true) => {
            let (content_type, patch) = negotiate::patch_type(&asked.headers)?;
            (Operation::Patch(patch), Use::Patch, Some(content_type))
        }
        ("DELETE", true) => {
            (Operation::Delete, Use::Delete, Some(negotiate::body_type(&asked.headers)?))
        }
        ("DELETE", false) => {
            let content_type = negotiate::body_type(&asked.headers)?;
            (Operation::DeleteCollection, Use::DeleteCollection, Some(content_type))
        }
        _ => return Err(method_not_allowed()),
    };
    let options = options::parse(&asked.query, of, negotiated.form)?;
    let mut unread = Vec::new();
    let body = match content_type {
        Some(content_type) => {
            let bytes = gateway.read_body(&asked).await?;
            // A delete may come without options; for everything else an empty body is the API's to refuse.
            let absent = bytes.is_empty() && matches!(of, Use::Delete | Use::DeleteCollection);
            match absent {
                true => None,
                false => Some(body(content_type, bytes, &mut unread)?),
            }
        }
        None => None,
    };
    let Asked { caller, deadline, .. } = asked;
    let request = Request { caller, resource, operation, options, body, deadline };
    let mut response = gateway.api.handle(request).await?;
    response.warnings.append(&mut unread);
    Ok(object_reply(response, negotiated))
}

fn shape(resource: &Resource) -> Shape {
    let kind = registry().by_resource(&resource.group, &resource.version, &resource.resource);
    match kind {
        Some(kind) if kind.stored().is_none() => Shape::Review,
        _ => Shape::Single,
    }
}

/// JSON and YAML are the API's to parse; protobuf becomes the tree that JSON would have been.
fn body(content_type: &str, bytes: Bytes, unread: &mut Vec<String>) -> Result<Body, Status> {
    if content_type != protobuf::MEDIA_TYPE {
        return Ok(Body::Encoded { content_type: content_type.to_owned(), bytes });
    }
    let decoded = protobuf::decode(&bytes).map_err(|it| Status::bad_request(it.to_string()))?;
    *unread = decoded.warnings;
    Ok(Body::Tree(decoded.tree))
}

/// The answer's object in the encoding that was negotiated. JSON leaves as the chunks that the API made.
fn object_reply(response: Response, negotiated: Negotiated) -> Reply {
    let Response { code, object, warnings, .. } = response;
    let content_type = negotiated.encoding.media_type();
    let mut reply = match negotiated.encoding {
        Encoding::Json => reply::with_body(code, content_type, ReplyBody::of(object.into_chunks())),
        Encoding::PrettyJson => {
            let mut text =
                serde_json::to_vec_pretty(&object.to_tree()).expect("a tree has string keys only");
            text.push(b'\n');
            reply::bytes(code, content_type, text)
        }
        Encoding::Yaml => {
            let text = serde_saphyr::to_string(&object.to_tree())
                .expect("a JSON tree always prints as YAML");
            reply::bytes(code, content_type, text.into_bytes())
        }
    };
    reply::warn(&mut reply, &warnings);
    reply
}

async fn watch(gateway: &Gateway, asked: &Asked, resource: Resource) -> Result<Reply, Status> {
    let negotiated = negotiate::negotiate(&asked.headers, &asked.query, Shape::Stream)?;
    let options = options::parse(&asked.query, Use::Watch, negotiated.form)?;
    let watching = options::parse_watch(&asked.query)?;
    let request = WatchRequest {
        caller: asked.caller.clone(),
        resource,
        label_selector: options.label_selector,
        field_selector: options.field_selector,
        resource_version: options.resource_version,
        version_match: options.version_match,
        initial: watching.initial,
        bookmarks: watching.bookmarks,
        timeout_seconds: watching.timeout_seconds,
        form: negotiated.form,
        deadline: asked.deadline,
    };
    let watch = gateway.api.watch(request).await?;
    Ok(reply::with_body(200, reply::JSON, ReplyBody::stream(frames(watch))))
}

fn frames(watch: ObjectWatch) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((event.to_line(), watch))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::route;

    #[test]
    fn requests_are_classed_by_what_they_occupy_and_counted_under_known_words() {
        for (method, url, verb, resource, weight) in [
            (Method::GET, "/api/v1/pods", "LIST", "pods", Weight::Read),
            (Method::GET, "/api/v1/pods?watch=1", "WATCH", "pods", Weight::LongRunning),
            (Method::GET, "/api/v1/watch/pods", "WATCH", "pods", Weight::LongRunning),
            (Method::GET, "/api/v1/namespaces/a/pods/b", "GET", "pods", Weight::Read),
            (Method::GET, "/api/v1/namespaces/a/pods/b?watch=1", "GET", "pods", Weight::Read),
            (Method::POST, "/api/v1/namespaces/a/pods", "POST", "pods", Weight::Write),
            (
                Method::DELETE,
                "/api/v1/namespaces/a/pods",
                "DELETECOLLECTION",
                "pods",
                Weight::Write,
            ),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", "GET", "pods", Weight::LongRunning),
            (
                Method::POST,
                "/api/v1/namespaces/a/pods/b/exec",
                "CONNECT",
                "pods",
                Weight::LongRunning,
            ),
            (
                Method::GET,
                "/api/v1/nodes/n/proxy/stats/summary",
                "CONNECT",
                "nodes",
                Weight::LongRunning,
            ),
            (Method::PATCH, "/apis/no.such/v1/things/x", "PATCH", "", Weight::Write),
            (Method::GET, "/readyz", "GET", "", Weight::Read),
        ] {
            let (path, query) = url.split_once('?').unwrap_or((url, ""));
            let class = classify(&method, &route(path), &Query::parse(query));
            assert_eq!(
                (class.labels.verb, class.labels.resource, class.weight),
                (verb, resource, weight),
                "{method} {url}"
            );
        }
    }
}

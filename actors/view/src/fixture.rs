//! A small language for clusters, so that tests speak of Pods and not of JSON.
//!
//! One object a line: `kind/name` (or `kind/namespace/name`; namespace `default` otherwise) and words. A word is
//! `key=value`, a flag, or `.path.to.field=json`, which sets any field. `<- subject` marks what a test asks about.
//! Times are seconds since 1970. See `fixture/words.rs` for the words of each kind. A word that is not known panics:
//! a fixture that says something else than it seems to is worse than none.
//!
//! ```text
//! rs/web     replicas=3                              <- subject
//! pod/web-a  owner=rs/web node=n1 phase=Running ready=10
//! node/n1    cpu=4 memory=8Gi taint=dedicated=db:NoSchedule
//! ```

mod words;

use std::collections::BTreeMap;

use kactor_protocol::store::Key;
use kactor_protocol::{Revision, Uid};
use serde_json::{Value, json};

use crate::kinds;
use crate::view::{Changed, ClusterView, Current};

/// A cluster made from text; each object takes the next revision.
#[derive(Default)]
pub struct World {
    view: ClusterView,
    bodies: BTreeMap<Key, Value>,
    subject: Option<Key>,
}

/// Reads a cluster.
///
/// # Panics
/// At a line that it does not understand, with the line.
pub fn parse(text: &str) -> World {
    let mut world = World::default();
    for line in text.lines().map(str::trim).filter(|it| !it.is_empty() && !it.starts_with('#')) {
        world.line(line);
    }
    world
}

impl World {
    pub fn view(&self) -> &ClusterView {
        &self.view
    }

    /// The key of the line marked with `<- subject`.
    pub fn subject(&self) -> &Key {
        self.subject.as_ref().expect("the fixture marks a subject")
    }

    pub fn body(&self, key: &Key) -> Option<&Value> {
        self.bodies.get(key)
    }

    /// Adds or replaces the object of one line.
    pub fn line(&mut self, line: &str) -> Changed {
        let (words, is_subject) = match line.split_once("<-") {
            Some((words, mark)) => (words, mark.trim() == "subject"),
            None => (line, false),
        };
        let mut words = split(words).into_iter();
        let head = words.next().unwrap_or_else(|| panic!("a line names an object: {line:?}"));
        let (key, mut body) = head_of(&head);
        let words: Vec<String> = words.collect();
        words::shape(&key, &mut body, &words);
        for word in &words {
            words::say(&key, &mut body, word);
        }
        if is_subject {
            self.subject = Some(key.clone());
        }
        self.put(&key, body)
    }

    /// Stores a body under the key.
    pub fn put(&mut self, key: &Key, body: Value) -> Changed {
        let revision = Revision(self.view.revision().0 + 1);
        let uid = Uid::from(body.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or(""));
        let current = Current { uid: &uid, modified: revision, body: &body };
        let changed = self.view.apply(revision, key, Some(current));
        self.bodies.insert(key.clone(), body);
        changed
    }

    pub fn delete(&mut self, key: &Key) -> Changed {
        self.bodies.remove(key);
        self.view.apply(Revision(self.view.revision().0 + 1), key, None)
    }
}

/// `rs/web` or `rs/shop/web` → the key in the store.
pub fn key_of(head: &str) -> Key {
    head_of(head).0
}

/// How tests print a key: `rs/web`, `pod/shop/web-a` (the namespace `default` is left out).
pub fn short(key: &Key) -> String {
    let kind = words::KINDS
        .iter()
        .find(|(_, group, resource)| *group == key.group() && *resource == key.resource())
        .map_or(key.resource(), |it| it.0);
    match key.namespace() {
        "" | "default" => format!("{kind}/{}", key.name()),
        namespace => format!("{kind}/{namespace}/{}", key.name()),
    }
}

fn head_of(head: &str) -> (Key, Value) {
    let parts: Vec<&str> = head.split('/').collect();
    let (kind, namespace, name) = match parts[..] {
        [kind, name] => (kind, "default", name),
        [kind, namespace, name] => (kind, namespace, name),
        _ => panic!("{head:?} is neither kind/name nor kind/namespace/name"),
    };
    let (_, group, resource) = words::KINDS
        .iter()
        .find(|it| it.0 == kind)
        .unwrap_or_else(|| panic!("the fixture language has no kind {kind:?}"));
    let row = kinds::by_resource(group, resource);
    let namespaced = row.is_none_or(|it| it.namespaced);
    let key = Key::new(group, resource, if namespaced { namespace } else { "" }, name)
        .expect("fixtures name objects as Kubernetes does");
    let version = row.map_or("v1", |it| it.version);
    let mut body = json!({
        "apiVersion": if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        "kind": row.map_or("Widget", |it| it.kind),
        "metadata": {
            "name": name,
            "uid": format!("uid-{kind}-{name}"),
            "generation": 1,
            "creationTimestamp": "1970-01-01T00:00:00Z",
        },
    });
    if namespaced {
        body["metadata"]["namespace"] = namespace.into();
    }
    (key, body)
}

/// At white space outside of brackets and quotes.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut depth, mut quoted) = (Vec::new(), String::new(), 0_i32, false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => depth += 1,
            '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
        if c.is_whitespace() && depth == 0 && !quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(c);
        }
    }
    words.push(word);
    words.retain(|it| !it.is_empty());
    words
}

//! Create, update and patch: from what a client sent to a plan for the store.
//!
//! Each is a pure decision on the present object, made anew when somebody was faster (`commit.rs`). Steps, in upstream's
//! order: decode, strict check, defaults and preparation (kactor-objects `writes`), admission, checks, escalation,
//! managedFields, and the transaction. A write that would change nothing writes nothing and answers what stands.

use std::sync::{Mutex, PoisonError};

use kactor_objects::registry::{Access, Kind, PutOfAbsent, PutWithoutRevision, Subresource};
use kactor_objects::status::Status;
use kactor_objects::writes::{self, Birth};
use kactor_objects::{FieldError, Path, meta, names, scale, tree};
use kactor_protocol::ids::{Revision, Uid};
use kactor_protocol::store::{Key, Precondition, Value as StoreValue, Write};
use kactor_store::Stored;
use serde_json::Value;

use crate::admission::{self, Admission};
use crate::api::Api;
use crate::authorize::attributes::Attributes;
use crate::authorize::escalation;
use crate::commit::{Fate, Plan};
use crate::delete::is_finished;
use crate::fields::{self, Author};
use crate::representation::{is_encrypted, print, stored_row};
use crate::request::{Operation, PatchType, Request, Response};

/// How long events are kept.
const EVENT_LIFE: std::time::Duration = std::time::Duration::from_secs(3600);

/// An object that a decision came to, and what is answered when it is committed.
pub(crate) struct Decided {
    pub object: Value,
    /// The revision to answer when nothing is written.
    pub revision: Option<Revision>,
    pub code: u16,
}

/// What a write is made with; the same for every attempt.
pub(crate) struct Writing<'a> {
    pub api: &'a Api,
    pub request: &'a Request,
    pub kind: &'static Kind,
    pub sub: Option<&'static Subresource>,
}

impl Api {
    pub(crate) async fn create(
        &self,
        request: &Request,
        kind: &'static Kind,
    ) -> Result<Response, Status> {
        let writing = Writing { api: self, request, kind, sub: None };
        let (posted, warnings) = fields::decode(request, kind.group, kind.version, kind.kind)?;
        let uid = Uid::from(self.env().random_uuid());
        let commit =
            self.commit(request, kind, || writing.decide_create(&posted, &uid, 201)).await?;
        Ok(writing.answer(commit, warnings))
    }

    pub(crate) async fn update(
        &self,
        request: &Request,
        kind: &'static Kind,
        sub: Option<&'static Subresource>,
    ) -> Result<Response, Status> {
        let writing = Writing { api: self, request, kind, sub };
        let (group, version, body_kind) = writing.body_kind();
        let (posted, warnings) = fields::decode(request, group, version, body_kind)?;
        writing.check_name(&posted)?;
        let uid = Uid::from(self.env().random_uuid());
        let decide = || {
            let key = self.key_of(request, kind)?;
            match self.store().get(&key) {
                Some(current) => {
                    writing.decide_update(&current, |_| Ok(posted.clone()), Author::Update)
                }
                None if sub.is_none() && kind.strategy.put_of_absent == PutOfAbsent::Create => {
                    writing.decide_create(&posted, &uid, 201)
                }
                None => Err(Status::not_found(kind, key.name())),
            }
        };
        let commit = self.commit(request, kind, decide).await?;
        Ok(writing.answer(commit, warnings))
    }

    pub(crate) async fn patch(
        &self,
        request: &Request,
        kind: &'static Kind,
        sub: Option<&'static Subresource>,
        patch_type: PatchType,
    ) -> Result<Response, Status> {
        let writing = Writing { api: self, request, kind, sub };
        // A Scale is not what managedFields are kept for: applying one is an update of `spec.replicas`.
        let author = match (patch_type, sub.map(|it| it.access)) {
            (PatchType::Apply, Some(Access::Scale))
            | (PatchType::Json | PatchType::Merge | PatchType::Strategic, _) => Author::Update,
            (PatchType::Apply, _) => Author::Apply,
        };
        let (group, version, body_kind) = writing.body_kind();
        let patch = fields::decode_patch(request, patch_type, (group, version, body_kind))?;
        let uid = Uid::from(self.env().random_uuid());
        let mut warnings = patch.warnings.clone();
        // A lock, not a cell: the request's future moves between threads.
        let noted = Mutex::new(Vec::new());
        let decide = || {
            let key = self.key_of(request, kind)?;
            let Some(current) = self.store().get(&key) else {
                if patch_type == PatchType::Apply && sub.is_none() {
                    return writing.decide_apply_create(&patch, &uid);
                }
                return Err(Status::not_found(kind, key.name()));
            };
            let make = |old: &Value| {
                let base = writing.shown(old);
                let (patched, told) = patch.apply_to(&base, request, writing.body_kind())?;
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = told;
                Ok(patched)
            };
            writing.decide_update(&current, make, author)
        };
        let commit = self.commit(request, kind, decide).await?;
        warnings.extend(noted.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(writing.answer(commit, warnings))
    }
}

impl Writing<'_> {
    /// The kind of the body: of the object, or of a subresource that has its own (Scale).
    pub fn body_kind(&self) -> (&'static str, &'static str, &'static str) {
        match self.sub {
            Some(sub) if matches!(sub.access, Access::Scale) => (sub.group, sub.version, sub.kind),
            _ => (self.kind.group, self.kind.version, self.kind.kind),
        }
    }

    /// The object as the body's kind shows it.
    pub fn shown(&self, object: &Value) -> Value {
        match self.sub {
            Some(sub) if matches!(sub.access, Access::Scale) => scale::of(object),
            _ => object.clone(),
        }
    }

    fn check_name(&self, posted: &Value) -> Result<(), Status> {
        let url = self.request.resource.name.as_deref().unwrap_or_default();
        let given = meta::name(posted);
        if given == url {
            return Ok(());
        }
        if given.is_empty() {
            return Err(Status::bad_request(format!(
                "the name of the object ({url} based on URL) was undeterminable: name must be provided"
            )));
        }
        Err(Status::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({url})"
        )))
    }

    pub fn decide_create(
        &self,
        posted: &Value,
        uid: &Uid,
        code: u16,
    ) -> Result<(Plan, Decided), Status> {
        let mut object = posted.clone();
        self.create_from(&mut object, uid)?;
        fields::track(None, &mut object, &self.author())?;
        self.plan_create(object, code)
    }

    fn decide_apply_create(
        &self,
        patch: &fields::Patch,
        uid: &Uid,
    ) -> Result<(Plan, Decided), Status> {
        if !meta::uid(&patch.tree).is_empty() {
            let name = self.request.resource.name.as_deref().unwrap_or_default();
            return Err(Status::conflict(
                self.kind,
                name,
                "uid mismatch: the provided object specified a uid, but there is no object",
            ));
        }
        let mut object = fields::apply(None, &patch.tree, &self.author())?;
        if meta::name(&object).is_empty() {
            meta::put_name(&mut object, self.request.resource.name.as_deref().unwrap_or_default());
        }
        let managed = tree::at(&object, "metadata.managedFields").clone();
        self.create_from(&mut object, uid)?;
        if !managed.is_null() {
            tree::put(&mut object, "metadata.managedFields", managed);
        }
        self.plan_create(object, 201)
    }

    /// Preparation, admission and checks of a new object.
    fn create_from(&self, object: &mut Value, uid: &Uid) -> Result<(), Status> {
        if self.request.operation != Operation::Create {
            // Who may change what is there may not, for that alone, make what is not.
            let user = &self.request.caller.user;
            self.api.require(&Attributes::new(user, "create", &self.request.resource))?;
        }
        let namespace = self.request.resource.namespace.as_deref().unwrap_or_default();
        if self.kind.is_namespaced() && namespace.is_empty() {
            return Err(Status::bad_request("an empty namespace may not be set during creation"));
        }
        if let Some(name) = self.request.resource.name.as_deref() {
            tree::fill(object, "metadata.name", name);
        }
        let suffix = self.free_suffix(object, namespace)?;
        let now = self.api.env().wall();
        let birth = Birth { namespace, uid: uid.clone(), now, suffix: &suffix };
        writes::prepare_create(self.kind, object, &birth)?;
        self.admission(None).mutate(object)?;
        writes::refuse(self.kind, object, &writes::check_create(self.kind, object))?;
        self.admission(None).validate(object)?;
        let request = self.request;
        escalation::check(self.api, &request.caller.user, &request.resource, None, object)
    }

    fn plan_create(&self, object: Value, code: u16) -> Result<(Plan, Decided), Status> {
        let row = stored_row(self.kind)?;
        let name = meta::name(&object);
        let key = Key::new(row.group, row.resource, meta::namespace(&object), name)
            .map_err(|error| Status::bad_request(error.to_string()))?;
        if self.api.store().get(&key).is_some() {
            return Err(match meta::generate_name(&object) {
                "" => Status::already_exists(self.kind, name),
                _ => Status::generated_name_exists(self.kind, name),
            });
        }
        let mut object = object;
        let mut plan = Plan { guards: self.admission(None).guards(&object)?, writes: Vec::new() };
        let beside = self.admission(None).allocate(&mut object)?;
        plan.writes.push(self.put(&key, &object, Precondition::Absent)?);
        plan.writes.extend(beside);
        Ok((plan, Decided { object, revision: None, code }))
    }

    /// Letters for `generateName` whose name is free as far as this host knows.
    fn free_suffix(&self, object: &Value, namespace: &str) -> Result<String, Status> {
        let base = meta::generate_name(object);
        if !meta::name(object).is_empty() || base.is_empty() {
            return Ok(String::new());
        }
        let row = stored_row(self.kind)?;
        for _ in 0..8 {
            let suffix = self.api.random_suffix();
            let name = names::generated(base, &suffix);
            let taken = Key::new(row.group, row.resource, namespace, &name)
                .is_ok_and(|key| self.api.store().get(&key).is_some());
            if !taken {
                return Ok(suffix);
            }
        }
        Err(Status::generated_name_exists(self.kind, base))
    }

    /// An update of what stands, from the object that `make` gives.
    pub fn decide_update(
        &self,
        current: &Stored,
        make: impl FnOnce(&Value) -> Result<Value, Status>,
        author: Author,
    ) -> Result<(Plan, Decided), Status> {
        let old = self.api.tree(self.kind, current, current.modified)?;
        let mut new = match author {
            Author::Update => make(&old)?,
            Author::Apply => {
                let applied = make(&old)?;
                self.check_revision(&applied, current)?;
                fields::apply(Some(&old), &applied, &self.author())?
            }
        };
        if author == Author::Update {
            self.check_revision(&new, current)?;
        }
        if self.body_kind().2 != self.kind.kind {
            new = self.scaled(&old, &new)?;
        }
        self.prepare(&mut new, &old)?;
        if author == Author::Update {
            fields::track(Some(&old), &mut new, &self.author())?;
        }
        self.plan_update(current, old, new)
    }

    fn scaled(&self, old: &Value, scale: &Value) -> Result<Value, Status> {
        let mut object = old.clone();
        let kind = self.kind;
        scale::apply(&mut object, scale)
            .map_err(|errors| Status::invalid(kind, meta::name(old), &errors))?;
        Ok(object)
    }

    /// Preparation, admission, checks and escalation of a changed object.
    fn prepare(&self, new: &mut Value, old: &Value) -> Result<(), Status> {
        let sub = self.sub.filter(|it| matches!(it.access, Access::Object(_)));
        match sub {
            Some(sub) => writes::prepare_subresource(self.kind, sub.name, new, old)?,
            None => writes::prepare_update(self.kind, new, old)?,
        }
        self.admission(Some(old)).mutate(new)?;
        let errors = match sub {
            Some(sub) => writes::check_subresource(self.kind, sub.name, new, old),
            None => writes::check_update(self.kind, new, old),
        };
        writes::refuse(self.kind, new, &errors)?;
        self.admission(Some(old)).validate(new)?;
        let request = self.request;
        escalation::check(self.api, &request.caller.user, &request.resource, Some(old), new)
    }

    pub fn plan_update(
        &self,
        current: &Stored,
        old: Value,
        new: Value,
    ) -> Result<(Plan, Decided), Status> {
        let mut new = new;
        let unchanged =
            Decided { object: Value::Null, revision: Some(current.modified), code: 200 };
        if fields::is_unchanged(&new, &old) {
            return Ok((Plan::default(), Decided { object: old, ..unchanged }));
        }
        let precondition =
            Precondition::UidAndRevision(current.value.uid.clone(), current.modified);
        let mut plan = Plan::default();
        let beside = self.admission(Some(&old)).allocate(&mut new)?;
        if is_finished(self.kind, &new) {
            plan.writes.push(Write::Delete { key: current.key.clone(), precondition });
            plan.writes.extend(admission::release(self.kind, &old));
            return Ok((plan, Decided { object: new, ..unchanged }));
        }
        plan.writes.push(self.put(&current.key, &new, precondition)?);
        plan.writes.extend(beside);
        Ok((plan, Decided { object: new, ..unchanged }))
    }

    /// The client's resourceVersion, if it sent one, must be the stored one.
    fn check_revision(&self, new: &Value, current: &Stored) -> Result<(), Status> {
        let name = current.key.name();
        let given = tree::text(new, "metadata.resourceVersion");
        if given.is_empty() || given == "0" {
            let refuses = self.kind.strategy.put_without_revision == PutWithoutRevision::Refuse;
            if refuses && self.sub.is_none() && self.request.operation == Operation::Update {
                let path = Path::new("metadata.resourceVersion");
                let error = FieldError::invalid(path, 0, "must be specified for an update");
                return Err(Status::invalid(self.kind, name, &[error]));
            }
            return Ok(());
        }
        if given.parse::<u64>().is_err() {
            let path = Path::new("metadata.resourceVersion");
            let error = FieldError::invalid(path, given, "must be a number as the server gave it");
            return Err(Status::invalid(self.kind, name, &[error]));
        }
        if given == current.modified.to_string() {
            return Ok(());
        }
        Err(Status::modified(self.kind, name))
    }

    /// The write that stores the object: in its stored version, without revision, encrypted when its kind is.
    pub fn put(
        &self,
        key: &Key,
        object: &Value,
        precondition: Precondition,
    ) -> Result<Write, Status> {
        let row = stored_row(self.kind)?;
        let mut stored = (row.to_storage)(object.clone());
        tree::put(&mut stored, "apiVersion", row.api_version);
        tree::put(&mut stored, "kind", row.kind);
        meta::remove_resource_version(&mut stored);
        let plain = print(&stored);
        if plain.len() > kactor_protocol::store::OBJECT_BYTES_MAX {
            return Err(Status::request_too_large(kactor_protocol::store::OBJECT_BYTES_MAX));
        }
        let (body, flags) = if is_encrypted(row) {
            let sealed = self.api.cipher().seal(self.api.env(), key, &plain);
            sealed.map_err(|error| Status::internal(&error.to_string()))?
        } else {
            (plain.into(), 0)
        };
        let uid = Uid::from(meta::uid(object));
        let value = StoreValue { storage_version: row.version, flags, uid, body };
        let expires_at = (row.resource == "events").then(|| self.api.env().wall().plus(EVENT_LIFE));
        Ok(Write::Put { key: key.clone(), precondition, value, expires_at })
    }

    pub fn admission<'b>(&'b self, old: Option<&'b Value>) -> Admission<'b> {
        Admission { api: self.api, request: self.request, kind: self.kind, sub: self.sub, old }
    }

    fn author(&self) -> fields::Authorship<'_> {
        fields::Authorship {
            kind: self.kind,
            manager: self.request.caller.manager(),
            subresource: self.sub.map(|it| it.name),
            now: self.api.env().wall(),
            conflicts: self.request.options.conflicts,
        }
    }

    /// What the client gets: the object with the revision that the commit gave it.
    pub fn answer(&self, (decided, fate): (Decided, Fate), warnings: Vec<String>) -> Response {
        let Decided { mut object, revision, code } = decided;
        let revision = match fate {
            Fate::Committed { revisions, .. } => revisions.first().copied(),
            Fate::NotWritten => revision,
        };
        match revision {
            Some(at) => meta::put_resource_version(&mut object, at),
            None => meta::remove_resource_version(&mut object),
        }
        let shown = self.shown(&object);
        let bytes = self.api.formed(self.kind, &shown, self.request.options.form);
        let is_created = self.request.operation == Operation::Create;
        let name = is_created.then(|| meta::name(&object).to_owned());
        Response { code, object: bytes.into(), warnings, revision, name }
    }
}

impl Api {
    /// Letters for a generated name.
    pub(crate) fn random_suffix(&self) -> String {
        let alphabet = names::GENERATED_SUFFIX_ALPHABET.as_bytes();
        let letter =
            |_| char::from(alphabet[(self.env().random_u64() % alphabet.len() as u64) as usize]);
        (0..names::GENERATED_SUFFIX_LEN).map(letter).collect()
    }
}

//! Get and list.
//!
//! A list is of one revision, whole or in pages: its `continue` token names the revision, and pages after the first read
//! the store's retained past. Bodies are copied into the answer byte by byte, never parsed, unless a selector or
//! another form needs to look inside. The answer is a list of chunks, so that ten thousand pods are never one buffer.

use bytes::{BufMut, Bytes, BytesMut};
use kactor_objects::registry::Kind;
use kactor_objects::status::Status;
use kactor_objects::table::{self, Columns};
use kactor_protocol::ids::Revision;
use kactor_protocol::store::Key;
use kactor_store::Stored;
use serde_json::{Value, json};

use crate::api::Api;
use crate::continue_token::ContinueToken;
use crate::freshness::{self, Named, ReadAt};
use crate::representation::{include_of, print, stored_row};
use crate::request::{Form, Object, Request, Response};
use crate::selection::Selection;

/// Objects taken from the store at a time.
const PAGE_LEN: usize = 500;
/// A chunk of the answer is closed when it is this long.
const CHUNK_BYTES: usize = 64 << 10;

impl Api {
    pub(crate) async fn get(&self, request: &Request, kind: &Kind) -> Result<Response, Status> {
        let named = Named::parse(request.options.resource_version.as_deref())?;
        self.freshen(named, request.deadline).await?;
        let stored = self.current(request, kind)?;
        let object = match request.options.form {
            Form::Object => Object::from(self.encoded(kind, &stored, stored.modified)?),
            form => {
                Object::from(self.formed(kind, &self.tree(kind, &stored, stored.modified)?, form))
            }
        };
        Ok(Response {
            code: 200,
            object,
            warnings: Vec::new(),
            revision: Some(stored.modified),
            name: None,
        })
    }

    /// The object that the request names, as it stands here.
    pub(crate) fn current(&self, request: &Request, kind: &Kind) -> Result<Stored, Status> {
        let name = request.resource.name.as_deref().unwrap_or_default();
        let not_found = || Status::not_found(kind, name);
        let key = self.key_of(request, kind)?;
        self.store().get(&key).ok_or_else(not_found)
    }

    pub(crate) fn key_of(&self, request: &Request, kind: &Kind) -> Result<Key, Status> {
        let row = stored_row(kind)?;
        let name = request.resource.name.as_deref().unwrap_or_default();
        let namespace = request.resource.namespace.as_deref().unwrap_or_default();
        Key::new(row.group, row.resource, namespace, name)
            .map_err(|_| Status::not_found(kind, name))
    }

    pub(crate) async fn list(&self, request: &Request, kind: &Kind) -> Result<Response, Status> {
        let options = &request.options;
        let selection = Selection::of(
            kind,
            &request.resource,
            options.label_selector.as_deref(),
            options.field_selector.as_deref(),
        )?;
        let (at, after) = self.list_position(request, &selection).await?;
        let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
        let mut list = ListWriter::new(self, kind, options.form);
        let expired = || self.list_expired(options.continue_token.as_deref());
        let tail = self.collect(&selection, at, after, limit, expired, &mut list)?;
        let mut metadata = json!({"resourceVersion": at.to_string()});
        if let Some(Tail { last, remaining }) = tail {
            let start = last.as_str().strip_prefix(&selection.prefix).unwrap_or(last.as_str());
            metadata["continue"] = json!(ContinueToken::new(at, start).encode());
            if !selection.has_terms() {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(Response {
            code: 200,
            object: list.finish(metadata),
            warnings: Vec::new(),
            revision: Some(at),
            name: None,
        })
    }

    /// At which revision to read, and behind which key.
    async fn list_position(
        &self,
        request: &Request,
        selection: &Selection,
    ) -> Result<(Revision, Option<Key>), Status> {
        let options = &request.options;
        let named = Named::parse(options.resource_version.as_deref())?;
        if let Some(text) = options.continue_token.as_deref().filter(|it| !it.is_empty()) {
            if matches!(named, Named::At(_)) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = ContinueToken::decode(text)
                .map_err(|error| Status::bad_request(error.to_string()))?;
            let bad = |_| Status::bad_request("continue key is not valid: it holds no position");
            let after = Key::parse(&format!("{}{}", selection.prefix, token.after)).map_err(bad)?;
            let at = match token.revision {
                0 => self.store().revision(), // The inconsistent rest of an expired list.
                revision => Revision(revision),
            };
            self.freshen(Named::At(at), request.deadline).await?;
            return Ok((at, Some(after)));
        }
        let read_at = freshness::of_list(named, options.version_match, options.limit)?;
        self.freshen(named, request.deadline).await?;
        Ok(match read_at {
            ReadAt::Now => (self.store().revision(), None),
            ReadAt::Exactly(revision) => (revision, None),
        })
    }

    /// The answer when the revision of a list is compacted: with a token that goes on without one snapshot.
    fn list_expired(&self, token: Option<&str>) -> Status {
        match token.and_then(|it| ContinueToken::decode(it).ok()) {
            Some(token) => {
                let inconsistent = ContinueToken { revision: 0, ..token };
                Status::continue_expired(Some(inconsistent.encode()))
            }
            None => Status::expired("The resourceVersion for the provided list is too old."),
        }
    }

    /// Writes what is selected into `list`; `Some` when `limit` ended it early.
    fn collect(
        &self,
        selection: &Selection,
        at: Revision,
        mut after: Option<Key>,
        limit: usize,
        expired: impl Fn() -> Status,
        list: &mut ListWriter<'_>,
    ) -> Result<Option<Tail>, Status> {
        if let Some(key) = &selection.key {
            let found = self.store().get_at(key, at).map_err(|_| expired())?;
            if let Some(stored) = found {
                list.add(&stored, selection)?;
            }
            return Ok(None);
        }
        let limit = if limit == 0 { usize::MAX } else { limit };
        let mut n_taken = 0;
        loop {
            let wanted = PAGE_LEN.min(limit - n_taken);
            let page = self
                .store()
                .range(&selection.prefix, after.as_ref(), wanted, Some(at))
                .map_err(|_| expired())?;
            for stored in &page.items {
                n_taken += usize::from(list.add(stored, selection)?);
            }
            after = page.items.last().map(|it| it.key.clone());
            let Some(last) = after.clone().filter(|_| page.remaining > 0) else {
                return Ok(None);
            };
            if n_taken == limit {
                return Ok(Some(Tail { last, remaining: page.remaining }));
            }
        }
    }

    /// Some of a selection as the store holds it now, and behind which key the rest begins.
    pub(crate) fn selected(
        &self,
        kind: &Kind,
        selection: &Selection,
        after: Option<&Key>,
    ) -> (Vec<Stored>, Option<Key>) {
        let Ok(page) = self.store().range(&selection.prefix, after, PAGE_LEN, None) else {
            return (Vec::new(), None);
        };
        let last = page.items.last().map(|it| it.key.clone()).filter(|_| page.remaining > 0);
        let fits = |stored: &Stored| {
            selection.has_key(&stored.key)
                && self.tree(kind, stored, stored.modified).is_ok_and(|it| selection.matches(&it))
        };
        (page.items.into_iter().filter(fits).collect(), last)
    }
}

/// Where a page ended.
struct Tail {
    last: Key,
    remaining: u64,
}

/// Builds the list in its form.
struct ListWriter<'a> {
    api: &'a Api,
    kind: &'a Kind,
    form: Form,
    chunks: Vec<Bytes>,
    open: BytesMut,
    n_items: usize,
    rows: Vec<Value>,
}

impl<'a> ListWriter<'a> {
    fn new(api: &'a Api, kind: &'a Kind, form: Form) -> Self {
        Self {
            api,
            kind,
            form,
            chunks: Vec::new(),
            open: BytesMut::new(),
            n_items: 0,
            rows: Vec::new(),
        }
    }

    /// Whether the object is selected, and so was added.
    fn add(&mut self, stored: &Stored, selection: &Selection) -> Result<bool, Status> {
        let at = stored.modified;
        if self.form == Form::Object && selection.is_everything() {
            let bytes = self.api.encoded(self.kind, stored, at)?;
            self.push(&bytes);
            return Ok(true);
        }
        let tree = self.api.tree(self.kind, stored, at)?;
        if !selection.matches(&tree) {
            return Ok(false);
        }
        match self.form {
            Form::Object => self.push(&print(&tree)),
            Form::Metadata => self.push(&print(&table::partial(&tree, "meta.k8s.io/v1"))),
            Form::Table(include) => {
                let now = self.api.env().wall();
                self.rows.push(table::row(&self.kind.printer, &tree, include_of(include), now));
            }
        }
        Ok(true)
    }

    fn push(&mut self, item: &[u8]) {
        if self.n_items > 0 {
            self.open.put_u8(b',');
        }
        self.n_items += 1;
        self.open.put_slice(item);
        if self.open.len() >= CHUNK_BYTES {
            self.chunks.push(self.open.split().freeze());
        }
    }

    fn finish(mut self, metadata: Value) -> Object {
        if let Form::Table(_) = self.form {
            let table = table::table(&self.kind.printer, metadata, self.rows, Columns::Given);
            return Object::from_tree(&table);
        }
        let (api_version, kind) = match self.form {
            Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
            _ => (self.kind.api_version(), self.kind.list_kind()),
        };
        let head = format!(
            "{{\"kind\":{},\"apiVersion\":{},\"metadata\":{metadata},\"items\":[",
            json!(kind),
            json!(api_version)
        );
        self.open.put_slice(b"]}");
        self.chunks.insert(0, Bytes::from(head));
        self.chunks.push(self.open.freeze());
        Object::from_chunks(self.chunks)
    }
}

//! `Api`: the handle that everybody asks, what it is configured with, and the way from a request to its verb.
//!
//! Cloning it is free. Order of a request: authorization, kind, verb, write or read, note and audit; a refusal at any
//! step is a `Status` and is noted, so that `kactor why` can say who was refused what.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use kactor_objects::status::{Reason, Status};
use kactor_protocol::time::Timestamp;
use kactor_runtime::env::Env;
use kactor_store::{Store, Stored};

use crate::authorize::Authorizers;
use crate::encrypt::{Cipher, CipherError, EncryptionKey};
use crate::notes::{AuditRecord, AuditSink, Note, NoteSink, Outcome};
use crate::perform::attributes_of;
use crate::representation::Encodings;
use crate::request::{Caller, Request, Resource, Response, WatchRequest};
use crate::selection::{PODS_PREFIX, node_of};
use crate::service_range::ServiceRange;
use crate::token::{TokenError, TokenKeys};

/// Everything the API must be told; nothing is read from files or the environment.
#[derive(Clone)]
pub struct ApiConfig {
    pub service_range: ServiceRange,
    pub node_ports: RangeInclusive<u16>,
    /// The first encrypts, all decrypt.
    pub encryption_keys: Vec<EncryptionKey>,
    /// PKCS #8 documents of P-256 keys; the first signs, all verify.
    pub token_keys: Vec<Vec<u8>>,
    /// `iss` of tokens.
    pub issuer: String,
    /// Audiences that this API answers to; the first is what a token gets when it asks for none.
    pub audiences: Vec<String>,
    /// Where the API itself listens: the endpoint of the Service `kubernetes`.
    pub endpoint: Endpoint,
    pub notes: Arc<dyn NoteSink>,
    pub audit: Arc<dyn AuditSink>,
}

/// An address and port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
}

/// Why there can be no API with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Encryption(#[from] CipherError),
    #[error(transparent)]
    Tokens(#[from] TokenError),
}

/// The Kubernetes API over a store.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

struct Shared {
    store: Store,
    env: Env,
    config: ApiConfig,
    cipher: Cipher,
    tokens: TokenKeys,
    authorizers: Authorizers,
    encodings: Encodings,
}

impl Api {
    pub fn new(store: Store, env: Env, config: ApiConfig) -> Result<Self, ApiError> {
        let cipher = Cipher::new(&config.encryption_keys)?;
        let tokens = TokenKeys::new(&config.token_keys)?;
        store.set_label(PODS_PREFIX, Arc::new(node_of));
        let shared = Shared {
            store,
            env,
            config,
            cipher,
            tokens,
            authorizers: Authorizers::new(),
            encodings: Encodings::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Answers one request. A refusal is a `Status`; it has stored nothing, unless it says that the outcome is unknown.
    pub async fn handle(&self, request: Request) -> Result<Response, Status> {
        // A note is of when the work began: what others did because of it comes after.
        let began = self.env().wall();
        let attributes = attributes_of(&request);
        let (authorization, outcome) = match self.require(&attributes) {
            Ok(reason) => (reason, self.perform(&request).await),
            Err(status) => (status.message.clone(), Err(status)),
        };
        self.tell(began, &request, authorization, &outcome);
        outcome
    }

    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    pub fn env(&self) -> &Env {
        &self.shared.env
    }

    pub fn config(&self) -> &ApiConfig {
        &self.shared.config
    }

    /// A stored object's bytes, decrypted, for the host's view; `None` without the key that it is encrypted with.
    pub fn open_stored(&self, stored: &Stored) -> Option<Bytes> {
        self.cipher().open(&stored.key, stored.value.flags, &stored.value.body).ok()
    }

    pub(crate) fn cipher(&self) -> &Cipher {
        &self.shared.cipher
    }

    pub fn tokens(&self) -> &TokenKeys {
        &self.shared.tokens
    }

    pub(crate) fn authorizers(&self) -> &Authorizers {
        &self.shared.authorizers
    }

    pub(crate) fn encodings(&self) -> &Encodings {
        &self.shared.encodings
    }

    /// Notes what came of the request. Reads that succeed are audited but not noted.
    pub(crate) fn tell(
        &self,
        began: Timestamp,
        request: &Request,
        authorization: String,
        outcome: &Result<Response, Status>,
    ) {
        let verb = request.operation.verb();
        let (code, what) = match outcome {
            Ok(response) if request.operation.is_write() => {
                (response.code, Some(response.outcome()))
            }
            Ok(response) => (response.code, None),
            Err(status) => (status.code, Some(refused(status))),
        };
        let resource = named(&request.resource, outcome);
        if let Some(what) = what {
            let note = Note::new(began, &request.caller, verb, &resource, what);
            self.config().notes.note(note);
        }
        self.audit(&request.caller, verb, &resource, (code, authorization));
    }

    /// Notes a watch that was refused, and audits every one.
    pub(crate) fn tell_watch(&self, request: &WatchRequest, outcome: Result<(), &Status>) {
        let (caller, resource) = (&request.caller, &request.resource);
        let (code, reason) = match outcome {
            Ok(()) => (200, String::new()),
            Err(status) => {
                let note = Note::new(self.env().wall(), caller, "watch", resource, refused(status));
                self.config().notes.note(note);
                (status.code, status.message.clone())
            }
        };
        self.audit(caller, "watch", resource, (code, reason));
    }

    fn audit(
        &self,
        caller: &Caller,
        verb: &'static str,
        resource: &Resource,
        (code, authorization): (u16, String),
    ) {
        self.config().audit.record(AuditRecord {
            at: self.env().wall(),
            audit_id: caller.audit_id.clone(),
            user: caller.user.name.clone(),
            groups: caller.user.groups.clone(),
            impersonator: caller.impersonator.as_ref().map(|it| it.name.clone()),
            user_agent: caller.user_agent.clone(),
            verb,
            resource: resource.clone(),
            code,
            authorization,
        });
    }
}

/// The resource under the name that its create's answer or refusal tells; the path had none.
fn named<'a>(
    resource: &'a Resource,
    outcome: &Result<Response, Status>,
) -> std::borrow::Cow<'a, Resource> {
    use std::borrow::Cow;
    let told = match outcome {
        Ok(response) => response.name.as_deref(),
        // Other refusals speak of other objects, such as a namespace that is not there.
        Err(status) if matches!(status.reason, Reason::AlreadyExists | Reason::Invalid) => {
            status.details.as_ref().map(|it| it.name.as_str())
        }
        Err(_) => None,
    };
    match (&resource.name, told.filter(|it| !it.is_empty())) {
        (None, Some(name)) => Cow::Owned(resource.clone().named(name)),
        _ => Cow::Borrowed(resource),
    }
}

fn refused(status: &Status) -> Outcome {
    Outcome::Refused {
        code: status.code,
        reason: status.reason.as_str().to_owned(),
        message: status.message.clone(),
    }
}

//! The door of a control host: judges who wants to join, certifies its key, and gives it what it needs.
//!
//! The rules are `kactor-cluster`'s; here are the keys. Any control host can open: what is decided goes through the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kactor_api::{Reason, Status};
use kactor_cluster::admit::Applicant;
use kactor_cluster::host::{KeyHash, known};
use kactor_cluster::join::{ControlShare, JoinReply, JoinRequest};
use kactor_cluster::records::{RecordError, Records};
use kactor_cluster::token::{TokenRecord, TokenRole, parts_of};
use kactor_gateway::pki::{HOST_LIFETIME, key_hash};
use kactor_gateway::{ClusterDoor, ClusterOrder, Pki};
use kactor_protocol::ids::ReplicaId;
use kactor_protocol::time::Deadline;
use kactor_protocol::{HostId, Timestamp};
use kactor_runtime::env::Env;
use kactor_store::Members;
use kactor_streams::BoxFuture;
use serde_json::{Value, json};

use crate::join::KEYS;

/// What the door needs of its host.
pub(super) struct Door {
    pub env: Env,
    pub records: Records,
    pub members: Arc<dyn Members>,
    pub pki: Arc<Pki>,
    /// Where the cluster's keys lie.
    pub keys: PathBuf,
    pub host: HostId,
    pub pod_cidr: String,
    pub service_cidr: String,
}

impl ClusterDoor for Door {
    fn authority(&self) -> String {
        self.pki.ca_pem().to_owned()
    }

    fn join(&self, body: Bytes, deadline: Deadline) -> BoxFuture<'_, Result<Value, Status>> {
        Box::pin(async move {
            let request: JoinRequest = serde_json::from_slice(&body).map_err(|it| {
                Status::bad_request(format!("the body is no request to join: {it}"))
            })?;
            let node = request.node.clone();
            let joined = self.let_in(request, deadline).await;
            match &joined {
                Ok(reply) => tracing::info!(%node, role = %reply.role, "a host joined"),
                Err(status) => tracing::warn!(%node, %status, "a host was not let in"),
            }
            serde_json::to_value(joined?).map_err(|it| Status::internal(&it.to_string()))
        })
    }

    fn order(
        &self,
        order: ClusterOrder,
        deadline: Deadline,
    ) -> BoxFuture<'_, Result<Value, Status>> {
        Box::pin(async move {
            match order {
                ClusterOrder::CreateToken { role, ttl_seconds, uses } => {
                    self.create_token(&role, (ttl_seconds, uses), deadline).await
                }
                ClusterOrder::ListTokens => {
                    self.records.store().read_index(deadline).await.map_err(unavailable)?;
                    let now = self.env.wall();
                    let tokens = self.records.tokens();
                    let rows = tokens.iter().map(|(id, it)| token_row(id, it, now));
                    Ok(json!({ "tokens": rows.collect::<Vec<_>>() }))
                }
                ClusterOrder::RevokeToken { id } => {
                    match self.records.revoke_token(&id, deadline).await.map_err(status_of)? {
                        true => Ok(json!({ "revoked": id })),
                        false => Err(Status::new(
                            Reason::NotFound,
                            format!(
                                "there is no token {id}; `kactor token list` shows those that are"
                            ),
                        )),
                    }
                }
                ClusterOrder::Leave { host } => {
                    let host = match host {
                        Some(name) => HostId::new(&name)
                            .map_err(|it| Status::bad_request(format!("{name:?}: {it}")))?,
                        None => self.host.clone(),
                    };
                    self.records.leave(&host, deadline).await.map_err(status_of)?;
                    Ok(json!({ "leaving": host }))
                }
            }
        })
    }
}

impl Door {
    async fn let_in(&self, request: JoinRequest, deadline: Deadline) -> Result<JoinReply, Status> {
        let bad = |why: String| Status::bad_request(why);
        let name = request.node.as_str();
        if let Some(problem) = kactor_objects::names::dns1123_subdomain(name).first() {
            return Err(bad(format!("the host's name {name:?}: {problem}")));
        }
        if request.listen.ip().is_unspecified() || request.listen.port() == 0 {
            return Err(bad(format!(
                "{} is no address that other hosts can reach",
                request.listen
            )));
        }
        let (id, secret) = parts_of(&request.token).map_err(|it| bad(it.to_string()))?;
        // What is certified here is given away only if the host may join.
        let certificate = self
            .pki
            .issue_host(&self.env, name, &request.csr, HOST_LIFETIME)
            .map_err(|it| bad(format!("the certificate request can't be read: {it}")))?;
        let applicant = Applicant {
            host: request.node.clone(),
            key_hash: KeyHash(certificate.key_hash),
            secret_hash: KeyHash::of(secret.as_bytes()),
            address: request.listen,
            version: request.version.clone(),
            level: request.level,
        };
        let voters: BTreeSet<ReplicaId> =
            self.members.state().voters.into_iter().flatten().collect();
        let joined = self.records.join(&applicant, id, &voters, deadline).await;
        let record = joined.map_err(status_of)?;
        let control = match record.replica {
            Some(replica) => Some(ControlShare { replica, keys: self.keys()? }),
            None => None,
        };
        Ok(JoinReply {
            cluster: self.records.cluster().to_owned(),
            role: record.role,
            certificate: certificate.pem,
            hosts: known(&self.records.hosts()),
            pod_cidr: self.pod_cidr.clone(),
            service_cidr: self.service_cidr.clone(),
            control,
        })
    }

    fn keys(&self) -> Result<BTreeMap<String, String>, Status> {
        let read = |name: &str| {
            let bytes = std::fs::read(self.keys.join(name))
                .map_err(|it| Status::internal(&format!("reading the cluster's {name}: {it}")))?;
            Ok((name.to_owned(), STANDARD.encode(bytes)))
        };
        KEYS.into_iter().map(read).collect()
    }

    async fn create_token(
        &self,
        role: &str,
        (ttl_seconds, uses): (u64, u32),
        deadline: Deadline,
    ) -> Result<Value, Status> {
        let role: TokenRole = serde_json::from_value(json!(role)).map_err(|_| {
            Status::bad_request(format!("{role:?} is no role; any, control and worker are"))
        })?;
        let wanted = (role, Duration::from_secs(ttl_seconds), uses);
        let ca = KeyHash(
            key_hash(self.pki.ca_pem()).ok_or_else(|| Status::internal("the CA can't be read"))?,
        );
        let token = self.records.create_token(ca, wanted, deadline).await.map_err(status_of)?;
        let address = self.records.host(&self.host).map(|it| it.address);
        let address = address.ok_or_else(|| {
            Status::service_unavailable(
                "this host is not yet in the cluster's records; try again in a second",
            )
        })?;
        let expires_at = self.env.wall().plus(wanted.1);
        Ok(json!({
            "id": token.id,
            "token": token.to_string(),
            "role": role,
            "uses": uses,
            "expiresAt": expires_at.rfc3339(),
            "address": address.to_string(),
            "line": line(address, &token.to_string()),
        }))
    }
}

fn line(address: SocketAddr, token: &str) -> String {
    format!("kactor up --join {address} --token {token}")
}

fn token_row(id: &str, token: &TokenRecord, now: Timestamp) -> Value {
    json!({
        "id": id,
        "role": token.role,
        "state": token.state(now),
        "createdAt": token.created_at.rfc3339(),
        "expiresAt": token.expires_at.rfc3339(),
        "uses": token.uses_max,
        "usedBy": token.used_by,
    })
}

fn unavailable(error: impl std::fmt::Display) -> Status {
    Status::service_unavailable(error.to_string()).retry_after(1)
}

fn status_of(error: RecordError) -> Status {
    match error {
        RecordError::Refused(why) => Status::new(Reason::Forbidden, why.to_string()),
        RecordError::Invalid { what } => Status::bad_request(what),
        RecordError::Key(why) => Status::bad_request(why.to_string()),
        RecordError::Read(_) | RecordError::Write(_) | RecordError::Contended => unavailable(error),
    }
}

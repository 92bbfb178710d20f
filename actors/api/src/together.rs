//! Small writes of many callers in one transaction: each is decided by itself, as its own caller; the proposal is shared.
//!
//! For what every node does at the same time, such as renewing its Lease: a thousand nodes cost a handful of entries of
//! the log every ten seconds, not a thousand. Nothing else is shared: each request is authorized, admitted, checked,
//! noted and audited alone, and one that is refused takes none of the others with it. A lost race decides all anew.

use kactor_objects::registry::Kind;
use kactor_objects::status::Status;
use kactor_protocol::store::{ProposeError, Retry, WRITES_PER_TRANSACTION_MAX};

use crate::api::Api;
use crate::commit::{Fate, Plan, refused};
use crate::fields::{self, Author};
use crate::perform::{attributes_of, check_scope, kind_of};
use crate::request::{Operation, PatchType, Request, Response};
use crate::write::{Decided, Writing};

/// How often a transaction is decided before its requests are refused; the next renewal comes anyway.
const ATTEMPTS_MAX: u32 = 4;

/// One request's part of the transaction.
struct Part {
    kind: &'static Kind,
    decided: Decided,
    /// Which of the transaction's writes are its own.
    from: usize,
    len: usize,
}

impl Api {
    /// Answers merge patches of objects, no two of one, in their order, with one proposal per `WRITES_PER_TRANSACTION_MAX` of them.
    pub async fn merge_together(&self, requests: &[Request]) -> Vec<Result<Response, Status>> {
        let began = self.env().wall();
        let mut answers = Vec::with_capacity(requests.len());
        for some in requests.chunks(WRITES_PER_TRANSACTION_MAX) {
            answers.extend(self.merge_some(some).await);
        }
        for (request, answer) in requests.iter().zip(&answers) {
            self.tell(began, request, String::new(), answer);
        }
        answers
    }

    async fn merge_some(&self, requests: &[Request]) -> Vec<Result<Response, Status>> {
        let Some(first) = requests.first() else { return Vec::new() };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut whole = Plan::default();
            let parts: Vec<_> = requests.iter().map(|it| self.part(it, &mut whole)).collect();
            if whole.writes.is_empty() {
                return self.answers(requests, parts, &Ok(Fate::NotWritten));
            }
            let fate = self.propose(first, whole).await;
            let again = fate.as_ref().is_err_and(|it| {
                attempt < ATTEMPTS_MAX && it.retry() == Retry::Replan && !it.outcome_is_unknown()
            });
            if !again || self.catch_up(first.deadline).await.is_err() {
                return self.answers(requests, parts, &fate);
            }
        }
    }

    /// Decides one request and adds what it writes to the whole.
    fn part(&self, request: &Request, whole: &mut Plan) -> Result<Part, Status> {
        self.require(&attributes_of(request))?;
        let kind = kind_of(&request.resource)?;
        check_scope(kind, request)?;
        if request.operation != Operation::Patch(PatchType::Merge) {
            return Err(Status::bad_request("only merge patches are written together"));
        }
        let writing = Writing { api: self, request, kind, sub: None };
        let names = writing.body_kind();
        let patch = fields::decode_patch(request, PatchType::Merge, names)?;
        let key = self.key_of(request, kind)?;
        let current = self.store().get(&key).ok_or_else(|| Status::not_found(kind, key.name()))?;
        let make = |old: &serde_json::Value| Ok(patch.apply_to(old, request, names)?.0);
        let (plan, decided) = writing.decide_update(&current, make, Author::Update)?;
        let (from, len) = (whole.writes.len(), plan.writes.len());
        whole.guards.extend(plan.guards);
        whole.writes.extend(plan.writes);
        Ok(Part { kind, decided, from, len })
    }

    fn answers(
        &self,
        requests: &[Request],
        parts: Vec<Result<Part, Status>>,
        fate: &Result<Fate, ProposeError>,
    ) -> Vec<Result<Response, Status>> {
        let answer = |(request, part): (&Request, Result<Part, Status>)| {
            let Part { kind, decided, from, len } = part?;
            let own = match fate {
                Ok(Fate::Committed { revisions, changed }) if len > 0 => {
                    let revisions = revisions.iter().skip(from).take(len).copied().collect();
                    Fate::Committed { revisions, changed: *changed }
                }
                Ok(_) => Fate::NotWritten,
                Err(_) if len == 0 => Fate::NotWritten,
                Err(error) => return Err(refused(kind, error)),
            };
            let writing = Writing { api: self, request, kind, sub: None };
            Ok(writing.answer((decided, own), Vec::new()))
        };
        requests.iter().zip(parts).map(answer).collect()
    }
}

//! openraft's log storage on the journal: entries in memory for readers, on disk before they are acknowledged.
//!
//! What is in memory is what the journal holds (bodies are shared with the state), and the applied store bounds both:
//! entries are purged once a checkpoint covers them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kactor_protocol::raft::APPEND_BYTES_MAX;
use kactor_protocol::store::Write;
use kactor_state::Command;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};

use crate::journal::Recovered;
use crate::raft_types::{Entry, LogId, Proposal, Types, Vote};
use crate::record::Record;
use crate::writer::{Done, Request, Writer};

/// Entries that one read for replication hands out.
pub(crate) const READ_LEN_MAX: usize = 1024;

#[derive(Clone)]
pub(crate) struct LogStore {
    log: Arc<Mutex<Log>>,
    writer: Writer,
}

struct Log {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    purged: Option<LogId>,
}

impl LogStore {
    pub fn new(recovered: Recovered, writer: Writer) -> Self {
        let log = Log {
            entries: recovered.entries.into_iter().map(|(at, it)| (at, it.into())).collect(),
            vote: recovered.vote.map(Vote::from),
            purged: recovered.purged.map(LogId::from),
        };
        Self { log: Arc::new(Mutex::new(log)), writer }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.log().entries.range(range).map(|(_, it)| it.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.log().vote)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        let log = self.log();
        let mut n_bytes = 0;
        // At least one, and no more than fit into one message.
        let fits = |(nth, (_, entry)): &(usize, (&u64, &Entry))| {
            n_bytes += bytes_of(entry);
            *nth == 0 || (*nth < READ_LEN_MAX && n_bytes <= APPEND_BYTES_MAX)
        };
        let entries = log.entries.range(start..end).enumerate().take_while(fits);
        Ok(entries.map(|(_, (_, it))| it.clone()).collect())
    }
}

/// What an entry takes in a message, at most.
fn bytes_of(entry: &Entry) -> usize {
    const BESIDE_BODY: usize = 256;
    let EntryPayload::Normal(Proposal(Command::Transact { propose, .. })) = &entry.payload else {
        return BESIDE_BODY;
    };
    let body = |it: &Write| match it {
        Write::Put { value, .. } => value.body.len(),
        Write::Delete { .. } | Write::Touch { .. } | Write::Add { .. } => 0,
    };
    let writes = propose.writes.iter().map(|it| it.key().as_str().len() + body(it) + BESIDE_BODY);
    let guards = propose.guards.iter().map(|it| it.key().as_str().len() + BESIDE_BODY);
    BESIDE_BODY + writes.sum::<usize>() + guards.sum::<usize>()
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let log = self.log();
        let last = log.entries.values().next_back().map(|it| it.log_id);
        Ok(LogState { last_purged_log_id: log.purged, last_log_id: last.or(log.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    /// Durable when it returns: a vote must not be answered before.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.writer.write(vec![Record::Vote(vote.into())]).await.map_err(io::Error::other)?;
        self.log().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        {
            let mut log = self.log();
            for entry in entries {
                records.push(Record::Entry((&entry).into()));
                log.entries.insert(entry.log_id.index, entry);
            }
        }
        let request = Request::Write { records, done: Done::Raft(flushed) };
        self.writer.send(request).await.map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |it| it.index + 1);
        drop(self.log().entries.split_off(&from));
        self.writer.write(vec![Record::Truncate { from }]).await.map_err(io::Error::other)
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        {
            let mut log = self.log();
            let kept = log.entries.split_off(&(id.index + 1));
            log.entries = kept;
            log.purged = log.purged.max(Some(id));
        }
        self.writer.purge(id.into()).await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests;

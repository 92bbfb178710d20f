//! What happened, kept within bounds: each actor's last letters, the notes on objects, the dead letters.
//!
//! `kactor trace`, `tap` and `why` read these and nothing else. A record is made when a letter is taken; a note whenever
//! somebody decides, waits or refuses. Nothing here holds an object's body.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kactor_protocol::insight::{DeadRow, NoteRow, RecordRow};
use kactor_protocol::{ActorName, LetterId, Timestamp, TraceId};

use crate::letter::{Origin, cut};

/// Letters kept per actor.
pub(crate) const RECORDS_PER_ACTOR_MAX: usize = 64;
/// Notes kept per object, and over all objects.
pub const NOTES_PER_KEY_MAX: usize = 32;
pub const NOTES_MAX: usize = 8192;
/// Longest text of a note; the rest is cut.
pub const NOTE_BYTES_MAX: usize = 512;
/// Dead letters kept; all are counted.
pub const DEAD_LETTERS_MAX: usize = 256;

/// One letter that an actor took.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub sequence: u64,
    pub at: Timestamp,
    pub from: Origin,
    pub message: &'static str,
    pub letter: LetterId,
    pub trace: TraceId,
    pub cause: LetterId,
    pub note: Box<str>,
}

impl Record {
    pub(crate) fn row(&self, actor: &ActorName) -> RecordRow {
        RecordRow {
            sequence: self.sequence,
            at: self.at,
            actor: actor.clone(),
            from: self.from.to_string(),
            message: self.message.into(),
            letter: self.letter,
            trace: self.trace,
            cause: self.cause,
            note: self.note.to_string(),
        }
    }
}

/// A ring of one actor's last letters.
#[derive(Debug, Default)]
pub(crate) struct Records {
    kept: VecDeque<Record>,
    last_sequence: u64,
}

impl Records {
    pub(crate) fn push(&mut self, mut record: Record) {
        self.last_sequence += 1;
        record.sequence = self.last_sequence;
        if self.kept.len() == RECORDS_PER_ACTOR_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(record);
    }

    /// The remark comes after the handler ran, on the record that was made before.
    pub(crate) fn remark_last(&mut self, text: String) {
        if let Some(last) = self.kept.back_mut() {
            last.note = text.into();
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.kept.iter()
    }

    pub(crate) fn last_sequence(&self) -> u64 {
        self.last_sequence
    }
}

/// A decision, a wait or a refusal, tied to an object. `text` is what `kactor why` prints: its author redacts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub at: Timestamp,
    pub actor: String,
    /// As the store has it: `//pods/default/web`.
    pub key: String,
    pub trace: TraceId,
    pub cause: LetterId,
    pub text: String,
}

/// The notes on all objects of a host. When all are too many, the object that was least recently noted is forgotten.
#[derive(Default)]
pub struct Notes {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_key: BTreeMap<String, (u64, VecDeque<Note>)>,
    /// Turn of the last note → key; the first is the least recently noted.
    by_turn: BTreeMap<u64, String>,
    turn: u64,
    n_notes: usize,
}

impl Notes {
    /// A note that repeats the last one on its object only moves that one's time.
    pub fn write(&self, mut note: Note) {
        note.text = cut(note.text, NOTE_BYTES_MAX);
        let mut kept = self.locked();
        kept.turn += 1;
        let (turn, key) = (kept.turn, note.key.clone());
        let kept = &mut *kept;
        let (last_turn, notes) = kept.by_key.entry(key.clone()).or_default();
        kept.by_turn.remove(last_turn);
        *last_turn = turn;
        kept.by_turn.insert(turn, key);
        match notes.back_mut() {
            Some(last) if last.text == note.text && last.actor == note.actor => *last = note,
            _ => {
                notes.push_back(note);
                kept.n_notes += 1;
            }
        }
        if notes.len() > NOTES_PER_KEY_MAX {
            notes.pop_front();
            kept.n_notes -= 1;
        }
        while kept.n_notes > NOTES_MAX {
            let (_, oldest) = kept.by_turn.pop_first().expect("notes belong to keys");
            let (_, forgotten) = kept.by_key.remove(&oldest).expect("both maps hold one key");
            kept.n_notes -= forgotten.len();
        }
    }

    /// The notes on one object, oldest first.
    pub fn of(&self, key: &str) -> Vec<Note> {
        self.locked().by_key.get(key).map_or_else(Vec::new, |it| it.1.iter().cloned().collect())
    }

    /// The notes of one trace, by time.
    pub fn of_trace(&self, trace: TraceId) -> Vec<Note> {
        let kept = self.locked();
        let all = kept.by_key.values().flat_map(|it| &it.1);
        let mut notes: Vec<Note> = all.filter(|it| it.trace == trace).cloned().collect();
        notes.sort_by_key(|it| it.at);
        notes
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.locked().n_notes
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn locked(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Note {
    pub(crate) fn row(self) -> NoteRow {
        let Note { at, actor, key, trace, cause, text } = self;
        NoteRow { at, actor, key, trace, cause, text }
    }
}

/// Letters that could not be delivered.
#[derive(Default)]
pub(crate) struct DeadLetters {
    kept: Mutex<(u64, VecDeque<DeadRow>)>,
}

impl DeadLetters {
    pub(crate) fn push(&self, dead: DeadRow) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0 += 1;
        if kept.1.len() == DEAD_LETTERS_MAX {
            kept.1.pop_front();
        }
        kept.1.push_back(dead);
    }

    /// The last ones, newest last, and how many there ever were.
    pub(crate) fn last(&self, limit: usize) -> (Vec<DeadRow>, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = kept.1.len().saturating_sub(limit);
        (kept.1.iter().skip(skip).cloned().collect(), kept.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(key: &str, text: &str) -> Note {
        Note {
            at: Timestamp(1),
            actor: "scheduler".into(),
            key: key.into(),
            trace: TraceId(1),
            cause: LetterId(1),
            text: text.into(),
        }
    }

    #[test]
    fn a_repeated_note_is_kept_once_with_its_last_time() {
        let notes = Notes::default();
        notes.write(note("a", "waits"));
        notes.write(Note { at: Timestamp(9), ..note("a", "waits") });
        notes.write(note("a", "bound"));
        let kept: Vec<_> = notes.of("a").into_iter().map(|it| (it.at.0, it.text)).collect();
        assert_eq!(kept, [(9, "waits".to_owned()), (1, "bound".to_owned())]);
    }

    #[test]
    fn notes_are_bounded_per_object_overall_and_in_length() {
        let notes = Notes::default();
        for n in 0..NOTES_PER_KEY_MAX + 5 {
            notes.write(note("a", &format!("note {n}")));
        }
        assert_eq!(notes.of("a").len(), NOTES_PER_KEY_MAX);
        assert_eq!(notes.of("a")[0].text, "note 5");
        for n in 0..NOTES_MAX {
            notes.write(note(&format!("key-{n}"), "x"));
        }
        assert!(notes.of("a").is_empty(), "the least recently noted object is forgotten");
        assert_eq!(notes.len(), NOTES_MAX);
        notes.write(note("long", &"ü".repeat(NOTE_BYTES_MAX)));
        assert_eq!(notes.of("long")[0].text.len(), NOTE_BYTES_MAX);
    }

    #[test]
    fn dead_letters_are_all_counted_and_the_last_kept() {
        let dead = DeadLetters::default();
        for n in 0..DEAD_LETTERS_MAX as u64 + 3 {
            dead.push(DeadRow {
                at: Timestamp(n),
                to: "a".into(),
                from: "-".into(),
                message: "M".into(),
                trace: TraceId(n),
                reason: "stopped".into(),
            });
        }
        let (last, total) = dead.last(2);
        assert_eq!(total, DEAD_LETTERS_MAX as u64 + 3);
        assert_eq!(last.iter().map(|it| it.at.0).collect::<Vec<_>>(), [257, 258]);
        assert_eq!(dead.last(10_000).0.len(), DEAD_LETTERS_MAX);
    }
}

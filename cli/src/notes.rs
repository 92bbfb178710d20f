//! The API's notes as the runtime's recorder keeps them: what `kactor why` prints.

use kactor_api::{Note, NoteSink, Outcome};
use kactor_protocol::LetterId;
use kactor_runtime::ActorSystem;

pub struct RecorderSink {
    system: ActorSystem,
}

impl RecorderSink {
    pub fn new(system: ActorSystem) -> Self {
        Self { system }
    }
}

impl NoteSink for RecorderSink {
    fn note(&self, note: Note) {
        let it = &note.resource;
        let namespace = it.namespace.as_deref().unwrap_or_default();
        let name = it.name.as_deref().unwrap_or_default();
        let sub = it.subresource.as_deref().map(|it| format!("/{it}")).unwrap_or_default();
        let what = match &note.outcome {
            Outcome::Written { revision } => format!("stored at revision {revision}"),
            Outcome::Answered => "answered".to_owned(),
            Outcome::Refused { code, message, .. } => format!("refused ({code}): {message}"),
        };
        let text = format!(
            "{} {}{sub} by {} ({}): {what}",
            note.verb, it.resource, note.user, note.manager
        );
        let kept = kactor_runtime::Note {
            at: note.at,
            actor: "api".to_owned(),
            key: format!("/{}/{}/{namespace}/{name}", it.group, it.resource),
            trace: note.trace,
            cause: LetterId::NONE,
            text,
        };
        self.system.notes().write(kept);
    }
}

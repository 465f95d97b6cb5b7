//! What a commit keeps of a stream of events.

use aqueduct_core::{Context, Durable, Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The value that is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The number of the next event.
    pub(super) next_id: u64,
    /// Where the events before it lie that this commit announces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) files: Vec<EventsFile>,
    /// The run that wrote them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) run_id: String,
}

/// A file of events in the step's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventsFile {
    pub(super) name: String,
    pub(super) n_events: u64,
    pub(super) n_bytes: u64,
}

impl Kept {
    /// What the step's last commit kept.
    pub(super) fn of(cx: &Context) -> Option<Self> {
        Self::from_value(cx.durable().and_then(Durable::kept)?)
    }

    /// What counts again if the run never sees its end.
    pub(super) fn fallback(cx: &Context) -> Option<Self> {
        Self::from_value(cx.durable().and_then(Durable::fallback)?)
    }

    fn from_value(value: &Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok()
    }

    /// For a commit.
    pub(super) fn value(&self) -> Result<Value> {
        let failed = |error| Error::bug("keep events", "a list of files has no JSON").with_source(error);
        serde_json::to_value(self).map_err(failed)
    }
}

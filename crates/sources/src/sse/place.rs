//! Where in its stream a source is: what goes with batches, and what is kept from run to run.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Context, Error, ErrorKind, Keeper, Positions, Result};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The one split of a stream.
pub(super) const SPLIT: &str = "events";

/// Behind an event. An empty id is a place, too, for it takes that of an earlier one: nothing can be asked for behind it.
pub(super) fn behind(id: &str) -> Positions {
    Positions::of(SPLIT, json!({ "id": id }))
}

/// Where an earlier process of the run stopped.
pub(super) fn place_of(from: &Positions) -> Result<Option<Arc<str>>> {
    let Some(position) = from.get(SPLIT) else { return Ok(None) };
    let id = position.get("id").and_then(Value::as_str);
    id.map(|id| Some(id.into())).ok_or_else(|| no_place(position))
}

/// What a step keeps from commit to commit and from run to run.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    /// The stream, without what is secret: ids of another say nothing of this one.
    stream: String,
    /// The id behind the last row that was committed.
    id: String,
}

/// The place: the id behind what was given.
pub(super) struct Place {
    kept: Mutex<Kept>,
}

impl Place {
    pub(super) fn of(cx: &Context, name: &str) -> Result<Self> {
        let stream = name.split(['?', '#']).next().unwrap_or_default().to_owned();
        let mut kept = Kept { stream, id: String::new() };
        if let Some(value) = cx.durable().and_then(|durable| durable.kept()) {
            let before = Kept::deserialize(value).map_err(|error| no_place(value).with_source(error))?;
            if before.stream == kept.stream {
                kept.id = before.id;
            } else {
                let (was, is) = (&before.stream, &kept.stream);
                cx.warn(format!(
                    "{is} is another stream than in earlier runs, {was}: it is read from now on"
                ));
            }
        }
        Ok(Self { kept: Mutex::new(kept) })
    }

    pub(super) fn id(&self) -> Arc<str> {
        self.lock().id.as_str().into()
    }

    pub(super) fn set(&self, id: &str) {
        id.clone_into(&mut self.lock().id);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_place(value: &Value) -> Error {
    let message = "what was kept names no event; forget it with `aqueduct run --full-refresh`";
    Error::new(ErrorKind::Conflict, "resume", message).with("kept", value)
}

#[async_trait]
impl Keeper for Place {
    async fn keep(&self) -> Result<Option<Value>> {
        let value = serde_json::to_value(&*self.lock());
        value.map(Some).map_err(|error| Error::bug("keep place", "it has no JSON").with_source(error))
    }
}

//! Which version of each feed was read to its end, kept with each commit.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Context, Durable, Error, ErrorKind, Keeper, Result};
use aqueduct_net::Known;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::list::Feed;
use crate::paged::given::Given;

/// What the step keeps from run to run.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    /// The entries that were given.
    #[serde(default)]
    given: Option<Value>,
    /// The versions of feeds, by their keys.
    #[serde(default)]
    versions: BTreeMap<String, Known>,
}

/// The versions of feeds as they were when all their entries were given. Cheap to clone.
#[derive(Clone)]
pub(super) struct Versions {
    known: Arc<Mutex<BTreeMap<String, Known>>>,
    given_before: Option<Value>,
}

impl Versions {
    /// As the last commit kept them, of those feeds that are still read.
    ///
    /// # Errors
    /// What was kept is damaged.
    pub(super) fn open(cx: &Context, feeds: &[Feed]) -> Result<Self> {
        let kept = match cx.durable().and_then(Durable::kept) {
            Some(value) => Kept::deserialize(value).map_err(|error| damaged(value).with_source(error))?,
            None => Kept::default(),
        };
        let keys: HashSet<String> = feeds.iter().map(Feed::key).collect();
        let mut known = kept.versions;
        known.retain(|key, _| keys.contains(key));
        Ok(Self { known: Arc::new(Mutex::new(known)), given_before: kept.given })
    }

    /// What was kept of the entries that were given.
    pub(super) fn given_before(&self) -> Option<Value> {
        self.given_before.clone()
    }

    /// From now on each commit keeps the versions, and what was given.
    pub(super) fn register(&self, cx: &Context, given: Option<Given>) {
        if let Some(durable) = cx.durable() {
            durable.register(Arc::new(FeedsKeeper { versions: self.clone(), given }));
        }
    }

    /// The version of a feed that was read last.
    pub(super) fn of(&self, feed: &Feed) -> Known {
        self.lock().get(&feed.key()).cloned().unwrap_or_default()
    }

    /// All entries of this version are given.
    pub(super) fn note(&self, feed: &Feed, known: Known) {
        if known.is_empty() {
            self.lock().remove(&feed.key());
        } else {
            self.lock().insert(feed.key(), known);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct FeedsKeeper {
    versions: Versions,
    given: Option<Given>,
}

#[async_trait]
impl Keeper for FeedsKeeper {
    async fn keep(&self) -> Result<Option<Value>> {
        // Where all entries are given, those that were given while only new ones were stay known.
        let given = match &self.given {
            Some(given) => Some(given.keep().await?),
            None => self.versions.given_before(),
        };
        let kept = Kept { given, versions: self.versions.lock().clone() };
        let value = serde_json::to_value(kept)
            .map_err(|error| Error::bug("keep feeds", "they have no JSON").with_source(error))?;
        Ok(Some(value))
    }
}

/// A value that was kept has no versions where they should be.
fn damaged(value: &Value) -> Error {
    let message = "what was kept names no versions of feeds; forget them with `aqueduct run --full-refresh`";
    Error::new(ErrorKind::Conflict, "read versions of feeds", message).with("kept", value)
}

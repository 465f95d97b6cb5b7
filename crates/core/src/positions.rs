//! How far a source has been read, split by split.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A map from a split of the source (a file, a page, a time slice) to how far it is complete.
///
/// What a position means is the source's own affair: a JSON value that it can go on from. Positions of one
/// split come in order, so that of two the later one wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Positions {
    splits: BTreeMap<Arc<str>, serde_json::Value>,
}

impl Positions {
    /// One split, complete up to `position`.
    pub fn of(split: impl Into<Arc<str>>, position: serde_json::Value) -> Self {
        Self { splits: BTreeMap::from([(split.into(), position)]) }
    }

    /// One split, complete to its end.
    pub fn done(split: impl Into<Arc<str>>) -> Self {
        Self::of(split, serde_json::Value::String("done".into()))
    }

    /// How far a split is complete.
    pub fn get(&self, split: &str) -> Option<&serde_json::Value> {
        self.splits.get(split)
    }

    /// Whether a split is complete to its end.
    pub fn is_done(&self, split: &str) -> bool {
        self.get(split).is_some_and(|position| position == "done")
    }

    /// Takes over later positions.
    pub fn merge(&mut self, later: Self) {
        self.splits.extend(later.splits);
    }

    /// Whether nothing is complete.
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty()
    }

    /// All splits and how far each is complete, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &serde_json::Value)> {
        self.splits.iter().map(|(split, position)| (&**split, position))
    }
}

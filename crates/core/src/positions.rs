//! How far a source has been read, split by split.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// A map from a split of the source (a file, a page, a time slice) to how far it is complete.
///
/// What a position means is the source's own affair: a JSON value that it can go on from. Positions of one
/// split come in order, so that of two the later one wins.
///
/// A *checkpoint* travels with them: a mark behind which nothing comes before the run has committed. Like every position
/// it never overtakes a row, so whoever is handed it has all rows that came before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Positions {
    splits: BTreeMap<Arc<str>, Value>,
    checkpoint: Option<u64>,
}

impl Positions {
    /// One split, complete up to `position`.
    pub fn of(split: impl Into<Arc<str>>, position: Value) -> Self {
        Self { splits: BTreeMap::from([(split.into(), position)]), checkpoint: None }
    }

    /// One split, complete to its end.
    pub fn done(split: impl Into<Arc<str>>) -> Self {
        Self::of(split, Value::String("done".into()))
    }

    /// No split, only the mark of a checkpoint.
    pub fn at_checkpoint(n: u64) -> Self {
        Self { checkpoint: Some(n), ..Self::default() }
    }

    /// How far a split is complete.
    pub fn get(&self, split: &str) -> Option<&Value> {
        self.splits.get(split)
    }

    /// Whether a split is complete to its end.
    pub fn is_done(&self, split: &str) -> bool {
        self.get(split).is_some_and(|position| position == "done")
    }

    /// The checkpoint that is reached once the rows before are written.
    pub fn checkpoint(&self) -> Option<u64> {
        self.checkpoint
    }

    /// Takes the mark of a checkpoint off.
    pub fn take_checkpoint(&mut self) -> Option<u64> {
        self.checkpoint.take()
    }

    /// Takes over later positions.
    pub fn merge(&mut self, later: Self) {
        self.splits.extend(later.splits);
        self.checkpoint = self.checkpoint.max(later.checkpoint);
    }

    /// Leaves only one split, the mark of a checkpoint aside.
    pub fn keep_only(&mut self, split: &str) {
        self.splits.retain(|name, _| &**name == split);
    }

    /// Whether nothing is complete.
    pub fn is_empty(&self) -> bool {
        self.splits.is_empty() && self.checkpoint.is_none()
    }

    /// All splits and how far each is complete, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.splits.iter().map(|(split, position)| (&**split, position))
    }
}

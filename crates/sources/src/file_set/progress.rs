//! How far a set of files has been read, in one small value: whatever the order in which files end, all but a few of those
//! before the last that was begun are done.

use std::collections::BTreeMap;

use aqueduct_core::{Error, ErrorKind, Positions, Result};
use aqueduct_net::Validator;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The split whose position sums up all files.
pub(crate) const SPLIT: &str = "files";

/// Which inputs are done, by their numbers, and how far others are. Of the size of the window: inputs begin in order, so
/// that there is a gap between those that are done for each that is being read, and no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// All inputs below are done.
    upto: u64,
    /// Further ones that are done: the first and the last of neighbours, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    done: Vec<(u64, u64)>,
    /// How far those are of which some was given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    open: BTreeMap<u64, Partial>,
}

/// How far a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partial {
    /// Rows that were given or rejected; of a binary file, bytes.
    pub(crate) rows: u64,
    /// Of which version.
    #[serde(default, skip_serializing_if = "Validator::is_empty")]
    pub(crate) is: Validator,
}

impl Progress {
    /// Where an earlier process stopped; nothing, if this is the first.
    ///
    /// # Errors
    /// The position is none of a set of files.
    pub(crate) fn of(from: &Positions) -> Result<Option<Self>> {
        let Some(position) = from.get(SPLIT) else { return Ok(None) };
        serde_json::from_value(position.clone()).map(Some).map_err(|error| {
            let message = "the position is none of a set of files; `--fresh` begins anew";
            Error::new(ErrorKind::Conflict, "resume", message).with("position", position).with_source(error)
        })
    }

    /// As it goes with a batch.
    ///
    /// # Errors
    /// None but by a defect.
    pub(crate) fn positions(&self) -> Result<Positions> {
        let position: Value = serde_json::to_value(self)
            .map_err(|error| Error::bug("read", "a position cannot be written").with_source(error))?;
        Ok(Positions::of(SPLIT, position))
    }

    /// Whether a file is done.
    pub(crate) fn is_done(&self, number: u64) -> bool {
        number < self.upto || self.done.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// Whether any file is done.
    pub(crate) fn is_any_done(&self) -> bool {
        self.upto > 0 || !self.done.is_empty()
    }

    /// How far a file is that is not done.
    pub(crate) fn partial(&self, number: u64) -> Option<&Partial> {
        self.open.get(&number)
    }

    /// A file was given up to here.
    pub(crate) fn give(&mut self, number: u64, rows: u64, is: &Validator) {
        let open = self.open.entry(number).or_insert_with(|| Partial { rows: 0, is: is.clone() });
        open.rows = rows;
    }

    /// A file is done.
    pub(crate) fn end(&mut self, number: u64) {
        self.open.remove(&number);
        if self.is_done(number) {
            return;
        }
        let at = self.done.partition_point(|(first, _)| *first < number);
        self.done.insert(at, (number, number));
        self.join(at + 1);
        self.join(at);
        while let Some((_, last)) = self.done.first().copied().filter(|(first, _)| *first == self.upto) {
            self.upto = last + 1;
            self.done.remove(0);
        }
    }

    /// What another knows to be done is done here, too.
    pub(crate) fn merge(&mut self, other: &Self) {
        let others = (0..other.upto).chain(other.done.iter().flat_map(|(first, last)| *first..=*last));
        others.for_each(|number| self.end(number));
    }

    /// Makes one of two that are neighbours.
    fn join(&mut self, at: usize) {
        let Some(before) = at.checked_sub(1) else { return };
        let (Some(left), Some(right)) = (self.done.get(before), self.done.get(at)) else { return };
        if left.1 + 1 == right.0 {
            let joined = (left.0, right.1);
            self.done.splice(before..=at, [joined]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whatever_ends_in_whatever_order_is_done_and_nothing_else() {
        let mut progress = Progress::default();
        let mut ended = Vec::new();
        for n in 0..97_u64 {
            let number = n * 31 % 97;
            assert!(!progress.is_done(number));
            progress.give(number, 7, &Validator::default());
            assert_eq!(progress.partial(number).map(|open| open.rows), Some(7));
            progress.end(number);
            ended.push(number);
            for other in 0..97 {
                assert_eq!(progress.is_done(other), ended.contains(&other), "{other} in {progress:?}");
            }
        }
        assert_eq!(progress, Progress { upto: 97, ..Progress::default() });
    }

    #[test]
    fn it_comes_back_as_it_was_and_is_small_beside_a_slow_file() {
        let mut progress = Progress::default();
        progress.give(1, 12, &Validator::default());
        (2..20_000).for_each(|number| progress.end(number));
        progress.end(0);
        let positions = progress.positions().unwrap();
        let told = json!({"upto": 1, "done": [[2, 19_999]], "open": {"1": {"rows": 12}}});
        assert_eq!(positions.get(SPLIT), Some(&told));
        assert_eq!(Progress::of(&positions).unwrap(), Some(progress));
        assert_eq!(Progress::of(&Positions::default()).unwrap(), None);
        let other = Positions::of(SPLIT, Value::from("done"));
        assert_eq!(Progress::of(&other).unwrap_err().kind(), ErrorKind::Conflict);
    }
}

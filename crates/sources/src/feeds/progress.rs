//! How far feeds have been read, in one small value: of the size of the feeds that are asked at once, and of those that failed.

use std::collections::BTreeMap;

use aqueduct_core::{Error, ErrorKind, Positions, Result};
use serde::{Deserialize, Serialize};

/// The split whose position sums up all feeds.
pub(super) const SPLIT: &str = "feeds";

/// Feeds begin in order: those below the first that was not begun, and that are not open, are done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The first feed that was not begun.
    begun: u64,
    /// How far those are that were begun and are not done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    open: BTreeMap<u64, Place>,
}

/// Where to go on in a feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Entries that are behind, good and bad.
    #[serde(default)]
    pub(super) entries: u64,
    /// Of which version of the feed: the BLAKE3 of its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
}

impl Progress {
    /// Where an earlier process stopped; the very start, if this is the first.
    ///
    /// # Errors
    /// The position is none of feeds.
    pub(super) fn of(from: &Positions) -> Result<Self> {
        let Some(position) = from.get(SPLIT) else { return Ok(Self::default()) };
        serde_json::from_value(position.clone()).map_err(|error| {
            let message = "the position is none of feeds; `--fresh` begins anew";
            Error::new(ErrorKind::Conflict, "resume", message).with("position", position).with_source(error)
        })
    }

    /// As it goes with a batch.
    ///
    /// # Errors
    /// None but by a defect.
    pub(super) fn positions(&self) -> Result<Positions> {
        let position = serde_json::to_value(self)
            .map_err(|error| Error::bug("read", "a position cannot be written").with_source(error))?;
        Ok(Positions::of(SPLIT, position))
    }

    /// The feeds that are left of so many, with where to go on in each.
    pub(super) fn left(&self, n_feeds: u64) -> impl Iterator<Item = (u64, Place)> + Send + use<> {
        let open: Vec<_> = self.open.iter().map(|(feed, place)| (*feed, place.clone())).collect();
        open.into_iter().chain((self.begun..n_feeds).map(|feed| (feed, Place::default())))
    }

    /// A feed is behind up to a place.
    pub(super) fn reach(&mut self, feed: u64, place: Place) {
        self.begin_up_to(feed);
        self.open.insert(feed, place);
    }

    /// A feed is done.
    pub(super) fn end(&mut self, feed: u64) {
        self.begin_up_to(feed);
        self.open.remove(&feed);
    }

    fn begin_up_to(&mut self, feed: u64) {
        let begun = self.begun..self.begun.max(feed + 1);
        self.begun = begun.end;
        self.open.extend(begun.map(|feed| (feed, Place::default())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feeds_that_gave_nothing_yet_are_not_done() {
        let place = Place { entries: 7, digest: Some("ab".into()) };
        let mut progress = Progress::default();
        progress.reach(2, place.clone());
        progress.end(1);
        let left: Vec<_> = Progress::of(&progress.positions().unwrap()).unwrap().left(4).collect();
        assert_eq!(left, [(0, Place::default()), (2, place), (3, Place::default())]);
    }

    #[test]
    fn a_position_of_something_else_is_refused() {
        let error = Progress::of(&Positions::of(SPLIT, "done".into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(Progress::of(&Positions::default()).unwrap().left(2).count(), 2);
    }
}

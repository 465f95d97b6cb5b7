//! How far slices have been read, in one small value: of the size of the slices that are read at once.

use std::collections::BTreeMap;

use aqueduct_core::{Error, ErrorKind, Positions, Result};
use serde::{Deserialize, Serialize};

use super::Ask;

/// The split whose position sums up all slices.
pub(crate) const SPLIT: &str = "pages";

/// Slices begin in order: those below the first that was not begun, and that are not open, are done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The first slice that was not begun.
    begun: u64,
    /// How far those are that were begun and are not done.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    open: BTreeMap<u64, Place>,
    /// Rows given in all.
    #[serde(default)]
    pub(crate) n_given: u64,
}

/// Where to go on in a slice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The page, from 1.
    pub(crate) page: u64,
    /// Its request.
    pub(crate) ask: Ask,
    /// Rows of the page that are behind, good and bad.
    #[serde(default)]
    pub(crate) rows: u64,
    /// Of which version of the page: the BLAKE3 of its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
}

impl Place {
    /// The start of a page.
    pub(crate) fn start_of(page: u64, ask: Ask) -> Self {
        Self { page, ask, rows: 0, digest: None }
    }
}

impl Progress {
    /// Where an earlier process stopped; the very start, if this is the first.
    ///
    /// # Errors
    /// The position is none of pages.
    pub(crate) fn of(from: &Positions) -> Result<Self> {
        let Some(position) = from.get(SPLIT) else { return Ok(Self::default()) };
        serde_json::from_value(position.clone()).map_err(|error| {
            let message = "the position is none of pages; `--fresh` begins anew";
            Error::new(ErrorKind::Conflict, "resume", message).with("position", position).with_source(error)
        })
    }

    /// As it goes with a batch.
    ///
    /// # Errors
    /// None but by a defect.
    pub(crate) fn positions(&self) -> Result<Positions> {
        let position = serde_json::to_value(self)
            .map_err(|error| Error::bug("read", "a position cannot be written").with_source(error))?;
        Ok(Positions::of(SPLIT, position))
    }

    /// The slices that are left of so many, with where to go on in those that were begun.
    pub(crate) fn left(&self, n_slices: u64) -> impl Iterator<Item = (u64, Option<Place>)> + Send + use<> {
        let open: Vec<_> = self.open.iter().map(|(slice, place)| (*slice, Some(place.clone()))).collect();
        open.into_iter().chain((self.begun..n_slices).map(|slice| (slice, None)))
    }

    /// A slice is behind up to a place. Of slices before it nothing may have been given yet: they begin at `first`.
    pub(crate) fn reach(&mut self, slice: u64, place: Place, first: impl Fn(u64) -> Ask) {
        self.begin_up_to(slice, first);
        self.open.insert(slice, place);
    }

    /// A slice is done.
    pub(crate) fn end(&mut self, slice: u64, first: impl Fn(u64) -> Ask) {
        self.begin_up_to(slice, first);
        self.open.remove(&slice);
    }

    fn begin_up_to(&mut self, slice: u64, first: impl Fn(u64) -> Ask) {
        let begun = self.begun..self.begun.max(slice + 1);
        self.begun = begun.end;
        self.open.extend(begun.map(|slice| (slice, Place::start_of(1, first(slice)))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(slice: u64) -> Ask {
        Ask { url: format!("http://host/{slice}"), body: None }
    }

    #[test]
    fn slices_that_gave_nothing_yet_are_not_done() {
        let mut progress = Progress::default();
        progress.reach(2, Place { rows: 7, ..Place::start_of(3, ask(9)) }, ask);
        progress.end(1, ask);
        let positions = progress.positions().unwrap();
        let left: Vec<_> = Progress::of(&positions).unwrap().left(4).collect();
        let expected = [
            (0, Some(Place::start_of(1, ask(0)))),
            (2, Some(Place { rows: 7, ..Place::start_of(3, ask(9)) })),
            (3, None),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_position_of_something_else_is_refused() {
        let error = Progress::of(&Positions::of(SPLIT, "done".into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(Progress::of(&Positions::default()).unwrap().left(2).eq([(0, None), (1, None)]));
    }
}

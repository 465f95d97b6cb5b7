//! Rows in the order in which they came, some of them being asked about.

use std::collections::VecDeque;
use std::sync::Arc;

use aqueduct_core::{Batch, Error, Positions, Result};
use aqueduct_primitives::{Owed, Reservation, TaskError};
use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};

use super::shop::Outcome;

/// For each section that is asked about, so many may wait for one before them.
const AHEAD: usize = 4;

/// A row on its way: alone in its batch, with its part of what was reserved.
pub(super) struct Row {
    pub(super) records: RecordBatch,
    pub(super) reservation: Reservation,
    pub(super) positions: Positions,
    pub(super) cut: bool,
}

/// One place in the line.
enum Place {
    /// It is asked about; what is reserved for its answer.
    Asked(Row, Reservation),
    Done(Row, Reservation, Outcome),
    /// No row, only positions.
    Passing(Batch),
}

/// What is first in the line and done.
pub(super) enum First {
    Done(Row, Reservation, Outcome),
    Passing(Batch),
}

type Ended = (u64, Result<Result<Outcome>, TaskError>);

/// The line.
#[derive(Default)]
pub(super) struct Line {
    places: VecDeque<Place>,
    /// The number of the first place; later ones count on.
    first: u64,
    asked: FuturesUnordered<BoxFuture<'static, Ended>>,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many are being asked about.
    pub(super) fn n_asked(&self) -> usize {
        self.asked.len()
    }

    /// Whether one more may be asked about, where so many are at once.
    pub(super) fn has_room(&self, limit: usize) -> bool {
        let ahead = if limit == 1 { 1 } else { limit.saturating_mul(AHEAD) };
        self.asked.len() < limit && self.places.len() < ahead
    }

    /// Puts a row that is asked about at the end.
    pub(super) fn ask(&mut self, row: Row, slot: Reservation, task: Owed<Result<Outcome>>) {
        let number = self.first + self.places.len() as u64;
        self.places.push_back(Place::Asked(row, slot));
        self.asked.push(async move { (number, task.await) }.boxed());
    }

    /// Puts a row at the end of which all is known.
    pub(super) fn done(&mut self, row: Row, slot: Reservation, outcome: Outcome) {
        self.places.push_back(Place::Done(row, slot, outcome));
    }

    /// Puts positions at the end.
    pub(super) fn pass(&mut self, batch: Batch) {
        self.places.push_back(Place::Passing(batch));
    }

    /// Waits until one more is done. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// The run cannot go on.
    pub(super) async fn settle_one(&mut self) -> Result<()> {
        let Some((number, ended)) = self.asked.next().await else { return Ok(()) };
        let outcome = ended.map_err(Error::from).flatten()?;
        let at = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let Some(place) = self.places.get_mut(at) else {
            return Err(Error::bug("ask service", "a section was answered that is in no line"));
        };
        let asked = std::mem::replace(
            place,
            Place::Passing(Batch::only_positions(
                Arc::new(arrow::datatypes::Schema::empty()),
                Positions::default(),
            )),
        );
        if let Place::Asked(row, slot) = asked {
            *place = Place::Done(row, slot, outcome);
        }
        Ok(())
    }

    /// Takes the first, if it is done.
    pub(super) fn take_first(&mut self) -> Option<First> {
        if matches!(self.places.front(), None | Some(Place::Asked(..))) {
            return None;
        }
        self.first += 1;
        match self.places.pop_front()? {
            Place::Done(row, slot, outcome) => Some(First::Done(row, slot, outcome)),
            Place::Passing(batch) => Some(First::Passing(batch)),
            Place::Asked(..) => None,
        }
    }
}

/// A batch, row by row.
pub(super) struct Rows {
    records: RecordBatch,
    next: usize,
    /// Of a batch of several rows: each keeps it alive.
    shared: Option<Arc<Reservation>>,
    own: Reservation,
    positions: Positions,
    cut: bool,
}

impl Rows {
    pub(super) fn of(batch: Batch) -> Self {
        let (records, reservation, positions, cut) = batch.into_parts();
        let (own, shared) = match records.num_rows() {
            1 => (reservation, None),
            _ => (Reservation::empty(), Some(Arc::new(reservation))),
        };
        Self { records, next: 0, shared, own, positions, cut }
    }

    /// The next row, which stays.
    pub(super) fn peek(&self) -> Option<(&RecordBatch, usize)> {
        (self.next < self.records.num_rows()).then_some((&self.records, self.next))
    }

    /// The next row. The last one has the positions of all.
    pub(super) fn take(&mut self) -> Option<Row> {
        self.peek()?;
        let (is_first, is_last) = (self.next == 0, self.next + 1 == self.records.num_rows());
        let mut reservation = std::mem::take(&mut self.own);
        if let Some(shared) = &self.shared {
            reservation.attach(Arc::clone(shared));
        }
        let row = Row {
            records: self.records.slice(self.next, 1),
            reservation,
            positions: if is_last { std::mem::take(&mut self.positions) } else { Positions::default() },
            cut: self.cut && is_first,
        };
        self.next += 1;
        Some(row)
    }
}

//! The inputs of a stage, watched.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use aqueduct_core::rows::copied;
use aqueduct_core::{Batch, BatchStream, Error, ErrorKind, Positions, Result};
use arrow::array::RecordBatch;
use futures::Stream;

use crate::suite::room::Room;

/// The message of the error of an input that breaks.
pub(super) const BROKEN: &str = "the input broke";

/// How an input is cut into batches.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    /// No batch at all.
    Nothing,
    /// One batch.
    Whole,
    /// Two.
    Halves,
    /// Of so many rows each.
    Every(usize),
    /// Halves, with a batch without rows before, between and after them.
    WithEmpty,
    /// Halves, and after so many of them an error.
    Breaking(usize),
    /// The first of so many batches of a tenth of the rows.
    Tenths(usize),
}

impl Cut {
    /// The pieces, each with memory of its own.
    ///
    /// # Errors
    /// Rows cannot be copied.
    pub(super) fn pieces(self, rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
        let n_rows = rows.num_rows();
        let step = match self {
            Self::Nothing => return Ok(Vec::new()),
            Self::Whole => n_rows,
            Self::Halves | Self::WithEmpty | Self::Breaking(_) => n_rows.div_ceil(2),
            Self::Every(step) => step,
            Self::Tenths(_) => n_rows.div_ceil(10),
        };
        let step = step.max(1);
        let pieces =
            (0..n_rows).step_by(step).map(|at| copied(rows, at..n_rows.min(at.saturating_add(step))));
        let empty = || Ok(RecordBatch::new_empty(rows.schema()));
        match self {
            Self::WithEmpty => pieces.flat_map(|piece| [empty(), piece]).chain([empty()]).collect(),
            Self::Breaking(n) | Self::Tenths(n) => pieces.take(n).collect(),
            _ => pieces.collect(),
        }
    }
}

/// One input: what is left of it, and what became of it.
pub(super) struct Feed {
    name: usize,
    stream: Option<Pieces>,
    n_pulled: Arc<AtomicUsize>,
    /// Dead once the stage has let go of the input.
    alive: Weak<()>,
}

struct Pieces {
    items: VecDeque<Result<Batch>>,
    n_pulled: Arc<AtomicUsize>,
    _alive: Arc<()>,
}

impl Feed {
    /// All pieces in memory of the flow, which then has nothing left.
    pub(super) fn new(name: usize, room: &Room, pieces: Vec<RecordBatch>, cut: Cut) -> Result<Self> {
        let mut items = VecDeque::new();
        for (n, records) in pieces.into_iter().enumerate() {
            let reservation = room.cx().flow().try_reserve(aqueduct_core::retained_bytes(&records))?;
            let batch = Batch::new(records, reservation);
            items.push_back(Ok(batch.with_positions(Positions::done(split(name, n)))));
        }
        if matches!(cut, Cut::Breaking(_)) {
            items.push_back(Err(Error::new(ErrorKind::Io, "read", BROKEN)));
        }
        let (alive, n_pulled) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
        let feed =
            Self { name, stream: None, n_pulled: Arc::clone(&n_pulled), alive: Arc::downgrade(&alive) };
        Ok(Self { stream: Some(Pieces { items, n_pulled, _alive: alive }), ..feed })
    }

    /// The input itself. Nothing comes of a second one.
    pub(super) fn stream(&mut self) -> BatchStream {
        match self.stream.take() {
            Some(pieces) => Box::pin(pieces),
            None => Box::pin(futures::stream::empty()),
        }
    }

    /// How many batches and errors were taken out of it.
    pub(super) fn n_pulled(&self) -> usize {
        self.n_pulled.load(SeqCst)
    }

    /// The splits whose batches were taken out of it, with no error among them.
    pub(super) fn splits(&self) -> impl Iterator<Item = String> {
        (0..self.n_pulled()).map(|n| split(self.name, n))
    }

    /// Whether the stage still has it.
    pub(super) fn is_held(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

/// The n-th batch of an input completes a split of its own.
pub(super) fn split(input: usize, n: usize) -> String {
    format!("input {input}, batch {n}")
}

impl Stream for Pieces {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = self.items.pop_front();
        if item.is_some() {
            self.n_pulled.fetch_add(1, SeqCst);
        }
        Poll::Ready(item)
    }
}

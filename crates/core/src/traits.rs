//! The three traits that everything is made of.

use std::path::PathBuf;
use std::pin::Pin;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;

use crate::collections::Extents;
use crate::{Batch, Context, Positions, Result};

/// Batches in order. The first error is the last item. Dropping the stream cancels what feeds it.
pub type BatchStream = Pin<Box<dyn Stream<Item = Result<Batch>> + Send>>;

/// The input streams of a stage, in the order of its `input:`.
pub type Inputs = Vec<BatchStream>;

/// Brings data in.
pub trait Source: Send {
    /// The columns of every batch.
    fn schema(&self) -> SchemaRef;

    /// What it can do beyond the least.
    fn capabilities(&self) -> SourceCaps;

    /// Reads, beginning after what `from` says is complete.
    ///
    /// Batches are made with [`Context::admit`], so each is covered by a live reservation. A batch's
    /// positions name the splits that are complete once it is; those of one split come in order. What is
    /// wrong with one row or file goes to [`Context::reject`]; an error ends the stream.
    ///
    /// A replayable source goes on after any of its batches: what it rejects is told in the same poll that gives the
    /// batch whose positions cover it, so that whoever stops between two batches has both or none.
    ///
    /// # Cancel safety
    /// Dropping the stream loses nothing that it had not yet given; reservations and connections go back.
    fn run(self: Box<Self>, cx: Context, from: Positions) -> BatchStream;
}

/// What a source can do beyond the least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCaps {
    /// Read again, it gives the same rows, split by split.
    pub replayable: bool,
    /// Its rows come in one order each time.
    pub ordered: bool,
    /// It never ends by itself.
    pub endless: bool,
    /// Reading it again takes what reading it took: it comes over a network.
    pub remote: bool,
    /// The one split whose position says all that the source needs to go on, where the number of its splits has no bound.
    /// What it says of others is for the steps behind it.
    pub summed_up_in: Option<&'static str>,
}

/// Changes data on its way.
pub trait Stage: Send {
    /// The columns of every batch that comes out.
    fn schema(&self) -> SchemaRef;

    /// Reads its inputs and gives what comes of them. Positions of its input pass through, even of batches
    /// whose rows are all dropped. It never waits for the flow's memory: see [`Context::recharge`].
    ///
    /// # Cancel safety
    /// Dropping the stream drops the inputs.
    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream;
}

/// Takes data out.
#[async_trait]
pub trait Sink: Send {
    /// Writes rows after those before. Waits for I/O only, and never for ever. When it returns, nothing of
    /// the batch is held beyond the sink's own share of memory.
    ///
    /// # Errors
    /// They could not be written; the sink is then good for [`Sink::abort`] only.
    ///
    /// # Cancel safety
    /// None: the runner lets it end, or aborts the sink.
    async fn write(&mut self, batch: Batch) -> Result<()>;

    /// Makes all rows since the last seal durable, in parts that nobody sees yet. More rows may follow.
    ///
    /// # Errors
    /// As [`Sink::write`].
    async fn seal(&mut self) -> Result<Vec<Part>>;

    /// Lets go of everything that is not sealed.
    async fn abort(self: Box<Self>);
}

/// A file that a sink staged: complete, durable, not yet public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it lies now.
    pub staged: PathBuf,
    /// Its name within the output: `part-….parquet`, `country=FR/part-….parquet`, or the file's own name.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub n_bytes: u64,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
    /// Where and when the items in it are, if it has items.
    pub extents: Option<Extents>,
}

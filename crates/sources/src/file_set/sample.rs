//! Columns out of more files than the first: of STAC, where a file may hold but one item.
//!
//! Files are looked at one after the other, and read later from their start like any other. What is wrong with one is told
//! when it is read.

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_formats::{Format, InferRows, Inference, ReadOptions};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, future};

use super::Looked;
use super::frozen::Frozen;
use super::input::{Found, Input, Queued};
use super::open::Opener;

/// So many inputs are held at most where no list of them lies on the disk.
const MAX_HELD: usize = 10_000;

/// Whether the columns are looked for in more than one file.
pub(crate) fn looks_at_several(options: &ReadOptions) -> bool {
    options.format.named() == Some(Format::Stac)
}

impl Looked {
    /// Adds what more files look like, until `infer_rows` rows were seen, or so many files. The list on the disk is read for
    /// it once more; without one, inputs are held.
    ///
    /// # Errors
    /// The list fails, there are too many inputs to hold, or what is wrong with a file is not about that file alone.
    pub(super) async fn for_more(
        &mut self,
        mut found: Inference,
        opener: &Opener,
        frozen: Option<&Frozen>,
        inputs: &mut BoxStream<'static, Result<Queued>>,
    ) -> Result<Inference> {
        let infer_rows = opener.options.infer_rows;
        let max_files = match infer_rows {
            InferRows::All => u64::MAX,
            InferRows::First(n) => n,
        };
        if !looks_at_several(&opener.options) || found.schema()?.fields().is_empty() {
            return Ok(found);
        }
        let mut again = frozen.map(|frozen| others(frozen, self.n_taken));
        let _reserve = opener.cx.share().reserve(opener.division.per_file).await?;
        for _ in 1..max_files {
            let Some(left) = found.rows_left(infer_rows) else { break };
            let input = match &mut again {
                Some(again) => again.try_next().await?,
                None => self.hold_next(inputs).await?,
            };
            let Some(input) = input else { break };
            match opener.look(&input, left).await {
                Ok((more, _)) => found.merge(more),
                Err(error) if error.kind().is_about_one_item() => {
                    tracing::debug!(file = &*input.name, error = %error.chain(), "tells no columns");
                }
                Err(error) => return Err(error.with("file", &input.name)),
            }
        }
        Ok(found)
    }

    /// The next input, which is kept to be read.
    async fn hold_next(&mut self, inputs: &mut BoxStream<'static, Result<Queued>>) -> Result<Option<Input>> {
        let Some(queued) = inputs.try_next().await? else { return Ok(None) };
        if self.head.len() >= MAX_HELD {
            let message = "the columns are looked for in too many files; declare them in `schema`, or lower `infer_rows`";
            return Err(Error::new(ErrorKind::Limit, "open source", message).with("limit_files", MAX_HELD));
        }
        let input = queued.input.clone();
        self.head.push(queued);
        Ok(Some(input))
    }
}

/// The inputs of the list, without the first few.
fn others(frozen: &Frozen, n_taken: usize) -> BoxStream<'static, Result<Input>> {
    let inputs = frozen.inputs().try_filter_map(|found| {
        future::ok(match found {
            Found::Input(input) => Some(*input),
            _ => None,
        })
    });
    inputs.skip(n_taken).boxed()
}

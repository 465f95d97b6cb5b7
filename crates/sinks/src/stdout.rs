//! `stdout`: one JSON object a line on standard output, for pipes.
//!
//! Order: as the rows come. Memory: the text of a few hundred rows. Whoever reads slowly slows the flow down:
//! the next rows wait until these are written. When nobody reads any more (a closed pipe, as after `head`),
//! the run is stopped as by ctrl-c, quietly: the error is of the kind [`ErrorKind::Cancelled`].

use std::io::{self, Write};

use aqueduct_core::{
    Batch, ComponentInfo, Context, Error, ErrorKind, Factory, Guarantee, MemoryNeed, Output, Part, Planning,
    Result, Sink, SinkConfig,
};
use aqueduct_formats::write::{TextCompression, WriteFormat};
use aqueduct_primitives::ByteCount;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

/// Rows are turned into text so many at a time, so that the text of a batch is never held whole.
const ROWS_AT_ONCE: usize = 512;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "stdout",
    summary: "Writes one JSON object a line to standard output",
    example: "stdout: {}",
});

/// Options of `stdout`: none.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

#[async_trait]
impl SinkConfig for Config {
    fn output(&self, _: &Planning) -> Option<Output> {
        None
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        MemoryNeed::between(ByteCount::kib(256), ByteCount::mib(1).max(planning.batch_bytes))
    }

    async fn open(self: Box<Self>, _: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Lines { cx: cx.clone(), out: Some(Box::new(io::stdout())) }))
    }
}

/// Writes lines to whatever takes bytes.
struct Lines {
    cx: Context,
    /// Not there while a job has it, or after one failed.
    out: Option<Box<dyn Write + Send>>,
}

#[async_trait]
impl Sink for Lines {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let Some(mut out) = self.out.take() else {
            return Err(Error::bug("write", "the sink has failed before"));
        };
        let metrics = std::sync::Arc::clone(self.cx.metrics());
        // On the blocking pool: a reader that does not read must not keep decoders from computing.
        let written = self.cx.tasks().block(move || {
            let n_bytes = write_lines(batch.records(), &mut out)?;
            metrics.bytes.add_len(n_bytes);
            Ok::<_, Error>(out)
        });
        self.out = Some(written.await??);
        Ok(())
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        Ok(Vec::new())
    }

    async fn abort(self: Box<Self>) {}
}

/// Writes whole lines and flushes; how many bytes.
fn write_lines(records: &RecordBatch, out: &mut dyn Write) -> Result<usize> {
    let mut n_bytes = 0;
    for first in (0..records.num_rows()).step_by(ROWS_AT_ONCE) {
        let rows = records.slice(first, ROWS_AT_ONCE.min(records.num_rows() - first));
        let format = WriteFormat::Ndjson(TextCompression::None);
        let mut encoder = format.encoder(records.schema(), Vec::new(), ByteCount::ZERO)?;
        encoder.write(&rows)?;
        let text = encoder.finish()?;
        out.write_all(&text).map_err(broken)?;
        n_bytes += text.len();
    }
    out.flush().map_err(broken)?;
    Ok(n_bytes)
}

fn broken(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::new(ErrorKind::Cancelled, "write stdout", "nobody reads standard output any more")
            .with_source(error);
    }
    Error::io("write", "standard output", error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn rows(n_rows: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..n_rows)) as _)]).unwrap()
    }

    #[test]
    fn each_row_is_a_line() {
        let mut text = Vec::new();
        assert_eq!(write_lines(&rows(1000), &mut text).unwrap(), text.len());
        let lines: Vec<_> = std::str::from_utf8(&text).unwrap().lines().collect();
        assert_eq!((lines.len(), lines[0], lines[999]), (1000, r#"{"n":0}"#, r#"{"n":999}"#));
    }

    #[test]
    fn a_closed_pipe_stops_the_run_quietly() {
        let error = write_lines(&rows(1), &mut Closed).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}

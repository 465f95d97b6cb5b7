//! The rows of a document: one a section.

use std::sync::Arc;

use aqueduct_core::worker::{Worker, WorkerEnded, WorkerLimits};
use aqueduct_core::{Context, Error, ErrorKind, MemoryNeed, RandomAccess, Result};
use aqueduct_formats::{Decoded, DecodedStream, LargeRecords, RowReject};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_stream::try_stream;
use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::parent::{Opened, Reader, Ready};
use super::wire::Request;
use super::{Config, Sections, need_of_document};
use crate::file_set::memory::{Division, FileLane};
use crate::file_set::open::RowsOf;

/// Beside the file, a reader needs so much: for the page it reads, its fonts, and the section it makes.
const BESIDE_THE_FILE: ByteCount = ByteCount::mib(8);
/// Of a document's reserve, so much is for sections that left the child and wait for the consumer. Those are no larger than
/// [`SMALL_SECTION`], and at most three.
const FOR_ROWS: ByteCount = ByteCount::mib(1);
const SMALL_SECTION: ByteCount = ByteCount::kib(256);
/// What a row takes beside its text and PDF.
const ROW_OVERHEAD: ByteCount = ByteCount::kib(8);
/// When reading so many sections one after the other has ended the process that does, the rest of the document is given up.
const MAX_DEATHS: usize = 3;

/// The columns.
pub(super) fn schema(pdf: bool) -> SchemaRef {
    let mut fields = vec![
        Field::new("document", DataType::Utf8, false),
        Field::new("section", DataType::Utf8, false),
        Field::new("index", DataType::Int64, false),
        Field::new("pages", DataType::Utf8, false),
        Field::new("text", DataType::Utf8, false),
    ];
    if pdf {
        fields.push(Field::new("pdf", DataType::Binary, false));
    }
    Arc::new(Schema::new(fields))
}

/// Makes rows of documents.
pub(super) struct DocumentRows {
    schema: SchemaRef,
    sections: Sections,
    pdf: bool,
    max_bytes: ByteCount,
    worker: Worker,
    timeout: std::time::Duration,
    cx: Context,
    n_documents: usize,
}

impl DocumentRows {
    pub(super) fn new(config: &Config, worker: Worker, cx: &Context) -> Self {
        Self {
            schema: schema(config.pdf),
            sections: config.sections.clone(),
            pdf: config.pdf,
            max_bytes: config.max_record_bytes,
            worker,
            timeout: config.timeout,
            cx: cx.clone(),
            n_documents: config.n_documents(cx.max_concurrency()),
        }
    }

    /// How a child reads a document of so many bytes.
    ///
    /// # Errors
    /// It does not fit the memory.
    fn reader(&self, n_bytes: ByteCount) -> Result<Reader> {
        let reserve = Division::by(need_of_document(), self.cx.share().total(), self.n_documents).per_file;
        let memory = reserve.saturating_sub(FOR_ROWS);
        let needed = n_bytes.saturating_add(BESIDE_THE_FILE);
        if needed > memory {
            // A quarter is for data in flight, and other steps have some of the rest.
            let share = needed.saturating_add(FOR_ROWS).saturating_mul(self.n_documents as u64);
            let enough = ByteCount::new(share.get() / 2 * 3).saturating_add(BESIDE_THE_FILE).round_up_to_mb();
            let message =
                format!("the document is too large to be read in so little memory; set `memory` to {enough}");
            return Err(Error::new(ErrorKind::Limit, "read document", message)
                .with("bytes", n_bytes)
                .with("needed", needed)
                .with("limit", memory));
        }
        Ok(Reader {
            worker: self.worker.clone(),
            limits: WorkerLimits { memory, cpu_per_request: self.timeout },
            timeout: self.timeout,
            tasks: self.cx.tasks().clone(),
        })
    }
}

#[async_trait]
impl RowsOf for DocumentRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn need_of_file(&self) -> MemoryNeed {
        need_of_document()
    }

    async fn rows(
        &self,
        file: Arc<dyn RandomAccess>,
        name: Arc<str>,
        lane: FileLane,
        skip: u64,
    ) -> Result<DecodedStream> {
        let n_bytes = ByteCount::new(file.len());
        let request = Request::Open {
            n_bytes: n_bytes.as_usize(),
            sections: self.sections.clone(),
            pdf: self.pdf,
            max_bytes: self.max_bytes.as_usize(),
        };
        let reader = self.reader(n_bytes)?;
        let schema = Arc::clone(&self.schema);
        let first = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(rows(
            DocumentReader { reader, request, file, name, lane, schema, opened: None, n_deaths: 0 },
            first,
        ))
    }
}

/// Section by section: the next is not made before the one before has been taken into the flow.
fn rows(mut document: DocumentReader, first: usize) -> DecodedStream {
    Box::pin(try_stream! {
        let one_at_a_time = Arc::new(Semaphore::new(1));
        let n_sections = document.open().await?;
        for number in first..n_sections {
            let turn = Arc::clone(&one_at_a_time).acquire_owned().await;
            let turn = turn.map_err(|_| Error::cancelled("read document"))?;
            let mut decoded = document.section(number, n_sections).await?;
            decoded.reservation.attach(turn);
            yield decoded;
        }
        tracing::debug!(document = &*document.name, "Closed original PDF stream");
    })
}

/// A document on its way.
struct DocumentReader {
    reader: Reader,
    request: Request,
    file: Arc<dyn RandomAccess>,
    name: Arc<str>,
    lane: FileLane,
    schema: SchemaRef,
    opened: Option<Opened>,
    /// Of children, one after the other.
    n_deaths: usize,
}

impl DocumentReader {
    /// Has it open; how many sections it has.
    async fn open(&mut self) -> Result<usize> {
        if let Some(opened) = &self.opened {
            return Ok(opened.n_sections);
        }
        let opened =
            self.reader.open(&self.file, &self.request).await.map_err(|error| self.with_advice(error))?;
        Ok(self.opened.insert(opened).n_sections)
    }

    /// A section, or why there is none.
    ///
    /// # Errors
    /// The document cannot be read on.
    async fn section(&mut self, number: usize, n_sections: usize) -> Result<Decoded> {
        loop {
            self.open().await?;
            match self.try_section(number, n_sections).await {
                Ok(decoded) => {
                    self.n_deaths = 0;
                    return Ok(decoded);
                }
                Err(error) => {
                    if error.cause::<WorkerEnded>().is_none() {
                        return Err(error);
                    }
                    // What a child remembers of other sections may have been too much: one more try, with nothing else in it.
                    let was_worn = self.opened.take().is_some_and(|opened| opened.is_worn);
                    if was_worn {
                        continue;
                    }
                    self.n_deaths += 1;
                    let error = self.with_advice(error);
                    if self.n_deaths >= MAX_DEATHS {
                        return Err(error.with("section", number + 1));
                    }
                    return Ok(self.rejected(number, error.chain()));
                }
            }
        }
    }

    async fn try_section(&mut self, number: usize, n_sections: usize) -> Result<Decoded> {
        let Some(opened) = &mut self.opened else {
            return Err(Error::bug("read document", "it is not open"));
        };
        let ready = match opened.make(number).await? {
            Ok(ready) => ready,
            Err(message) => return Ok(self.rejected(number, message)),
        };
        tracing::debug!(
            document = &*self.name,
            "Processing section {}/{n_sections}: {}",
            number + 1,
            ready.name
        );
        let n_bytes = ready.n_text_bytes.saturating_add(ready.n_pdf_bytes.unwrap_or(0));
        let weight = ByteCount::of(n_bytes).saturating_add(ROW_OVERHEAD);
        let reservation = match weight > SMALL_SECTION {
            false => Reservation::empty(),
            true => match self.lane.reserve(ByteCount::ZERO, weight).await {
                Ok(reservation) => reservation,
                Err(error) if error.kind() == ErrorKind::Limit => {
                    return Ok(self.rejected(number, format!("section `{}`: {}", ready.name, error.chain())));
                }
                Err(error) => return Err(error),
            },
        };
        let (text, pdf) = opened.take(&ready).await?;
        let records = self.records(number, &ready, text, pdf)?;
        Ok(Decoded { records, rows_read: 1, rejects: Vec::new(), reservation })
    }

    fn records(
        &self,
        number: usize,
        ready: &Ready,
        text: Vec<u8>,
        pdf: Option<Vec<u8>>,
    ) -> Result<RecordBatch> {
        let one = |text: &str| Arc::new(StringArray::from_iter_values([text])) as ArrayRef;
        let lengths = OffsetBuffer::from_lengths([text.len()]);
        let text = StringArray::try_new(lengths, Buffer::from_vec(text), None);
        let index = Int64Array::from(vec![i64::try_from(number + 1).unwrap_or(i64::MAX)]);
        let mut columns = vec![
            one(&self.name),
            one(&ready.name),
            Arc::new(index) as ArrayRef,
            one(&ready.pages),
            Arc::new(text.map_err(unreadable)?) as ArrayRef,
        ];
        if let Some(pdf) = pdf {
            let lengths = OffsetBuffer::from_lengths([pdf.len()]);
            let pdf = BinaryArray::try_new(lengths, Buffer::from_vec(pdf), None).map_err(unreadable)?;
            columns.push(Arc::new(pdf) as ArrayRef);
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(unreadable)
    }

    fn rejected(&self, number: usize, message: String) -> Decoded {
        let reject = RowReject {
            row: number as u64 + 1,
            byte: None,
            column: None,
            reason: "section",
            message,
            raw: Vec::new(),
            header: None,
        };
        Decoded {
            records: RecordBatch::new_empty(Arc::clone(&self.schema)),
            rows_read: 1,
            rejects: vec![reject],
            reservation: Reservation::empty(),
        }
    }

    /// What to do where a limit of the child was passed.
    fn with_advice(&self, error: Error) -> Error {
        let advice = match error.cause::<WorkerEnded>() {
            Some(WorkerEnded::OutOfMemory) => "raise `memory`, or take fewer pages a section",
            Some(WorkerEnded::TimedOut(_)) => "raise `timeout`, or take fewer pages a section",
            _ => return error,
        };
        let memory = self.reader.limits.memory;
        let kind = error.kind();
        Error::new(kind, "read document", advice).with("limit", memory).with_source(error)
    }
}

fn unreadable(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Data, "read document", "the process that reads it sent no text").with_source(error)
}

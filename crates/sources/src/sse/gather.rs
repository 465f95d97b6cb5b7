//! Events on their way into rows: gathered until a batch is full, or the first of them has waited long enough.
//!
//! Memory: the events of one batch, each with the id behind it. One that is larger than a block goes on at once, because no
//! other such event can be read before its memory is given back.

use std::sync::Arc;

use aqueduct_core::{Context, Error, Reject, Result};
use aqueduct_formats::{DecodeSpec, Decoded, DecodedStream, LargeRecords, decode};
use aqueduct_primitives::{Budget, ByteCount, Reservation};
use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};

use super::listen::{Happening, What};
use super::parse::Event;

/// What an event takes beside its texts.
const EVENT_BYTES: usize = 64;

/// The columns of events whose data is text.
pub(super) fn columns_of_text() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("event", DataType::Utf8, false),
        Field::new("data", DataType::Utf8, false),
        Field::new("received_at", time, false),
    ]))
}

/// What events become.
enum Rows {
    /// A row with their text.
    Text(Box<TextRows>),
    /// Lines of JSON, to be decoded.
    Json(Vec<u8>),
}

/// The columns of text.
struct TextRows {
    ids: StringBuilder,
    names: StringBuilder,
    texts: StringBuilder,
    times: TimestampMicrosecondBuilder,
}

impl TextRows {
    fn new() -> Self {
        Self {
            ids: StringBuilder::new(),
            names: StringBuilder::new(),
            texts: StringBuilder::new(),
            times: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
        }
    }

    fn push(&mut self, event: &Event, received_at: i64) {
        self.ids.append_option(Some(&*event.id).filter(|id| !id.is_empty()));
        self.names.append_value(&event.name);
        self.texts.append_value(&event.data);
        self.times.append_value(received_at);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.ids.finish()),
            Arc::new(self.names.finish()),
            Arc::new(self.texts.finish()),
            Arc::new(self.times.finish()),
        ]
    }
}

impl Rows {
    fn new(is_json: bool) -> Self {
        if is_json { Self::Json(Vec::new()) } else { Self::Text(Box::new(TextRows::new())) }
    }
}

/// Events that go on together.
pub(super) struct Group {
    rows: Rows,
    /// The id behind each row.
    ids: Vec<Arc<str>>,
    n_bytes: usize,
    /// Of one event that is larger than a block.
    reservation: Reservation,
    /// What was wrong behind the rows; the group ends with it.
    pub(super) reject: Option<Reject>,
    /// The id behind all of it; none, when nothing came.
    pub(super) behind: Option<Arc<str>>,
}

impl Group {
    pub(super) fn new(is_json: bool) -> Self {
        Self {
            rows: Rows::new(is_json),
            ids: Vec::new(),
            n_bytes: 0,
            reservation: Reservation::empty(),
            reject: None,
            behind: None,
        }
    }

    /// Whether something came that must not wait for ever.
    pub(super) fn has_some(&self) -> bool {
        self.behind.is_some()
    }

    pub(super) fn is_full(&self, n_rows: usize, n_bytes: ByteCount) -> bool {
        self.ids.len() >= n_rows
            || self.n_bytes >= n_bytes.as_usize()
            || self.reservation.size() > ByteCount::ZERO
            || self.reject.is_some()
    }

    /// The id behind so many rows.
    pub(super) fn id_behind(&self, n_rows: u64) -> Option<&Arc<str>> {
        self.ids.get(usize::try_from(n_rows.checked_sub(1)?).ok()?)
    }

    pub(super) fn add(&mut self, cx: &Context, happening: Happening) {
        let Happening { what, id } = happening;
        match what {
            What::Passed => {}
            What::Rejected(reject) => self.reject = Some(reject),
            What::Event(event, reservation) => {
                self.reservation = reservation;
                self.n_bytes += EVENT_BYTES + event.id.len() + event.name.len() + event.data.len();
                if self.push(cx, event) {
                    self.ids.push(Arc::clone(&id));
                } else {
                    cx.metrics().rows_filtered.add(1);
                }
            }
        }
        self.behind = Some(id);
    }

    /// Adds a row; without one, the event has none.
    fn push(&mut self, cx: &Context, event: Event) -> bool {
        match &mut self.rows {
            Rows::Text(rows) => {
                rows.push(&event, cx.clock().now().timestamp_micros());
                true
            }
            Rows::Json(lines) => {
                let has_row = !event.data.trim_ascii().is_empty();
                if has_row {
                    append_line(lines, event.data);
                }
                has_row
            }
        }
    }

    /// Takes in the text of what came, which goes on later.
    pub(super) fn look_at(&mut self, happening: &Happening) {
        self.n_bytes = self.n_bytes.saturating_add(EVENT_BYTES + happening.id.len());
        let (event, reservation) = match &happening.what {
            What::Passed => return,
            What::Rejected(reject) => {
                self.n_bytes = self.n_bytes.saturating_add(reject.message.len() + reject.raw.len());
                return;
            }
            What::Event(event, reservation) => (event, reservation),
        };
        let is_large = reservation.size() > ByteCount::ZERO;
        let n_bytes = if is_large { usize::MAX } else { event.name.len() + event.data.len() };
        self.n_bytes = self.n_bytes.saturating_add(n_bytes);
        if let Rows::Json(lines) = &mut self.rows {
            append_line(lines, event.data.clone());
            self.ids.push(Arc::clone(&happening.id));
        }
    }

    /// Whether there is an event.
    pub(super) fn has_rows(&self) -> bool {
        !self.ids.is_empty()
    }

    /// The lines of JSON so far.
    pub(super) fn into_lines(self) -> Bytes {
        match self.rows {
            Rows::Json(lines) => lines.into(),
            Rows::Text(_) => Bytes::new(),
        }
    }

    /// The rows.
    pub(super) fn decoded(&mut self, cx: &Context, mut spec: DecodeSpec) -> DecodedStream {
        let is_json = matches!(self.rows, Rows::Json { .. });
        let rows = std::mem::replace(&mut self.rows, Rows::new(is_json));
        let reservation = std::mem::take(&mut self.reservation);
        match rows {
            _ if self.ids.is_empty() => Box::pin(stream::empty()),
            Rows::Text(rows) => {
                let n_rows = self.ids.len() as u64;
                let records = RecordBatch::try_new(spec.schema, rows.finish()).map_err(|error| {
                    Error::bug("gather events", "columns that do not fit").with_source(error)
                });
                let decoded = records.map(|records| Decoded {
                    records,
                    rows_read: n_rows,
                    rejects: Vec::new(),
                    reservation,
                });
                Box::pin(stream::once(async { decoded }))
            }
            Rows::Json(lines) => {
                spec.large_records = Arc::new(Beside { flow: cx.flow().clone() });
                let body = Box::pin(stream::once(async { Ok(Bytes::from(lines)) }));
                let rows = decode(body, spec, cx.tasks());
                // What the text takes is held until its rows are taken.
                Box::pin(rows.inspect(move |_| _ = &reservation))
            }
        }
    }
}

/// A line of its own: in JSON a line end stands between values, where a space means the same.
fn append_line(lines: &mut Vec<u8>, data: String) {
    let mut line = data.into_bytes();
    for byte in &mut line {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
    lines.reserve_exact(line.len() + 1);
    lines.extend_from_slice(&line);
    lines.push(b'\n');
}

/// Memory for a record whose text came through the lane, and holds its turn there.
struct Beside {
    flow: Budget,
}

#[async_trait]
impl LargeRecords for Beside {
    async fn reserve(&self, _held: ByteCount, more: ByteCount) -> Result<Reservation> {
        Ok(self.flow.reserve(more).await?)
    }
}

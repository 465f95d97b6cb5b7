//! Unpacked text, cut into blocks of whole records.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::{ByteCount, Reservation};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::csv::{Dialect, QuoteScan};
use super::cut::{Cutter, Mark, Span};
use super::json_scan::JsonScan;
use super::plan::{Plan, Planner};
use crate::format::{BOM, found_html, is_html};
use crate::unpack::{Left, Unpacker};
use crate::{Format, LargeRecords, ReadOptions};

/// Enough of a file to know its format by.
const HEAD_BYTES: usize = 512;

/// Whole records, to be decoded.
pub(crate) struct Block {
    pub(crate) bytes: Vec<u8>,
    /// Where the next record begins.
    pub(crate) start: usize,
    /// The records, where they are not lines; those before `next_span` are done.
    pub(crate) spans: Option<Vec<Span>>,
    pub(crate) next_span: usize,
    /// Of `bytes[0]` within the member.
    pub(crate) offset: u64,
    pub(crate) plan: Arc<Plan>,
    /// Whether all of it is UTF-8 without NUL; unknown until it is decoded.
    pub(crate) is_clean: Option<bool>,
    /// Covers a record that is larger than a block, and its rows.
    pub(crate) large: Reservation,
}

impl Block {
    /// What is left of it, in memory of its own.
    pub(crate) fn rest(self) -> Self {
        let first_span = self.spans.as_ref().and_then(|spans| spans.get(self.next_span)).map(|span| span.0);
        let base = first_span.unwrap_or(self.start);
        let shifted = |spans: Vec<Span>| {
            let left = spans.into_iter().skip(self.next_span);
            left.map(|(start, end)| (start - base, end - base)).collect()
        };
        Self {
            bytes: self.bytes.get(base..).unwrap_or_default().to_vec(),
            start: 0,
            spans: self.spans.map(shifted),
            next_span: 0,
            offset: self.offset + base as u64,
            ..self
        }
    }
}

/// How to cut.
pub(crate) struct Cutting {
    pub(crate) name: Arc<str>,
    pub(crate) options: Arc<ReadOptions>,
    pub(crate) block_bytes: usize,
    pub(crate) large_records: Arc<dyn LargeRecords>,
    pub(crate) flush_after: Duration,
    pub(crate) planner: Planner,
}

/// Blocks on their way. The last is the error, if there is one.
pub(crate) type Blocks = mpsc::Sender<Result<Block>>;

/// Cuts all members into blocks, until the end, an error, or until nobody takes them.
pub(crate) async fn read_blocks(mut unpacker: Unpacker, mut cutting: Cutting, blocks: Blocks) {
    let result = async {
        while unpacker.next_member().await? {
            let member = MemberReader::new(&mut cutting, &blocks);
            if !member.run(&mut unpacker).await? {
                break;
            }
        }
        Ok(())
    };
    if let Err(error) = result.await {
        // Who takes blocks no more needs no error.
        let _ = blocks.send(Err(error)).await;
    }
}

struct MemberReader<'a> {
    cutting: &'a mut Cutting,
    blocks: &'a Blocks,
    cutter: Option<(Format, Cutter)>,
    plan: Option<Arc<Plan>>,
    buffer: Vec<u8>,
    /// Of `buffer[0]` within the member.
    offset: u64,
    /// The buffer may hold so much before something has to be done.
    target: usize,
    /// What could go on goes on by then.
    flush_at: Option<Instant>,
    large: Reservation,
}

impl<'a> MemberReader<'a> {
    fn new(cutting: &'a mut Cutting, blocks: &'a Blocks) -> Self {
        // A byte order mark is looked for in one piece.
        let target = cutting.block_bytes.max(BOM.len());
        Self {
            cutting,
            blocks,
            cutter: None,
            plan: None,
            buffer: Vec::with_capacity(target),
            offset: 0,
            target,
            flush_at: None,
            large: Reservation::empty(),
        }
    }

    /// Reads the member to its end; false when nobody takes blocks any more.
    async fn run(mut self, unpacker: &mut Unpacker) -> Result<bool> {
        loop {
            let is_late = !self.buffer.is_empty() && self.is_late(unpacker).await?;
            let mut left = Left::More;
            if !is_late {
                let room = (self.target - self.buffer.len()).min(self.cutting.block_bytes);
                (self.buffer, left) = unpacker.fill(std::mem::take(&mut self.buffer), room).await?;
            }
            let is_end = left == Left::End;
            if self.cutter.is_none() && !self.begin(unpacker, is_late || is_end)? {
                continue;
            }
            if let Some((_, cutter)) = &mut self.cutter {
                cutter.scan(&self.buffer, is_end)?;
            }
            let is_full = self.buffer.len() >= self.target || self.has_large();
            if (is_late || is_end || is_full) && !self.emit(is_end).await? {
                return Ok(false);
            }
            if is_end {
                return Ok(true);
            }
        }
    }

    /// Whether a record that is larger than a block has come to its end. What came with it is less than a block.
    fn has_large(&self) -> bool {
        self.large.size() > ByteCount::ZERO
            && self.cutter.as_ref().is_some_and(|(_, cutter)| cutter.has_whole())
    }

    /// Waits for input, but no longer than until what could go on has been here for [`Cutting::flush_after`]: whether it has.
    /// Input that keeps coming, a little at a time, does not put it off.
    async fn is_late(&mut self, unpacker: &mut Unpacker) -> Result<bool> {
        let could_emit = self.cutter.as_ref().is_none_or(|(_, cutter)| cutter.has_whole());
        if !could_emit {
            return Ok(false);
        }
        let now = Instant::now();
        let flush_at = *self.flush_at.get_or_insert(now + self.cutting.flush_after);
        if flush_at <= now {
            return Ok(true);
        }
        match timeout_at(flush_at, unpacker.wait()).await {
            Ok(result) => result.map(|()| false),
            Err(_) => Ok(true),
        }
    }

    /// Decides how to cut once the head is there; false while it is not.
    fn begin(&mut self, unpacker: &Unpacker, is_all: bool) -> Result<bool> {
        if self.buffer.len() < HEAD_BYTES.min(self.target).max(BOM.len()) && !is_all {
            return Ok(false);
        }
        let options = &self.cutting.options;
        let by_name = Format::of_name(&self.cutting.name).or_else(|| unpacker.member_format());
        let format = match options.format.named().or(by_name) {
            Some(format) => format,
            None if self.buffer.is_empty() => Format::Text,
            None => Format::detect(&self.cutting.name, &self.buffer)?,
        };
        check_head(format, &self.buffer)?;
        self.cutter = Some((format, cutter_of(format, by_name, options)));
        if self.buffer.starts_with(BOM) {
            self.buffer.drain(..BOM.len());
            self.offset = BOM.len() as u64;
        }
        Ok(true)
    }

    /// Sends what is whole, or makes room for a record that is larger.
    async fn emit(&mut self, is_end: bool) -> Result<bool> {
        self.flush_at = None;
        let Some((format, cutter)) = &mut self.cutter else { return Ok(true) };
        let format = *format;
        let cut = cutter.cut();
        if cut.end == 0 {
            if self.buffer.len() >= self.target && !is_end {
                self.grow().await?;
            }
            return Ok(true);
        }
        let tail = &self.buffer[cut.end..];
        let mut rest = Vec::with_capacity(if is_end { 0 } else { self.cutting.block_bytes.max(tail.len()) });
        rest.extend_from_slice(tail);
        let mut bytes = std::mem::replace(&mut self.buffer, rest);
        bytes.truncate(cut.end);
        let offset = self.offset;
        self.offset += cut.end as u64;
        self.target = self.cutting.block_bytes.max(self.buffer.len() + 1);
        let large = std::mem::take(&mut self.large);
        if cut.spans.as_ref().is_some_and(Vec::is_empty) {
            return Ok(true);
        }
        let Some((plan, start)) = self.plan(format, &bytes)? else { return Ok(true) };
        let block =
            Block { bytes, start, spans: cut.spans, next_span: 0, offset, plan, is_clean: None, large };
        Ok(self.blocks.send(Ok(block)).await.is_ok())
    }

    /// The member's plan, and where rows begin in the block at hand.
    fn plan(&mut self, format: Format, bytes: &[u8]) -> Result<Option<(Arc<Plan>, usize)>> {
        if let Some(plan) = &self.plan {
            return Ok(Some((Arc::clone(plan), 0)));
        }
        let planned = (self.cutting.planner)(format, bytes)?;
        self.plan = planned.as_ref().map(|(plan, _)| Arc::clone(plan));
        Ok(planned)
    }

    /// Room for a record that does not fit: twice as much, up to the limit.
    async fn grow(&mut self) -> Result<()> {
        let max = self.cutting.options.max_record_bytes;
        if self.buffer.len() > max.as_usize() {
            return Err(record_too_long(max).with("byte", self.offset));
        }
        let more = self.target.min(max.as_usize() + 1 - self.target.min(max.as_usize()));
        // Its rows come on top of its text.
        let bytes = ByteCount::of(more).saturating_mul(2);
        let held = self.large.size();
        let reservation = self.cutting.large_records.reserve(held, bytes).await.map_err(|error| {
            error.with("byte", self.offset).with("record_bytes", format!("more than {}", self.buffer.len()))
        })?;
        self.large.merge(reservation);
        self.target += more;
        // Not more than was reserved.
        self.buffer.reserve_exact(self.target - self.buffer.len());
        Ok(())
    }
}

/// The error for a record beyond the limit.
pub(crate) fn record_too_long(max: ByteCount) -> Error {
    let message = "a record has no end within `max_record_bytes`; raise it if there are such records";
    Error::new(ErrorKind::Limit, "read", message).with("max_record_bytes", max)
}

fn cutter_of(format: Format, by_name: Option<Format>, options: &ReadOptions) -> Cutter {
    match format {
        Format::Csv | Format::Tsv => Cutter::Quoted {
            mark: Mark::default(),
            dialect: Dialect::new(&options.csv, format),
            quotes: QuoteScan::default(),
        },
        Format::Json => Cutter::Json(Box::new(JsonScan::new(options.records.as_deref()))),
        Format::Stac if by_name != Some(Format::Ndjson) => {
            Cutter::Json(Box::new(match options.records.as_deref() {
                None => JsonScan::of_items(),
                pointer => JsonScan::new(pointer),
            }))
        }
        _ => Cutter::Lines(Mark::default()),
    }
}

/// Refuses what is plainly something else.
fn check_head(format: Format, head: &[u8]) -> Result<()> {
    let is_columnar = format == Format::Stac && Format::columnar(head).is_some();
    if format.needs_random_access() || is_columnar {
        return Err(crate::NeedsSpool::error(0, "the format is read from its end"));
    }
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        let message = format!("found UTF-16 text, expected {}", format.name());
        return Err(Error::new(ErrorKind::Data, "read", message));
    }
    if is_html(head) && format != Format::Text { Err(found_html(format)) } else { Ok(()) }
}

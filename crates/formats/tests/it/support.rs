//! Files in memory, packed in every way, and what a reader makes of them.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aqueduct_core::{ByteStream, Error, ErrorKind, RandomAccess, Result};
use aqueduct_formats::write::{CompressedWriter, TextCompression};
use aqueduct_formats::{
    DecodeSpec, Decoded, DecodedLimits, DecodedStream, LargeRecords, NeedsSpool, ReadOptions, RowReject,
    decode, decode_file, infer, infer_file,
};
use aqueduct_primitives::{Budget, ByteCount, Reservation, Tasks};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use serde_json::Value;

/// A file in memory that remembers the largest range asked for.
pub(crate) struct MemoryFile {
    bytes: Bytes,
    pub(crate) largest_read: AtomicU64,
    /// What begins before it cannot be read.
    readable_from: u64,
}

impl MemoryFile {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Arc<Self> {
        Self::failing_below(bytes, 0)
    }

    pub(crate) fn failing_below(bytes: impl Into<Bytes>, readable_from: u64) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.into(), largest_read: AtomicU64::new(0), readable_from })
    }
}

#[async_trait]
impl RandomAccess for MemoryFile {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> Result<Bytes> {
        if range.start < self.readable_from {
            return Err(Error::new(ErrorKind::Io, "read", "the line is down"));
        }
        self.largest_read.fetch_max(range.end - range.start, Ordering::Relaxed);
        let bounds = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        Ok(self.bytes.slice(bounds))
    }
}

/// A lane for large records that anybody may enter.
struct Lane(Budget);

#[async_trait]
impl LargeRecords for Lane {
    async fn reserve(&self, held: ByteCount, more: ByteCount) -> Result<Reservation> {
        // What the record holds already comes back only with the record: never wait for it.
        let all = held.saturating_add(more);
        let bytes = if all > self.0.total() { all } else { more };
        Ok(self.0.reserve(bytes).await?)
    }
}

/// Everything that came out of a file.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) rejects: Vec<RowReject>,
    pub(crate) rows_read: u64,
    pub(crate) error: Option<Error>,
}

impl Outcome {
    pub(crate) fn rows(&self) -> Vec<Value> {
        self.batches.iter().flat_map(rows_of).collect()
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn add(&mut self, decoded: Decoded) {
        self.rows_read += decoded.rows_read;
        self.rejects.extend(decoded.rejects);
        self.batches.push(decoded.records);
    }
}

pub(crate) fn rows_of(batch: &RecordBatch) -> Vec<Value> {
    let mut writer = arrow_json::WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow_json::writer::LineDelimited>(Vec::new());
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    let text = String::from_utf8(writer.into_inner()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn options(value: Value) -> ReadOptions {
    serde_json::from_value(value).unwrap()
}

/// A reader of a file of this name; its columns are inferred.
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    pub(crate) options: Value,
    pub(crate) memory: ByteCount,
    pub(crate) limits: DecodedLimits,
    pub(crate) origin: bool,
    pub(crate) batch_rows: usize,
    pub(crate) large: Budget,
    pub(crate) skip: u64,
    pub(crate) tasks: Tasks,
}

impl Reader {
    pub(crate) fn new(name: &'static str, options: Value) -> Self {
        Self {
            name,
            options,
            memory: ByteCount::mib(1),
            limits: DecodedLimits::default(),
            origin: false,
            batch_rows: 8192,
            large: Budget::new("large", ByteCount::mib(64)),
            skip: 0,
            tasks: Tasks::new(2),
        }
    }

    pub(crate) fn spec(&self, schema: arrow::datatypes::SchemaRef) -> DecodeSpec {
        DecodeSpec {
            name: self.name.into(),
            options: Arc::new(options(self.options.clone())),
            schema,
            origin: self.origin,
            batch_rows: self.batch_rows,
            batch_bytes: ByteCount::mib(4),
            memory: self.memory,
            large_records: Arc::new(Lane(self.large.clone())),
            limits: self.limits,
            flush_after: Duration::from_millis(50),
            after: None,
            skip: self.skip,
        }
    }

    /// Reads a stream in pieces of a few KB.
    pub(crate) async fn stream(&self, bytes: &[u8]) -> Outcome {
        let options = options(self.options.clone());
        let schema = infer(stream_of(bytes, 5000), self.name, &options, self.limits, &self.tasks).await;
        let schema = match schema {
            Ok(schema) => schema,
            Err(error) => return Outcome { error: Some(error), ..Outcome::default() },
        };
        collect(decode(stream_of(bytes, 5000), self.spec(schema), &self.tasks)).await
    }

    pub(crate) async fn file(&self, file: Arc<dyn RandomAccess>) -> Outcome {
        let options = options(self.options.clone());
        match infer_file(Arc::clone(&file), self.name, &options, self.limits, &self.tasks).await {
            Ok(schema) => collect(decode_file(file, self.spec(schema), &self.tasks)).await,
            Err(error) => Outcome { error: Some(error), ..Outcome::default() },
        }
    }

    /// Reads a stream, and goes on by range where that is asked for.
    pub(crate) async fn stream_then_file(
        &self,
        bytes: &[u8],
        schema: arrow::datatypes::SchemaRef,
    ) -> Outcome {
        let mut outcome =
            collect(decode(stream_of(bytes, 700), self.spec(Arc::clone(&schema)), &self.tasks)).await;
        let needs = outcome.error.as_ref().and_then(NeedsSpool::of).cloned();
        let Some(after) = needs else { return outcome };
        let spec = DecodeSpec { after: Some(after), ..self.spec(schema) };
        let rest = collect(decode_file(MemoryFile::new(bytes.to_vec()), spec, &self.tasks)).await;
        outcome.batches.extend(rest.batches);
        outcome.rejects.extend(rest.rejects);
        outcome.rows_read += rest.rows_read;
        outcome.error = rest.error;
        outcome
    }
}

pub(crate) async fn collect(mut stream: DecodedStream) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(item) = stream.next().await {
        match item {
            Ok(decoded) => outcome.add(decoded),
            Err(error) => outcome.error = Some(error),
        }
    }
    outcome
}

pub(crate) fn stream_of(bytes: &[u8], piece: usize) -> ByteStream {
    let pieces: Vec<Result<Bytes>> =
        bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    Box::pin(futures::stream::iter(pieces))
}

pub(crate) fn packed(bytes: &[u8], compression: TextCompression) -> Vec<u8> {
    let mut writer = CompressedWriter::new(Vec::new(), compression);
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// How a member of a zip is written.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) is_stored: bool,
    /// Sizes and checksum behind the data.
    pub(crate) has_descriptor: bool,
    pub(crate) flags: u16,
}

impl<'a> Member<'a> {
    pub(crate) fn new(name: &'a str, data: &'a [u8]) -> Self {
        Self { name, data, is_stored: false, has_descriptor: false, flags: 0 }
    }
}

/// A zip archive, by the book.
pub(crate) fn zip(members: &[Member<'_>]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        let offset = out.len();
        let body = if member.is_stored { member.data.to_vec() } else { deflated(member.data) };
        let mut crc = flate2::Crc::new();
        crc.update(member.data);
        let sums = [crc.sum(), u32::try_from(body.len()).unwrap(), u32::try_from(member.data.len()).unwrap()];
        let flags = member.flags | if member.has_descriptor { 8 } else { 0 };
        let method: u16 = if member.is_stored { 0 } else { 8 };
        let head = |sums: [u32; 3]| {
            let mut bytes = Vec::new();
            [20, flags, method, 0, 0].iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            sums.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            bytes.extend(u16::try_from(member.name.len()).unwrap().to_le_bytes());
            bytes.extend([0, 0]);
            bytes
        };
        out.extend(b"PK\x03\x04");
        out.extend(head(if member.has_descriptor { [0; 3] } else { sums }));
        out.extend(member.name.as_bytes());
        out.extend(&body);
        if member.has_descriptor {
            out.extend(b"PK\x07\x08");
            sums.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(head(sums));
        directory.extend([0; 10]);
        directory.extend(u32::try_from(offset).unwrap().to_le_bytes());
        directory.extend(member.name.as_bytes());
    }
    let (start, n) = (u32::try_from(out.len()).unwrap(), u16::try_from(members.len()).unwrap());
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    [n, n].iter().for_each(|n| out.extend(n.to_le_bytes()));
    [u32::try_from(directory.len()).unwrap(), start].iter().for_each(|n| out.extend(n.to_le_bytes()));
    out.extend([0, 0]);
    out
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

//! Sorted rows on disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::Arc;

use aqueduct_core::{Error, Result, retained_bytes};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::SortedBlock;
use super::block::{BlockDecoder, BlockEncoder, HEAD_BYTES, SpillCompression};
use super::keys::{KeyEncoder, Keys};
use crate::disk::{SpillDir, SpillFile};

/// What a row of a block takes in memory beside its columns and the bytes of its key: its size, its key's place and
/// length.
const BYTES_BESIDE_ROW: u64 = 16;

/// A sorted run: a file of blocks.
#[derive(Debug)]
pub struct Run {
    file: SpillFile,
    compression: SpillCompression,
    /// How large it is on disk.
    pub(super) n_bytes: u64,
    /// How large its rows were in memory.
    pub(super) raw_bytes: u64,
    /// What its largest block takes in memory, keys and all.
    pub(super) largest_block: u64,
    /// What its widest key takes.
    pub(super) widest_key: u64,
    /// Rows that are not in it because they are like one that is.
    pub(super) n_duplicates: u64,
    n_blocks: u64,
}

/// Writes a run.
pub(super) struct RunWriter {
    out: File,
    encoder: BlockEncoder,
    run: Run,
}

impl RunWriter {
    /// Of blocks that lie on disk as said, or as the room on it says.
    pub(super) fn create(
        dir: &SpillDir,
        schema: &SchemaRef,
        compression: Option<SpillCompression>,
    ) -> Result<Self> {
        let compression = compression.unwrap_or_else(|| dir.compression());
        let (file, out) = dir.create()?;
        let encoder = BlockEncoder::new(schema, compression)?;
        let run = Run {
            file,
            compression,
            n_bytes: 0,
            raw_bytes: 0,
            largest_block: 0,
            widest_key: 0,
            n_duplicates: 0,
            n_blocks: 0,
        };
        Ok(Self { out, encoder, run })
    }

    /// Adds the next rows, in order.
    pub(super) fn write(&mut self, block: SortedBlock) -> Result<()> {
        let n_rows = block.records.num_rows() as u64;
        let encoded = self.encoder.encode(block.records)?;
        let n_bytes = encoded.bytes.len() as u64;
        self.run.file.grow(n_bytes, encoded.raw_bytes as u64)?;
        self.out
            .write_all(&encoded.bytes)
            .map_err(|error| Error::io("spill", self.run.file.path().display(), error))?;
        self.run.n_bytes += n_bytes;
        self.run.raw_bytes += encoded.raw_bytes as u64;
        self.run.n_blocks += 1;
        let in_memory = encoded.raw_bytes as u64 + block.key_bytes + BYTES_BESIDE_ROW * n_rows;
        self.run.largest_block = self.run.largest_block.max(in_memory);
        self.run.widest_key = self.run.widest_key.max(block.widest_key);
        Ok(())
    }

    /// The run, from which so many rows were left out.
    pub(super) fn finish(mut self, n_duplicates: u64) -> Run {
        self.run.n_duplicates = n_duplicates;
        self.run
    }
}

/// Reads a run, block by block.
#[derive(Debug)]
pub(super) struct RunReader {
    run: Arc<Run>,
    input: File,
    decoder: BlockDecoder,
    n_read: u64,
}

/// The rows of a block and their keys.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) records: RecordBatch,
    pub(super) keys: Keys,
}

impl RunReader {
    pub(super) fn open(run: impl Into<Arc<Run>>) -> Result<Self> {
        let run = run.into();
        let path = run.file.path();
        let input =
            File::open(path).map_err(|error| Error::io("read spilled rows", path.display(), error))?;
        Ok(Self { decoder: BlockDecoder::new(run.compression), run, input, n_read: 0 })
    }

    /// The next block; none when all were read.
    pub(super) fn next(&mut self, keys: &KeyEncoder) -> Result<Option<Block>> {
        let Some(records) = self.next_records()? else { return Ok(None) };
        Ok(Some(Block { keys: keys.encode(&records)?, records }))
    }

    /// [`RunReader::next`] without keys.
    pub(super) fn next_records(&mut self) -> Result<Option<RecordBatch>> {
        if self.n_read == self.run.n_blocks {
            return Ok(None);
        }
        let path = self.run.file.path();
        let (stored, raw_bytes) = read_block(&mut self.input, &self.run)
            .map_err(|error| Error::io("read spilled rows", path.display(), error))?;
        let records =
            self.decoder.decode(&stored, raw_bytes).map_err(|error| error.with("path", path.display()))?;
        self.n_read += 1;
        Ok(Some(records))
    }
}

/// The next block as it lies on disk, and its length in memory. Not more is read than the run can have.
fn read_block(input: &mut File, run: &Run) -> io::Result<(Vec<u8>, usize)> {
    let mut head = [0; HEAD_BYTES];
    input.read_exact(&mut head)?;
    let (raw_bytes, stored_bytes) = BlockDecoder::lengths(head);
    if stored_bytes > run.n_bytes || raw_bytes > run.largest_block {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a block is larger than its run"));
    }
    let length = |n: u64| usize::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
    let mut stored = vec![0; length(stored_bytes)?];
    input.read_exact(&mut stored)?;
    Ok((stored, length(raw_bytes)?))
}

impl Block {
    /// What it takes in memory.
    pub(super) fn n_bytes(&self) -> u64 {
        retained_bytes(&self.records).get() + self.keys.n_bytes()
    }
}

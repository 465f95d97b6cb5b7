//! Sorted rows on disk.

use std::fs::File;
use std::io::{Read, Write};

use aqueduct_core::{Error, Result, retained_bytes};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::row::Rows;

use super::block::{BlockDecoder, BlockEncoder, HEAD_BYTES, SpillCompression};
use super::keys::KeyEncoder;
use crate::disk::{SpillDir, SpillFile};

/// A sorted run: a file of blocks.
#[derive(Debug)]
pub(super) struct Run {
    file: SpillFile,
    compression: SpillCompression,
    /// How large it is on disk.
    pub(super) n_bytes: u64,
    /// What its largest block takes in memory, keys, sizes and all.
    pub(super) largest_block: u64,
    n_blocks: u64,
}

/// Writes a run.
pub(super) struct RunWriter {
    out: File,
    encoder: BlockEncoder,
    run: Run,
}

impl RunWriter {
    pub(super) fn create(dir: &SpillDir, schema: &SchemaRef, compression: SpillCompression) -> Result<Self> {
        let (file, out) = dir.create()?;
        let encoder = BlockEncoder::new(schema, compression)?;
        Ok(Self { out, encoder, run: Run { file, compression, n_bytes: 0, largest_block: 0, n_blocks: 0 } })
    }

    /// Adds the next rows, in order.
    pub(super) fn write(&mut self, records: &RecordBatch, keys: &KeyEncoder) -> Result<()> {
        let (bytes, size) = self.encoder.encode(records)?;
        self.run.file.grow(bytes.len() as u64)?;
        self.out
            .write_all(bytes)
            .map_err(|error| Error::io("spill", self.run.file.path().display(), error))?;
        self.run.n_bytes += bytes.len() as u64;
        self.run.n_blocks += 1;
        let keys = keys.encode(records)?.size() as u64;
        let sizes = 4 * records.num_rows() as u64;
        self.run.largest_block = self.run.largest_block.max((size.raw + size.stored) as u64 + keys + sizes);
        Ok(())
    }

    pub(super) fn finish(self) -> Run {
        self.run
    }
}

/// Reads a run, block by block.
#[derive(Debug)]
pub(super) struct RunReader {
    run: Run,
    input: File,
    decoder: BlockDecoder,
    stored: Vec<u8>,
    n_read: u64,
}

/// The rows of a block and their keys.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) records: RecordBatch,
    pub(super) keys: Rows,
}

impl RunReader {
    pub(super) fn open(run: Run) -> Result<Self> {
        let path = run.file.path();
        let input =
            File::open(path).map_err(|error| Error::io("read spilled rows", path.display(), error))?;
        Ok(Self { decoder: BlockDecoder::new(run.compression), run, input, stored: Vec::new(), n_read: 0 })
    }

    /// The next block; none when all were read.
    pub(super) fn next(&mut self, keys: &KeyEncoder) -> Result<Option<Block>> {
        if self.n_read == self.run.n_blocks {
            return Ok(None);
        }
        let raw = self
            .read()
            .map_err(|error| Error::io("read spilled rows", self.run.file.path().display(), error))?;
        let records = self.decoder.decode(&self.stored, raw)?;
        self.n_read += 1;
        Ok(Some(Block { keys: keys.encode(&records)?, records }))
    }

    fn read(&mut self) -> std::io::Result<usize> {
        let mut head = [0; HEAD_BYTES];
        self.input.read_exact(&mut head)?;
        let (raw, stored) = BlockDecoder::lengths(head);
        if stored > self.run.n_bytes || raw > self.run.largest_block {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "a block is larger than its run",
            ));
        }
        let length =
            |n| usize::try_from(n).map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData));
        self.stored.resize(length(stored)?, 0);
        self.input.read_exact(&mut self.stored)?;
        length(raw)
    }
}

impl Block {
    /// What it takes in memory.
    pub(super) fn n_bytes(&self) -> u64 {
        retained_bytes(&self.records).get() + self.keys.size() as u64
    }
}

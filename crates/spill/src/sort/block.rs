//! Blocks of sorted rows as bytes: Arrow IPC messages, as they are or compressed with LZ4.
//!
//! A run is a sequence of blocks, each behind a head of sixteen bytes: its length, and its length on disk, both
//! little-endian. The first holds the schema message too.

use aqueduct_core::{Error, Result};
use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamEncoder;

/// The bytes of a block's head.
pub(super) const HEAD_BYTES: usize = 16;

/// How blocks lie on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpillCompression {
    /// As they are: quickest while the page cache takes them.
    None,
    /// LZ4: about half the size for about half the speed.
    #[default]
    Lz4,
}

/// Makes the blocks of one run.
pub(super) struct BlockEncoder {
    encoder: StreamEncoder,
    compression: SpillCompression,
    raw: Vec<u8>,
    stored: Vec<u8>,
}

/// What a block takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockSize {
    pub(super) raw: usize,
    pub(super) stored: usize,
}

impl BlockEncoder {
    pub(super) fn new(schema: &Schema, compression: SpillCompression) -> Result<Self> {
        let encoder = StreamEncoder::try_new(schema).map_err(failed)?;
        Ok(Self { encoder, compression, raw: Vec::new(), stored: Vec::new() })
    }

    /// The next block, head and all; the bytes are good until the next one.
    pub(super) fn encode(&mut self, records: &RecordBatch) -> Result<(&[u8], BlockSize)> {
        let buffers = self.encoder.encode(records).map_err(failed)?;
        let raw: usize = buffers.iter().map(Buffer::len).sum();
        self.stored.clear();
        self.stored.resize(HEAD_BYTES, 0);
        let stored = match self.compression {
            SpillCompression::None => {
                buffers.iter().for_each(|buffer| self.stored.extend_from_slice(buffer));
                raw
            }
            SpillCompression::Lz4 => {
                self.raw.clear();
                buffers.iter().for_each(|buffer| self.raw.extend_from_slice(buffer));
                let most = lz4_flex::block::get_maximum_output_size(raw);
                self.stored.resize(HEAD_BYTES + most, 0);
                let room = &mut self.stored[HEAD_BYTES..];
                lz4_flex::block::compress_into(&self.raw, room).map_err(|error| damaged(error.to_string()))?
            }
        };
        self.stored.truncate(HEAD_BYTES + stored);
        self.stored[..8].copy_from_slice(&(raw as u64).to_le_bytes());
        self.stored[8..HEAD_BYTES].copy_from_slice(&(stored as u64).to_le_bytes());
        Ok((&self.stored, BlockSize { raw, stored: HEAD_BYTES + stored }))
    }
}

/// Reads the blocks of one run, in order.
#[derive(Debug)]
pub(super) struct BlockDecoder {
    decoder: StreamDecoder,
    compression: SpillCompression,
}

impl BlockDecoder {
    pub(super) fn new(compression: SpillCompression) -> Self {
        Self { decoder: StreamDecoder::new(), compression }
    }

    /// The lengths that a head tells: of the block, and of its bytes on disk.
    pub(super) fn lengths(head: [u8; HEAD_BYTES]) -> (u64, u64) {
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        (number(&head[..8]), number(&head[8..]))
    }

    /// The rows of a block. They share its memory, which is exactly as long as the block.
    pub(super) fn decode(&mut self, stored: &[u8], raw: usize) -> Result<RecordBatch> {
        let mut block = MutableBuffer::from_len_zeroed(raw);
        match self.compression {
            SpillCompression::None if stored.len() == raw => block.copy_from_slice(stored),
            SpillCompression::None => return Err(damaged("a block has another length than it says")),
            SpillCompression::Lz4 => {
                let n = lz4_flex::block::decompress_into(stored, &mut block)
                    .map_err(|error| damaged(error.to_string()))?;
                if n != raw {
                    return Err(damaged("a block has another length than it says"));
                }
            }
        }
        let mut block = Buffer::from(block);
        let records = self.decoder.decode(&mut block).map_err(failed)?;
        records.ok_or_else(|| damaged("a block holds no rows"))
    }
}

fn damaged(message: impl Into<String>) -> Error {
    Error::bug("read spilled rows", message.into())
}

fn failed(error: ArrowError) -> Error {
    Error::bug("spill rows", "Arrow cannot encode or decode what it made").with_source(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn blocks_come_back_as_they_were_under_either_compression() {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter((0..1000).map(|n| (n % 7 != 0).then_some(n))));
        let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|n| format!("word {n}"))));
        let records = RecordBatch::try_from_iter([("id", ids), ("word", words)]).unwrap();
        for compression in [SpillCompression::None, SpillCompression::Lz4] {
            let mut encoder = BlockEncoder::new(&records.schema(), compression).unwrap();
            let mut decoder = BlockDecoder::new(compression);
            for piece in [records.slice(0, 400), records.slice(400, 600)] {
                let (bytes, size) = encoder.encode(&piece).unwrap();
                assert_eq!(bytes.len(), size.stored);
                let (raw, stored) = BlockDecoder::lengths(*bytes.first_chunk().unwrap());
                assert_eq!((raw, stored), (size.raw as u64, size.stored as u64 - 16));
                assert_eq!(decoder.decode(&bytes[HEAD_BYTES..], size.raw).unwrap(), piece);
            }
        }
    }

    #[test]
    fn a_damaged_block_is_an_error() {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter(0..1000));
        let records = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut encoder = BlockEncoder::new(&records.schema(), SpillCompression::Lz4).unwrap();
        let (bytes, size) = encoder.encode(&records).unwrap();
        let bytes = bytes[HEAD_BYTES..].to_vec();
        assert!(
            BlockDecoder::new(SpillCompression::Lz4).decode(&bytes[..bytes.len() / 2], size.raw).is_err()
        );
        assert!(BlockDecoder::new(SpillCompression::Lz4).decode(&bytes, size.raw - 8).is_err());
    }
}

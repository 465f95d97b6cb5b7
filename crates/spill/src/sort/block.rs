//! Blocks of sorted rows as bytes: Arrow IPC messages, as they are or compressed with LZ4.
//!
//! A run is a sequence of blocks, each behind a head of sixteen bytes: its length, and its length on disk, both
//! little-endian. The first holds the schema message too.

use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow_ipc::reader::StreamDecoder;
use arrow_ipc::writer::StreamEncoder;

/// The bytes of a block's head.
pub(super) const HEAD_BYTES: usize = 16;

/// How blocks lie on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpillCompression {
    /// As they are: quickest while the page cache takes them.
    None,
    /// LZ4: about half the size for about half the speed.
    Lz4,
}

/// Makes the blocks of one run.
pub(super) struct BlockEncoder {
    encoder: StreamEncoder,
    compression: SpillCompression,
}

/// A block, ready to be written.
pub(super) struct EncodedBlock {
    /// Its head, and how it lies on disk.
    pub(super) bytes: Vec<u8>,
    /// Its length in memory.
    pub(super) raw_bytes: usize,
}

impl BlockEncoder {
    pub(super) fn new(schema: &Schema, compression: SpillCompression) -> Result<Self> {
        Ok(Self { encoder: StreamEncoder::try_new(schema).map_err(failed)?, compression })
    }

    /// The next block. Takes the rows: at no time are there more than two copies of them, however wide they are.
    pub(super) fn encode(&mut self, records: RecordBatch) -> Result<EncodedBlock> {
        let buffers = self.encoder.encode(&records).map_err(failed)?;
        drop(records);
        let raw_bytes = buffers.iter().map(Buffer::len).sum();
        let mut bytes = match self.compression {
            SpillCompression::None => joined(buffers, HEAD_BYTES),
            SpillCompression::Lz4 => compressed(&joined(buffers, 0))?,
        };
        let stored_bytes = bytes.len() - HEAD_BYTES;
        bytes[..8].copy_from_slice(&(raw_bytes as u64).to_le_bytes());
        bytes[8..HEAD_BYTES].copy_from_slice(&(stored_bytes as u64).to_le_bytes());
        Ok(EncodedBlock { bytes, raw_bytes })
    }
}

/// The bytes of all buffers, behind so many zeros.
fn joined(buffers: Vec<Buffer>, n_zeros: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n_zeros + buffers.iter().map(Buffer::len).sum::<usize>());
    bytes.resize(n_zeros, 0);
    for buffer in buffers {
        bytes.extend_from_slice(&buffer);
    }
    bytes
}

/// A head of zeros, and the bytes as LZ4.
fn compressed(raw: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_BYTES + lz4_flex::block::get_maximum_output_size(raw.len())];
    let n = lz4_flex::block::compress_into(raw, &mut bytes[HEAD_BYTES..])
        .map_err(|error| Error::bug("spill rows", error.to_string()))?;
    bytes.truncate(HEAD_BYTES + n);
    Ok(bytes)
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
        let number = |bytes: Option<&[u8; 8]>| bytes.copied().map_or(0, u64::from_le_bytes);
        (number(head.first_chunk()), number(head.last_chunk()))
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

/// What the disk gave back is not what was written.
fn damaged(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Io, "read spilled rows", message.into())
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
                let block = encoder.encode(piece.clone()).unwrap();
                let (raw, stored) = BlockDecoder::lengths(*block.bytes.first_chunk().unwrap());
                assert_eq!((raw, stored), (block.raw_bytes as u64, block.bytes.len() as u64 - 16));
                assert_eq!(decoder.decode(&block.bytes[HEAD_BYTES..], block.raw_bytes).unwrap(), piece);
            }
        }
    }

    #[test]
    fn a_damaged_block_is_an_error() {
        let ids: ArrayRef = Arc::new(Int64Array::from_iter(0..1000));
        let records = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut encoder = BlockEncoder::new(&records.schema(), SpillCompression::Lz4).unwrap();
        let block = encoder.encode(records).unwrap();
        let bytes = &block.bytes[HEAD_BYTES..];
        let decode =
            |bytes, raw_bytes| BlockDecoder::new(SpillCompression::Lz4).decode(bytes, raw_bytes).unwrap_err();
        assert_eq!(decode(&bytes[..bytes.len() / 2], block.raw_bytes).kind(), ErrorKind::Io);
        assert_eq!(decode(bytes, block.raw_bytes - 8).kind(), ErrorKind::Io);
    }
}

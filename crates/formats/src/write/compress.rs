//! Compression of a whole file, while it is written.

use std::io::{self, Write};

use aqueduct_primitives::ByteCount;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{BzEncoder, EncodeV2, GzipEncoder, XzEncoder, ZstdEncoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Compressed bytes go on in pieces of this size. Smaller pieces cost calls, larger ones memory per file.
const BUFFER_BYTES: usize = 64 << 10;
const ZSTD_LEVEL: i32 = 3;
/// Level 6, the usual one, takes 94 MiB; this one takes 9 MiB and still packs text well.
const XZ_LEVEL: i32 = 1;

/// How a text file is compressed as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TextCompression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl TextCompression {
    /// By the last suffix of a file name.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, suffix) = name.rsplit_once('.')?;
        match suffix {
            "gz" | "gzip" => Some(Self::Gzip),
            "zst" | "zstd" => Some(Self::Zstd),
            "bz2" | "bzip2" => Some(Self::Bzip2),
            "xz" => Some(Self::Xz),
            _ => None,
        }
    }

    /// What it adds to a file's name: `.gz`, or nothing.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
            Self::Xz => ".xz",
        }
    }

    /// What its tables and window take, by each library's own figures, and the output buffer.
    pub fn memory(self) -> ByteCount {
        let tables = match self {
            Self::None => return ByteCount::ZERO,
            Self::Gzip => ByteCount::kib(320),
            Self::Zstd => ByteCount::mib(4),
            Self::Bzip2 => ByteCount::mib(8),
            Self::Xz => ByteCount::mib(10),
        };
        tables.saturating_add(ByteCount::of(BUFFER_BYTES))
    }

    fn codec(self) -> Option<Box<dyn EncodeV2 + Send>> {
        Some(match self {
            Self::None => return None,
            Self::Gzip => Box::new(GzipEncoder::new(Level::Default.into())),
            Self::Zstd => Box::new(ZstdEncoder::new(ZSTD_LEVEL)),
            Self::Bzip2 => Box::new(BzEncoder::new(Level::Default.into(), 0)),
            Self::Xz => Box::new(XzEncoder::new(Level::Precise(XZ_LEVEL))),
        })
    }
}

/// Compresses what is written to it and passes it on.
///
/// `flush` does nothing: sync points between batches would only spoil the ratio. [`CompressedWriter::finish`]
/// writes what is left.
pub struct CompressedWriter<W> {
    out: W,
    codec: Option<Box<dyn EncodeV2 + Send>>,
    buffer: Vec<u8>,
    memory: ByteCount,
}

impl<W: Write> CompressedWriter<W> {
    /// Compresses into `out`.
    pub fn new(out: W, compression: TextCompression) -> Self {
        let codec = compression.codec();
        let buffer = if codec.is_some() { vec![0; BUFFER_BYTES] } else { Vec::new() };
        Self { out, codec, buffer, memory: compression.memory() }
    }

    /// The bytes that it holds.
    pub fn memory(&self) -> ByteCount {
        self.memory
    }

    /// Writes what is left and gives `out` back.
    ///
    /// # Errors
    /// As `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(mut codec) = self.codec.take() {
            loop {
                let mut piece = WriteBuffer::new_initialized(&mut self.buffer);
                let is_done = codec.finish(&mut piece)?;
                self.out.write_all(piece.written())?;
                if is_done {
                    break;
                }
            }
        }
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for CompressedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(codec) = &mut self.codec else { return self.out.write(bytes) };
        let mut input = PartialBuffer::new(bytes);
        while !input.unwritten().is_empty() {
            let mut piece = WriteBuffer::new_initialized(&mut self.buffer);
            codec.encode(&mut input, &mut piece)?;
            self.out.write_all(piece.written())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

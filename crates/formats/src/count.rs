//! Counts the rows of files that our own sinks wrote, without decoding a value.

use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, RandomAccess, Result};
use aqueduct_primitives::{ByteCount, Tasks};

use crate::columnar::count_columnar;
use crate::text::failed;
use crate::unpack::Unpacker;
use crate::{DecodedLimits, Format};

/// Unpacked and counted at once.
const PIECE_BYTES: usize = 1 << 20;
/// Nothing of what is unpacked is kept, so that no ratio is too high.
const NO_LIMITS: DecodedLimits = DecodedLimits { max_ratio: u64::MAX, max_bytes: ByteCount::new(u64::MAX) };

/// How many rows a file has that a sink of ours wrote under this name: the suffix tells format and compression. `None`:
/// the name tells no format that has rows. Of Parquet and Arrow only what says where things lie is read; the rest is read
/// whole, one MiB at a time:
///
/// - NDJSON and text: lines, the last one with or without its end;
/// - CSV and TSV: records without the header, which each of our files has; a line's end within quotes is none;
/// - JSON: the elements of one array.
///
/// # Errors
/// It cannot be read or unpacked, its footer is damaged, or it is no array.
///
/// # Cancel safety
/// Dropping the future loses nothing.
pub async fn count_rows(file: Arc<dyn RandomAccess>, name: &str, tasks: &Tasks) -> Result<Option<u64>> {
    let mut counter = match Format::of_name(name) {
        Some(format @ (Format::Parquet | Format::Arrow)) => {
            return count_columnar(&file, format, tasks).await.map(Some);
        }
        Some(Format::Ndjson | Format::Text) => Counter::lines(false, 0),
        Some(Format::Csv | Format::Tsv) => Counter::lines(true, 1),
        Some(Format::Json) => Counter::Array(Array::default()),
        Some(Format::Binary | Format::Stac) | None => return Ok(None),
    };
    let mut unpacker = Unpacker::of_file(&file, 0, name, None, NO_LIMITS, tasks).await?;
    while unpacker.next_member().await? {
        while let Some(bytes) = unpacker.next_bytes(PIECE_BYTES).await? {
            let count = move || {
                counter.take(&bytes);
                counter
            };
            counter = tasks.compute(count).await.map_err(failed)?;
        }
    }
    counter.total().map(Some)
}

enum Counter {
    Lines { is_quoted: bool, n_headers: u64, within_quotes: bool, n_ends: u64, is_open: bool },
    Array(Array),
}

impl Counter {
    fn lines(is_quoted: bool, n_headers: u64) -> Self {
        Self::Lines { is_quoted, n_headers, within_quotes: false, n_ends: 0, is_open: false }
    }

    fn take(&mut self, bytes: &[u8]) {
        match self {
            Self::Array(array) => array.take(bytes),
            Self::Lines { is_quoted: false, n_ends, is_open, .. } => {
                *n_ends += memchr::memchr_iter(b'\n', bytes).count() as u64;
                *is_open = bytes.last().map_or(*is_open, |last| *last != b'\n');
            }
            Self::Lines { is_quoted: true, within_quotes, n_ends, is_open, .. } => {
                // A quote within quotes is written twice, which turns twice.
                for at in memchr::memchr2_iter(b'"', b'\n', bytes) {
                    match bytes.get(at) {
                        Some(b'"') => *within_quotes = !*within_quotes,
                        _ => *n_ends += u64::from(!*within_quotes),
                    }
                }
                *is_open = bytes.last().map_or(*is_open, |last| *within_quotes || *last != b'\n');
            }
        }
    }

    fn total(self) -> Result<u64> {
        match self {
            Self::Array(array) => array.total(),
            Self::Lines { n_headers, n_ends, is_open, .. } => {
                Ok((n_ends + u64::from(is_open)).saturating_sub(n_headers))
            }
        }
    }
}

/// Where one stands in the text of an array.
#[derive(Default)]
struct Array {
    depth: u64,
    within_string: bool,
    is_escaped: bool,
    /// Something stands behind the last comma of the array itself.
    has_element: bool,
    n_commas: u64,
    is_closed: bool,
}

impl Array {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        if self.within_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.within_string = false,
                _ => {}
            }
            return;
        }
        if byte.is_ascii_whitespace() {
            return;
        }
        match (byte, self.depth) {
            (b'[', 0) => {}
            (b']', 1) => self.is_closed = true,
            (b',', 1) => {
                self.n_commas += 1;
                self.has_element = false;
            }
            _ => self.has_element = true,
        }
        match byte {
            b'"' => self.within_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn total(self) -> Result<u64> {
        if !self.is_closed || self.depth > 0 {
            let message = "the file is no whole array of JSON";
            return Err(Error::new(ErrorKind::Data, "count rows", message));
        }
        Ok(self.n_commas + u64::from(self.has_element))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::ops::Range;

    use arrow::array::{RecordBatch, StringArray, UInt64Array};
    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::write::{ArrowCompression, ParquetOptions, TextCompression, WriteFormat};

    struct InMemory(Bytes);

    #[async_trait]
    impl RandomAccess for InMemory {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        async fn read(&self, range: Range<u64>) -> Result<Bytes> {
            let at = |place: u64| usize::try_from(place).unwrap();
            Ok(self.0.slice(at(range.start)..at(range.end)))
        }
    }

    async fn count(name: &str, bytes: impl Into<Bytes>) -> Result<Option<u64>> {
        count_rows(Arc::new(InMemory(bytes.into())), name, &Tasks::new(1)).await
    }

    /// Rows whose texts hold what separates rows.
    fn rows(n: usize) -> RecordBatch {
        let texts = ["plain", "two\nlines", "a \"quote\"", "", "],[{", "back\\slash\\\"", ","];
        let texts: StringArray = (0..n).map(|row| texts.get(row % texts.len()).copied()).collect();
        let numbers: UInt64Array = (0..n as u64).map(Some).collect();
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("text", Arc::new(texts) as _)]).unwrap()
    }

    #[tokio::test]
    async fn what_every_sink_writes_is_counted() {
        let mut formats = vec![WriteFormat::Parquet(ParquetOptions::default())];
        formats.extend([ArrowCompression::None, ArrowCompression::Zstd].map(WriteFormat::Arrow));
        for compression in [TextCompression::None, TextCompression::Gzip, TextCompression::Zstd] {
            formats.push(WriteFormat::Ndjson(compression));
            formats.push(WriteFormat::Json(compression));
            formats.push(WriteFormat::Csv(compression));
        }
        for format in formats {
            for n in [0, 1, 7, 30_000] {
                let batch = rows(n);
                let mut encoder = format.encoder(batch.schema(), Vec::new(), ByteCount::mib(64)).unwrap();
                encoder.write(&batch.slice(0, n / 2)).unwrap();
                encoder.write(&batch.slice(n / 2, n - n / 2)).unwrap();
                let name = format!("part-00000.{}", format.suffix());
                let counted = count(&name, encoder.finish().unwrap()).await.unwrap();
                assert_eq!(counted, Some(n as u64), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_last_line_counts_without_its_end_and_members_follow_each_other() {
        assert_eq!(count("a.ndjson", "{}\n{}").await.unwrap(), Some(2));
        assert_eq!(count("a.csv", "n\n\"1\n").await.unwrap(), Some(1));
        let mut packed = Vec::new();
        for _ in 0..2 {
            let mut member = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
            member.write_all(b"{}\n").unwrap();
            member.finish().unwrap();
        }
        assert_eq!(count("a.ndjson.gz", packed).await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn what_has_no_rows_is_not_counted_and_what_is_cut_off_is_an_error() {
        assert_eq!(count("scan.pdf", "%PDF").await.unwrap(), None);
        for (name, bytes) in [("a.json", "[{},{}"), ("a.parquet", "PAR1 and no more"), ("a.arrow", "ARROW1")]
        {
            assert_eq!(count(name, bytes).await.unwrap_err().kind(), ErrorKind::Data, "{name}");
        }
    }
}

//! Where records end, while a buffer fills: at line ends, at line ends outside quotes, or at the brackets of
//! JSON.

use aqueduct_core::Result;

use super::csv::{Dialect, QuoteScan};
use super::json_scan::JsonScan;

/// Finds whole records at the start of a growing buffer.
pub(crate) enum Cutter {
    /// A record a line: NDJSON, text.
    Lines(Mark),
    /// A record a line, but for line ends in quotes.
    Quoted { mark: Mark, dialect: Dialect, quotes: QuoteScan },
    /// The records of a JSON document.
    Json(Box<JsonScan>),
}

/// How much of the buffer was looked at, and where its last whole record ends.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mark {
    seen: usize,
    whole: usize,
}

/// Start and end of a record within its block.
pub(crate) type Span = (usize, usize);

/// Whole records at the start of a buffer.
pub(crate) struct CutBlock {
    /// Where they end, and the rest of the buffer begins.
    pub(crate) end: usize,
    /// The records, where they are not lines.
    pub(crate) spans: Option<Vec<Span>>,
}

impl Cutter {
    /// Looks at what is new in the buffer. With `is_end`, nothing more will come.
    ///
    /// # Errors
    /// A JSON document is not one, in a way that no record is to blame for.
    pub(crate) fn scan(&mut self, buffer: &[u8], is_end: bool) -> Result<()> {
        match self {
            Self::Lines(mark) => {
                let new = buffer.get(mark.seen..).unwrap_or_default();
                if let Some(n) = memchr::memrchr(b'\n', new) {
                    mark.whole = mark.seen + n + 1;
                }
                mark.seen = buffer.len();
                mark.finish(is_end);
            }
            Self::Quoted { mark, dialect, quotes } => {
                scan_quoted(mark, dialect, quotes, buffer, is_end);
                mark.finish(is_end);
            }
            Self::Json(scan) => scan.scan(buffer, is_end)?,
        }
        Ok(())
    }

    /// Whether there is a whole record.
    pub(crate) fn has_whole(&self) -> bool {
        match self {
            Self::Lines(mark) | Self::Quoted { mark, .. } => mark.whole > 0,
            Self::Json(scan) => scan.has_whole(),
        }
    }

    /// The end of the bytes that need not be kept for the record that is open: what is before it is whole,
    /// or no part of any record.
    pub(crate) fn cut(&mut self) -> CutBlock {
        match self {
            Self::Lines(mark) | Self::Quoted { mark, .. } => {
                let end = mark.whole;
                mark.seen -= end;
                mark.whole = 0;
                CutBlock { end, spans: None }
            }
            Self::Json(scan) => scan.cut(),
        }
    }
}

impl Mark {
    fn finish(&mut self, is_end: bool) {
        if is_end {
            self.whole = self.seen;
        }
    }
}

/// Goes from quote to quote; line ends are only looked for backwards, in what is outside quotes.
fn scan_quoted(mark: &mut Mark, dialect: &Dialect, quotes: &mut QuoteScan, buffer: &[u8], is_end: bool) {
    let mut at = mark.seen;
    loop {
        let quote = dialect.quote.and_then(|quote| memchr::memchr(quote, buffer.get(at..)?)).map(|n| at + n);
        let until = quote.unwrap_or(buffer.len());
        if !quotes.is_open
            && let Some(n) = buffer.get(at..until).and_then(|text| memchr::memrchr(b'\n', text))
        {
            mark.whole = at + n + 1;
        }
        match quote {
            // Whether it is doubled shows only with the next byte.
            Some(quote) if quote + 1 >= buffer.len() && !is_end => {
                mark.seen = quote;
                return;
            }
            Some(quote) => at = quote + quotes.quote_at(dialect, buffer, 0, quote),
            None => {
                mark.seen = buffer.len();
                return;
            }
        }
    }
}

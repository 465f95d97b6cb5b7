//! What can be wrong with a document.

/// Why a document, or a part of it, cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PdfError {
    /// The bytes do not begin as a PDF does.
    #[error("this is no PDF: `%PDF-` is not in its first {looked_at} bytes")]
    NotPdf {
        /// In so many bytes.
        looked_at: usize,
    },
    /// It begins as a PDF, and no page of it can be found.
    #[error("the PDF is damaged or cut off: its objects or pages cannot be found")]
    Damaged,
    /// It opens with a password only.
    #[error("the PDF is encrypted and needs a password; save it without one")]
    NeedsPassword,
    /// It is encrypted in a way that is not known.
    #[error("the PDF is encrypted in a way that cannot be read; save it without encryption")]
    UnknownEncryption,
    /// It has no page.
    #[error("the PDF has no page")]
    NoPages,
    /// It has more pages than anybody reads.
    #[error("the PDF has {found} pages, and {limit} are the most")]
    TooManyPages {
        /// So many.
        found: usize,
        /// [`MAX_PAGES`](crate::MAX_PAGES).
        limit: usize,
    },
    /// Pages were asked for that it does not have.
    #[error("pages {first} to {last} were asked for, and there are {n_pages}")]
    NoSuchPages {
        /// The first of them, from 1.
        first: usize,
        /// The last, with it.
        last: usize,
        /// So many there are.
        n_pages: usize,
    },
    /// What was asked for is larger than it may be.
    #[error("{what} takes more than {limit_bytes} bytes; take fewer pages at once")]
    TooLarge {
        /// The text, the pages.
        what: &'static str,
        /// The limit, as the caller named it.
        limit_bytes: usize,
    },
    /// A page draws more than can be meant.
    #[error("page {page} {what}")]
    Endless {
        /// From 1.
        page: usize,
        /// In words, with the limit.
        what: &'static str,
    },
}

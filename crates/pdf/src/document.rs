//! An open document.

use std::collections::HashMap;
use std::ops::Range;

use hayro_syntax::object::ObjectIdentifier;
use hayro_syntax::{DecryptionError, LoadPdfError, Pdf};

use crate::outline::{self, Bookmark};
use crate::{PdfError, section, text};

/// More pages are no document: the dictionaries of all pages are held.
pub const MAX_PAGES: usize = 1_000_000;

/// The mark of a PDF stands within so many bytes (ISO 32000-1, annex H.3, implementation note 13).
const HEADER_WITHIN_BYTES: usize = 1024;

/// A document whose bytes are in memory. Its objects are read when they are asked for.
pub struct Document {
    pdf: Pdf,
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("n_pages", &self.n_pages()).finish_non_exhaustive()
    }
}

impl Document {
    /// Opens a document, encrypted ones with the empty password. A damaged table of objects is made anew by a search
    /// through all bytes.
    ///
    /// # Errors
    /// It is no PDF, damaged beyond that, needs a password, has no page or more than [`MAX_PAGES`].
    pub fn open(bytes: Vec<u8>) -> Result<Self, PdfError> {
        let head = &bytes[..bytes.len().min(HEADER_WITHIN_BYTES)];
        let (looked_at, has_mark) = (head.len(), head.windows(5).any(|window| window == b"%PDF-"));
        let pdf = Pdf::new(bytes).map_err(|error| match error {
            LoadPdfError::Decryption(DecryptionError::PasswordProtected) => PdfError::NeedsPassword,
            LoadPdfError::Decryption(_) => PdfError::UnknownEncryption,
            LoadPdfError::Invalid if has_mark => PdfError::Damaged,
            LoadPdfError::Invalid => PdfError::NotPdf { looked_at },
        })?;
        match pdf.pages().len() {
            0 => Err(PdfError::NoPages),
            found if found > MAX_PAGES => Err(PdfError::TooManyPages { found, limit: MAX_PAGES }),
            _ => Ok(Self { pdf }),
        }
    }

    /// How many pages there are; one at least.
    pub fn n_pages(&self) -> usize {
        self.pdf.pages().len()
    }

    /// The bookmarks of the outermost level that lead to a page, in the order of the outline. None, without an outline.
    pub fn bookmarks(&self) -> Vec<Bookmark> {
        outline::bookmarks(&self.pdf, &self.pages_by_id())
    }

    /// The text of some pages, counted from 0; pages are told apart by a form feed.
    ///
    /// # Errors
    /// There are no such pages; the text is longer than `max_bytes`; a page draws without end.
    pub fn text(&self, pages: Range<usize>, max_bytes: usize) -> Result<String, PdfError> {
        self.check(&pages)?;
        text::of_pages(&self.pdf, pages, max_bytes)
    }

    /// Some pages, counted from 0, as a document of their own, with the objects that they need and no others. It is never
    /// encrypted.
    ///
    /// # Errors
    /// There are no such pages; the document is longer than `max_bytes`.
    pub fn section(&self, pages: Range<usize>, max_bytes: usize) -> Result<Vec<u8>, PdfError> {
        self.check(&pages)?;
        section::of_pages(&self.pdf, pages, max_bytes)
    }

    fn check(&self, pages: &Range<usize>) -> Result<(), PdfError> {
        let n_pages = self.n_pages();
        if pages.start < pages.end && pages.end <= n_pages {
            return Ok(());
        }
        Err(PdfError::NoSuchPages { first: pages.start + 1, last: pages.end, n_pages })
    }

    fn pages_by_id(&self) -> HashMap<ObjectIdentifier, usize> {
        let pages = self.pdf.pages().iter().enumerate();
        pages.filter_map(|(place, page)| Some((page.raw().obj_id()?, place))).collect()
    }
}

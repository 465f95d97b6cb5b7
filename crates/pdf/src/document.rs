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

#[cfg(test)]
mod tests {
    use aqueduct_testkit::pdf;

    use super::*;

    fn error(bytes: impl Into<Vec<u8>>) -> PdfError {
        Document::open(bytes.into()).unwrap_err()
    }

    // reliability.md 37
    #[test]
    fn what_is_no_document_says_what_it_is() {
        assert_eq!(error("text renamed\n".repeat(10)), PdfError::NotPdf { looked_at: 130 });
        assert_eq!(error(&pdf::pages(&["one"])[..100]), PdfError::Damaged);
        assert_eq!(error(pdf::locked()), PdfError::NeedsPassword);
        assert!(matches!(error(pdf::pages(&[])), PdfError::NoPages | PdfError::Damaged));
    }

    // reliability.md 37
    #[test]
    fn what_turns_in_circles_comes_to_an_end() {
        for bytes in [pdf::nested(), pdf::cyclic_pages(), pdf::cyclic_table(), pdf::lying_length()] {
            if let Ok(document) = Document::open(bytes) {
                let pages = 0..document.n_pages();
                assert!(document.text(pages.clone(), 10_000).is_ok());
                assert!(document.section(pages, 100_000).is_ok());
            }
        }
    }

    #[test]
    fn bookmarks_lead_to_pages() {
        let document = Document::open(pdf::with_bookmarks(&["a", "b", "c"], &[("B", 1), ("C", 2)])).unwrap();
        let bookmark = |title: &str, page| Bookmark { title: title.into(), page };
        assert_eq!(document.bookmarks(), [bookmark("B", 1), bookmark("C", 2)]);
    }

    #[test]
    fn pages_that_are_not_there_and_texts_that_are_too_long_are_named() {
        let document = Document::open(pdf::pages(&["one", "two"])).unwrap();
        assert_eq!(document.text(1..3, 100), Err(PdfError::NoSuchPages { first: 2, last: 3, n_pages: 2 }));
        assert_eq!(document.text(0..2, 7), Err(PdfError::TooLarge { what: "the text", limit_bytes: 7 }));
        assert_eq!(document.text(0..2, 100).unwrap(), "one\n\u{c}two\n");
    }
}

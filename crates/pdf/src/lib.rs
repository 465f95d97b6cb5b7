//! PDF documents (ISO 32000-2): pages, outline, text, and a few pages as a document of their own.
//!
//! A [`Document`] holds the bytes of a file and reads objects out of them as they are asked for. Beside the bytes it holds
//! the table of its objects, the dictionaries of its pages, and the object streams it came upon.
//!
//! Text comes in the order in which pages draw it, in lines; words are told apart by spaces and by the gaps between
//! glyphs. Every result has a limit that the caller names. What parsers of PDF take for hostile files no limit of this
//! crate bounds: whoever reads documents of strangers does it in a process that may die.
//!
//! Purpose and memory of the parts: `text` reads what pages draw and puts it into lines, `section` copies the objects that
//! pages need, `outline` resolves bookmarks, `strings` decodes text strings.
//!
//! ```no_run
//! # fn main() -> Result<(), aqueduct_pdf::PdfError> {
//! # let bytes = Vec::new();
//! let document = aqueduct_pdf::Document::open(bytes)?;
//! let first_ten = 0..document.n_pages().min(10);
//! let text = document.text(first_ten.clone(), 1 << 20)?;
//! let pdf = document.section(first_ten, 16 << 20)?;
//! # Ok(())
//! # }
//! ```

mod document;
mod error;
mod outline;
mod section;
mod strings;
mod text;

pub use document::{Document, MAX_PAGES};
pub use error::PdfError;
pub use outline::Bookmark;

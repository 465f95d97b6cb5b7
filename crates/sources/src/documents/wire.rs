//! What a run and the process that reads a document for it say to each other: each a frame of JSON, bytes after some of them
//! as frames of their own.

use serde::{Deserialize, Serialize};

use super::sections::Sections;

/// What the run wants.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Open a document of so many bytes, which follow. Answered by [`Answer::Opened`].
    Open { n_bytes: usize, sections: Sections, pdf: bool, max_bytes: usize },
    /// Make the section of this number, from 0. Answered by [`Answer::Section`].
    Section(usize),
    /// Send it: the text, then the PDF.
    Take,
}

/// What comes of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The document is open, and has so many sections.
    Opened { n_sections: usize },
    /// The section is ready to be taken.
    Section { name: String, pages: String, n_text_bytes: usize, n_pdf_bytes: Option<usize> },
    /// It cannot be done, for what the document is.
    Failed { message: String },
}

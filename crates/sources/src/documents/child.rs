//! The process that reads one document.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use aqueduct_core::worker::{MAX_FRAME_BYTES, WorkerIo};
use aqueduct_pdf::Document;
use aqueduct_primitives::panic_message;

use super::sections::{Cut, Section};
use super::wire::{Answer, Request};

/// A document that is open.
struct Open {
    document: Document,
    cut: Cut,
    pdf: bool,
    max_bytes: usize,
}

/// A section that waits to be taken.
#[derive(Default)]
struct Made {
    text: String,
    pdf: Option<Vec<u8>>,
}

/// Opens a document and makes sections of it as they are asked for, until nobody asks.
pub(super) fn run(io: &mut WorkerIo) -> io::Result<()> {
    // What a parser panics about is in the answer; nobody reads standard error while the child lives.
    std::panic::set_hook(Box::new(|_| {}));
    let mut open = None;
    let mut made = Made::default();
    while let Some(request) = io.next_request()? {
        let answer = match serde_json::from_slice(&request)? {
            Request::Open { n_bytes, sections, pdf, max_bytes } => {
                let bytes = receive(io, n_bytes)?;
                guarded(|| {
                    let document = Document::open(bytes).map_err(|error| error.to_string())?;
                    let cut = Cut::of(&sections, &document)?;
                    let n_sections = cut.len();
                    open = Some(Open { document, cut, pdf, max_bytes });
                    Ok(Answer::Opened { n_sections })
                })
            }
            Request::Section(number) => {
                made = Made::default();
                guarded(|| {
                    let open = open.as_ref().ok_or("no document is open")?;
                    let (answer, section) = open.make(number)?;
                    made = section;
                    Ok(answer)
                })
            }
            Request::Take => {
                let Made { text, pdf } = std::mem::take(&mut made);
                send(io, text.as_bytes())?;
                send(io, &pdf.unwrap_or_default())?;
                continue;
            }
        };
        io.send(&serde_json::to_vec(&answer)?)?;
    }
    Ok(())
}

/// What an answer may say of a document at most; a title may be long.
const MAX_WORDS_BYTES: usize = 4 << 10;

/// A panic is a failure like any other.
fn guarded(make: impl FnOnce() -> Result<Answer, String>) -> Answer {
    let made = catch_unwind(AssertUnwindSafe(make));
    let made =
        made.unwrap_or_else(|panic| Err(format!("the reader of PDFs panicked: {}", panic_message(&*panic))));
    made.unwrap_or_else(|message| Answer::Failed { message: cut_short(message) })
}

impl Open {
    fn make(&self, number: usize) -> Result<(Answer, Made), String> {
        let section = self.cut.get(number).ok_or("no such section")?;
        let Section { pages, .. } = &section;
        let named = |error: aqueduct_pdf::PdfError| format!("section `{}`: {error}", section.name);
        let text = self.document.text(pages.clone(), self.max_bytes).map_err(named)?;
        let pdf = match self.pdf {
            true => Some(self.document.section(pages.clone(), self.max_bytes).map_err(named)?),
            false => None,
        };
        let answer = Answer::Section {
            pages: section.pages_text(),
            n_text_bytes: text.len(),
            n_pdf_bytes: pdf.as_ref().map(Vec::len),
            name: cut_short(section.name),
        };
        Ok((answer, Made { text, pdf }))
    }
}

fn cut_short(mut words: String) -> String {
    words.truncate(words.floor_char_boundary(MAX_WORDS_BYTES));
    words
}

fn receive(io: &mut WorkerIo, n_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Nothing is taken beyond what there is: a document may need all that this process has.
    bytes.try_reserve_exact(n_bytes)?;
    while bytes.len() < n_bytes {
        let frame = io.receive()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

fn send(io: &mut WorkerIo, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(MAX_FRAME_BYTES).try_for_each(|chunk| io.send(chunk))
}

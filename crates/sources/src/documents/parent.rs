//! A document that a child process reads, seen from the run.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::worker::{MAX_FRAME_BYTES, Worker, WorkerLimits, WorkerPipes, WorkerProcess};
use aqueduct_core::{Error, ErrorKind, RandomAccess, Result};
use aqueduct_primitives::Tasks;

use super::wire::{Answer, Request};

/// How children read documents.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) worker: Worker,
    pub(super) limits: WorkerLimits,
    pub(super) timeout: Duration,
    pub(super) tasks: Tasks,
}

/// A document that is open in a child.
pub(super) struct Opened {
    child: WorkerProcess,
    reader: Reader,
    pub(super) n_sections: usize,
    /// Whether it has made a section before.
    pub(super) is_worn: bool,
}

/// A section that is ready in the child.
pub(super) struct Ready {
    pub(super) name: String,
    pub(super) pages: String,
    pub(super) n_text_bytes: usize,
    pub(super) n_pdf_bytes: Option<usize>,
}

impl Reader {
    /// Starts a child, gives it the document, and has it opened.
    ///
    /// # Errors
    /// The child cannot be started, or ended; the file cannot be read; the document is no good.
    pub(super) async fn open(&self, file: &Arc<dyn RandomAccess>, request: &Request) -> Result<Opened> {
        let mut child = self.worker.start(super::WORKER_TASK.name, self.limits)?;
        self.say(&mut child, request).await?;
        let mut at = 0;
        while at < file.len() {
            let end = file.len().min(at + MAX_FRAME_BYTES as u64);
            let bytes = file.read(at..end).await?;
            let give = move |pipes: &mut WorkerPipes<'_>| pipes.send(&bytes);
            child.ask(&self.tasks, self.timeout, give).await?;
            at = end;
        }
        match self.hear(&mut child).await? {
            Answer::Opened { n_sections } => {
                Ok(Opened { child, reader: self.clone(), n_sections, is_worn: false })
            }
            Answer::Failed { message } => Err(bad(message)),
            other => Err(unexpected(&other)),
        }
    }

    async fn say(&self, child: &mut WorkerProcess, request: &Request) -> Result<()> {
        let request = serde_json::to_vec(request)
            .map_err(|error| Error::bug("read document", "a request cannot be written").with_source(error))?;
        child.ask(&self.tasks, self.timeout, move |pipes| pipes.send(&request)).await
    }

    async fn hear(&self, child: &mut WorkerProcess) -> Result<Answer> {
        child.ask(&self.tasks, self.timeout, |pipes| Ok(serde_json::from_slice(&pipes.receive()?)?)).await
    }
}

impl Opened {
    /// Has a section made; nothing of it is here yet. What is wrong with the section itself is `Ok(Err(..))`.
    ///
    /// # Errors
    /// The child ended.
    pub(super) async fn make(&mut self, number: usize) -> Result<Result<Ready, String>> {
        self.reader.say(&mut self.child, &Request::Section(number)).await?;
        let answer = self.reader.hear(&mut self.child).await?;
        self.is_worn = true;
        match answer {
            Answer::Section { name, pages, n_text_bytes, n_pdf_bytes } => {
                Ok(Ok(Ready { name, pages, n_text_bytes, n_pdf_bytes }))
            }
            Answer::Failed { message } => Ok(Err(message)),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes the section: its text, and its PDF.
    ///
    /// # Errors
    /// The child ended.
    pub(super) async fn take(&mut self, ready: &Ready) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
        self.reader.say(&mut self.child, &Request::Take).await?;
        let (n_text_bytes, n_pdf_bytes) = (ready.n_text_bytes, ready.n_pdf_bytes);
        let take = move |pipes: &mut WorkerPipes<'_>| {
            let text = receive(pipes, n_text_bytes)?;
            let pdf = n_pdf_bytes.map(|n_bytes| receive(pipes, n_bytes)).transpose()?;
            Ok((text, pdf))
        };
        self.child.ask(&self.reader.tasks, self.reader.timeout, take).await
    }
}

/// So many bytes and no more, whatever the child sends.
fn receive(pipes: &mut WorkerPipes<'_>, n_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(n_bytes);
    while bytes.len() < n_bytes {
        let frame = pipes.receive()?;
        if frame.is_empty() || frame.len() > n_bytes - bytes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it sends what was not announced"));
        }
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::Data, "read document", message)
}

fn unexpected(answer: &Answer) -> Error {
    bad(format!("the process that reads it gave an answer to nothing: {answer:?}"))
}

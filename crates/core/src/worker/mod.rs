//! Work on what strangers wrote, in a process of its own that may die.
//!
//! A parser that aborts, loops or takes all memory ends its own process and nothing else. The child is this very program,
//! started again: its `main` hands the words of the command line to [`serve`]. It sets its own [limits](WorkerLimits) before
//! it looks at anything, talks through its standard input and output in [frames](MAX_FRAME_BYTES), and dies with its parent.
//!
//! The parent waits for it on the pool for blocking work, so that time stands still meanwhile where a test says so, and
//! kills and reaps it on every path: at its end, when time is up, when it is dropped.
//!
//! Memory of a child is that of the run: who starts one holds a reservation of [`WorkerLimits::memory`].

mod child;
mod frame;
mod process;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use aqueduct_primitives::ByteCount;

pub use child::{WorkerIo, WorkerTask, serve};
pub use frame::MAX_FRAME_BYTES;
pub use process::{WorkerEnded, WorkerPipes, WorkerProcess};

use crate::{Context, Error, ErrorKind, Result};

/// How children are started. A program that can be one puts it into the services of its [`Context`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    program: PathBuf,
    words: Vec<OsString>,
}

/// What a child may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Beyond what it takes when it begins.
    pub memory: ByteCount,
    /// Of a processor, for one request.
    pub cpu_per_request: Duration,
}

/// The running program, whatever has become of its file since.
const THIS_PROGRAM: &str = "/proc/self/exe";

impl Worker {
    /// A program that calls [`serve`] with the words that follow these on its command line.
    pub fn new(program: impl Into<PathBuf>, words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { program: program.into(), words: words.into_iter().map(Into::into).collect() }
    }

    /// This program once more, with these words first.
    pub fn this_program(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self::new(THIS_PROGRAM, words)
    }

    /// Starts a child that works on a task, by its name.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self, task: &str, limits: WorkerLimits) -> Result<WorkerProcess> {
        let words = self.words.iter().cloned().chain(child::words_of(task, limits));
        WorkerProcess::start(&self.program, words)
    }
}

impl Context {
    /// How children are started that read what may not be read in this process.
    ///
    /// # Errors
    /// The program has not said how.
    pub fn worker(&self) -> Result<Worker> {
        let worker = self.find_service::<Worker>();
        worker.map(|worker| Worker::clone(&worker)).ok_or_else(|| {
            let message = "what strangers wrote is read in a child process, and this program has not said how to start one: \
                           put a `Worker` into the services of the context, and call `worker::serve` in `main`";
            Error::new(ErrorKind::Config, "open", message).with("step", self.step())
        })
    }
}

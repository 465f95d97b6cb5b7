//! A child, seen from its parent.

use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_primitives::{TaskError, Tasks};
use rustix::process::{Pid, Signal, kill_process_group};

use super::frame;
use crate::{Error, ErrorKind, Result};

/// Of what a child says on its standard error, so much is kept.
const MAX_STDERR_BYTES: u64 = 4 << 10;

/// A child that works for this process. Dropping it kills and reaps it.
#[derive(Debug)]
pub struct WorkerProcess {
    pipes: Option<Pipes>,
    child: Reaper,
}

/// How a child ended, for whoever says what that means for what it was to read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerEnded {
    /// It did not answer in time, and was killed.
    #[error("it gave no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The system refused it memory, beyond its limit.
    #[error("it needed more memory than it may take")]
    OutOfMemory,
    /// It died, or went away.
    #[error("it died: {how}")]
    Died {
        /// Its exit code or signal, and the first line that it said.
        how: String,
    },
}

/// What goes to a child and comes from it.
#[derive(Debug)]
struct Pipes {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

/// Kills a child and waits for it, once.
#[derive(Clone, Debug)]
struct Reaper(Arc<Mutex<Option<Child>>>);

/// How a child is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is about to, or has: it closed its output.
    ByItself,
    Killed,
}

/// What was said at the end.
struct Ended {
    status: Option<ExitStatus>,
    stderr: String,
}

impl WorkerProcess {
    /// Starts a program. It has none of this process's variables, and a process group of its own.
    pub(super) fn start(program: &Path, words: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(words).env_clear().current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| Error::io("start child", program.display(), error))?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let pipes = pipes.map(|(to, from)| Pipes { to, from: BufReader::new(from) });
        Ok(Self { pipes, child: Reaper(Arc::new(Mutex::new(Some(child)))) })
    }

    /// What the system calls it, as long as it is not known to have ended.
    pub fn id(&self) -> Option<u32> {
        self.child.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Child::id)
    }

    /// Sends frames and takes those that answer, on the pool for blocking work; `talk` returns when it has its answer.
    ///
    /// # Errors
    /// Caused by a [`WorkerEnded`], if the child ended or was ended; else `talk`'s own. The child is gone after any error.
    ///
    /// # Cancel safety
    /// When the future is dropped the child is killed, as soon as the process is dropped or asked again.
    pub async fn ask<T: Send + 'static>(
        &mut self,
        tasks: &Tasks,
        within: Duration,
        talk: impl FnOnce(&mut WorkerPipes<'_>) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(mut pipes) = self.pipes.take() else {
            return Err(self.died(&io::ErrorKind::BrokenPipe.into()));
        };
        let job = tasks.block(move || {
            let answer = talk(&mut WorkerPipes(&mut pipes));
            (answer, pipes)
        });
        let answered: Result<(io::Result<T>, Pipes), TaskError> =
            match tokio::time::timeout(within, job).await {
                Ok(answered) => answered,
                Err(_) => {
                    self.child.end(How::Killed);
                    return Err(error_of(WorkerEnded::TimedOut(within)));
                }
            };
        let (answer, pipes) = answered?;
        match answer {
            Ok(answer) => {
                self.pipes = Some(pipes);
                Ok(answer)
            }
            Err(error) => Err(self.died(&error)),
        }
    }

    /// The child is ended; why it had to be, as far as that is known.
    fn died(&mut self, source: &io::Error) -> Error {
        self.pipes = None;
        let ended = self.child.end(How::ByItself);
        error_of(ended.map_or_else(|| unknown(source), |ended| ended.why(source)))
    }
}

fn error_of(why: WorkerEnded) -> Error {
    let kind = match why {
        WorkerEnded::TimedOut(_) | WorkerEnded::OutOfMemory => ErrorKind::Limit,
        WorkerEnded::Died { .. } => ErrorKind::Data,
    };
    Error::new(kind, "read in a child process", "the process that read it ended").with_source(why)
}

impl Drop for WorkerProcess {
    fn drop(&mut self) {
        let _ = self.child.end(How::Killed);
    }
}

/// What `talk` has: frames to the child and from it.
#[derive(Debug)]
pub struct WorkerPipes<'a>(&'a mut Pipes);

impl WorkerPipes<'_> {
    /// Sends a frame.
    ///
    /// # Errors
    /// It is too long, or the child is gone.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        frame::write(&mut self.0.to, frame)
    }

    /// Takes the next frame. What was sent goes out at once.
    ///
    /// # Errors
    /// The child is gone, or sends what is no frame.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        self.0.to.flush()?;
        frame::read(&mut self.0.from)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Reaper {
    /// Kills the child and all it may have started, and waits for it; nothing, if that was done.
    fn end(&self, how: How) -> Option<Ended> {
        let mut child = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        // How it died by itself is told only before it is killed.
        let by_itself = if how == How::ByItself { waited_for(&mut child) } else { None };
        if let Ok(Some(group)) = i32::try_from(child.id()).map(Pid::from_raw) {
            // One that is gone already is no error.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let status = by_itself.or_else(|| child.wait().ok());
        let mut stderr = Vec::new();
        let said = child.stderr.take().map(|stderr| stderr.take(MAX_STDERR_BYTES));
        let _ = said.map(|mut said| said.read_to_end(&mut stderr));
        Some(Ended { status, stderr: String::from_utf8_lossy(&stderr).into_owned() })
    }
}

/// How a child ended that closed its output, which it does a moment before it is gone. On the way of an error, and no longer
/// than twenty milliseconds.
fn waited_for(child: &mut Child) -> Option<ExitStatus> {
    const LOOKS: u32 = 20;
    const BETWEEN: Duration = Duration::from_millis(1);
    (0..LOOKS).find_map(|_| {
        let status = child.try_wait().ok().flatten();
        if status.is_none() {
            std::thread::sleep(BETWEEN);
        }
        status
    })
}

impl Ended {
    fn why(&self, source: &io::Error) -> WorkerEnded {
        // As the runtime of Rust says it before it aborts.
        if self.stderr.contains("memory allocation of") {
            return WorkerEnded::OutOfMemory;
        }
        let Some(status) = self.status else { return unknown(source) };
        let how = match (status.signal(), status.code()) {
            (Some(signal), _) => format!("signal {signal}"),
            (None, Some(code)) => format!("exit code {code}"),
            _ => status.to_string(),
        };
        let said = self.stderr.lines().map(str::trim).find(|line| !line.is_empty());
        WorkerEnded::Died { how: said.map_or(how.clone(), |said| format!("{how}, {said}")) }
    }
}

fn unknown(source: &io::Error) -> WorkerEnded {
    WorkerEnded::Died { how: source.to_string() }
}

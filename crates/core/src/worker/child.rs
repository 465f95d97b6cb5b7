//! The child: its limits, and what it reads and writes.

use std::ffi::OsString;
use std::io::{self, BufWriter, Read, StdinLock, StdoutLock, Write};
use std::process::ExitCode;
use std::time::Duration;

use aqueduct_primitives::ByteCount;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::{WorkerLimits, frame};

/// Something that children do, by its name.
#[derive(Clone, Copy, Debug)]
pub struct WorkerTask {
    /// As the parent calls it.
    pub name: &'static str,
    /// Does it until the input ends. What is wrong with what it reads is an answer, and no error.
    pub run: fn(&mut WorkerIo) -> io::Result<()>,
}

/// What a child reads and writes.
#[derive(Debug)]
pub struct WorkerIo {
    from: StdinLock<'static>,
    to: BufWriter<StdoutLock<'static>>,
    cpu_per_request: Duration,
}

impl WorkerIo {
    /// The next frame from the parent; nothing when there will be none. What was sent before goes out first.
    ///
    /// # Errors
    /// The parent is gone, or sends what is no frame.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.to.flush()?;
        frame::read(&mut self.from)
    }

    /// The next request: a frame, and so much time of a processor for it.
    ///
    /// # Errors
    /// As [`WorkerIo::receive`].
    pub fn next_request(&mut self) -> io::Result<Option<Vec<u8>>> {
        let request = self.receive()?;
        allow_cpu(self.cpu_per_request)?;
        Ok(request)
    }

    /// Sends a frame to the parent.
    ///
    /// # Errors
    /// It is longer than [`MAX_FRAME_BYTES`](super::MAX_FRAME_BYTES), or the parent is gone.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        frame::write(&mut self.to, frame)
    }
}

/// The words that name a task and its limits.
pub(super) fn words_of(task: &str, limits: WorkerLimits) -> [OsString; 3] {
    let WorkerLimits { memory, cpu_per_request } = limits;
    [task.into(), memory.get().to_string().into(), cpu_per_request.as_secs().to_string().into()]
}

fn limits_of(memory: &OsString, cpu: &OsString) -> Option<WorkerLimits> {
    let number = |word: &OsString| word.to_str()?.parse::<u64>().ok();
    let (memory, cpu) = (ByteCount::new(number(memory)?), Duration::from_secs(number(cpu)?));
    Some(WorkerLimits { memory, cpu_per_request: cpu })
}

/// What a child does instead of all else that the program can do: limits itself, and works on one of these tasks. To be
/// called before any thread is started, with the words that [`Worker::start`](super::Worker::start) gave.
pub fn serve(tasks: &[WorkerTask], words: &[OsString]) -> ExitCode {
    let [name, memory, cpu] = words else { return refuse("expected a task and its limits") };
    let Some(task) = tasks.iter().find(|task| name.to_str() == Some(task.name)) else {
        return refuse("no such task");
    };
    let Some(limits) = limits_of(memory, cpu) else { return refuse("the limits are no numbers") };
    if let Err(error) = confine(limits) {
        return refuse(&format!("cannot set limits: {error}"));
    }
    let (from, to) = (io::stdin().lock(), BufWriter::new(io::stdout().lock()));
    let mut io = WorkerIo { from, to, cpu_per_request: limits.cpu_per_request };
    match (task.run)(&mut io).and_then(|()| io.to.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

fn refuse(message: &str) -> ExitCode {
    // There is nobody else to tell.
    let _ = writeln!(io::stderr(), "worker: {message}");
    ExitCode::FAILURE
}

/// What an allocator has of the system beside what is in use: for alignment, and in gaps too small for what is asked. The limits below
/// count that too.
const GAPS: ByteCount = ByteCount::mib(8);

/// No more memory, no files, no sockets, no processes (which holds for all but root), no core; and no life after the parent's.
fn confine(limits: WorkerLimits) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let taken = taken()?;
    let more = limits.memory.saturating_add(GAPS).get();
    limit(Resource::Data, taken.data.saturating_add(more))?;
    limit(Resource::As, taken.space.saturating_add(more))?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nproc, 0)?;
    // What is open stays open; nothing else can be opened, so there is no network.
    limit(Resource::Nofile, 0)
}

/// Lowers a limit for good. One that is lower already stays.
fn limit(resource: Resource, to: u64) -> io::Result<()> {
    let to = getrlimit(resource).maximum.map_or(to, |maximum| maximum.min(to));
    Ok(setrlimit(resource, Rlimit { current: Some(to), maximum: Some(to) })?)
}

/// From now on, so much of a processor; then the system ends the process.
fn allow_cpu(more: Duration) -> io::Result<()> {
    let so_far = u64::try_from(clock_gettime(ClockId::ProcessCPUTime).tv_sec).unwrap_or(0);
    let (maximum, wanted) = (getrlimit(Resource::Cpu).maximum, so_far.saturating_add(more.as_secs() + 1));
    let current = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    Ok(setrlimit(Resource::Cpu, Rlimit { current: Some(current), maximum })?)
}

/// What the process takes, in bytes: its address space, and of that what it may write to by itself.
struct Taken {
    space: u64,
    data: u64,
}

/// What the system tells of a process is a page.
const MAX_STATUS_BYTES: u64 = 64 << 10;

fn taken() -> io::Result<Taken> {
    let mut status = String::new();
    std::fs::File::open("/proc/self/status")?.take(MAX_STATUS_BYTES).read_to_string(&mut status)?;
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other(format!("the system does not tell {key}")))
    };
    Ok(Taken { space: bytes("VmSize:")?, data: bytes("VmData:")? })
}

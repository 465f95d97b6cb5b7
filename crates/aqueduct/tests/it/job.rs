//! A folder, a flow in it, and the binary run over it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use aqueduct::core::{Fs, StdFs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use wait4::{ResUse, Wait4};

/// Nothing that a test reads whole is larger.
const MAX_READ_BYTES: u64 = 64 << 20;

/// A folder of one test.
pub(crate) struct Job {
    dir: TempDir,
}

impl Job {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    /// A folder with this `flow.yaml`.
    pub(crate) fn with_flow(text: &str) -> Self {
        let job = Self::new();
        job.write("flow.yaml", text);
        job
    }

    /// The place of a name in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file, and the folders on the way to it.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Writes a file piece by piece, so that the test holds no more of it than one.
    pub(crate) fn write_all(&self, name: &str, pieces: impl Iterator<Item = String>) {
        let mut file = std::io::BufWriter::new(File::create(self.path(name)).unwrap());
        for piece in pieces {
            file.write_all(piece.as_bytes()).unwrap();
        }
        file.flush().unwrap();
    }

    /// The text of a file.
    pub(crate) fn read(&self, name: &str) -> String {
        read(&self.path(name))
    }

    /// The JSON values of a file, one a line, or `None` when there is no such file.
    pub(crate) fn rows(&self, name: &str) -> Option<Vec<Value>> {
        self.path(name).exists().then(|| values(&self.read(name)))
    }

    /// The whole numbers `n` of an NDJSON file, sorted; `None` when there is no such file.
    pub(crate) fn numbers(&self, name: &str) -> Option<Vec<i64>> {
        let mut numbers: Vec<_> = self.rows(name)?.iter().map(|row| row["n"].as_i64().unwrap()).collect();
        numbers.sort_unstable();
        Some(numbers)
    }

    /// The whole numbers `n` in all NDJSON parts of a folder, sorted.
    pub(crate) fn numbers_in(&self, folder: &str) -> Vec<i64> {
        let parts = self.files(folder).into_iter().filter(|name| name.ends_with(".ndjson"));
        let mut numbers: Vec<_> =
            parts.flat_map(|part| self.numbers(&format!("{folder}/{part}")).unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The report that `--report report.json` wrote.
    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.read("report.json")).unwrap()
    }

    /// Every file below a folder, by its path in it, without the flow's state.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let root = self.path(folder);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in StdFs.list(&folder).unwrap() {
                match entry.is_dir {
                    true if entry.path.ends_with(".aqueduct") => {}
                    true => folders.push(entry.path),
                    false => files.push(entry.path.strip_prefix(&root).unwrap().display().to_string()),
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// The binary, to be run in the folder with these words.
    pub(crate) fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aqueduct"));
        command.current_dir(self.dir.path()).args(words.split_whitespace());
        command
    }

    /// The binary, run in the folder by a shell that does this before.
    pub(crate) fn command_after(&self, before: &str, words: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before}\nexec \"$0\" {words}")]);
        command.current_dir(self.dir.path()).arg(env!("CARGO_BIN_EXE_aqueduct"));
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run(&self, words: &str) -> Done {
        finish(self.command(words))
    }

    /// Starts the binary; its standard output goes to the test.
    pub(crate) fn start(&self, words: &str) -> Running {
        start(self.command(words))
    }
}

/// Starts a program; its standard output goes to the test.
pub(crate) fn start(mut command: Command) -> Running {
    command.stdin(Stdio::null());
    spawn(command)
}

/// Starts a program whose standard input the test writes.
pub(crate) fn start_fed(mut command: Command) -> (Running, ChildStdin) {
    command.stdin(Stdio::piped());
    let mut running = spawn(command);
    let input = running.child.as_mut().and_then(|child| child.stdin.take()).unwrap();
    (running, input)
}

fn spawn(mut command: Command) -> Running {
    let stderr = tempfile::tempfile().unwrap();
    command.stdout(Stdio::piped()).stderr(stderr.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let lines = child.stdout.take().map(BufReader::new);
    Running { child: Some(child), lines, stderr }
}

/// Runs a program to its end.
pub(crate) fn finish(mut command: Command) -> Done {
    let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let used = command.spawn().unwrap().wait4().unwrap();
    Done::new(used, text_of(stdout), text_of(stderr))
}

/// What a program that has ended wrote to a file.
fn text_of(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.take(MAX_READ_BYTES).read_to_string(&mut text).unwrap();
    text
}

/// A program that has ended.
pub(crate) struct Done {
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// The most bytes that were resident at one moment, as the kernel counts.
    pub(crate) peak_rss_bytes: u64,
}

impl Done {
    fn new(used: ResUse, stdout: String, stderr: String) -> Self {
        Self { status: used.status, stdout, stderr, peak_rss_bytes: used.rusage.maxrss }
    }

    /// It ended with this code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "{}: {}", self.status, self.stderr);
        self
    }

    /// Whether it was killed; if not, it ended well.
    #[track_caller]
    pub(crate) fn was_killed(&self) -> bool {
        let was_killed = self.status.signal() == Some(Signal::KILL.as_raw());
        assert!(was_killed || self.status.success(), "{}: {}", self.status, self.stderr);
        was_killed
    }

    /// All of these words stand in what it said on standard error.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in: {}", self.stderr);
        }
        self
    }

    /// All of these words stand in one line on standard error.
    #[track_caller]
    pub(crate) fn says_in_a_line(self, words: &[&str]) -> Self {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(self.stderr.lines().any(has_all), "no line with {words:?} in: {}", self.stderr);
        self
    }
}

/// A program under way; dropped, it is ended.
pub(crate) struct Running {
    child: Option<Child>,
    /// Not there once it was closed.
    lines: Option<BufReader<ChildStdout>>,
    stderr: File,
}

impl Running {
    /// The next line of its standard output, empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Closes the pipe that its standard output goes to.
    pub(crate) fn close_stdout(&mut self) {
        self.lines = None;
    }

    /// Whether it is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    /// Reads its standard output to the end and waits for its own.
    pub(crate) fn wait(mut self) -> Done {
        let mut stdout = String::new();
        if let Some(lines) = &mut self.lines {
            lines.read_to_string(&mut stdout).unwrap();
        }
        let used = self.child.take().unwrap().wait4().unwrap();
        Done::new(used, stdout, text_of(self.stderr.try_clone().unwrap()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The JSON values of a text, one a line.
pub(crate) fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// NDJSON rows `{"n": …}`.
pub(crate) fn ndjson(numbers: impl IntoIterator<Item = i64>) -> String {
    numbers.into_iter().map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

pub(crate) fn read(path: &Path) -> String {
    String::from_utf8(StdFs.read(path, MAX_READ_BYTES).unwrap()).unwrap()
}

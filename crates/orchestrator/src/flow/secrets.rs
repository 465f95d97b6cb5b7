//! The values of `secrets:`: read when a run needs them, never shown. Messages have a secret's name only.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::flow::masks::HIDDEN;
use crate::flow::node::{Entry, Node};
use crate::flow::read::bounded;
use crate::flow::settings::{SecretMode, Settings};

/// A secret is a token, a key or a certificate; more than this is a wrong file.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// A program that gives a secret may ask somebody over a network; one that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// At most so many bytes are read of a program at once.
const CHUNK_BYTES: usize = 4096;

/// The secrets that a flow file names. Each is read once, however many entries of a matrix use it.
pub(crate) struct Secrets<'f> {
    settings: &'f Settings,
    base_dir: &'f Path,
    declared: &'f [Entry],
    read: RefCell<HashMap<String, Result<String, String>>>,
}

impl<'f> Secrets<'f> {
    /// Those of a file; none is read yet.
    pub(crate) fn of(file: &'f Node, settings: &'f Settings, base_dir: &'f Path) -> Self {
        let declared = file.get("secrets").map(Node::entries).unwrap_or_default();
        Self { settings, base_dir, declared, read: RefCell::default() }
    }

    /// Their names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'f str> {
        self.declared.iter().map(|entry| entry.key.as_str())
    }

    /// The value of one; `None` if there is none of this name.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn get(&self, name: &str) -> Result<Option<String>, String> {
        let Some(entry) = self.declared.iter().find(|entry| entry.key == name) else { return Ok(None) };
        if self.settings.secrets == SecretMode::Hidden {
            return Ok(Some(HIDDEN.into()));
        }
        if let Some(found) = self.read.borrow().get(name) {
            return found.clone().map(Some);
        }
        let found = read(name, &entry.value, self.base_dir, &self.settings.env);
        self.read.borrow_mut().insert(name.into(), found.clone());
        found.map(Some)
    }
}

/// The value of one entry of `secrets:`, whose shape is checked already.
///
/// # Errors
/// It cannot be read, or is empty, or holds a line break, which no header can.
fn read(name: &str, from: &Node, base_dir: &Path, env: &HashMap<String, String>) -> Result<String, String> {
    let raw = raw(from, base_dir, env).map_err(|message| format!("the secret `{name}`: {message}"))?;
    let value = raw.strip_suffix('\n').map_or(raw.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if value.is_empty() {
        return Err(format!("the secret `{name}` is empty"));
    }
    if value.contains(['\n', '\r', '\0']) {
        return Err(format!("the secret `{name}` has more than one line; expected one"));
    }
    Ok(value.to_owned())
}

fn raw(from: &Node, base_dir: &Path, env: &HashMap<String, String>) -> Result<String, String> {
    if let Some(variable) = from.get("env").and_then(Node::text) {
        return env.get(variable).cloned().ok_or_else(|| format!("the environment has no `{variable}`"));
    }
    if let Some(path) = from.get("file").and_then(Node::text) {
        let bytes = bounded(&base_dir.join(path), MAX_SECRET_BYTES)
            .map_err(|message| format!("{path}: {message}"))?;
        return String::from_utf8(bytes).map_err(|_| format!("{path}: no UTF-8"));
    }
    let words: Vec<&str> =
        from.get("command").map(Node::items).unwrap_or_default().iter().filter_map(Node::text).collect();
    match words.split_first() {
        Some((program, arguments)) => run(program, arguments, TIME_LIMIT),
        None => Err("expected one of env, file, command".into()),
    }
}

/// What a program prints. Started without a shell; its complaints go where ours go. One that takes too long is
/// killed, with all that it started: it is in a process group of its own.
fn run(program: &str, arguments: &[&str], time_limit: Duration) -> Result<String, String> {
    let named = |message: String| format!("`{program}` {message}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| named(format!("cannot be started: {error}")))?;
    let (bytes, status) = finish(&mut child, time_limit).map_err(|why| {
        // They may have ended by now; then there is nothing to kill.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        let _ = child.wait();
        named(why)
    })?;
    if !status.success() {
        return Err(named(format!("failed: {status}")));
    }
    String::from_utf8(bytes).map_err(|_| named("printed no UTF-8".into()))
}

/// All that a child prints, and how it ends.
///
/// # Errors
/// It prints too much, takes too long, or cannot be waited for.
fn finish(child: &mut Child, time_limit: Duration) -> Result<(Vec<u8>, ExitStatus), String> {
    let until = Instant::now() + time_limit;
    let late = || {
        let limit = humantime::format_duration(time_limit);
        format!(
            "has not ended after {limit}, which is the limit; it must give the secret without asking anybody"
        )
    };
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            if !is_readable(&output, until).map_err(|error| error.to_string())? {
                return Err(late());
            }
            match output.read(&mut chunk).map_err(|error| error.to_string())? {
                0 => break,
                n_bytes => bytes.extend_from_slice(&chunk[..n_bytes]),
            }
            if bytes.len() as u64 > MAX_SECRET_BYTES {
                return Err(format!(
                    "printed more than {MAX_SECRET_BYTES} bytes, which is the limit; it must print the secret alone"
                ));
            }
        }
    }
    if !is_readable(&ended, until).map_err(|error| error.to_string())? {
        return Err(late());
    }
    Ok((bytes, child.wait().map_err(|error| error.to_string())?))
}

/// Waits until there is something to read of an output, or its end; or until a process has ended. False when the
/// time is over.
fn is_readable(output: &impl AsFd, until: Instant) -> std::io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let wait = left.try_into().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&wait)) {
            Ok(n_ready) => return Ok(n_ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::fake::load_as;

    fn text_of(path: &Path) -> String {
        String::from_utf8(bounded(path, MAX_SECRET_BYTES).unwrap()).unwrap()
    }

    fn told(script: &str, time_limit: Duration) -> String {
        run("sh", &["-c", script], time_limit).unwrap_err()
    }

    #[test]
    fn a_program_that_does_not_end_is_killed_and_named_with_the_limit() {
        // One holds its output open, the other closes it and goes on.
        for script in ["echo s3cret; exec sleep 600", "echo s3cret; exec 1>&-; exec sleep 600"] {
            let told = told(script, Duration::from_millis(200));
            assert!(told.starts_with("`sh` has not ended after 200ms, which is the limit; "), "{told}");
        }
    }

    #[test]
    fn a_program_that_prints_without_end_is_killed_and_named_with_the_limit() {
        let told = told("exec cat /dev/zero", TIME_LIMIT);
        assert_eq!(
            told,
            "`sh` printed more than 65536 bytes, which is the limit; it must print the secret alone"
        );
    }

    #[test]
    fn what_a_killed_program_started_is_killed_too() {
        let folder = tempfile::tempdir().unwrap();
        let noted = folder.path().join("pid");
        let script = format!("sleep 600 & echo $! > '{}'; exec cat /dev/zero", noted.display());
        told(&script, TIME_LIMIT);
        let pid: i32 = text_of(&noted).trim().parse().unwrap();
        // Gone already, or about to be.
        if let Ok(sleeping) = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()) {
            poll(&mut [PollFd::new(&sleeping, PollFlags::IN)], None).unwrap();
        }
    }

    #[test]
    fn a_matrix_asks_for_a_secret_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("asked");
        let text = format!(
            "name: x\nmatrix: {{ n: [1, 2, 3] }}\n\
             secrets: {{ t: {{ command: [sh, -c, \"echo once >> '{}'; echo s3cret\"] }} }}\n\
             source: {{ files: {{ paths: ['a${{n}}'], auth: {{ bearer: '${{t}}' }} }} }}\nsink: {{ discard: {{}} }}\n",
            log.display()
        );
        let settings = Settings { secrets: SecretMode::Read, ..Settings::default() };
        assert_eq!(load_as("flow.yaml", text, &settings).unwrap().len(), 3);
        assert_eq!(text_of(&log), "once\n");
    }

    #[test]
    fn what_a_program_prints_is_the_secret_unless_it_fails() {
        assert_eq!(run("printf", &["a\\nb"], TIME_LIMIT).unwrap(), "a\nb");
        assert!(told("echo s3cret; exit 3", TIME_LIMIT).contains("failed: exit status: 3"));
    }
}

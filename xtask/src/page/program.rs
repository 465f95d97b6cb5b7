//! A program beside ours that does not outlive it: of a process group of its own, killed and reaped with all it started.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process_group, set_child_subreaper, wait, waitpgid,
};
use std::os::unix::process::CommandExt;

use crate::process::shown;
use crate::text;

/// How long a program may take until it says where it listens.
const MAX_START: Duration = Duration::from_secs(30);

/// How long what a program left behind may take to end.
const MAX_END: Duration = Duration::from_secs(5);

/// How often is looked whether what is waited for is there.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// So much of what a program said stands in an error.
const MAX_TOLD_CHARS: usize = 2000;

/// While it lives, what is left over of the programs becomes our child. Dropped after all of them, it reaps the rest.
#[derive(Debug)]
pub(super) struct Reaper(());

impl Reaper {
    /// # Errors
    /// The kernel refuses.
    pub(super) fn new() -> Result<Self> {
        set_child_subreaper(Some(getpid()))
            .context("this process cannot take over what its programs leave")?;
        Ok(Self(()))
    }
}

impl Drop for Reaper {
    /// What left its group, as the browser's watchers of crashes do, ends by itself when the browser does. It is waited for, not
    /// for ever.
    fn drop(&mut self) {
        let started = Instant::now();
        while started.elapsed() < MAX_END
            && let Ok(ended) = wait(WaitOptions::NOHANG)
        {
            if ended.is_none() {
                thread::sleep(LOOK_EVERY);
            }
        }
        // What could be done before can be undone.
        let _ = set_child_subreaper(None);
    }
}

/// A program under way. Dropped, it and all of its group are killed and reaped.
#[derive(Debug)]
pub(super) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program whose words go to the file `log`. The kernel kills it when this process is killed.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(command: &Command, log: &Path) -> Result<Self> {
        let file =
            std::fs::File::create(log).with_context(|| format!("{}: cannot be made", log.display()))?;
        let mut tied = Command::new("setpriv");
        tied.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        if let Some(folder) = command.get_current_dir() {
            tied.current_dir(folder);
        }
        tied.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = tied.spawn().with_context(|| format!("`{}` cannot be started", shown(&tied)))?;
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
        Ok(Self { name: name.into_owned(), child, log: log.to_path_buf() })
    }

    /// The port that the program names behind these words.
    ///
    /// # Errors
    /// It ends, or does not name one in time.
    pub(super) fn port_after(&mut self, words: &str) -> Result<u16> {
        let started = Instant::now();
        loop {
            let has_ended = self.child.try_wait()?;
            let told = text::read(&self.log)?;
            if let Some(port) = port_after(&told, words) {
                return Ok(port);
            }
            let name = &self.name;
            let end: String =
                told.chars().skip(told.chars().count().saturating_sub(MAX_TOLD_CHARS)).collect();
            if let Some(status) = has_ended {
                bail!("`{name}` ended ({status}) before it said `{words}`; it said: {end}");
            }
            if started.elapsed() > MAX_START {
                bail!("`{name}` did not say `{words}` within {MAX_START:?}; it said: {end}");
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// The number that ends a line or stands before a sign.
fn port_after(told: &str, words: &str) -> Option<u16> {
    let rest = told.split_once(words)?.1;
    let digits = rest.find(|sign: char| !sign.is_ascii_digit())?;
    rest[..digits].parse().ok()
}

impl Drop for Program {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        // Each may have ended by itself meanwhile.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        while waitpgid(group, WaitOptions::empty()).is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_a_whole_number_behind_its_words() {
        assert_eq!(port_after("x\nlistening on :80/a", "on :"), Some(80));
        assert_eq!(port_after("listening on :8", "on :"), None, "more digits may come");
        assert_eq!(port_after("listening\n", "on :"), None);
    }

    fn is_there(pid: &str) -> bool {
        Path::new("/proc").join(pid.trim()).exists()
    }

    #[test]
    fn what_a_program_started_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let _reaper = Reaper::new().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 600 & echo child $!.; echo on port 1.; wait"]);
        let log = folder.path().join("log");
        let mut program = Program::start(&shell, &log).unwrap();
        assert_eq!(program.port_after("on port ").unwrap(), 1);
        let told = text::read(&log).unwrap();
        let pid = told.split_once("child ").unwrap().1.split_once('.').unwrap().0.to_owned();
        assert!(is_there(&pid));
        drop(program);
        assert!(!is_there(&pid));
    }

    #[test]
    fn a_program_that_ends_early_is_told_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo no such thing; exit 3"]);
        let mut program = Program::start(&shell, &folder.path().join("log")).unwrap();
        let error = program.port_after("on port ").unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such thing"), "{error}");
    }
}

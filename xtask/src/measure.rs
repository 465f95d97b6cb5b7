//! A program run to its end, and what the kernel says it took.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wait4::{ResUse, Wait4};

use crate::process::shown;

/// How much of a program's output is kept to tell from: the end of it.
const MAX_TOLD_BYTES: u64 = 64 * 1024;

/// How often a program with a deadline is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a program took.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// Processor time, its own and the kernel's for it.
    pub(crate) cpu: Duration,
    /// The most memory that was resident at once.
    pub(crate) peak_rss_bytes: u64,
    /// The end of what it wrote, to standard output and error.
    pub(crate) told: String,
}

impl Measured {
    /// The last line of what it wrote.
    pub(crate) fn last_line(&self) -> &str {
        self.told.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("")
    }
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started.
pub(crate) fn measure(command: &mut Command) -> Result<Measured> {
    measure_for(command, Duration::MAX)
}

/// Runs a program to its end, and ends it after `at_most`; its status then says `signal: 9`.
///
/// # Errors
/// It cannot be started.
pub(crate) fn measure_for(command: &mut Command, at_most: Duration) -> Result<Measured> {
    let output = tempfile::tempfile().context("a temporary file cannot be made")?;
    command.stdout(output.try_clone()?).stderr(Stdio::from(output.try_clone()?));
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("`{}` cannot be started", shown(command)))?;
    let used: ResUse = if at_most == Duration::MAX {
        child.wait4()?
    } else {
        loop {
            if let Some(used) = child.try_wait4()? {
                break used;
            }
            if started.elapsed() > at_most {
                child.kill()?;
            }
            thread::sleep(LOOK_EVERY);
        }
    };
    Ok(Measured {
        status: used.status,
        wall: started.elapsed(),
        cpu: used.rusage.utime + used.rusage.stime,
        peak_rss_bytes: used.rusage.maxrss,
        told: end_of(output)?,
    })
}

fn end_of(mut output: File) -> Result<String> {
    let n_bytes = output.seek(SeekFrom::End(0))?;
    output.seek(SeekFrom::Start(n_bytes.saturating_sub(MAX_TOLD_BYTES)))?;
    let mut told = Vec::new();
    output.take(MAX_TOLD_BYTES).read_to_end(&mut told)?;
    Ok(String::from_utf8_lossy(&told).into_owned())
}

/// The middle one; of an even number the lower of the two.
pub(crate) fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values.get(values.len().saturating_sub(1) / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;
    use std::path::Path;

    #[test]
    fn a_program_is_measured_with_its_end_and_its_words() {
        let mut script = command("sh", Path::new("/"));
        let measured = measure(script.args(["-c", "echo one; echo two >&2; exit 3"])).unwrap();
        assert_eq!((measured.status.code(), measured.last_line()), (Some(3), "two"));
        assert!(measured.peak_rss_bytes > 100_000, "{} bytes", measured.peak_rss_bytes);
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let mut script = command("sleep", Path::new("/"));
        let measured = measure_for(script.arg("600"), Duration::from_millis(1)).unwrap();
        assert_eq!(measured.status.code(), None);
    }

    #[test]
    fn the_median_is_one_of_the_values() {
        assert_eq!(median(vec![5, 1, 3]), Some(3));
        assert_eq!(median(vec![4, 1]), Some(1));
        assert_eq!(median::<u8>(Vec::new()), None);
    }
}

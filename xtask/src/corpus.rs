//! `cargo xtask corpus DIR`: reads every file of a folder of real files, one flow a file, and prints a table. A
//! file that cannot be read is a line of the table; a crash, or a run without an end, is a failure.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench::{Bench, Report, megabytes};
use crate::measure::{Measured, measure_for};
use crate::text::{self, say};
use crate::workspace::{PROFILE, Workspace};

/// What `corpus` is asked to do.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder; those below it are read too
    folder: PathBuf,
    /// A binary that is built already; without it one is built
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// How long one file may take. Ten times what the largest of them needs.
const MAX_PER_FILE: Duration = Duration::from_secs(300);

/// How deep folders may lie in each other; a link to a folder above would go on for ever.
const MAX_DEPTH: usize = 16;

/// The longest line of an error in the table.
const MAX_ERROR_CHARS: usize = 110;

/// Which format a suffix stands for; suffixes of compressions are taken off first.
const FORMATS: &[(&str, &str)] = &[
    ("ndjson", "ndjson"),
    ("jsonl", "ndjson"),
    ("json", "json"),
    ("geojson", "json"),
    ("csv", "csv"),
    ("tsv", "tsv"),
    ("parquet", "parquet"),
    ("arrow", "arrow"),
    ("feather", "arrow"),
    ("arrow_file", "arrow"),
];

/// Suffixes of compressions.
const COMPRESSIONS: &[&str] = &["gz", "zst", "bz2", "xz", "zip"];

/// Reads the files.
///
/// # Errors
/// There is no file, or a run crashed or did not end.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let folder =
        args.folder.canonicalize().with_context(|| format!("{}: no such folder", args.folder.display()))?;
    let binary = match &args.binary {
        Some(path) => path.canonicalize()?,
        None => workspace.binary(PROFILE)?,
    };
    let bench = Bench::with(workspace, binary, 1, 1)?;
    let mut files = Vec::new();
    collect(&folder, MAX_DEPTH, &mut files)?;
    ensure!(!files.is_empty(), "{}: no file of a known format", folder.display());
    let mut rows =
        vec![["file", "format", "rows", "rejected", "RSS MB", "outcome"].map(str::to_owned).to_vec()];
    let mut n_crashes = 0;
    for (path, format) in &files {
        let (row, crashed) = one(&bench, &folder, path, format)?;
        n_crashes += usize::from(crashed);
        rows.push(row);
    }
    say(text::table(&rows));
    say(format_args!("{} files, {n_crashes} crashes", files.len()));
    ensure!(n_crashes == 0, "{n_crashes} files crashed the binary");
    Ok(())
}

/// The files of a known format, in the order of their paths.
fn collect(folder: &Path, depth: usize, files: &mut Vec<(PathBuf, &'static str)>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            ensure!(depth > 0, "{}: folders lie more than {MAX_DEPTH} deep", path.display());
            collect(&path, depth - 1, files)?;
        } else if let Some(format) = format_of(&path) {
            files.push((path, format));
        }
    }
    Ok(())
}

fn format_of(path: &Path) -> Option<&'static str> {
    let suffix = path.extension()?.to_str()?;
    if COMPRESSIONS.contains(&suffix) {
        return format_of(&path.with_extension(""));
    }
    FORMATS.iter().find(|(known, _)| *known == suffix).map(|(_, format)| *format)
}

fn one(bench: &Bench, folder: &Path, path: &Path, format: &str) -> Result<(Vec<String>, bool)> {
    let (mut command, report) = bench.flow("corpus", &flow(path, format)?)?;
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let measured = measure_for(&mut command, MAX_PER_FILE)?;
    let report = Report::read(&report).unwrap_or_default();
    let crash = crash(&measured);
    let row = vec![
        path.strip_prefix(folder).unwrap_or(path).display().to_string(),
        format.to_owned(),
        report.rows_in.to_string(),
        report.rows_rejected.to_string(),
        megabytes(measured.peak_rss_bytes),
        crash.clone().unwrap_or_else(|| outcome(&measured)),
    ];
    Ok((row, crash.is_some()))
}

fn flow(path: &Path, format: &str) -> Result<String> {
    // Quoted as JSON, which is YAML: a file may be called anything.
    let path = serde_json::to_string(path.to_str().context("the path is no text")?)?;
    Ok(format!(
        "name: corpus\nmemory: 256MB\nexecution: {{ on_error: skip, max_rejected: 100% }}\n\
         source: {{ files: {{ paths: [{}], format: {format}, infer_rows: all, allow_empty: true }} }}\n\
         sink: {{ discard: {{}} }}\n",
        as_glob(&path)
    ))
}

/// A path in which no character stands for others.
fn as_glob(path: &str) -> String {
    let mut glob = String::with_capacity(path.len());
    for letter in path.chars() {
        match letter {
            '*' | '?' | '[' | ']' => glob.extend(['[', letter, ']']),
            '$' => glob.push_str("$$"),
            _ => glob.push(letter),
        }
    }
    glob
}

/// What crashed, if something did.
fn crash(measured: &Measured) -> Option<String> {
    if let Some(signal) = measured.status.signal() {
        return Some(format!("CRASH: ended by signal {signal} after {:.0} s", measured.wall.as_secs_f64()));
    }
    let panic = measured.told.lines().find(|line| line.contains("panicked at"))?;
    Some(format!("CRASH: {}", short(panic)))
}

fn outcome(measured: &Measured) -> String {
    match measured.status.code() {
        Some(0) => "read".to_owned(),
        code => {
            let mut lines = measured.told.lines().filter(|line| !line.trim().is_empty());
            let told = lines.clone().find(|line| line.contains("rror")).or_else(|| lines.next());
            format!("exit {}: {}", code.unwrap_or(-1), short(told.unwrap_or("")))
        }
    }
}

fn short(line: &str) -> String {
    line.trim().chars().take(MAX_ERROR_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::command;

    #[test]
    fn formats_are_known_by_the_suffix_below_the_compression() {
        let format = |name: &str| format_of(Path::new(name));
        assert_eq!(format("a/b.csv.gz"), Some("csv"));
        assert_eq!(format("feed.geojson"), Some("json"));
        assert_eq!([format("README.md"), format("a.gz"), format("Makefile")], [None; 3]);
    }

    #[test]
    fn a_signal_and_a_panic_are_crashes_and_an_error_is_none() {
        let run = |script: &str| {
            measure_for(command("sh", Path::new("/")).args(["-c", script]), MAX_PER_FILE).unwrap()
        };
        assert!(crash(&run("kill -9 $$")).unwrap().contains("signal 9"));
        assert!(crash(&run("echo \"thread 'x' panicked at lib.rs\"; exit 1")).unwrap().contains("panicked"));
        let failed = run("echo starting; echo 'error: row 3'; exit 1");
        assert_eq!((crash(&failed), outcome(&failed)), (None, "exit 1: error: row 3".to_owned()));
    }

    #[test]
    fn letters_that_stand_for_others_stand_for_themselves() {
        assert_eq!(as_glob("a[1]*$.csv"), "a[[]1[]][*]$$.csv");
    }

    #[test]
    fn folders_below_are_read_and_strange_names_are_quoted() {
        let folder = tempfile::tempdir().unwrap();
        text::write(&folder.path().join("deep/a \"b\".ndjson"), "{}").unwrap();
        let mut files = Vec::new();
        collect(folder.path(), MAX_DEPTH, &mut files).unwrap();
        let [(path, "ndjson")] = files.as_slice() else { panic!("{files:?}") };
        assert!(flow(path, "ndjson").unwrap().contains(r#"a \"b\".ndjson"#));
        assert!(collect(folder.path(), 0, &mut files).is_err());
    }
}

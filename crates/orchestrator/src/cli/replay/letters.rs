//! Letters, read one by one, and what of them can be read again, gathered in files by the step that rejected it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use aqueduct_commit::{KeyStore, Keyed};
use aqueduct_core::{Error, ErrorKind, Fs, FsFile, OtherFiles, Result, StdFs};
use serde::Deserialize;

use crate::flow::{Flow, StepKind};
use crate::run::{Again, What};

/// A longer line is no letter: raw records are cut long before.
const MAX_LETTER_BYTES: u64 = 2 << 20;
/// Whoever rejects a record keeps no more of it.
const MAX_RECORD_BYTES: usize = 64 << 10;
/// Whoever rejects a row within the flow keeps no more of it, as JSON.
const MAX_ROW_BYTES: usize = 4096;
/// Files that are written at once: one for each step, format and header.
const MAX_FILES: usize = 64;
/// Letters that cannot be replayed are named one by one, so many of them.
const MAX_NAMED: usize = 20;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// What is to be read again.
    pub(super) again: Vec<Again>,
    /// Letters that are.
    pub(super) n_again: u64,
    /// Letters that were replayed before.
    pub(super) n_known: u64,
    /// The first letters that cannot be replayed, and why.
    pub(super) refused: Vec<String>,
    pub(super) n_refused: u64,
}

/// A letter, as far as it is needed.
#[derive(Debug, Deserialize)]
struct Letter {
    step: String,
    reason: String,
    #[serde(default)]
    raw: String,
    origin: Origin,
}

#[derive(Debug, Deserialize)]
struct Origin {
    file: String,
    row: Option<u64>,
    header: Option<String>,
}

/// Where what is read again is gathered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    step: String,
    what: What,
    suffix: &'static str,
    header: Option<String>,
}

/// Reads a file of letters, or all in a folder, and gathers in `dir` what was not replayed before. Which that is, `seen` knows
/// from then on. Blocks.
///
/// # Errors
/// The letters cannot be read, or the disk fails.
pub(super) fn gather(rejected: &Path, flow: &Flow, dir: &Path, seen: &mut KeyStore) -> Result<Gathered> {
    let mut gathered = Gathered::default();
    let mut files = Files { dir: dir.to_owned(), open: BTreeMap::new() };
    for path in files_of(rejected)? {
        let failed = |error| Error::io("read letters", path.display(), error);
        let mut lines = BufReader::new(File::open(&path).map_err(failed)?);
        for n in 1_u64.. {
            let Some(line) = next_line(&mut lines).map_err(failed)? else { break };
            if line.trim_ascii().is_empty() {
                continue;
            }
            match placed(flow, &line) {
                Err(why) => gathered.refuse(format!("{}:{n}: {why}", path.display())),
                Ok((place, text)) => {
                    let letter = Keyed { key: key(&line), version: 0 };
                    if seen.admit(&[letter], 0)? == [true] {
                        files.add(place, &text)?;
                        gathered.n_again += 1;
                    } else {
                        gathered.n_known += 1;
                    }
                }
            }
        }
    }
    gathered.again = files.close()?;
    Ok(gathered)
}

impl Gathered {
    fn refuse(&mut self, why: String) {
        self.n_refused += 1;
        if self.refused.len() < MAX_NAMED {
            self.refused.push(why);
        }
    }
}

/// The file, or the files with letters in the folder, by name.
fn files_of(rejected: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::io("read letters", rejected.display(), error);
    // A link to a folder is one, where the user names it.
    if !std::fs::metadata(rejected).map_err(failed)?.is_dir() {
        return Ok(vec![rejected.to_owned()]);
    }
    let entries = StdFs.list(rejected).map_err(failed)?.into_iter().filter(|entry| !entry.is_dir);
    let paths = entries.map(|entry| entry.path);
    Ok(paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "ndjson")).collect())
}

/// The next line without its end; of one that is too long only the beginning, which is no letter.
fn next_line(lines: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines.by_ref().take(MAX_LETTER_BYTES).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        lines.skip_until(b'\n')?;
    }
    line.truncate(line.trim_ascii_end().len());
    Ok(Some(if line.is_empty() { vec![b' '] } else { line }))
}

/// A letter is known by all of its text.
fn key(line: &[u8]) -> u128 {
    let hash = blake3::hash(line);
    hash.as_bytes().first_chunk().map_or(0, |first| u128::from_be_bytes(*first))
}

/// Where a letter's text is gathered, and that text.
///
/// # Errors
/// It cannot be replayed; says why.
fn placed(flow: &Flow, line: &[u8]) -> Result<(Place, String), String> {
    let letter: Letter = serde_json::from_slice(line)
        .map_err(|_| "this is no letter of rejected items, or is cut off".to_owned())?;
    // The steps of a replay are named after those that they stand for.
    let name = letter.step.split('.').next().unwrap_or_default().to_owned();
    let at = flow.step_named(&name)?;
    match &flow.steps[at].kind {
        StepKind::Sink(_) => Err(format!("`{name}` is a sink, and rejects nothing")),
        StepKind::Stage(_) => row_of_stage(name, letter),
        StepKind::Source(source) if letter.raw.is_empty() => {
            if source.over(&OtherFiles { list: PathBuf::new(), records: None }).is_none() {
                return Err(format!("what `{name}` reads is not there a second time"));
            }
            let place = Place { step: name, what: What::Files, suffix: "list", header: None };
            Ok((place, whole_file(flow, &letter)?))
        }
        StepKind::Source(source) => {
            let Some(suffix) = source.suffix_of_records(&letter.origin.file) else {
                return Err(format!(
                    "`{name}` does not tell which format {} has; say `format`",
                    letter.origin.file
                ));
            };
            record(name, suffix, letter)
        }
    }
}

fn row_of_stage(step: String, letter: Letter) -> Result<(Place, String), String> {
    if letter.raw.is_empty() {
        return Err(format!("its row could not be kept as text (at {})", at(&letter.origin)));
    }
    if letter.raw.len() >= MAX_ROW_BYTES {
        return Err(format!("its row was cut at {MAX_ROW_BYTES} bytes (at {})", at(&letter.origin)));
    }
    let place = Place { step, what: What::Rows, suffix: "ndjson", header: None };
    Ok((place, letter.raw))
}

fn record(step: String, suffix: &'static str, letter: Letter) -> Result<(Place, String), String> {
    if letter.raw.len() >= MAX_RECORD_BYTES {
        return Err(format!("its record was cut at {MAX_RECORD_BYTES} bytes (at {})", at(&letter.origin)));
    }
    if letter.reason == "utf8" {
        return Err(format!(
            "its record is no UTF-8, and was not kept as it was (at {})",
            at(&letter.origin)
        ));
    }
    // Within a JSON record a line end is a space.
    let text = if suffix == "ndjson" { letter.raw.replace(['\n', '\r'], " ") } else { letter.raw };
    let place = Place { step, what: What::Records, suffix, header: letter.origin.header };
    Ok((place, text))
}

/// The file itself, if nothing of it was given.
fn whole_file(flow: &Flow, letter: &Letter) -> Result<String, String> {
    let Origin { file, row, .. } = &letter.origin;
    if let Some(row) = row {
        return Err(match letter.reason.as_str() {
            "too large" => format!("its row was too large to be kept ({file}, row {row})"),
            "type" => format!("its row could not be kept as text ({file}, row {row})"),
            _ => format!("{file} broke off before row {row}, and the rows before that are in the output"),
        });
    }
    if file.contains("***") || file.contains(['\n', '\r']) {
        return Err(format!(
            "the address of {file} was kept without its secret, and it cannot be fetched by that"
        ));
    }
    if file.contains("://") {
        return Ok(file.clone());
    }
    let here = std::path::absolute(file).unwrap_or_else(|_| PathBuf::from(file));
    let beside = std::path::absolute(flow.base_dir.join(file)).unwrap_or_else(|_| here.clone());
    let found = if !matches!(StdFs.stat(&here), Ok(Some(_))) && matches!(StdFs.stat(&beside), Ok(Some(_))) {
        beside
    } else {
        here
    };
    Ok(found.display().to_string())
}

fn at(origin: &Origin) -> String {
    match origin.row {
        Some(row) => format!("{}, row {row}", origin.file),
        None => origin.file.clone(),
    }
}

/// Files that are being written, each with the number that it is named by.
struct Files {
    dir: PathBuf,
    open: BTreeMap<Place, (PathBuf, BufWriter<Box<dyn FsFile>>)>,
}

impl Files {
    fn add(&mut self, place: Place, text: &str) -> Result<()> {
        if !self.open.contains_key(&place) {
            let opened = self.begin(&place)?;
            self.open.insert(place.clone(), opened);
        }
        let Some((path, file)) = self.open.get_mut(&place) else { return Ok(()) };
        writeln!(file, "{text}").map_err(|error| failed(path, error))
    }

    fn begin(&self, place: &Place) -> Result<(PathBuf, BufWriter<Box<dyn FsFile>>)> {
        let n = self.open.len();
        if n >= MAX_FILES {
            let message = format!(
                "letters of more than {MAX_FILES} steps and headers; replay the files of letters one by one"
            );
            return Err(Error::new(ErrorKind::Limit, "gather letters", message));
        }
        let path = self.dir.join(format!("{n}.{}", place.suffix));
        let mut file = create(&path)?;
        if let Some(header) = &place.header {
            writeln!(file, "{header}").map_err(|error| failed(&path, error))?;
        }
        Ok((path, file))
    }

    /// By step and kind, a list of the files that hold it. Of whole files, the file is that list.
    fn close(self) -> Result<Vec<Again>> {
        let mut lists: BTreeMap<(String, What), Vec<PathBuf>> = BTreeMap::new();
        for (place, (path, mut file)) in self.open {
            file.flush().map_err(|error| failed(&path, error))?;
            lists.entry((place.step, place.what)).or_default().push(path);
        }
        let mut again = Vec::new();
        for (n, ((step, what), paths)) in lists.into_iter().enumerate() {
            let list = match (what, paths.as_slice()) {
                (What::Files, [list]) => list.clone(),
                _ => {
                    let list = self.dir.join(format!("files-{n}.txt"));
                    let mut file = create(&list)?;
                    for path in &paths {
                        writeln!(file, "{}", path.display()).map_err(|error| failed(&list, error))?;
                    }
                    file.flush().map_err(|error| failed(&list, error))?;
                    list
                }
            };
            again.push(Again { step, list, what });
        }
        Ok(again)
    }
}

/// What was rejected may be secret: only its owner may read it.
fn create(path: &Path) -> Result<BufWriter<Box<dyn FsFile>>> {
    let made = StdFs.create_dir_all(path.parent().unwrap_or(path)).and_then(|()| StdFs.create_private(path));
    Ok(BufWriter::new(made.map_err(|error| failed(path, error))?))
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    Error::io("gather letters", path.display(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_one_that_is_too_long_does_not_hide_the_next() {
        let long = "x".repeat(3 << 20);
        let text = format!("one\r\n\n{long}\ntwo");
        let mut lines = BufReader::new(text.as_bytes());
        let mut read = Vec::new();
        while let Some(line) = next_line(&mut lines).unwrap() {
            read.push(String::from_utf8(line).unwrap());
        }
        assert_eq!(read.iter().map(|line| line.trim().len()).collect::<Vec<_>>(), [3, 0, 2 << 20, 3]);
        assert_eq!((read[0].as_str(), read[3].as_str()), ("one", "two"));
    }

    #[test]
    fn a_letter_that_was_edited_is_another() {
        let letter = br#"{"step":"source","raw":"1"}"#;
        assert_eq!(key(letter), key(&letter.clone()));
        assert_ne!(key(letter), key(br#"{"step":"source","raw":"2"}"#));
    }
}

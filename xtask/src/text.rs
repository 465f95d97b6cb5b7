//! Lines out, small files in and out.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The largest file that a task reads whole: manifests, reports, pages. Larger ones are data, not text.
const MAX_TEXT_BYTES: u64 = 16 * 1024 * 1024;

/// A line for whoever started the task.
#[expect(clippy::print_stdout, reason = "a task's output is for the terminal; every line goes through here")]
pub(crate) fn say(line: impl Display) {
    println!("{line}");
}

/// A line about what went wrong.
#[expect(clippy::print_stderr, reason = "a task's errors are for the terminal; every line goes through here")]
pub(crate) fn complain(line: impl Display) {
    eprintln!("{line}");
}

/// A text file, whole.
///
/// # Errors
/// It cannot be read, is not UTF-8, or is larger than [`MAX_TEXT_BYTES`].
pub(crate) fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    file.take(MAX_TEXT_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("{}: cannot be read as text", path.display()))?;
    ensure!(
        text.len() as u64 <= MAX_TEXT_BYTES,
        "{}: larger than {MAX_TEXT_BYTES} bytes, the most that a task reads whole",
        path.display()
    );
    Ok(text)
}

/// Writes a text file and the folders above it.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        make_dir(folder)?;
    }
    fs::write(path, text).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Makes a folder and those above it.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("{}: folder cannot be made", path.display()))
}

/// A size as a flow says it: a whole number of KB, MB or GB, powers of 1000.
///
/// # Errors
/// It is none.
pub(crate) fn parse_bytes(text: &str) -> Result<u64> {
    let units = [("KB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000)];
    let size = units.iter().find_map(|(unit, n_bytes)| {
        text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*n_bytes).filter(|size| *size > 0)
    });
    size.with_context(|| format!("`{text}` is no size like 100MB or 1GB"))
}

/// Columns side by side, the first left, the others right aligned.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns)
        .map(|n| rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(n, (cell, &width))| match n {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a", "wall"], ["duckdb", "4.0"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "a       wall\nduckdb   4.0");
    }

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        assert_eq!(parse_bytes("100MB").unwrap(), 100_000_000);
        assert!(["MB", "1", "0GB", "-1GB", "1GiB"].iter().all(|text| parse_bytes(text).is_err()));
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("blob"));
    }
}

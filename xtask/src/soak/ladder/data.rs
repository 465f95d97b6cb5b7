//! The data of the ladder: rows out of their number alone, so that a judge makes them again instead of keeping them.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::bench::random;
use crate::text::{self, say};

/// Changes when the rows do, so that older files are not taken for them.
pub(super) const VERSION: u32 = 1;

/// What makes a data set hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// Rows of 100 bytes in no order, two to a key; one key in 64 is null
    Narrow,
    /// Rows of 2.5 KB
    Wide2k,
    /// Rows of 100 KB, a fifth of the bytes
    Wide100k,
    /// One key
    Equal,
    /// In order already
    Sorted,
    /// In the opposite order
    Reverse,
    /// Seven strings as keys
    Few,
    /// One row in 100 has 100 KB, their keys anywhere
    Spread,
    /// One row in 100 has 100 KB, all beside each other in key order
    Adjacent,
}

/// All of them, as the ladder climbs them.
pub(super) const KINDS: [Kind; 9] = [
    Kind::Narrow,
    Kind::Wide2k,
    Kind::Wide100k,
    Kind::Equal,
    Kind::Sorted,
    Kind::Reverse,
    Kind::Few,
    Kind::Spread,
    Kind::Adjacent,
];

/// Text of a wide row, and of one that makes 100 bytes with the other columns.
const WIDE_LEN: usize = 100_000;
const NARROW_LEN: usize = 55;

/// One row in so many is wide, of data that has both.
const ONE_WIDE_OF: u64 = 100;

impl Kind {
    /// The column that is sorted, grouped and joined by.
    pub(super) fn key(self) -> &'static str {
        if self == Self::Few { "word" } else { "k" }
    }

    /// In a table and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Narrow => "narrow",
            Self::Wide2k => "wide-2k",
            Self::Wide100k => "wide-100k",
            Self::Equal => "equal",
            Self::Sorted => "sorted",
            Self::Reverse => "reverse",
            Self::Few => "few",
            Self::Spread => "spread",
            Self::Adjacent => "adjacent",
        }
    }

    fn n_rows(self, n_bytes: u64) -> u64 {
        let n_rows = match self {
            Self::Wide2k => n_bytes / 2500,
            Self::Wide100k => n_bytes / 5 / 100_000,
            Self::Spread | Self::Adjacent => n_bytes / 1100,
            _ => n_bytes / 100,
        };
        n_rows.max(1)
    }
}

/// A row, with the columns in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) seq: u64,
    pub(super) k: Option<u64>,
    pub(super) word: String,
    pub(super) lon: f64,
    pub(super) lat: f64,
    pub(super) pad: String,
}

/// A row of the other side of a join: two to a key, every other key missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SideRow {
    pub(super) k: u64,
    pub(super) word: String,
    pub(super) extra: String,
}

/// A data set of a size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    /// What makes it hard.
    pub(super) kind: Kind,
    /// Its size in memory, about.
    pub(super) n_bytes: u64,
}

impl Data {
    /// How many rows it has.
    pub(super) fn n_rows(self) -> u64 {
        self.kind.n_rows(self.n_bytes)
    }

    /// The rows in the order in which they arrive.
    pub(super) fn rows(self) -> impl Iterator<Item = Row> {
        (0..self.n_rows()).map(move |seq| self.row(seq))
    }

    /// One row.
    pub(super) fn row(self, seq: u64) -> Row {
        let mut random = random(seq);
        let (any_key, any_word, any_place) = (random.next(), random.next(), random.next());
        let word = any_word % if self.kind == Kind::Few { 7 } else { 10_000 };
        let place = match self.kind {
            Kind::Equal => 0,
            Kind::Few => word,
            Kind::Adjacent if is_wide(seq) => 1,
            _ => any_place,
        };
        let len = self.pad_len(seq);
        Row {
            seq,
            k: self.key(seq, any_key),
            word: word_of(word),
            lon: degrees(place & 0xffff_ffff, 360),
            lat: degrees(place >> 32, 180),
            pad: hex(len, || random.next()),
        }
    }

    /// Null keys are in the narrow rows only. Of the adjacent wide rows the keys lie in a gap between the others.
    fn key(self, seq: u64, any: u64) -> Option<u64> {
        let n_keys = (self.n_rows() / 2).max(1);
        let any = any % n_keys;
        let key = match self.kind {
            Kind::Narrow if seq % 64 == 7 => return None,
            Kind::Equal => 0,
            Kind::Sorted => seq / 2,
            Kind::Reverse => (self.n_rows() - 1 - seq) / 2,
            Kind::Adjacent if is_wide(seq) => n_keys / 2 + any,
            Kind::Adjacent if any >= n_keys / 2 => any + n_keys,
            _ => any,
        };
        Some(key)
    }

    fn pad_len(self, seq: u64) -> usize {
        match self.kind {
            Kind::Wide2k => 2500 - 45,
            Kind::Wide100k => WIDE_LEN,
            Kind::Spread | Kind::Adjacent if is_wide(seq) => WIDE_LEN,
            _ => NARROW_LEN,
        }
    }

    /// How many rows the other side of a join has: a quarter of the bytes.
    pub(super) fn n_side_rows(self) -> u64 {
        (self.n_bytes / 4 / 250).max(2)
    }

    /// The other side of a join.
    pub(super) fn side_rows(self) -> impl Iterator<Item = SideRow> {
        (0..self.n_side_rows()).map(side_row)
    }

    /// Its NDJSON, made if it is not there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn ndjson(self, folder: &Path) -> Result<PathBuf> {
        made(folder.join(format!("{}.ndjson", self.stem())), |part| write_lines(part, self.rows()))
    }

    /// The NDJSON of the other side, made if it is not there.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn side_ndjson(self, folder: &Path) -> Result<PathBuf> {
        made(folder.join(format!("{}.ndjson", self.side_stem())), |part| write_lines(part, self.side_rows()))
    }

    /// What its files are called.
    pub(super) fn stem(self) -> String {
        format!("v{VERSION}-{}-{}", self.n_bytes, self.kind.name())
    }

    /// What the files of the other side are called.
    pub(super) fn side_stem(self) -> String {
        format!("v{VERSION}-{}-side", self.n_bytes)
    }
}

/// Row `n` of the other side.
pub(super) fn side_row(n: u64) -> SideRow {
    let mut random = random(!n);
    SideRow { k: n / 2 * 2, word: word_of(n / 2), extra: hex(220, || random.next()) }
}

/// Makes a file if it is not there; one that was not finished is made again.
///
/// # Errors
/// `make` fails, or its file cannot be put in its place.
pub(super) fn made(path: PathBuf, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if !path.exists() {
        say(format_args!("making {}", path.display()));
        let part = path.with_extension("part");
        if let Some(folder) = path.parent() {
            text::make_dir(folder)?;
        }
        make(&part)?;
        fs::rename(&part, &path)?;
    }
    Ok(path)
}

fn write_lines(path: &Path, rows: impl Iterator<Item = impl Serialize>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("{}: cannot be made", path.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    for row in rows {
        serde_json::to_writer(&mut out, &row)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

fn is_wide(seq: u64) -> bool {
    seq % ONE_WIDE_OF == 37
}

fn word_of(n: u64) -> String {
    format!("word-{n:04}")
}

/// Evenly over `span` degrees around 0, in steps that every reader of decimals gets exactly.
fn degrees(n: u64, span: u32) -> f64 {
    let steps = u32::try_from(n % (u64::from(span) * 1024)).unwrap_or(0);
    f64::from(steps) / 1024.0 - f64::from(span) / 2.0
}

/// Text that hardly compresses.
fn hex(len: usize, mut next: impl FnMut() -> u64) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(len + 16);
    while text.len() < len {
        let bytes = next().to_be_bytes();
        for byte in bytes {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    text.truncate(len);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(kind: Kind, n_bytes: u64) -> Vec<Row> {
        Data { kind, n_bytes }.rows().collect()
    }

    #[test]
    fn each_kind_is_what_it_says() {
        let keys = |kind| rows(kind, 100_000).into_iter().map(|row| row.k).collect::<Vec<_>>();
        assert!(keys(Kind::Sorted).is_sorted() && keys(Kind::Reverse).is_sorted_by(|a, b| a >= b));
        assert!(keys(Kind::Equal).iter().all(|key| *key == Some(0)));
        assert_eq!(keys(Kind::Narrow).iter().filter(|key| key.is_none()).count(), 16);
        let mut words: Vec<_> = rows(Kind::Few, 100_000).into_iter().map(|row| row.word).collect();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 7);
    }

    #[test]
    fn wide_rows_are_one_in_a_hundred_and_adjacent_ones_have_their_own_keys() {
        let mut rows = rows(Kind::Adjacent, 3_300_000);
        rows.sort_by_key(|row| row.k);
        let wide: Vec<_> = rows.iter().map(|row| row.pad.len() == WIDE_LEN).collect();
        assert_eq!(wide.iter().filter(|wide| **wide).count(), 30);
        let first = wide.iter().position(|wide| *wide).unwrap();
        assert!(first > 0 && wide[first..first + 30].iter().all(|wide| *wide));
    }

    #[test]
    fn a_file_is_made_once_with_the_rows_of_its_seed() {
        let folder = tempfile::tempdir().unwrap();
        let data = Data { kind: Kind::Narrow, n_bytes: 10_000 };
        let written = text::read(&data.ndjson(folder.path()).unwrap()).unwrap();
        let read: Vec<Row> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(read.into_iter().eq(data.rows()));
        let side = text::read(&data.side_ndjson(folder.path()).unwrap()).unwrap();
        assert_eq!(side.lines().count() as u64, data.n_side_rows());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

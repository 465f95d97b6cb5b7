//! The judge of CI: makes the rows again and works out in plain code what a stage must give. It needs nothing that is
//! not in this program, and holds a few words a key: the kernel counts what this program ever took as a child's, too.

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::data::{Data, Kind, Row, SideRow, side_row};
use super::stage::{Stage, max_tile_rows};
use super::verdict::{Content, Expected, Output};

/// The longest line of an output: one of the widest rows.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// A row of any output. A column that is not among these is no column of ours.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Out {
    seq: Option<u64>,
    k: Option<u64>,
    word: Option<String>,
    lon: Option<f64>,
    lat: Option<f64>,
    pad: Option<String>,
    k_right: Option<u64>,
    word_right: Option<String>,
    extra: Option<String>,
    n: Option<u64>,
    total: Option<u64>,
    least: Option<String>,
    tile: Option<serde_json::Value>,
}

impl Out {
    /// Of all columns but the tile.
    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.seq, self.k, &self.word, self.lon.map(f64::to_bits), self.lat.map(f64::to_bits), &self.pad)
            .hash(&mut hasher);
        (self.k_right, &self.word_right, &self.extra, self.n, self.total, &self.least).hash(&mut hasher);
        hasher.finish()
    }
}

impl From<Row> for Out {
    fn from(row: Row) -> Self {
        let (seq, word, pad) = (Some(row.seq), Some(row.word), Some(row.pad));
        Self { seq, k: row.k, word, lon: Some(row.lon), lat: Some(row.lat), pad, ..Self::default() }
    }
}

/// Rows counted and their hashes added up.
#[derive(Debug, Default)]
struct Sums {
    n_rows: u64,
    plain: u64,
    squared: u64,
}

impl Sums {
    fn add(&mut self, row: &Out) {
        let hash = row.hash();
        self.n_rows += 1;
        self.plain = self.plain.wrapping_add(hash);
        self.squared = self.squared.wrapping_add(hash.wrapping_mul(hash | 1));
    }

    fn content(&self) -> Content {
        Content { n_rows: self.n_rows, sums: format!("{:x} {:x}", self.plain, self.squared) }
    }
}

/// What a stage must give for these data.
pub(super) fn expected(stage: Stage, data: Data) -> Expected {
    let mut sums = Sums::default();
    match stage {
        Stage::Sort | Stage::Tile => data.rows().for_each(|row| sums.add(&row.into())),
        Stage::Dedup => {
            for group in groups(data).values() {
                sums.add(&data.row(group.first).into());
            }
        }
        Stage::Aggregate => {
            for group in groups(data).values() {
                sums.add(&group.out(data));
            }
        }
        Stage::Join => data.rows().for_each(|row| {
            partners(data, &row).for_each(|side| sums.add(&joined(data.kind, &row, side)));
        }),
    }
    Expected {
        stage,
        columns: stage.columns(data.kind),
        content: sums.content(),
        max_tile_rows: max_tile_rows(data),
    }
}

/// The rows of one key. Of the one with the least text only its first sixteen digits are kept, which decide, and its
/// number.
#[derive(Debug)]
struct Group {
    first: u64,
    n: u64,
    total: u64,
    least: (u64, u64),
}

impl Group {
    fn out(&self, data: Data) -> Out {
        let (first, least) = (data.row(self.first), data.row(self.least.1));
        let (k, word) = if data.kind == Kind::Few { (None, Some(first.word)) } else { (first.k, None) };
        Out { k, word, n: Some(self.n), total: Some(self.total), least: Some(least.pad), ..Out::default() }
    }
}

fn groups(data: Data) -> BTreeMap<Option<u64>, Group> {
    let mut groups: BTreeMap<Option<u64>, Group> = BTreeMap::new();
    for row in data.rows() {
        let least = (u64::from_str_radix(&row.pad[..16], 16).unwrap_or(0), row.seq);
        let group =
            groups.entry(key(data.kind, &row)).or_insert(Group { first: row.seq, n: 0, total: 0, least });
        group.n += 1;
        group.total += row.seq;
        group.least = group.least.min(least);
    }
    groups
}

/// The key as a number, which has the order of the key.
fn key(kind: Kind, row: &Row) -> Option<u64> {
    match kind {
        Kind::Few => row.word.rsplit('-').next().and_then(|digits| digits.parse().ok()),
        _ => row.k,
    }
}

/// The rows of the other side with the key of this one: numbers `k` and `k + 1`, or `2 * n` and the next of word `n`.
fn partners(data: Data, row: &Row) -> impl Iterator<Item = SideRow> {
    let first = match (data.kind, key(data.kind, row)) {
        (Kind::Few, Some(word)) => Some(2 * word),
        (_, Some(k)) => (k % 2 == 0).then_some(k),
        (_, None) => None,
    };
    let n_rows = data.n_side_rows();
    first.into_iter().flat_map(|n| [n, n + 1]).filter(move |n| *n < n_rows).map(side_row)
}

/// With one key the other side is the left one, and the clash of `word` is named after the data's.
fn joined(kind: Kind, row: &Row, side: SideRow) -> Out {
    let mut out = Out { extra: Some(side.extra), ..Out::from(row.clone()) };
    match kind {
        Kind::Few => out.k_right = Some(side.k),
        Kind::Equal => out.word_right = out.word.replace(side.word),
        _ => out.word_right = Some(side.word),
    }
    out
}

/// What is in an output.
///
/// # Errors
/// It cannot be read, or a line is no row of ours.
pub(super) fn look(stage: Stage, kind: Kind, ndjson: &Path) -> Result<Output> {
    let file = File::open(ndjson).with_context(|| format!("{}: cannot be opened", ndjson.display()))?;
    let mut lines = BufReader::with_capacity(1 << 20, file);
    let (mut sums, mut order, mut tiles) =
        (Sums::default(), Order::default(), BTreeMap::<String, u64>::new());
    let (mut line, mut columns) = (Vec::new(), Vec::new());
    while next_line(&mut lines, &mut line)? {
        let row: Out = serde_json::from_slice(&line)
            .with_context(|| format!("line {} of the output is no row of ours", sums.n_rows + 1))?;
        if sums.n_rows == 0 {
            columns = names(&line)?;
        }
        if stage == Stage::Sort {
            order.add(kind, &row);
        }
        if let Some(tile) = &row.tile {
            *tiles.entry(tile.to_string()).or_default() += 1;
        }
        sums.add(&row);
    }
    Ok(Output {
        columns,
        content: sums.content(),
        n_misplaced: order.n_misplaced,
        n_tiles: tiles.len() as u64,
        largest_tile: tiles.values().copied().max().unwrap_or(0),
    })
}

fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    let n_read = lines.take(MAX_LINE_BYTES).read_until(b'\n', line)?;
    ensure!((n_read as u64) < MAX_LINE_BYTES, "a line of {MAX_LINE_BYTES} bytes or more");
    Ok(n_read > 0)
}

/// The names of a row in the order of its text.
fn names(line: &[u8]) -> Result<Vec<String>> {
    struct Names(Vec<String>);
    impl<'de> Deserialize<'de> for Names {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_map(Visitor)
        }
    }
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Names;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a row")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
            let mut names = Vec::new();
            while let Some((name, _)) = map.next_entry::<String, serde::de::IgnoredAny>()? {
                names.push(name);
            }
            Ok(Names(names))
        }
    }
    Ok(serde_json::from_slice::<Names>(line)?.0)
}

/// Whether keys go up, nulls last, and rows of one key keep the order in which they arrived.
#[derive(Debug, Default)]
struct Order {
    last: Option<Place>,
    n_misplaced: u64,
}

/// Whether the key is null, the key, and when the row arrived.
type Place = (bool, Option<u64>, Option<String>, Option<u64>);

impl Order {
    fn add(&mut self, kind: Kind, row: &Out) {
        let at = match kind {
            Kind::Few => (row.word.is_none(), None, row.word.clone(), row.seq),
            _ => (row.k.is_none(), row.k, None, row.seq),
        };
        self.n_misplaced += u64::from(self.last.as_ref().is_some_and(|last| *last >= at));
        self.last = Some(at);
    }
}

#[cfg(test)]
#[path = "oracle_tests.rs"]
mod tests;

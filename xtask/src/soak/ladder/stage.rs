//! The global stages of the ladder: each as a flow, and what an engine that knows SQL would say of the same.

use std::path::Path;

use super::data::{Data, Kind};

/// A stage that needs all of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// By the key, stable
    Sort,
    /// The first row of each key
    Dedup,
    /// With two rows for every other key; one key: two rows with all of them
    Join,
    /// Count, sum and least by key
    Aggregate,
    /// Fifty or more tiles
    Tile,
}

/// All of them.
pub(super) const STAGES: [Stage; 5] = [Stage::Sort, Stage::Dedup, Stage::Join, Stage::Aggregate, Stage::Tile];

/// The columns of the data, and of the other side of a join.
const COLUMNS: &[&str] = &["seq", "k", "word", "lon", "lat", "pad"];
const SIDE_COLUMNS: &[&str] = &["k", "word", "extra"];

/// The two files of a cell and how they are read.
#[derive(Debug)]
pub(super) struct Inputs<'a> {
    /// The data.
    pub(super) data: &'a Path,
    /// The other side of a join.
    pub(super) side: &'a Path,
    /// `parquet` or `ndjson`.
    pub(super) format: &'static str,
}

impl Stage {
    /// In a table and on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sort => "sort",
            Self::Dedup => "dedup",
            Self::Join => "join",
            Self::Aggregate => "aggregate",
            Self::Tile => "tile",
        }
    }

    /// The flow that runs it. Spill goes to `spill`, the output to `out.FORMAT`, both beside the flow.
    pub(super) fn flow(self, data: Data, memory: &str, inputs: &Inputs<'_>) -> String {
        let (left, _) = self.sides(data.kind, inputs.data, inputs.side);
        let (source, format) = (source(left, inputs.format), inputs.format);
        format!(
            "name: ladder\nmemory: {memory}\nexecution: {{ spill: {{ dir: spill }} }}\n\
             source: {source}\nstages:\n  - {}\n\
             sink: {{ {format}: {{ path: out.{format} }} }}\n",
            self.stage(data, inputs)
        )
    }

    fn stage(self, data: Data, inputs: &Inputs<'_>) -> String {
        let key = data.kind.key();
        match self {
            Self::Sort => format!("sort: {{ by: [\"{key} nulls last\"] }}"),
            Self::Dedup => format!("dedup: {{ keys: [{key}], keep: first }}"),
            Self::Join => {
                let (_, right) = self.sides(data.kind, inputs.data, inputs.side);
                format!("join: {{ with: {}, on: [{key}], how: inner }}", source(right, inputs.format))
            }
            Self::Aggregate => format!(
                "aggregate: {{ by: [{key}], columns: {{ n: \"count(*)\", total: \"sum(seq)\", least: \"min(pad)\" }} }}"
            ),
            Self::Tile => format!("tile: {{ lon: lon, lat: lat, max_rows: {} }}", max_tile_rows(data)),
        }
    }

    /// Left and right of a join. With one key the data are on the right, so that a group larger than the memory meets
    /// each of the left rows.
    fn sides<T>(self, kind: Kind, data: T, side: T) -> (T, T) {
        if self == Self::Join && kind == Kind::Equal { (side, data) } else { (data, side) }
    }

    /// The columns that come out; a tile has one more.
    pub(super) fn columns(self, kind: Kind) -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Sort | Self::Dedup | Self::Tile => owned(COLUMNS),
            Self::Aggregate => owned(&[kind.key(), "n", "total", "least"]),
            Self::Join => {
                let (left, right) = self.sides(kind, COLUMNS, SIDE_COLUMNS);
                let added = right.iter().filter(|name| **name != kind.key()).map(|name| suffixed(left, name));
                owned(left).into_iter().chain(added).collect()
            }
        }
    }

    /// The right content as a query over two relations of DuckDB.
    pub(super) fn expected(self, kind: Kind, data: &str, side: &str) -> String {
        let key = kind.key();
        match self {
            Self::Sort | Self::Tile => format!("SELECT * FROM {data}"),
            Self::Dedup => {
                format!("SELECT * FROM {data} WHERE seq IN (SELECT min(seq) FROM {data} GROUP BY {key})")
            }
            Self::Aggregate => format!(
                "SELECT {key}, count(*)::BIGINT AS n, sum(seq)::BIGINT AS total, min(pad) AS least \
                 FROM {data} GROUP BY {key}"
            ),
            Self::Join => {
                let (left, right) = self.sides(kind, COLUMNS, SIDE_COLUMNS);
                let (left_data, right_data) = self.sides(kind, data, side);
                let added: Vec<String> = right
                    .iter()
                    .filter(|name| **name != key)
                    .map(|name| format!(", r.{name} AS {}", suffixed(left, name)))
                    .collect();
                format!(
                    "SELECT l.*{} FROM {left_data} l JOIN {right_data} r ON l.{key} = r.{key}",
                    added.concat()
                )
            }
        }
    }
}

/// The most rows that a tile of these data may have.
pub(super) fn max_tile_rows(data: Data) -> u64 {
    (data.n_rows() / 50).max(1)
}

fn source(path: &Path, format: &str) -> String {
    format!("{{ files: {{ paths: [\"{}\"], format: {format}, order: listed }} }}", path.display())
}

fn suffixed(left: &[&str], name: &str) -> String {
    if left.contains(&name) { format!("{name}_right") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_names_clashing_columns_and_swaps_its_sides_for_one_key() {
        let narrow = Stage::Join.columns(Kind::Narrow).join(" ");
        assert_eq!(narrow, "seq k word lon lat pad word_right extra");
        assert_eq!(Stage::Join.columns(Kind::Few).join(" "), "seq k word lon lat pad k_right extra");
        assert_eq!(Stage::Join.columns(Kind::Equal).join(" "), "k word extra seq word_right lon lat pad");
    }

    #[test]
    fn a_flow_reads_both_sides_within_its_memory() {
        let inputs = Inputs { data: Path::new("d.ndjson"), side: Path::new("s.ndjson"), format: "ndjson" };
        let data = Data { kind: Kind::Few, n_bytes: 1_000_000 };
        let flow = Stage::Join.flow(data, "64MB", &inputs);
        for part in ["memory: 64MB", "d.ndjson", "s.ndjson", "on: [word]", "path: out.ndjson"] {
            assert!(flow.contains(part), "{part} in {flow}");
        }
    }
}

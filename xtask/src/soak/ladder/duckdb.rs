//! The judge of the whole ladder: DuckDB without a limit of memory, over the same Parquet files. What it expects of a
//! stage and its data is worked out once and kept beside the data.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::data::{Data, Kind, made};
use super::stage::{STAGES, Stage, max_tile_rows};
use super::verdict::{Content, Expected, Output};
use crate::measure::measure;
use crate::process::command;
use crate::text;

const ASK: &str = include_str!("ask.py");

/// About how large a row group of an input is in memory, and how many rows it has at least: DuckDB's own vector.
const ROW_GROUP_BYTES: u64 = 16_000_000;
const MIN_ROW_GROUP_ROWS: u64 = 2048;

/// DuckDB in the peers' Python.
#[derive(Debug)]
pub(super) struct Duckdb {
    /// That Python.
    pub(super) python: PathBuf,
    /// Inputs and what is expected of them, kept between runs.
    pub(super) folder: PathBuf,
}

impl Duckdb {
    /// The rows that the last of these queries gives.
    ///
    /// # Errors
    /// One of them fails.
    pub(super) fn ask(&self, queries: &[String]) -> Result<Vec<Vec<String>>> {
        let mut run = command(&self.python, &self.folder);
        let done = measure(run.args(["-c", ASK]).arg(self.folder.join("duckdb-spill")).args(queries))?;
        ensure!(done.status.success(), "duckdb: {}", done.last_line());
        Ok(done.told.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// Both inputs as Parquet, made if they are not there.
    ///
    /// # Errors
    /// They cannot be written.
    pub(super) fn inputs(&self, data: Data) -> Result<(PathBuf, PathBuf)> {
        let columns =
            "{seq: 'BIGINT', k: 'BIGINT', word: 'VARCHAR', lon: 'DOUBLE', lat: 'DOUBLE', pad: 'VARCHAR'}";
        let n_group_rows = ROW_GROUP_BYTES / (data.n_bytes / data.n_rows()).max(1);
        let path = made(self.folder.join(format!("{}.parquet", data.stem())), |part| {
            self.convert(&data.ndjson(&self.folder)?, columns, n_group_rows, part)
        })?;
        let columns = "{k: 'BIGINT', word: 'VARCHAR', extra: 'VARCHAR'}";
        let side = made(self.folder.join(format!("{}.parquet", data.side_stem())), |part| {
            self.convert(&data.side_ndjson(&self.folder)?, columns, ROW_GROUP_BYTES / 250, part)
        })?;
        Ok((path, side))
    }

    fn convert(&self, ndjson: &Path, columns: &str, n_group_rows: u64, parquet: &Path) -> Result<()> {
        let n_group_rows = n_group_rows.max(MIN_ROW_GROUP_ROWS);
        self.ask(&[format!(
            "COPY (SELECT * FROM read_json('{}', format = 'newline_delimited', columns = {columns})) \
             TO '{}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {n_group_rows})",
            ndjson.display(),
            parquet.display()
        )])?;
        Ok(std::fs::remove_file(ndjson)?)
    }

    /// What a stage must give for these data.
    ///
    /// # Errors
    /// DuckDB fails.
    pub(super) fn expected(&self, stage: Stage, data: Data) -> Result<Expected> {
        let columns = stage.columns(data.kind);
        let known = made(self.folder.join(format!("{}-{}.expected", data.stem(), stage.name())), |part| {
            let (path, side) = self.inputs(data)?;
            let query = stage.expected(data.kind, &relation(&path), &relation(&side));
            let found = self.ask(&[fingerprint(&columns, &format!("({query})"))])?;
            text::write(part, &single(&found)?.join("\t"))
        })?;
        let content = content(&text::read(&known)?.split('\t').map(str::to_owned).collect::<Vec<_>>())?;
        Ok(Expected { stage, columns, content, max_tile_rows: max_tile_rows(data) })
    }

    /// The numbers of the rows in the order that DuckDB gives them.
    fn order(&self, data: Data) -> Result<PathBuf> {
        made(self.folder.join(format!("{}.order.parquet", data.stem())), |part| {
            let (path, _) = self.inputs(data)?;
            let (key, path) = (data.kind.key(), relation(&path));
            let order = format!("SELECT seq FROM {path} ORDER BY {key} NULLS LAST, seq");
            self.ask(&[format!("COPY ({order}) TO '{}' (FORMAT parquet)", part.display())]).map(drop)
        })
    }

    /// What is in an output.
    ///
    /// # Errors
    /// DuckDB cannot read it.
    pub(super) fn look(&self, stage: Stage, data: Data, parquet: &Path) -> Result<Output> {
        let out = relation(parquet);
        let described = self.ask(&[format!("DESCRIBE SELECT * FROM {out}")])?;
        let columns: Vec<_> = described.into_iter().filter_map(|row| row.into_iter().next()).collect();
        let expected = stage.columns(data.kind);
        if columns.get(..expected.len()) != Some(&expected[..]) {
            return Ok(Output { columns, ..Output::default() });
        }
        let content = content(single(&self.ask(&[fingerprint(&expected, &out)])?)?)?;
        let mut output = Output { columns, content, ..Output::default() };
        match (stage, output.columns.get(expected.len())) {
            (Stage::Sort, _) => output.n_misplaced = self.misplaced(data, &out)?,
            (Stage::Tile, Some(tile)) => (output.n_tiles, output.largest_tile) = self.tiles(tile, &out)?,
            _ => {}
        }
        Ok(output)
    }

    fn misplaced(&self, data: Data, out: &str) -> Result<u64> {
        let order = relation(&self.order(data)?);
        let found = self.ask(&[format!(
            "SELECT count(*) FROM (SELECT seq FROM {order}) a POSITIONAL JOIN (SELECT seq FROM {out}) b \
             WHERE a.seq IS DISTINCT FROM b.seq"
        )])?;
        number(single(&found)?, 0)
    }

    fn tiles(&self, tile: &str, out: &str) -> Result<(u64, u64)> {
        let tiles = format!("SELECT count(*) AS n FROM {out} GROUP BY \"{tile}\"");
        let found = self.ask(&[format!("SELECT count(*), coalesce(max(n), 0) FROM ({tiles})")])?;
        let row = single(&found)?;
        Ok((number(row, 0)?, number(row, 1)?))
    }

    /// Tries the judge itself, before hours are built on it: what DuckDB itself makes must pass, and each damage to it
    /// must be told.
    ///
    /// # Errors
    /// The judge is wrong.
    pub(super) fn try_itself(&self, scratch: &Path) -> Result<()> {
        let out = scratch.join("judge.parquet");
        for kind in [Kind::Narrow, Kind::Few, Kind::Equal] {
            let data = Data { kind, n_bytes: 100_000 };
            for stage in STAGES {
                let expected = self.expected(stage, data)?;
                for (damage, query) in self.trials(stage, data)? {
                    self.ask(&[format!("COPY ({query}) TO '{}' (FORMAT parquet)", out.display())])?;
                    match (damage, expected.wrong(&self.look(stage, data, &out)?)) {
                        ("none", Some(wrong)) => {
                            bail!("the judge refuses a right {stage:?} of {kind:?}: {wrong}")
                        }
                        ("none", None) | (_, Some(_)) => {}
                        (damage, None) => bail!("the judge of {stage:?} of {kind:?} does not see: {damage}"),
                    }
                }
            }
        }
        Ok(())
    }

    /// A right output, and the same damaged, by name.
    fn trials(&self, stage: Stage, data: Data) -> Result<Vec<(&'static str, String)>> {
        let (path, side) = self.inputs(data)?;
        let right = stage.expected(data.kind, &relation(&path), &relation(&side));
        let max_rows = max_tile_rows(data);
        let right = match stage {
            Stage::Sort => format!("{right} ORDER BY {} NULLS LAST, seq", data.kind.key()),
            Stage::Tile => format!("SELECT *, seq // {max_rows} AS tile FROM ({right}) ORDER BY seq"),
            _ => right,
        };
        let text = if stage == Stage::Aggregate { "least" } else { "pad" };
        let mut trials = vec![
            ("none", right.clone()),
            ("a lost row", format!("SELECT * FROM ({right}) OFFSET 1")),
            ("a doubled row", format!("SELECT * FROM ({right}) UNION ALL (SELECT * FROM ({right}) LIMIT 1)")),
            ("a changed text", format!("SELECT * REPLACE (left({text}, 9) AS {text}) FROM ({right})")),
            ("a column too many", format!("SELECT *, 1 AS more, 2 AS most FROM ({right})")),
        ];
        match stage {
            Stage::Sort => {
                let key = data.kind.key();
                let unstable =
                    format!("SELECT * FROM {} ORDER BY {key} NULLS LAST, seq DESC", relation(&path));
                trials.push(("an order that is not stable", unstable));
            }
            Stage::Tile => {
                trials.push(("one tile", format!("SELECT * REPLACE (1 AS tile) FROM ({right})")));
            }
            _ => {}
        }
        Ok(trials)
    }
}

fn relation(parquet: &Path) -> String {
    format!("read_parquet('{}')", parquet.display())
}

/// A count and two sums over the hashes. Whole numbers are made alike first: engines count in types of their own.
fn fingerprint(columns: &[String], relation: &str) -> String {
    let alike = |name: &String| match name.as_str() {
        "n" | "total" => format!("{name}::BIGINT"),
        _ => name.clone(),
    };
    let hash = format!("hash({})", columns.iter().map(alike).collect::<Vec<_>>().join(", "));
    format!(
        "SELECT count(*), coalesce(sum({hash}::HUGEINT), 0), coalesce(sum(hash({hash}, 1)::HUGEINT), 0) \
         FROM {relation}"
    )
}

fn single(rows: &[Vec<String>]) -> Result<&[String]> {
    let [row] = rows else { bail!("duckdb gave {} rows instead of one", rows.len()) };
    Ok(row)
}

fn number(row: &[String], n: usize) -> Result<u64> {
    let text = row.get(n).context("duckdb gave too few columns")?;
    text.parse().with_context(|| format!("`{text}` is no count"))
}

fn content(row: &[String]) -> Result<Content> {
    Ok(Content { n_rows: number(row, 0)?, sums: row.get(1..).unwrap_or_default().join(" ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_row_of_numbers() {
        let row = ["3", "17", "-4"].map(str::to_owned).to_vec();
        assert_eq!(content(&row).unwrap(), Content { n_rows: 3, sums: "17 -4".into() });
        assert!(content(&["three".to_owned()]).is_err());
        assert!(single(&[row.clone(), row]).is_err());
    }
}

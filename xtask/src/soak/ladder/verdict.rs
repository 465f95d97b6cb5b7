//! What a judge found in an output, and whether that is right. How it was found, with DuckDB or by making the rows
//! again, is no matter here.

use super::stage::Stage;

/// A number of rows and two sums over their hashes: equal for the same rows in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// How many.
    pub(super) n_rows: u64,
    /// The sums, as the judge writes them.
    pub(super) sums: String,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Output {
    /// The columns, in order.
    pub(super) columns: Vec<String>,
    /// The rows, without a tile's column.
    pub(super) content: Content,
    /// Rows of a sort that are not where they belong.
    pub(super) n_misplaced: u64,
    /// Tiles.
    pub(super) n_tiles: u64,
    /// Rows of the largest one.
    pub(super) largest_tile: u64,
}

/// What should have come out.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    /// Which stage made it.
    pub(super) stage: Stage,
    /// The columns, in order; a tile has one more.
    pub(super) columns: Vec<String>,
    /// The rows.
    pub(super) content: Content,
    /// The most rows that a tile may have.
    pub(super) max_tile_rows: u64,
}

/// So many times as many tiles as full ones would make are too many.
const MAX_TIMES_THE_TILES: u64 = 10;

impl Expected {
    /// What is wrong with an output.
    pub(super) fn wrong(&self, output: &Output) -> Option<String> {
        self.wrong_columns(output).or_else(|| self.wrong_rows(output)).or_else(|| match self.stage {
            Stage::Sort => {
                (output.n_misplaced > 0).then(|| format!("{} rows are out of place", output.n_misplaced))
            }
            Stage::Tile => self.wrong_tiles(output),
            _ => None,
        })
    }

    fn wrong_columns(&self, output: &Output) -> Option<String> {
        let n_added = usize::from(self.stage == Stage::Tile);
        let is_right = output.columns.len() == self.columns.len() + n_added
            && output.columns.iter().zip(&self.columns).all(|(is, wanted)| is == wanted);
        (!is_right)
            .then(|| format!("columns {:?}, not {:?} and {n_added} more", output.columns, self.columns))
    }

    fn wrong_rows(&self, output: &Output) -> Option<String> {
        let (is, wanted) = (&output.content, &self.content);
        if is.n_rows != wanted.n_rows {
            return Some(format!("{} rows, not {}", is.n_rows, wanted.n_rows));
        }
        (is != wanted).then(|| format!("{} rows as it should be, but not the same ones", is.n_rows))
    }

    fn wrong_tiles(&self, output: &Output) -> Option<String> {
        if output.largest_tile > self.max_tile_rows {
            return Some(format!("a tile of {} rows, more than {}", output.largest_tile, self.max_tile_rows));
        }
        let at_most = MAX_TIMES_THE_TILES * self.content.n_rows.div_ceil(self.max_tile_rows);
        (output.n_tiles > at_most).then(|| format!("{} tiles, more than {at_most}", output.n_tiles))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(stage: Stage) -> Expected {
        let content = Content { n_rows: 100, sums: "7".into() };
        Expected { stage, columns: vec!["a".into()], content, max_tile_rows: 10 }
    }

    fn right(stage: Stage) -> Output {
        let mut columns = vec!["a".to_owned()];
        columns.extend((stage == Stage::Tile).then(|| "tile".to_owned()));
        let content = expected(stage).content;
        Output { columns, content, n_misplaced: 0, n_tiles: 12, largest_tile: 10 }
    }

    #[test]
    fn what_is_right_passes() {
        for stage in super::super::stage::STAGES {
            assert_eq!(expected(stage).wrong(&right(stage)), None);
        }
    }

    #[test]
    fn each_fault_is_told() {
        let wrong = |stage, damage: fn(&mut Output)| {
            let mut output = right(stage);
            damage(&mut output);
            expected(stage).wrong(&output).unwrap()
        };
        assert!(wrong(Stage::Sort, |it| it.n_misplaced = 1).contains("out of place"));
        assert!(wrong(Stage::Dedup, |it| it.content.n_rows = 99).contains("99 rows, not 100"));
        assert!(wrong(Stage::Join, |it| it.content.sums = "8".into()).contains("not the same ones"));
        assert!(wrong(Stage::Aggregate, |it| it.columns.push("b".into())).contains("columns"));
        assert!(wrong(Stage::Tile, |it| it.largest_tile = 11).contains("a tile of 11 rows"));
        assert!(wrong(Stage::Tile, |it| it.n_tiles = 101).contains("101 tiles"));
        assert!(wrong(Stage::Tile, |it| it.columns.truncate(1)).contains("columns"));
    }
}

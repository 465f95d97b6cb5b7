//! Which tile a place belongs to: a quadtree over counted cells, in the order of the curve.
//!
//! Children of a node follow each other on a Hilbert curve, so a node is a range of cells.

use aqueduct_primitives::ByteCount;
use arrow::array::{Array, UInt64Array};

/// Rows are counted in cells of 360/256 by 180/256 degrees; in a cell of more than a tile's rows the curve itself
/// divides them.
const DEPTH: u32 = 8;
const N_CELLS: usize = 1 << (2 * DEPTH);

/// The rows of each cell.
pub(super) struct Cells {
    n_rows: Vec<u64>,
}

impl Default for Cells {
    fn default() -> Self {
        Self { n_rows: vec![0; N_CELLS] }
    }
}

impl Cells {
    /// What the counts take, and the tiles made of them.
    pub(super) const MEMORY: ByteCount = ByteCount::kib(1024);

    /// Counts rows by their places on the curve; those without one are in no cell.
    pub(super) fn count(&mut self, places: &UInt64Array) {
        places.iter().flatten().for_each(|place| self.n_rows[cell_of(place)] += 1);
    }

    /// Divides the cells into tiles of at most so many rows, as far as cells can.
    pub(super) fn tiles(self, max_rows: u64) -> Tiles {
        let mut ends = Vec::new();
        self.divide(0..N_CELLS, max_rows, &mut ends);
        ends.push(N_CELLS);
        Tiles { ends, max_rows, at: 0, is_begun: false, number: -1, n_rows: 0 }
    }

    fn sum(&self, cells: std::ops::Range<usize>) -> u64 {
        self.n_rows[cells].iter().sum()
    }

    /// Adds where tiles of a node end. Children of few rows that follow each other are one tile.
    fn divide(&self, node: std::ops::Range<usize>, max_rows: u64, ends: &mut Vec<usize>) {
        if node.len() == 1 || self.sum(node.clone()) <= max_rows {
            ends.push(node.end);
            return;
        }
        let quarter = node.len() / 4;
        let mut n_rows = 0;
        for from in (node.start..node.end).step_by(quarter) {
            let child = from..from + quarter;
            let more = self.sum(child.clone());
            if n_rows > 0 && n_rows + more > max_rows {
                ends.push(from);
                n_rows = 0;
            }
            if more > max_rows {
                self.divide(child, max_rows, ends);
            } else {
                n_rows += more;
            }
        }
        if ends.last() != Some(&node.end) {
            ends.push(node.end);
        }
    }
}

/// The cell of a place on the curve.
fn cell_of(place: u64) -> usize {
    usize::try_from(place >> (u64::BITS - 2 * DEPTH)).unwrap_or(N_CELLS - 1)
}

/// Numbers tiles while rows come in the order of the curve.
pub(super) struct Tiles {
    /// Behind which cells tiles end, ascending.
    ends: Vec<usize>,
    max_rows: u64,
    /// The tile's place among the ends; behind the last one are the rows without a place.
    at: usize,
    is_begun: bool,
    number: i64,
    n_rows: u64,
}

impl Tiles {
    /// Of rows from one on: the number of its tile, how many rows are in the same, and whether the tile begins here.
    pub(super) fn next(&mut self, places: &UInt64Array, from: usize) -> (i64, usize, bool) {
        let at = self.place(places, from);
        let is_new = !self.is_begun || at != self.at || self.n_rows == self.max_rows;
        if is_new {
            (self.at, self.is_begun, self.n_rows) = (at, true, 0);
            self.number += 1;
        }
        let most = usize::try_from(self.max_rows - self.n_rows).unwrap_or(usize::MAX);
        let same = (from..places.len()).take(most).take_while(|row| self.place(places, *row) == at);
        let n_rows = same.count();
        self.n_rows += n_rows as u64;
        (self.number, n_rows, is_new)
    }

    fn place(&self, places: &UInt64Array, row: usize) -> usize {
        if places.is_null(row) {
            return self.ends.len();
        }
        let cell = cell_of(places.value(row));
        // Rows come in order: mostly it is the tile of the row before.
        let after = self.ends[self.at.min(self.ends.len())..].iter().take_while(|end| **end <= cell).count();
        self.at.min(self.ends.len()) + after
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tiles_of(mut places: Vec<Option<u64>>, max_rows: u64) -> Vec<(i64, usize, bool)> {
        places.sort_by_key(|place| (place.is_none(), *place));
        let places = UInt64Array::from(places);
        let mut cells = Cells::default();
        cells.count(&places);
        let mut tiles = cells.tiles(max_rows);
        let (mut from, mut all) = (0, Vec::new());
        while from < places.len() {
            all.push(tiles.next(&places, from));
            from += all.last().unwrap().1;
        }
        all
    }

    #[test]
    fn a_full_cell_is_divided_and_sparse_neighbours_are_one_tile() {
        let quarter = 1_u64 << 62;
        // Three rows in the first quarter, one in each of the others.
        let places = [0, 1, 2, quarter, 2 * quarter, 3 * quarter].map(Some).to_vec();
        assert_eq!(tiles_of(places, 3), [(0, 3, true), (1, 3, true)]);
    }

    #[test]
    fn rows_at_one_place_are_divided_all_the_same_and_those_without_come_last() {
        let places = [Some(7); 5].into_iter().chain([None, None]).collect();
        assert_eq!(tiles_of(places, 2), [(0, 2, true), (1, 2, true), (2, 1, true), (3, 2, true)]);
    }

    proptest! {
        // S3.5
        #[test]
        fn no_tile_has_too_many_rows_and_numbers_ascend(
            places in prop::collection::vec(prop::option::of(any::<u64>()), 1..500), max_rows in 1_u64..60,
        ) {
            let n_rows = places.len();
            let tiles = tiles_of(places, max_rows);
            prop_assert_eq!(tiles.iter().map(|tile| tile.1).sum::<usize>(), n_rows);
            prop_assert!(tiles.iter().all(|tile| tile.2 && tile.1 as u64 <= max_rows));
            prop_assert!(tiles.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
        }
    }
}

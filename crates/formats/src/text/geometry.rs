//! Values of items of STAC that are neither scalars, lists nor structs: geometries, and their boxes.

use super::column::{Fields, Runs, Values};
use super::fill::{Filling, Path, close};
use super::json::{Json, Kind};
use super::value::{BadValue, float, shown};
use crate::geo::{Wkb, to_wkb};

type Result<T> = std::result::Result<T, BadValue>;

/// Numbers of a box with heights: west, south, lowest, east, north, highest.
const MOST_NUMBERS: usize = 6;

/// Adds the object of GeoJSON that comes next, as WKB.
pub(super) fn fill_geometry(
    runs: &mut Runs,
    json: &mut Json<'_>,
    filling: &mut Filling,
    depth: usize,
    path: &Path<'_>,
) -> Result<()> {
    let start = runs.bytes.len();
    let wkb = Wkb { max_bytes: filling.bytes_left(), out: &mut runs.bytes };
    let is_of_item = path.outer.is_none() && path.name == "geometry";
    let outermost = depth;
    let mut other = |key: &[u8], json: &mut Json<'_>, depth: usize| match key {
        b"bbox" if is_of_item && depth == outermost && filling.box_of_geometry.is_none() => {
            filling.box_of_geometry = Some(json.skip_value(depth)?.to_vec());
            Ok(())
        }
        key => filling.new_field(Some(path), key, json, depth),
    };
    to_wkb(json, depth, wkb, &mut other)?;
    filling.weigh(runs.bytes.len() - start)?;
    close(runs)
}

/// Adds the list of 4 or 6 numbers that comes next, each in its field. Without heights those are null.
pub(super) fn fill_bbox(fields: &mut Fields, json: &mut Json<'_>, depth: usize) -> Result<()> {
    let (numbers, n) = numbers(json, depth)?;
    let values = match (n, fields.columns.len()) {
        (4, 4) => [Some(0), Some(1), Some(2), Some(3), None, None],
        (4, MOST_NUMBERS) => [Some(0), Some(1), None, Some(2), Some(3), None],
        (MOST_NUMBERS, MOST_NUMBERS) => [0, 1, 2, 3, 4, 5].map(Some),
        (_, n_fields) => return Err(wrong_box(n, n_fields)),
    };
    for (column, at) in fields.columns.iter_mut().zip(values) {
        match (&mut column.values, at.and_then(|at: usize| numbers.get(at))) {
            (Values::Float(values), Some(number)) => {
                values.push(*number);
                column.added();
            }
            _ => column.push_null(),
        }
    }
    Ok(())
}

/// The numbers of a list, and how many there are.
fn numbers(json: &mut Json<'_>, depth: usize) -> Result<([f64; MOST_NUMBERS], usize)> {
    let (mut numbers, mut n) = ([0.0; MOST_NUMBERS], 0);
    json.enter(depth)?;
    if json.eat(b']') {
        return Ok((numbers, n));
    }
    loop {
        let kind = json.kind()?;
        if kind != Kind::Number {
            return Err(BadValue::new("type", format!("found {}, expected numbers only", kind.name())));
        }
        let text = json.number()?;
        let no_float = || BadValue::new("type", format!("the number {} is no float64", shown(text)));
        let number = float(text).ok_or_else(no_float)?;
        if let Some(place) = numbers.get_mut(n) {
            *place = number;
        }
        n += 1;
        if !json.another(b']')? {
            return Ok((numbers, n));
        }
    }
}

#[cold]
fn wrong_box(n: usize, n_fields: usize) -> BadValue {
    let message = match (n, n_fields) {
        (MOST_NUMBERS, _) => "found 6 numbers, expected 4, as the items that the columns were taken from have them; \
                              have more looked at with `infer_rows`, or declare `bbox` with `zmin` and `zmax` in `schema`"
            .to_owned(),
        _ => format!("found {n} numbers, expected 4, or 6 with heights"),
    };
    BadValue::new("type", message)
}

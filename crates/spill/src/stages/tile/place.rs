//! Where a row is, as a place on a Hilbert curve over the degrees of longitude and latitude.

use aqueduct_core::{Error, ErrorKind, Problem, Result, find_column};
use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema};

use super::bounds::middle_of_wkb;

/// How rows say where they are.
pub(super) enum Places {
    /// Two columns of degrees: longitude, latitude.
    Degrees(usize, usize),
    /// One of WKB.
    Wkb(usize),
}

impl Places {
    pub(super) fn of_degrees(schema: &Schema, lon: &str, lat: &str) -> Result<Self, Vec<Problem>> {
        let find = |name, pointer| {
            let column = find_column(schema, name, pointer)?;
            let kind = schema.field(column).data_type();
            match kind.is_numeric() {
                true => Ok(column),
                false => Err(Problem::at(pointer, format!("`{name}` is {kind}; expected numbers"))),
            }
        };
        match (find(lon, "/lon"), find(lat, "/lat")) {
            (Ok(lon), Ok(lat)) => Ok(Self::Degrees(lon, lat)),
            (lon, lat) => Err([lon.err(), lat.err()].into_iter().flatten().collect()),
        }
    }

    pub(super) fn of_wkb(schema: &Schema, geometry: &str) -> Result<Self, Vec<Problem>> {
        let pointer = "/geometry";
        let column = find_column(schema, geometry, pointer).map_err(|problem| vec![problem])?;
        match schema.field(column).data_type() {
            DataType::Binary | DataType::LargeBinary => Ok(Self::Wkb(column)),
            kind => Err(vec![Problem::at(pointer, format!("`{geometry}` is {kind}; expected WKB, binary"))]),
        }
    }

    /// The place of each row; none where it has none.
    pub(super) fn on_curve(&self, records: &RecordBatch) -> Result<UInt64Array> {
        match self {
            Self::Degrees(lon, lat) => {
                let degrees = |at: &usize| {
                    cast(records.column(*at), &DataType::Float64).map_err(|error| {
                        Error::new(ErrorKind::Data, "tile", "degrees are no numbers").with_source(error)
                    })
                };
                let (lon, lat): (ArrayRef, ArrayRef) = (degrees(lon)?, degrees(lat)?);
                let pairs = lon.as_primitive::<Float64Type>().iter().zip(lat.as_primitive::<Float64Type>());
                Ok(pairs.map(|(lon, lat)| on_curve(lon?, lat?)).collect())
            }
            Self::Wkb(at) => {
                let geometries = cast(records.column(*at), &DataType::LargeBinary)
                    .map_err(|error| Error::bug("tile", "geometries are not binary").with_source(error))?;
                let middle =
                    |wkb: Option<&[u8]>| middle_of_wkb(wkb?).and_then(|(lon, lat)| on_curve(lon, lat));
                Ok(geometries.as_binary::<i64>().iter().map(middle).collect())
            }
        }
    }
}

/// The curve has 2^32 places along each side.
const ORDER: u8 = 32;

/// The place on the curve; none for what is no number. What lies outside the world is at its edge.
fn on_curve(lon: f64, lat: f64) -> Option<u64> {
    if !lon.is_finite() || !lat.is_finite() {
        return None;
    }
    let (x, y) = (of_range((lon + 180.0) / 360.0), of_range((lat + 90.0) / 180.0));
    Some(fast_hilbert::xy2h(x, y, ORDER))
}

/// A part of a whole in 2^32 steps.
#[expect(clippy::cast_possible_truncation, reason = "the number is in the range of u32")]
fn of_range(part: f64) -> u32 {
    (part.clamp(0.0, 1.0) * f64::from(u32::MAX)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_on_the_globe_are_near_on_the_curve_and_nowhere_is_nowhere() {
        let [a, b, c] = [(2.0, 48.0), (2.0001, 48.0), (-120.0, -40.0)].map(|(x, y)| on_curve(x, y).unwrap());
        assert!(a.abs_diff(b) < a.abs_diff(c));
        assert_eq!(on_curve(f64::NAN, 0.0), None);
        assert_eq!(on_curve(1e9, 0.0), on_curve(180.0, 0.0));
    }
}

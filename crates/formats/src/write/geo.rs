//! What GeoParquet 1.1 tells in the metadata of a file, gathered while its rows are written: in one pass.
//!
//! Memory: none to speak of, however many geometries there are.

use std::collections::BTreeSet;
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result};
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use serde_json::{Map, Value, json};

use crate::geo::wkb::{Bounds, Summary, summary};

/// The metadata's key.
pub(super) const KEY: &str = "geo";
const VERSION: &str = "1.1.0";

/// The columns of geometries in a GeoParquet file. All at the top level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeoColumns {
    /// The one that readers go by: WKB, binary, in degrees of longitude and latitude (OGC:CRS84).
    pub primary: String,
    /// The bounds of each of those geometries: a struct of `xmin`, `ymin`, `xmax`, `ymax`. Told only if a row has one if
    /// and only if it has a geometry, and none crosses the antimeridian, which is what the specification asks: whoever
    /// compares with the least `xmin` and the greatest `xmax` would pass over those.
    pub covering: Option<String>,
    /// Others, WKB, of which nobody knows the reference system.
    pub of_unknown_crs: Vec<String>,
}

impl GeoColumns {
    /// The columns as the specification wants them: where bounds may be missing, geometries may be, and the other way
    /// round. What the file that they come of told of itself is left behind: it is not true of this one.
    pub(super) fn optional(&self, schema: &SchemaRef) -> SchemaRef {
        let optional = |field: &Arc<Field>| {
            let is_ours = *field.name() == self.primary || Some(field.name()) == self.covering.as_ref();
            if is_ours { Arc::new(field.as_ref().clone().with_nullable(true)) } else { Arc::clone(field) }
        };
        Arc::new(Schema::new(schema.fields().iter().map(optional).collect::<Vec<_>>()))
    }
}

/// What was seen of a file's geometries.
pub(super) struct Seen {
    columns: GeoColumns,
    geometry: usize,
    covering: Option<usize>,
    n_rows: u64,
    types: BTreeSet<&'static str>,
    bounds: Option<Bounds>,
    /// Whether every geometry has its bounds beside it, and no row has bounds alone.
    is_covered: bool,
    /// Whether some bounds begin in the east and end in the west, as those do that cross the antimeridian.
    is_crossing: bool,
}

impl Seen {
    pub(super) fn new(columns: &GeoColumns, schema: &Schema) -> Result<Self> {
        let find = |name: &str| {
            schema.index_of(name).map_err(|error| {
                Error::new(ErrorKind::Config, "write", "there is no such column of geometries")
                    .with("column", name)
                    .with_source(error)
            })
        };
        Ok(Self {
            geometry: find(&columns.primary)?,
            covering: columns.covering.as_deref().map(find).transpose()?,
            columns: columns.clone(),
            n_rows: 0,
            types: BTreeSet::new(),
            bounds: None,
            is_covered: true,
            is_crossing: false,
        })
    }

    /// Looks at rows that are written.
    ///
    /// # Errors
    /// A geometry is none, or one that GeoParquet does not have.
    pub(super) fn see(&mut self, records: &RecordBatch) -> Result<()> {
        let geometries = records.column(self.geometry);
        for (row, wkb) in (self.n_rows..).zip(values(geometries)?) {
            if let Some(wkb) = wkb {
                let seen = checked(wkb).map_err(|error| self.at(error, row))?;
                self.types.insert(seen.geometry_type);
                self.bounds = [self.bounds, seen.bounds].into_iter().flatten().reduce(Bounds::union);
            }
        }
        self.n_rows += records.num_rows() as u64;
        self.covering.map_or(Ok(()), |covering| self.see_covering(geometries, records.column(covering)))
    }

    fn see_covering(&mut self, geometries: &ArrayRef, boxes: &ArrayRef) -> Result<()> {
        let [xmin, ymin, xmax, ymax] = ["xmin", "ymin", "xmax", "ymax"].map(|name| ordinates(boxes, name));
        let (xmin, xmax) = (xmin?, xmax?);
        let all = [&xmin, &ymin?, &xmax, &ymax?];
        for row in 0..boxes.len() {
            let has_box = boxes.is_valid(row) && all.iter().all(|ordinate| ordinate.is_valid(row));
            self.is_covered &= has_box == geometries.is_valid(row);
            self.is_crossing |= has_box && xmin.value(row) > xmax.value(row);
        }
        Ok(())
    }

    fn at(&self, error: Error, row: u64) -> Error {
        error.with("column", &self.columns.primary).with("row", row + 1)
    }

    /// The metadata, as JSON.
    pub(super) fn metadata(&self) -> String {
        let mut columns = Map::new();
        columns.insert(self.columns.primary.clone(), Value::Object(self.primary()));
        // Their coordinates are not comparable from row to row, so nothing is told of where they lie.
        let unknown = json!({"encoding": "WKB", "geometry_types": [], "crs": null});
        columns.extend(self.columns.of_unknown_crs.iter().map(|name| (name.clone(), unknown.clone())));
        json!({"version": VERSION, "primary_column": self.columns.primary, "columns": columns}).to_string()
    }

    /// Without `crs`, which means OGC:CRS84.
    fn primary(&self) -> Map<String, Value> {
        let mut told = Map::new();
        told.insert("encoding".into(), "WKB".into());
        told.insert("geometry_types".into(), self.types.iter().copied().collect());
        if let Some(bbox) = self.bbox() {
            told.insert("bbox".into(), bbox.into());
        }
        let may_prune = self.is_covered && !self.is_crossing;
        if let Some(covering) = self.columns.covering.as_ref().filter(|_| may_prune) {
            let path = |ordinate: &str| json!([covering, ordinate]);
            let paths = json!({
                "xmin": path("xmin"), "ymin": path("ymin"), "xmax": path("xmax"), "ymax": path("ymax"),
            });
            told.insert("covering".into(), json!({"bbox": paths}));
        }
        told
    }

    /// From the least to the greatest, so that whoever compares finds each geometry inside: one that crosses the
    /// antimeridian makes it the whole way round. None where JSON has no numbers for it.
    fn bbox(&self) -> Option<Vec<f64>> {
        let mut bounds = self.bounds?;
        if self.is_crossing {
            bounds.x = (bounds.x.0.min(-180.0), bounds.x.1.max(180.0));
        }
        let bbox = bounds.bbox();
        bbox.iter().all(|ordinate| ordinate.is_finite()).then_some(bbox)
    }
}

/// The geometries of a column, WKB, that a GeoParquet file cannot have: their rows, from 0, and what is wrong with each.
///
/// # Errors
/// The column is none of bytes.
pub fn wrong_geometries(geometries: &ArrayRef) -> Result<Vec<(usize, Error)>> {
    let wrong = |(row, wkb): (usize, Option<&[u8]>)| checked(wkb?).err().map(|error| (row, error));
    Ok(values(geometries)?.enumerate().filter_map(wrong).collect())
}

/// A geometry that GeoParquet has.
fn checked(wkb: &[u8]) -> Result<Summary> {
    let bad = |message: &str| Error::new(ErrorKind::Data, "write", message);
    let seen = summary(wkb).map_err(|error| {
        bad("a geometry is no well-known binary; filter such rows out, or write with the sink `parquet`")
            .with_source(error)
    })?;
    match seen.has_m {
        false => Ok(seen),
        true => {
            Err(bad("a geometry has measures (M), which GeoParquet 1.1 does not have; write with the sink \
                         `parquet`, or without them"))
        }
    }
}

fn values(geometries: &ArrayRef) -> Result<Box<dyn Iterator<Item = Option<&[u8]>> + '_>> {
    Ok(match geometries.data_type() {
        DataType::Binary => Box::new(geometries.as_binary::<i32>().iter()),
        DataType::LargeBinary => Box::new(geometries.as_binary::<i64>().iter()),
        DataType::BinaryView => Box::new(geometries.as_binary_view().iter()),
        kind => {
            let message = format!("geometries are {kind}; expected WKB, binary");
            return Err(Error::new(ErrorKind::Config, "write", message));
        }
    })
}

/// One of the four or six numbers of each row's bounds.
fn ordinates(boxes: &ArrayRef, name: &str) -> Result<Float64Array> {
    let missing = || Error::new(ErrorKind::Config, "write", "bounds lack an ordinate").with("field", name);
    let ordinates = boxes.as_struct_opt().and_then(|boxes| boxes.column_by_name(name)).ok_or_else(missing)?;
    let ordinates = cast(ordinates, &DataType::Float64).map_err(|error| missing().with_source(error))?;
    Ok(ordinates.as_primitive::<Float64Type>().clone())
}

#[cfg(test)]
mod tests;

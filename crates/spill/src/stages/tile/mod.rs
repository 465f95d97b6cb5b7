//! `tile`: gives every row the number of its tile, such that a tile's rows lie close together and are no more than
//! `max_rows`, and puts the rows in the order of their tiles. Sinks that write files begin a new one with each tile.
//!
//! Tiles are cells of a quadtree over the degrees of longitude and latitude, in the order of a Hilbert curve: a cell
//! of too many rows is divided in four, neighbours of few rows are one tile. Rows without a place come last.
//!
//! Memory: the step's share, from the first row to the last. What it does not hold goes to disk, sorted.

mod bounds;
mod cells;
mod place;

use std::num::NonZeroU64;
use std::sync::Arc;

use aqueduct_core::rows::copied;
use aqueduct_core::{
    BatchStream, ComponentInfo, Context, Error, Factory, Inputs, MemoryNeed, Planning, Problem, Result,
    Stage, StageConfig, only_input,
};
use aqueduct_primitives::ByteCount;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use schemars::JsonSchema;
use serde::Deserialize;

use self::cells::{Cells, Tiles};
use self::place::Places;
use super::sorted::{done, sort_inputs};
use super::{MIN_LEASE, WANTED_LEASE, spill_note};
use crate::beside::{Output, beside};
use crate::plain::bind_plain;
use crate::{SortKey, SortOrder};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "tile",
    summary: "Rows by place: tiles of at most so many rows that lie close together, each its own file",
    example: "tile: { lon: longitude, lat: latitude, max_rows: 100000 }",
});

/// The column that is added.
const TILE: &str = "tile";

/// Where rows are, and how many go into a tile.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The column of longitudes, in degrees. With `lat`, in the place of `geometry`.
    lon: Option<String>,
    /// The column of latitudes, in degrees.
    lat: Option<String>,
    /// A column of geometries as WKB, in degrees; the middle of its bounds counts. In the place of `lon` and `lat`.
    geometry: Option<String>,
    /// At most so many rows in a tile.
    max_rows: NonZeroU64,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match (&self.lon, &self.lat, &self.geometry) {
            (Some(_), Some(_), None) | (None, None, Some(_)) => Vec::new(),
            _ => vec![Problem::at("", "expected either `lon` and `lat`, or `geometry`")],
        }
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(MIN_LEASE, WANTED_LEASE)
    }

    fn spills(&self) -> bool {
        true
    }

    fn spill_note(&self, share: ByteCount) -> String {
        spill_note(share)
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = bind_plain(&*only_input(inputs)?)?;
        let places = match (&self.lon, &self.lat, &self.geometry) {
            (Some(lon), Some(lat), _) => Places::of_degrees(&input, lon, lat)?,
            (_, _, Some(geometry)) => Places::of_wkb(&input, geometry)?,
            _ => return Err(self.validate()),
        };
        if input.field_with_name(TILE).is_ok() {
            let message = format!("there is a column `{TILE}` already; rename or drop it before");
            return Err(vec![Problem::at("", message)]);
        }
        Ok(Box::new(Tile { input, places, max_rows: self.max_rows.get() }))
    }
}

struct Tile {
    input: SchemaRef,
    places: Places,
    max_rows: u64,
}

impl Stage for Tile {
    fn schema(&self) -> SchemaRef {
        with_column(&self.input, Field::new(TILE, DataType::Int64, false))
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        let (schema, n_inputs) = (self.schema(), inputs.len());
        beside(inputs, self.schema(), cx, move |mut desk| {
            desk.lease = desk.lease.saturating_sub(Cells::MEMORY);
            let mut cells = Cells::default();
            let keyed = with_column(&self.input, Field::new(KEY, DataType::UInt64, true));
            let key = SortKey {
                column: self.input.fields().len(),
                options: SortOptions { descending: false, nulls_first: false },
            };
            let order = SortOrder { keys: vec![key], ..SortOrder::default() };
            let mut sorted = sort_inputs(&mut desk, n_inputs, &self.input, &keyed, order, |records| {
                let keys = self.places.on_curve(&records)?;
                cells.count(&keys);
                with_values(&records, &keyed, Arc::new(keys))
            })?;
            let mut tiles = cells.tiles(self.max_rows);
            for records in &mut sorted {
                send(&records?, &mut tiles, &schema, &desk.out)?;
            }
            Ok(done(&sorted))
        })
    }
}

/// The place on the curve, while rows are sorted. No column of a file has such a name.
const KEY: &str = "\u{0}place";

fn with_column(schema: &Schema, field: Field) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().cloned().chain([Arc::new(field)]).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn with_values(records: &RecordBatch, schema: &SchemaRef, values: ArrayRef) -> Result<RecordBatch> {
    let columns = records.columns().iter().cloned().chain([values]).collect();
    RecordBatch::try_new(Arc::clone(schema), columns)
        .map_err(|error| Error::bug("tile", "a column cannot be added").with_source(error))
}

/// Sends rows in the order of the curve, each tile's apart, with its number in the place of the key.
fn send(records: &RecordBatch, tiles: &mut Tiles, schema: &SchemaRef, out: &Output) -> Result<()> {
    let last = records.num_columns() - 1;
    let keys: &UInt64Array = records.column(last).as_primitive::<UInt64Type>();
    let mut from = 0;
    while from < keys.len() {
        let (tile, n_rows, is_new) = tiles.next(keys, from);
        let rows = match n_rows == records.num_rows() {
            true => records.clone(),
            false => copied(records, from..from + n_rows)?,
        };
        let number: ArrayRef = Arc::new(Int64Array::from_value(tile, n_rows));
        let columns = rows.columns()[..last].iter().cloned().chain([number]).collect();
        let rows = RecordBatch::try_new(Arc::clone(schema), columns)
            .map_err(|error| Error::bug("tile", "a tile's rows do not fit").with_source(error))?;
        out.send_blocking(rows, is_new && tile > 0)?;
        from += n_rows;
    }
    Ok(())
}

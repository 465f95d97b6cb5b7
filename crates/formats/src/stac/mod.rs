//! Items of STAC (STAC 1.0 and 1.1, item-spec) in the layout of stac-geoparquet 1.0, from the first row on.
//!
//! # Columns
//! In this order, all nullable:
//!
//! | column | type | of |
//! |---|---|---|
//! | `type`, `stac_version` | `string` | |
//! | `stac_extensions` | `list<string>` | |
//! | `id` | `string` | a row without is rejected |
//! | `geometry` | `binary`: ISO WKB, little-endian | GeoJSON, in its units: degrees |
//! | `bbox` | `struct` of `float64`: `xmin`, `ymin`, `xmax`, `ymax`, or with `zmin` and `zmax` | a list of 4 or 6 numbers |
//! | `links` | `list<struct>` | |
//! | `assets` | `struct`, a field each asset | |
//! | `collection` | `string` | |
//! | the others | as inferred from JSON | the members of `properties`, and those of the item that are none of the above |
//!
//! `properties` is no column: its members are ("Properties" in the specification). So are foreign members of the item; both
//! stand in one namespace, in the order in which they were first seen, and where an item has two for one column, the second is
//! a [field that is no column](crate::NewFields). The columns alone tell how items are read: they can be kept, and given to
//! another process.
//!
//! - `datetime`, `start_datetime`, `end_datetime`, `created`, `updated`, `expires`, `published` and `unpublished` are
//!   `timestamp`, microseconds in UTC, where only texts or nulls were seen.
//! - `proj:geometry` is WKB like `geometry`.
//! - What does not go together is `string`, and holds the JSON as it is written.
//! - An object that never has members has no column, for Parquet has no struct without fields. `null`, `{}` and `[]`, and
//!   objects of nothing else, are nothing new: without a column they are dropped, whatever `new_fields` says.
//!
//! # Files
//! An item; a list of items; objects one after the other, a line each where the file's name says `ndjson`; or a
//! FeatureCollection, whose `features` are read as they come, wherever they stand in it. What else a collection
//! holds are no rows; [`Envelope`] keeps it, for pages of an API. Parquet and Arrow are read as they are, but that
//! instants have microseconds, and that `bbox` is laid out as above where it is a list, or its fields are in another order.

mod boxes;
mod columns;
mod envelope;
mod item;
mod seen;
#[cfg(test)]
mod tests;

pub use envelope::{Envelope, MAX_ENVELOPE};

pub(crate) use boxes::fit_boxes;
pub(crate) use columns::{in_layout, with_hints};

pub(crate) use item::{ItemPlan, fill_item};
pub(crate) use seen::Items;

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Fields, Schema, SchemaRef};

use crate::timestamp;

/// The columns of items of which none was seen: those of every item, and the instants that one may have.
pub fn layout() -> SchemaRef {
    with_times(&Items::default().schema(), &columns::TIMES)
}

/// The columns, with these instants even where no item that was seen has them.
pub fn with_times(columns: &Schema, instants: &[&str]) -> SchemaRef {
    let missing = instants.iter().filter(|name| columns.field_with_name(name).is_err());
    let missing = missing.map(|name| FieldRef::new(columns::nullable(name, timestamp())));
    Arc::new(Schema::new(columns.fields().iter().cloned().chain(missing).collect::<Fields>()))
}

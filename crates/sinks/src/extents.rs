//! Where and when the items of a part are, by collection, gathered while it is written.
//!
//! Memory: that of [`Extents`], of a few collections at most; counted with the part that is open.

use aqueduct_core::collections::{Extent, Extents};
use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Utc};

use crate::partition::value_in;

/// Adds the items of some rows. `folder` is that of the part: it may name the collection, where no column does.
pub(crate) fn add(extents: &mut Extents, folder: &str, records: &RecordBatch) {
    let items = Items::of(folder, records);
    if items.is_unnamed {
        return extents.give_up();
    }
    let mut row = 0;
    while row < records.num_rows() {
        let (first, id) = (row, items.collection(row));
        let mut extent = Extent::default();
        while row < records.num_rows() && (row == first || items.collection(row) == id) {
            extent.merge(&items.extent(row));
            row += 1;
        }
        if let Some(id) = id {
            extents.add(id, &extent);
        }
    }
}

/// What there is of the columns that tell of it.
struct Items {
    of_all: Option<String>,
    /// Whether they are of a collection that nothing names: the name of its folder was too long, and was cut.
    is_unnamed: bool,
    collections: Option<StringArray>,
    /// West, south, east, north.
    corners: Option<[Float64Array; 4]>,
    at: Option<TimestampMicrosecondArray>,
    from: Option<TimestampMicrosecondArray>,
    to: Option<TimestampMicrosecondArray>,
}

impl Items {
    fn of(folder: &str, records: &RecordBatch) -> Self {
        let texts = |column: &ArrayRef| Some(cast(column, &DataType::Utf8).ok()?.as_string::<i32>().clone());
        let times = |name: &str| {
            let column = records.column_by_name(name).filter(|column| column.data_type().is_temporal())?;
            let micros = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            Some(cast(column, &micros).ok()?.as_primitive::<TimestampMicrosecondType>().clone())
        };
        let collections = records.column_by_name("collection").and_then(texts);
        let named = value_in(folder, "collection");
        let has_folder = folder.split('/').any(|step| step.starts_with("collection="));
        Self {
            is_unnamed: collections.is_none() && has_folder && named.is_none(),
            of_all: named.flatten(),
            collections,
            corners: records.column_by_name("bbox").and_then(corners),
            at: times("datetime"),
            from: times("start_datetime"),
            to: times("end_datetime"),
        }
    }

    fn collection(&self, row: usize) -> Option<&str> {
        match &self.collections {
            Some(ids) => ids.is_valid(row).then(|| ids.value(row)),
            None => self.of_all.as_deref(),
        }
    }

    fn extent(&self, row: usize) -> Extent {
        let at = time(self.at.as_ref(), row);
        let (from, to) = (time(self.from.as_ref(), row), time(self.to.as_ref(), row));
        Extent { items: 1, bbox: self.bbox(row), from: from.or(at).or(to), to: to.or(at).or(from) }
    }

    fn bbox(&self, row: usize) -> Option<[f64; 4]> {
        let corners =
            self.corners.as_ref().filter(|corners| corners.iter().all(|corner| corner.is_valid(row)))?;
        let [west, south, east, north] = corners.each_ref().map(|corner| corner.value(row));
        // From east to west it crosses the antimeridian: of several items only the whole way round holds all.
        let (west, east) = if west > east { (-180.0, 180.0) } else { (west, east) };
        Some([west, south, east, north]).filter(|bbox| bbox.iter().all(|corner| corner.is_finite()))
    }
}

fn time(times: Option<&TimestampMicrosecondArray>, row: usize) -> Option<DateTime<Utc>> {
    let times = times.filter(|times| times.is_valid(row))?;
    DateTime::from_timestamp_micros(times.value(row))
}

fn corners(boxes: &ArrayRef) -> Option<[Float64Array; 4]> {
    let boxes = boxes.as_struct_opt()?;
    let corner = |name: &str| {
        let corner = cast(boxes.column_by_name(name)?, &DataType::Float64).ok()?;
        let corner = corner.as_primitive::<Float64Type>();
        let nulls = arrow::buffer::NullBuffer::union(boxes.nulls(), corner.nulls());
        Float64Array::try_new(corner.values().clone(), nulls).ok()
    };
    Some([corner("xmin")?, corner("ymin")?, corner("xmax")?, corner("ymax")?])
}

//! The columns of the layout by name and type, and how a decoder is to fill them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use crate::timestamp;
use crate::types::ReadAs;

/// Members of an item that are columns under their own names.
pub(super) const TOP_LEVEL: [&str; 9] =
    ["type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection"];

/// Properties that are instants.
pub(crate) const TIMES: [&str; 8] = [
    "datetime",
    "start_datetime",
    "end_datetime",
    "created",
    "updated",
    "expires",
    "published",
    "unpublished",
];

/// The property that is a geometry.
pub(super) const PROJ_GEOMETRY: &str = "proj:geometry";

pub(super) const BBOX_2D: [&str; 4] = ["xmin", "ymin", "xmax", "ymax"];
pub(super) const BBOX_3D: [&str; 6] = ["xmin", "ymin", "zmin", "xmax", "ymax", "zmax"];

/// The fields that a link has, where no item had one.
const LINK: [&str; 4] = ["href", "rel", "type", "title"];

pub(super) fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn struct_of(names: &[&str], data_type: &DataType) -> DataType {
    DataType::Struct(names.iter().map(|name| nullable(name, data_type.clone())).collect())
}

pub(super) fn bbox_type(has_z: bool) -> DataType {
    struct_of(if has_z { &BBOX_3D } else { &BBOX_2D }, &DataType::Float64)
}

pub(super) fn links_type() -> DataType {
    DataType::new_list(struct_of(&LINK, &DataType::Utf8), true)
}

/// The columns, with what a decoder of text needs to know of them beyond their types.
pub(crate) fn with_hints(layout: &Schema) -> SchemaRef {
    let hinted = layout.fields().iter().map(|field| match read_as(field) {
        Some(how) => Arc::new(how.hinted(field)),
        None => Arc::clone(field),
    });
    Arc::new(Schema::new(hinted.collect::<Fields>()))
}

fn read_as(field: &FieldRef) -> Option<ReadAs> {
    match (field.name().as_str(), field.data_type()) {
        ("geometry" | PROJ_GEOMETRY, DataType::Binary) => Some(ReadAs::Geometry),
        ("bbox", data_type) if [false, true].map(bbox_type).contains(data_type) => Some(ReadAs::Bbox),
        _ => None,
    }
}

/// The columns of a file that has rows already, in the layout: instants in microseconds where nothing is lost by it, boxes as structs.
pub(crate) fn in_layout(columns: &Schema) -> SchemaRef {
    let fields = columns.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond | TimeUnit::Microsecond, Some(_)) => {
            Arc::new(field.as_ref().clone().with_data_type(timestamp()))
        }
        _ => match super::boxes::read_as(field) {
            Some(data_type) => Arc::new(field.as_ref().clone().with_data_type(data_type)),
            None => Arc::clone(field),
        },
    });
    Arc::new(Schema::new(fields.collect::<Fields>()))
}

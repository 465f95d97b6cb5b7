//! Geometries, as columns hold them: GeoJSON becomes WKB, and WKB is read.

pub(crate) mod geojson;
pub mod wkb;

pub(crate) use geojson::{Wkb, to_wkb};

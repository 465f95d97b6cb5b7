//! Geometry: GeoJSON as WKB.

pub(crate) mod geojson;

pub(crate) use geojson::{Wkb, to_wkb};

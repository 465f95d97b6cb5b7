//! The schemas that this binary holds, as their projects publish them: `schemas/README.md` says which, and whose they are.

use aqueduct_core::{Error, Result};
use jsonschema::{Retrieve, Uri, Validator};
use serde_json::Value;

/// A schema under its address.
pub(super) struct Shipped {
    pub(super) url: &'static str,
    text: &'static str,
}

/// What stands before and behind the version in the address of the schema of an item.
const ITEM: (&str, &str) = ("https://schemas.stacspec.org/v", "/item-spec/json-schema/item.json");
/// What the schemas of items and of extensions refer to is no extension.
const NO_EXTENSIONS: [&str; 4] =
    ["https://schemas.stacspec.org/", "https://geojson.org/", "https://proj.org/", "/platforms/"];

/// The schema of items of this version.
pub(super) fn item_schema(version: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|shipped| version_of(shipped) == Some(version))
}

/// The versions with a schema for items.
pub(super) fn versions() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().filter_map(version_of)
}

fn version_of(shipped: &Shipped) -> Option<&'static str> {
    shipped.url.strip_prefix(ITEM.0)?.strip_suffix(ITEM.1)
}

/// The schema of an extension.
pub(super) fn extension_schema(url: &str) -> Option<&'static Shipped> {
    find(url).filter(|shipped| !NO_EXTENSIONS.iter().any(|part| shipped.url.contains(part)))
}

/// An address means the same with and without an empty fragment, and however it is fetched.
fn find(url: &str) -> Option<&'static Shipped> {
    let wanted = without_scheme(url)?;
    SHIPPED.iter().find(|shipped| without_scheme(shipped.url) == Some(wanted))
}

fn without_scheme(url: &str) -> Option<&str> {
    url.trim_end_matches('#').split_once("://").map(|(_, name)| name)
}

impl Shipped {
    /// Makes it ready to check with.
    ///
    /// # Errors
    /// It is no schema, or refers to one that is not here, which is a bug.
    pub(super) fn compile(&self) -> Result<Validator> {
        let failed = |error: String| {
            Error::bug("validate", format!("the schema cannot be used: {error}")).with("url", self.url)
        };
        let schema = self.parse().map_err(|error| failed(error.to_string()))?;
        jsonschema::options()
            .with_base_uri(self.url)
            .with_retriever(FromHere)
            .build(&schema)
            .map_err(|error| failed(error.to_string()))
    }

    fn parse(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(self.text)
    }
}

/// Gives schemas those of this binary that they refer to, and nothing else.
struct FromHere;

impl Retrieve for FromHere {
    fn retrieve(&self, url: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let shipped = find(url.as_str()).ok_or_else(|| format!("`{url}` is not part of this program"))?;
        Ok(shipped.parse()?)
    }
}

const fn shipped(url: &'static str, text: &'static str) -> Shipped {
    Shipped { url, text }
}

/// By address.
#[rustfmt::skip]
static SHIPPED: &[Shipped] = &[
    shipped("https://geojson.org/schema/Feature.json", include_str!("schemas/geojson/Feature.json")),
    shipped("https://geojson.org/schema/Geometry.json", include_str!("schemas/geojson/Geometry.json")),
    shipped("https://landsat.usgs.gov/stac/landsat-extension/v1.1.1/schema.json", include_str!("schemas/extensions/landsat/v1.1.1/schema.json")),
    shipped("https://proj.org/schemas/v0.4/projjson.schema.json", include_str!("schemas/projjson/v0.4.json")),
    shipped("https://proj.org/schemas/v0.7/projjson.schema.json", include_str!("schemas/projjson/v0.7.json")),
    shipped("https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/basics.json", include_str!("schemas/stac/v1.0.0/basics.json")),
    shipped("https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/datetime.json", include_str!("schemas/stac/v1.0.0/datetime.json")),
    shipped("https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/instrument.json", include_str!("schemas/stac/v1.0.0/instrument.json")),
    shipped("https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/item.json", include_str!("schemas/stac/v1.0.0/item.json")),
    shipped("https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/licensing.json", include_str!("schemas/stac/v1.0.0/licensing.json")),
    shipped("https://schemas.stacspec.org/v1.0.0/item-spec/json-schema/provider.json", include_str!("schemas/stac/v1.0.0/provider.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/bands.json", include_str!("schemas/stac/v1.1.0/bands.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/basics.json", include_str!("schemas/stac/v1.1.0/basics.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/common.json", include_str!("schemas/stac/v1.1.0/common.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/data-values.json", include_str!("schemas/stac/v1.1.0/data-values.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/datetime.json", include_str!("schemas/stac/v1.1.0/datetime.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/instrument.json", include_str!("schemas/stac/v1.1.0/instrument.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json", include_str!("schemas/stac/v1.1.0/item.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/licensing.json", include_str!("schemas/stac/v1.1.0/licensing.json")),
    shipped("https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/provider.json", include_str!("schemas/stac/v1.1.0/provider.json")),
    shipped("https://stac-extensions.github.io/classification/v2.0.0/schema.json", include_str!("schemas/extensions/classification/v2.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/datacube/v2.2.0/schema.json", include_str!("schemas/extensions/datacube/v2.2.0/schema.json")),
    shipped("https://stac-extensions.github.io/eo/v1.0.0/schema.json", include_str!("schemas/derived/eo/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/eo/v1.1.0/schema.json", include_str!("schemas/extensions/eo/v1.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/file/v2.1.0/schema.json", include_str!("schemas/extensions/file/v2.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/grid/v1.1.0/schema.json", include_str!("schemas/extensions/grid/v1.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/mgrs/v1.0.0/schema.json", include_str!("schemas/extensions/mgrs/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/pointcloud/v1.0.0/schema.json", include_str!("schemas/extensions/pointcloud/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/processing/v1.0.0/schema.json", include_str!("schemas/extensions/processing/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/projection/v1.0.0/schema.json", include_str!("schemas/derived/projection/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/projection/v1.1.0/schema.json", include_str!("schemas/derived/projection/v1.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/projection/v2.0.0/schema.json", include_str!("schemas/extensions/projection/v2.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/projection/v2.1.0/schema.json", include_str!("schemas/extensions/projection/v2.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/raster/v1.1.0/schema.json", include_str!("schemas/extensions/raster/v1.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/render/v2.1.0/schema.json", include_str!("schemas/extensions/render/v2.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/sar/v1.0.0/schema.json", include_str!("schemas/extensions/sar/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/sat/v1.0.0/schema.json", include_str!("schemas/extensions/sat/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/scientific/v1.0.0/schema.json", include_str!("schemas/extensions/scientific/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/storage/v2.0.0/platforms/aws-s3.json", include_str!("schemas/extensions/storage/v2.0.0/platforms/aws-s3.json")),
    shipped("https://stac-extensions.github.io/storage/v2.0.0/platforms/custom-s3.json", include_str!("schemas/extensions/storage/v2.0.0/platforms/custom-s3.json")),
    shipped("https://stac-extensions.github.io/storage/v2.0.0/platforms/ms-azure.json", include_str!("schemas/extensions/storage/v2.0.0/platforms/ms-azure.json")),
    shipped("https://stac-extensions.github.io/storage/v2.0.0/schema.json", include_str!("schemas/extensions/storage/v2.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/table/v1.2.0/schema.json", include_str!("schemas/extensions/table/v1.2.0/schema.json")),
    shipped("https://stac-extensions.github.io/themes/v1.0.0/schema.json", include_str!("schemas/extensions/themes/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/timestamps/v1.1.0/schema.json", include_str!("schemas/extensions/timestamps/v1.1.0/schema.json")),
    shipped("https://stac-extensions.github.io/version/v1.2.0/schema.json", include_str!("schemas/extensions/version/v1.2.0/schema.json")),
    shipped("https://stac-extensions.github.io/view/v1.0.0/schema.json", include_str!("schemas/extensions/view/v1.0.0/schema.json")),
    shipped("https://stac-extensions.github.io/view/v1.1.0/schema.json", include_str!("schemas/extensions/view/v1.1.0/schema.json")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_schema_compiles_from_what_is_here() {
        for schema in SHIPPED {
            schema.compile().unwrap_or_else(|error| panic!("{}: {}", schema.url, error.chain()));
        }
    }

    #[test]
    fn every_file_is_in_the_table_once_and_named_in_the_notes() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/validate/schemas");
        let mut n_files = 0;
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                n_files += usize::from(path.extension().is_some_and(|suffix| suffix == "json"));
                folders.extend(path.is_dir().then_some(path));
            }
        }
        assert_eq!(n_files, SHIPPED.len());
        assert_eq!(SHIPPED.iter().map(|schema| schema.url).collect::<HashSet<_>>().len(), n_files);
        for schema in SHIPPED {
            assert!(include_str!("schemas/README.md").contains(schema.url), "{}", schema.url);
        }
    }

    #[test]
    fn addresses_are_found_however_they_are_written() {
        let eo = "https://stac-extensions.github.io/eo/v1.1.0/schema.json";
        for written in [eo, "http://stac-extensions.github.io/eo/v1.1.0/schema.json#"] {
            assert_eq!(extension_schema(written).unwrap().url, eo);
        }
        assert!(extension_schema("https://geojson.org/schema/Feature.json").is_none(), "it is no extension");
        assert!(extension_schema("eo").is_none());
        assert_eq!(versions().collect::<Vec<_>>(), ["1.0.0", "1.1.0"]);
        assert!(item_schema("0.9.0").is_none());
    }
}

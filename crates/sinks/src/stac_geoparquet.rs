//! `stac_geoparquet`: STAC items as Parquet files, valid by GeoParquet 1.1 and stac-geoparquet 1.0.
//!
//! A row is an item: a column for each of its members, and one for each of its properties beside them. Each file tells
//! which types of geometry it holds and where they lie, and has the documents of the collections in it that are given. A row
//! with a geometry that GeoParquet cannot have is a rejected row. Beside the output, with each commit,
//! `_aqueduct/collection.json` says where and when the items of its collection are and which files have them;
//! `collections.json` of several, and of one file `_aqueduct/NAME.collection.json`.
//!
//! Order: as the rows come. Memory: as of `parquet`, the row group under way, at most three quarters of the step's share;
//! and the documents of collections, at most 1 MiB.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::units::{Size, byte_count, optional_byte_count};
use aqueduct_core::{
    ComponentInfo, Context, Error, ErrorKind, Factory, Fs, Guarantee, MemoryNeed, Merging, Mode, Output,
    Planning, Problem, Result, Sink, SinkConfig, Stored, find_column,
};
use aqueduct_formats::type_text;
use aqueduct_formats::write::{GeoColumns, ParquetCompression, ParquetOptions, WriteFormat};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::options::{Evolve, default_max_partitions};
use crate::sound_items::SoundItems;
use crate::table::{Merge, Table, is_one_file};

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "stac_geoparquet",
    summary: "Writes STAC items as GeoParquet",
    example: "stac_geoparquet: { path: out/items, partition_by: [collection], partition_columns: true }",
});

/// The key of what the specification tells in a file's metadata, and its version. The schema of that metadata allows this
/// version alone.
const METADATA_KEY: &str = "stac-geoparquet";
const SPECIFICATION: &str = "1.0.0";

/// All documents of collections together. They stand in the footer of every file; a larger one, and each reader of a
/// file pays for it before the first row.
const MAX_COLLECTIONS_BYTES: ByteCount = ByteCount::mib(1);

/// What the specification asks for beside `id` and `geometry`.
const REQUIRED: [&str; 4] = ["stac_extensions", BBOX, "links", "assets"];
const GEOMETRY: &str = "geometry";
const BBOX: &str = "bbox";
/// The one geometry beside it that STAC has, by an extension. Its reference system may be another in each row.
const PROJECTED: &str = "proj:geometry";

/// Options of `stac_geoparquet`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to write: `*.parquet` or `*.geoparquet` is one file, else a folder of parts `part-{run}-{seq}.parquet`.
    pub path: String,
    /// Files with the JSON documents of collections, which every file then has in its metadata. Of a collection that is
    /// not among them, nothing is told. All together at most 1 MiB.
    #[serde(default)]
    pub collections: Vec<String>,
    /// How pages are compressed. A row group with a row larger than a quarter of the sink's memory (1 MiB at least) is
    /// not, and has no dictionaries and no statistics.
    #[serde(default)]
    pub compression: ParquetCompression,
    /// A row group ends at about this encoded size, or sooner when the memory is small.
    #[serde(default = "default_row_group_bytes", deserialize_with = "byte_count")]
    #[schemars(with = "Size", extend("default" = "200MB"))]
    pub row_group_bytes: ByteCount,
    /// A row group ends at this many rows.
    #[serde(default = "default_row_group_rows")]
    pub row_group_rows: usize,
    /// Start a new file at about this size.
    #[serde(default, deserialize_with = "optional_byte_count")]
    #[schemars(with = "Option<Size>")]
    pub file_bytes: Option<ByteCount>,
    /// Columns whose values make folders `column=value`; each a column, or `expression as name`.
    #[serde(default)]
    pub partition_by: Vec<String>,
    /// Keep the columns of `partition_by` in the files, too.
    #[serde(default)]
    pub partition_columns: bool,
    /// More partitions than this are an error.
    #[serde(default = "default_max_partitions")]
    pub max_partitions: usize,
    /// Let a run without rows replace an output that has some.
    #[serde(default)]
    pub allow_empty: bool,
    /// How its rows relate to those that earlier runs wrote there. Without it `replace`, or `append` behind a step that
    /// remembers what it has seen.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// In an output that is not replaced: whether columns may come that are not there yet. One whose type has changed is
    /// always an error, before a byte is written.
    #[serde(default)]
    pub evolve: Evolve,
    /// With `mode: merge`: rows that are equal in all of these columns take each other's place.
    #[serde(default)]
    pub keys: Vec<String>,
    /// With `mode: merge`: of rows with the same keys, the one with the greatest values of these columns stays; a null is
    /// the least. Without it, and where it says nothing, the one that came last.
    #[serde(default)]
    pub by: Vec<String>,
}

/// As many as the items of a usual collection have, each asset with fields of its own.
const LEAVES_OF_ITEMS: usize = 256;

fn default_row_group_bytes() -> ByteCount {
    ByteCount::mb(200)
}

fn default_row_group_rows() -> usize {
    10_000
}

impl Config {
    fn table(&self) -> Table {
        let options = ParquetOptions {
            compression: self.compression,
            row_group_bytes: self.row_group_bytes,
            row_group_rows: Some(self.row_group_rows.max(1)),
            ..ParquetOptions::default()
        };
        Table {
            path: self.path.clone(),
            is_file: is_one_file(&self.path, &[".parquet", ".geoparquet"]),
            format: WriteFormat::Parquet(options),
            file_bytes: self.file_bytes,
            partition_by: self.partition_by.clone(),
            partition_columns: self.partition_columns,
            max_partitions: self.max_partitions,
            allow_empty: self.allow_empty,
            mode: self.mode,
            evolve: self.evolve,
            merge: Some(Merge { keys: self.keys.clone(), by: self.by.clone() }),
            n_leaves: LEAVES_OF_ITEMS,
        }
    }
}

#[async_trait]
impl SinkConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let not_here = |(at, path): (usize, &String)| {
            let message = format!("`{path}` cannot be read; expected the path of a file on this machine");
            path.contains("://").then(|| Problem::at(format!("/collections/{at}"), message))
        };
        let mut problems = self.table().validate();
        problems.extend(self.collections.iter().enumerate().filter_map(not_here));
        problems
    }

    fn fit(&self, input: &SchemaRef) -> Vec<Problem> {
        let table = self.table();
        let mut problems = table.fit(input);
        if let Ok(written) = table.written(input) {
            problems.extend(layout_problems(&written));
        }
        problems
    }

    fn fit_stored(&self, input: &SchemaRef, stored: &Stored) -> Vec<Problem> {
        self.table().fit_stored(input, stored)
    }

    fn output(&self, planning: &Planning) -> Option<Output> {
        Some(self.table().output(planning))
    }

    fn merging(&self) -> Option<Merging> {
        self.table().merging()
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        self.table().memory(planning)
    }

    async fn open(self: Box<Self>, input: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        let paths: Vec<_> = self.collections.iter().map(|path| cx.resolve(path)).collect();
        let fs = Arc::clone(cx.fs());
        let collections = cx.tasks().block(move || read_collections(&*fs, &paths)).await??;
        let mut table = self.table();
        let written = table.written(&input).unwrap_or_else(|_| SchemaRef::clone(&input));
        warn_of_missing(&written, cx);
        if let WriteFormat::Parquet(options) = &mut table.format {
            options.geo = Some(geo_columns(&written));
            options.metadata = vec![(METADATA_KEY.into(), metadata(&collections).into())];
        }
        let sink = table.open(input, cx)?;
        Ok(Box::new(SoundItems { sink, cx: cx.clone(), column: GEOMETRY }))
    }
}

/// A column that an item cannot do without, or that other things are told of.
struct Expected {
    column: &'static str,
    is_needed: bool,
    is_fit: fn(&DataType) -> bool,
    kind: &'static str,
    advice: &'static str,
}

const LAYOUT: [Expected; 3] = [
    Expected { column: "id", is_needed: true, is_fit: is_text, kind: "a text", advice: "cast it" },
    Expected {
        column: GEOMETRY,
        is_needed: true,
        is_fit: is_binary,
        kind: "WKB, binary",
        advice: "read items with `format: stac`, which makes it so",
    },
    Expected {
        column: BBOX,
        is_needed: false,
        is_fit: is_bounds,
        kind: "a struct of numbers `xmin`, `ymin`, [`zmin`,] `xmax`, `ymax` [, `zmax`]",
        advice: "read items with `format: stac`, which makes it so, or drop it",
    },
];

impl Expected {
    /// What is wrong with the column.
    fn problem(&self, schema: &Schema) -> Option<Problem> {
        let Self { column, is_needed, is_fit, kind, advice } = self;
        let message = match find_column(schema, column, "") {
            Ok(at) if is_fit(schema.field(at).data_type()) => return None,
            Ok(at) => {
                let found = schema.field(at).data_type();
                let found = type_text(found).unwrap_or_else(|| found.to_string());
                format!("column `{column}` is {found}; expected {kind}: {advice}")
            }
            Err(_) if !is_needed => return None,
            Err(missing) => format!(
                "{}; an item has it, {kind}: read items with `format: stac`, or rename a column to it",
                missing.message
            ),
        };
        Some(Problem::at("", message))
    }
}

/// All columns that are not as the layout has them, among those that count.
fn layout_problems(schema: &Schema) -> Vec<Problem> {
    LAYOUT.iter().filter_map(|expected| expected.problem(schema)).collect()
}

/// Files without these are GeoParquet all the same, so it is for the flow to say whether that will do.
fn warn_of_missing(schema: &Schema, cx: &Context) {
    let missing = REQUIRED.into_iter().filter(|column| schema.field_with_name(column).is_err());
    let missing: Vec<_> = missing.map(|column| format!("`{column}`")).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        cx.warn(format!(
            "stac-geoparquet asks for {missing}, and there are no such columns; some readers will refuse"
        ));
    }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_binary(kind: &DataType) -> bool {
    matches!(kind, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// A bounding box column, as GeoParquet defines it: these fields, in this order, all of the same type.
fn is_bounds(kind: &DataType) -> bool {
    let DataType::Struct(fields) = kind else { return false };
    let names: Vec<_> = fields.iter().map(|field| field.name().as_str()).collect();
    let is_of = |kind| fields.iter().all(|field| *field.data_type() == kind);
    matches!(*names, ["xmin", "ymin", "xmax", "ymax"] | ["xmin", "ymin", "zmin", "xmax", "ymax", "zmax"])
        && (is_of(DataType::Float32) || is_of(DataType::Float64))
}

/// The specification of GeoParquet wants every column of geometries listed.
fn geo_columns(schema: &Schema) -> GeoColumns {
    let is = |name: &str, is_fit: fn(&DataType) -> bool| {
        schema.field_with_name(name).is_ok_and(|field| is_fit(field.data_type()))
    };
    GeoColumns {
        primary: GEOMETRY.into(),
        covering: is(BBOX, is_bounds).then(|| BBOX.into()),
        of_unknown_crs: is(PROJECTED, is_binary).then(|| PROJECTED.into()).into_iter().collect(),
    }
}

/// The document of a collection, as it was found.
struct Collection {
    id: String,
    text: String,
}

/// What must be known of it. The rest is told as it is.
#[derive(Deserialize)]
struct Head {
    r#type: String,
    id: String,
}

/// Reads documents. Blocks.
fn read_collections(fs: &dyn Fs, paths: &[PathBuf]) -> Result<Vec<Collection>> {
    let mut collections: Vec<Collection> = Vec::new();
    let mut left = MAX_COLLECTIONS_BYTES.get();
    for path in paths {
        let text = fs.read(path, left).map_err(|error| unread(error, path))?;
        left = left.saturating_sub(text.len() as u64);
        let collection = collection(text).map_err(|error| error.with("path", path.display()))?;
        if collections.iter().any(|other| other.id == collection.id) {
            let message = "two of the files in `collections` are of one collection; leave one of them out";
            return Err(bad(message).with("collection", collection.id).with("path", path.display()));
        }
        collections.push(collection);
    }
    Ok(collections)
}

fn collection(text: Vec<u8>) -> Result<Collection> {
    let none =
        "this is no STAC collection; expected a JSON object with `\"type\": \"Collection\"` and an `id`";
    let text = String::from_utf8(text).map_err(|error| bad(none).with_source(error))?;
    let head: Head = serde_json::from_str(&text).map_err(|error| bad(none).with_source(error))?;
    // A list of the two is taken for them as well.
    if !text.trim_start().starts_with('{') || head.r#type != "Collection" || head.id.is_empty() {
        return Err(bad(none).with("type", head.r#type));
    }
    Ok(Collection { id: head.id, text })
}

fn bad(message: &str) -> Error {
    Error::new(ErrorKind::Config, "open sink", message)
}

fn unread(error: io::Error, path: &Path) -> Error {
    if error.kind() != io::ErrorKind::FileTooLarge {
        return Error::io("read", path.display(), error);
    }
    let message = "the documents of `collections` are larger than they may be all together; leave out what readers of \
                   the items do not need";
    Error::new(ErrorKind::Limit, "open sink", message)
        .with("path", path.display())
        .with("limit", MAX_COLLECTIONS_BYTES)
}

/// What a file tells of itself, as JSON. The documents stand in it as they were found.
fn metadata(collections: &[Collection]) -> String {
    if collections.is_empty() {
        return format!(r#"{{"version":"{SPECIFICATION}"}}"#);
    }
    let member = |Collection { id, text }: &Collection| format!("{}:{text}", serde_json::Value::from(&**id));
    let members: Vec<_> = collections.iter().map(member).collect();
    format!(r#"{{"version":"{SPECIFICATION}","collections":{{{}}}}}"#, members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{Field, Fields};

    fn told(columns: &[(&str, DataType)]) -> Vec<String> {
        let fields: Vec<_> =
            columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        layout_problems(&Schema::new(fields)).into_iter().map(|problem| problem.message).collect()
    }

    fn bounds(names: &[&str], kind: &DataType) -> DataType {
        DataType::Struct(names.iter().map(|name| Field::new(*name, kind.clone(), true)).collect::<Fields>())
    }

    #[test]
    fn columns_that_are_no_items_are_told_with_what_to_do() {
        let id = ("id", DataType::Utf8);
        assert_eq!(told(&[id.clone(), ("geometry", DataType::Binary)]), [] as [&str; 0]);
        assert_eq!(
            told(&[("id", DataType::Int64), ("geom", DataType::Binary), ("bbox", DataType::Utf8)]),
            [
                "column `id` is int64; expected a text: cast it",
                "unknown column `geometry`; there are: id, geom, bbox; an item has it, WKB, binary: read items with `format: \
                 stac`, or rename a column to it",
                "column `bbox` is string; expected a struct of numbers `xmin`, `ymin`, [`zmin`,] `xmax`, `ymax` [, \
                 `zmax`]: read items with `format: stac`, which makes it so, or drop it",
            ]
        );
    }

    #[test]
    fn bounds_are_those_that_geoparquet_has() {
        let (flat, float) = (["xmin", "ymin", "xmax", "ymax"], DataType::Float64);
        assert!(is_bounds(&bounds(&flat, &float)) && is_bounds(&bounds(&flat, &DataType::Float32)));
        assert!(is_bounds(&bounds(&["xmin", "ymin", "zmin", "xmax", "ymax", "zmax"], &float)));
        assert!(!is_bounds(&bounds(&["xmin", "xmax", "ymin", "ymax"], &float)), "another order");
        assert!(
            !is_bounds(&bounds(&["xmin", "ymin", "zmin", "xmax", "ymax"], &float)),
            "half a third dimension"
        );
        assert!(!is_bounds(&bounds(&flat, &DataType::Int64)));
    }

    #[test]
    fn a_document_stands_in_the_metadata_as_it_was_found() {
        let text = "{ \"type\": \"Collection\",\n \"id\": \"a \\\"b\\\"\", \"n\": 1.10, \"links\": [] }";
        let found = collection(text.into()).unwrap();
        assert_eq!(found.id, "a \"b\"");
        let told = metadata(&[found]);
        assert_eq!(told, format!(r#"{{"version":"1.0.0","collections":{{"a \"b\"":{text}}}}}"#));
        serde_json::from_str::<serde_json::Value>(&told).unwrap();
        assert_eq!(metadata(&[]), r#"{"version":"1.0.0"}"#);
    }

    #[test]
    fn what_is_no_collection_is_refused() {
        for text in
            ["", "[]", r#"{"type": "Catalog", "id": "a"}"#, r#"{"type": "Collection"}"#, "{\"id\": \"\u{0}"]
        {
            assert_eq!(collection(text.into()).err().unwrap().kind(), ErrorKind::Config, "{text}");
        }
        assert!(collection(br#"{"type": "Collection", "id": "a", "x": ""#.to_vec()).is_err());
        assert!(collection(b"{\"type\": \"Collection\", \"id\": \"a\", \"x\": \"\xff\"}".to_vec()).is_err());
    }
}

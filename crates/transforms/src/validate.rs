//! `validate`: lets rows pass that a schema allows, and gives the others to the policy for bad ones, with the place and
//! the reason.
//!
//! A row is looked at as a JSON document: against a JSON Schema of any draft, or, in the layout of stac-geoparquet, as a
//! STAC item against the schemas of its `stac_version` and its `stac_extensions`, which this binary holds. Nothing is
//! fetched. Columns that are null in a row are members that are not there, as are null members of structs.
//!
//! Rows stay in order and are not copied. The memory, all of it of the step's share: one row at a time as JSON, and the
//! compiled schemas.

mod fault;
mod items;
mod schema_file;
mod shipped;

use std::path::PathBuf;

use aqueduct_core::rows::row_bytes;
use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Error, ErrorKind, Factory, Inputs, MemoryNeed, Planning,
    Problem, Reject, RejectedItem, Result, Stage, StageConfig, only_input,
};
use aqueduct_formats::stac_item::{JSON_WEIGHT, NotJson, is_item_layout, row_to_item, row_to_json};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

use self::fault::{Detail, Fault};
use self::items::ItemSchemas;
use self::schema_file::FileSchema;
use crate::rows::{cut_json, origin_of, row_as_json};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "validate",
    summary: "Checks each row against a JSON Schema, or as a STAC item; what does not pass is a rejected row",
    example: "validate: { stac: true }",
});

/// What rows are checked against.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// A file with a JSON Schema, of any draft. Its references lead to files in the same folder or below it.
    schema: Option<PathBuf>,
    /// As STAC items in the layout of stac-geoparquet: against the schemas of their `stac_version` and `stac_extensions`.
    #[serde(default)]
    stac: bool,
    /// With `stac`: what becomes of items with an extension whose schema this binary does not hold.
    unknown_extensions: Option<UnknownExtensions>,
}

/// What becomes of items with an extension whose schema is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum UnknownExtensions {
    /// They are checked against the other schemas; a warning for each extension, and in the log how many items name it.
    /// The default.
    #[default]
    Warn,
    /// They do not pass.
    Fail,
    /// They are checked against the other schemas.
    Ignore,
}

/// Rows that take no more than this as JSON always have room.
const LEAST_ROOM: ByteCount = ByteCount::mib(1);
/// All schemas of this binary, compiled; those of a file get by with it where they have no more than 256 KiB of text.
const SCHEMAS: ByteCount = ByteCount::mib(10);
/// Compiled, a schema takes so many times its text: what it refers to is compiled wherever it does.
const COMPILED_WEIGHT: u64 = 40;

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match (&self.schema, self.stac) {
            (None, false) => {
                vec![Problem::at("", "nothing to check rows against; give a `schema`, or `stac: true`")]
            }
            (Some(_), true) => {
                vec![Problem::at("/stac", "either a `schema` or `stac: true`; use two steps for both")]
            }
            (Some(_), false) if self.unknown_extensions.is_some() => {
                vec![Problem::at(
                    "/unknown_extensions",
                    "only items have extensions; it goes with `stac: true`",
                )]
            }
            _ => Vec::new(),
        }
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        let largest = planning.batch_bytes.saturating_mul(JSON_WEIGHT / 4).max(LEAST_ROOM);
        MemoryNeed::between(SCHEMAS.saturating_add(LEAST_ROOM), SCHEMAS.saturating_add(largest))
    }

    fn check_files(&self, planning: &Planning) -> Vec<Problem> {
        let Some(path) = &self.schema else { return Vec::new() };
        let wrong = FileSchema::open(&planning.resolve(path)).err();
        wrong.map(|error| Problem::at("/schema", error.chain())).into_iter().collect()
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let schema = only_input(inputs)?;
        if self.stac && !is_item_layout(&schema) {
            let message = "these are no rows of STAC items: there must be columns `id` and `stac_version`, and none \
                           `properties`; read items with `format: stac`";
            return Err(vec![Problem::at("/stac", message)]);
        }
        let against = match &self.schema {
            Some(path) => Against::File(path.clone()),
            None => Against::Items(self.unknown_extensions.unwrap_or_default()),
        };
        Ok(Box::new(Validate { against, schema }))
    }
}

struct Validate {
    against: Against,
    schema: SchemaRef,
}

enum Against {
    File(PathBuf),
    Items(UnknownExtensions),
}

impl Stage for Validate {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        Box::pin(try_stream! {
            let (mut checks, schemas) = self.against.open(&cx).await?;
            let most = cx.share().total().saturating_sub(schemas.size());
            let mut input = futures::stream::iter(inputs).flatten();
            while let Some(batch) = input.next().await {
                let (back, batch) = check_batch(checks, batch?, most, &cx).await?;
                checks = back;
                yield batch;
            }
            checks.finish(&cx);
        })
    }
}

impl Against {
    /// Gets ready, and reserves what the schemas take.
    async fn open(self, cx: &Context) -> Result<(Checks, Reservation)> {
        let (checks, weight) = match self {
            Self::Items(unknown) => (Checks::Items(ItemSchemas::new(unknown)), SCHEMAS),
            Self::File(path) => {
                let path = cx.resolve(path);
                let schema = cx.tasks().block(move || FileSchema::open(&path)).await??;
                let weight = ByteCount::new(schema.n_bytes().saturating_mul(COMPILED_WEIGHT));
                (Checks::File(schema), weight)
            }
        };
        if weight.saturating_add(LEAST_ROOM) > cx.share().total() {
            let message = "the schema takes more than the step's memory; raise `memory`";
            let error = Error::new(ErrorKind::Limit, "read schema", message).with("step", cx.step());
            return Err(error.with("takes", weight).with("limit", cx.share().total()));
        }
        Ok((checks, cx.share().reserve(weight).await?))
    }
}

/// Reserves what the largest row takes as JSON, checks all rows, and lets those go on that pass.
async fn check_batch(
    mut checks: Checks,
    batch: Batch,
    most: ByteCount,
    cx: &Context,
) -> Result<(Checks, Batch)> {
    let n_bytes = row_bytes(batch.records());
    let largest = n_bytes.iter().copied().max().unwrap_or_default();
    let room = weight_as_json(largest).max(LEAST_ROOM).min(most);
    let room = cx.share().reserve(room).await?;
    let (records, job_cx) = (batch.records().clone(), cx.clone());
    let (checks, passing) = cx
        .tasks()
        .compute(move || {
            let started = std::time::Instant::now();
            let passing = checks.passing(&records, &n_bytes, &room, &job_cx);
            job_cx.metrics().add_busy(started.elapsed());
            (checks, passing)
        })
        .await?;
    let passing = passing?;
    if passing.true_count() == passing.len() {
        return Ok((checks, batch));
    }
    let kept = filter_record_batch(batch.records(), &passing)
        .map_err(|error| Error::bug("validate", error.to_string()))?;
    Ok((checks, cx.recharge(batch, kept).await?))
}

fn weight_as_json(n_bytes: u64) -> ByteCount {
    ByteCount::new(n_bytes.saturating_mul(JSON_WEIGHT))
}

/// What rows are checked against, ready.
enum Checks {
    File(FileSchema),
    Items(ItemSchemas),
}

impl Checks {
    /// Which rows pass. The others have gone to the policy when it returns.
    fn passing(
        &mut self,
        rows: &RecordBatch,
        n_bytes: &[u64],
        room: &Reservation,
        cx: &Context,
    ) -> Result<BooleanArray> {
        let mut passing = Vec::with_capacity(rows.num_rows());
        for (row, n_bytes) in n_bytes.iter().enumerate() {
            let weight = weight_as_json(*n_bytes);
            let wrong = if weight > room.size() {
                Some(too_large(weight, room.size()))
            } else {
                self.wrong(rows, row, weight, cx)?
            };
            passing.push(wrong.is_none());
            if let Some(wrong) = wrong {
                cx.reject(wrong.told_of(&rows.slice(row, 1), cx))?;
            }
        }
        Ok(passing.into())
    }

    /// What is wrong with a row, if anything is.
    fn wrong(
        &mut self,
        rows: &RecordBatch,
        row: usize,
        weight: ByteCount,
        cx: &Context,
    ) -> Result<Option<Wrong>> {
        let document = match self {
            Self::File(_) => row_to_json(rows, row),
            Self::Items(_) => row_to_item(rows, row),
        };
        let document = match document {
            Ok(document) => document,
            Err(NotJson { pointer, message }) => {
                return Ok(Some(Wrong::new("json", Fault { pointer, message })));
            }
        };
        let detail = Detail::of(weight);
        let fault = match self {
            Self::File(schema) => schema.fault(&document, detail),
            Self::Items(schemas) => schemas.fault(&document, detail, cx)?,
        };
        Ok(fault.map(|fault| Wrong { raw: cut_json(&document), ..Wrong::new("schema", fault) }))
    }

    /// Says what there is to say of all rows.
    fn finish(&self, cx: &Context) {
        if let Self::Items(schemas) = self {
            schemas.finish(cx);
        }
    }
}

fn too_large(weight: ByteCount, room: ByteCount) -> Wrong {
    let message =
        format!("the row may take {weight} as JSON, and the step has {room} of memory; raise `memory`");
    Wrong::new("too long", Fault { pointer: String::new(), message })
}

/// Why a row does not pass.
struct Wrong {
    reason: &'static str,
    fault: Fault,
    /// The document; empty, when the row could not be made into one.
    raw: Vec<u8>,
}

impl Wrong {
    fn new(reason: &'static str, fault: Fault) -> Self {
        Self { reason, fault, raw: Vec::new() }
    }

    fn told_of(self, row: &RecordBatch, cx: &Context) -> Reject {
        let column = self.fault.column().filter(|column| row.column_by_name(column).is_some());
        Reject {
            item: RejectedItem::Row,
            reason: self.reason,
            message: self.fault.to_string(),
            origin: origin_of(row, column, cx),
            raw: if self.raw.is_empty() { row_as_json(row) } else { self.raw },
        }
    }
}

#[cfg(test)]
mod tests;

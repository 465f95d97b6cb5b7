//! `generate`: made-up rows, for trials and measurements.
//!
//! Order: by row. The value of a row and column depends on the seed, the column's place and the row's number
//! alone, so that neither the size of batches nor a resumed run changes it. Memory: one batch.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::{
    BatchStream, ComponentInfo, Context, Error, ErrorKind, Factory, MemoryNeed, Planning, Positions, Problem,
    Result, Source, SourceCaps, SourceConfig,
};
use aqueduct_primitives::ByteCount;
use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use async_stream::try_stream;
use async_trait::async_trait;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "generate",
    summary: "Makes rows up: the same for the same seed",
    example: "generate: { rows: 1000, seed: 7, columns: { id: sequence, text: { len: 20 }, x: float } }",
});

/// The longest made-up text. A longer one would not fit the batches of a small memory.
const MAX_TEXT_LEN: u32 = 64 * 1024;

/// The one split that positions speak of.
const SPLIT: &str = "rows";

/// 2024-01-01T00:00:00Z, the first timestamp, in microseconds since 1970.
const FIRST_TIMESTAMP_MICROS: i64 = 1_704_067_200_000_000;

/// Options of `generate`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many rows.
    pub rows: u64,
    /// Another seed gives other rows.
    #[serde(default)]
    pub seed: u64,
    /// The columns, in order: `sequence` (0, 1, 2 …), `timestamp` (a second apart, from 2024 on), `int`,
    /// `float` (from 0 up to 1), `{len: N}` (text of N letters and digits), `{cardinality: N}` (one of N keys).
    #[serde(default = "default_columns")]
    #[schemars(with = "BTreeMap<String, Column>")]
    pub columns: IndexMap<String, Column>,
}

/// What a column holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Column {
    /// A kind without options.
    Kind(Kind),
    /// Random text.
    Text(Text),
    /// Keys that repeat.
    Key(Key),
}

/// A kind of column without options.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The row's number, from 0.
    Sequence,
    /// One second later each row.
    Timestamp,
    /// A random whole number, not negative.
    Int,
    /// A random number from 0 up to 1.
    Float,
}

/// Random text.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// Letters and digits in each.
    pub len: u32,
}

/// Keys that repeat.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// How many different ones.
    pub cardinality: u64,
}

fn default_columns() -> IndexMap<String, Column> {
    [
        ("id", Column::Kind(Kind::Sequence)),
        ("ts", Column::Kind(Kind::Timestamp)),
        ("text", Column::Text(Text { len: 20 })),
        ("key", Column::Key(Key { cardinality: 1000 })),
        ("x", Column::Kind(Kind::Float)),
    ]
    .map(|(name, column)| (name.to_owned(), column))
    .into()
}

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems: Vec<_> =
            self.columns.iter().filter_map(|(name, column)| column.problem(name)).collect();
        if self.columns.is_empty() {
            problems.push(Problem::at("/columns", "no columns; expected at least one, `{id: sequence}` say"));
        }
        problems
    }

    fn known_schema(&self, _planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(Some(self.schema()))
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        let one_row = ByteCount::new(self.row_bytes());
        let need = planning.batch_bytes.max(one_row);
        MemoryNeed::between(need, need)
    }

    fn is_replayable(&self) -> bool {
        true
    }

    async fn open(self: Box<Self>, _cx: &Context) -> Result<Box<dyn Source>> {
        Ok(self)
    }
}

impl Config {
    fn schema(&self) -> SchemaRef {
        let field = |(name, column): (&String, &Column)| Field::new(name, column.data_type(), false);
        Arc::new(Schema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// The most bytes that a row takes.
    fn row_bytes(&self) -> u64 {
        self.columns.values().map(Column::row_bytes).sum::<u64>().max(1)
    }

    fn rows_per_batch(&self, cx: &Context) -> u64 {
        let by_bytes = cx.batch_bytes().get() / self.row_bytes();
        by_bytes.min(cx.batch_rows() as u64).max(1)
    }

    fn batch(&self, rows: Range<u64>) -> Result<RecordBatch> {
        let arrays = (0..).zip(self.columns.values());
        let arrays = arrays.map(|(place, column)| {
            let numbers = Numbers { key: mix(self.seed ^ mix(place)) };
            column.array(numbers, rows.clone())
        });
        RecordBatch::try_new(self.schema(), arrays.collect())
            .map_err(|error| Error::bug("generate", "the columns do not fit together").with_source(error))
    }
}

impl Source for Config {
    fn schema(&self) -> SchemaRef {
        Self::schema(self)
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps { replayable: true, ordered: true, endless: false, remote: false, summed_up_in: None }
    }

    fn run(self: Box<Self>, cx: Context, from: Positions) -> BatchStream {
        let config = Arc::new(*self);
        Box::pin(try_stream! {
            let rows_per_batch = config.rows_per_batch(&cx);
            let _reserve = cx.share().reserve(cx.batch_bytes().max(ByteCount::new(config.row_bytes()))).await?;
            let mut next = first_row(&from)?;
            while next < config.rows {
                let rows = next..config.rows.min(next.saturating_add(rows_per_batch));
                next = rows.end;
                let job = Arc::clone(&config);
                let records = cx.tasks().compute(move || job.batch(rows)).await??;
                let batch = cx.admit(records).await?;
                yield batch.with_positions(Positions::of(SPLIT, next.into()));
            }
        })
    }
}

fn first_row(from: &Positions) -> Result<u64> {
    match from.get(SPLIT) {
        None => Ok(0),
        Some(position) => position.as_u64().ok_or_else(|| {
            Error::new(ErrorKind::Conflict, "resume", "the position is no number of rows")
                .with("position", position)
        }),
    }
}

impl Column {
    fn problem(&self, name: &str) -> Option<Problem> {
        let pointer = format!("/columns{}", aqueduct_core::pointer_to(name));
        match self {
            Self::Text(Text { len }) if *len > MAX_TEXT_LEN => {
                Some(Problem::at(pointer, format!("`len` is {len}; expected at most {MAX_TEXT_LEN} letters")))
            }
            Self::Key(Key { cardinality: 0 }) => {
                Some(Problem::at(pointer, "`cardinality` is 0; expected at least 1 key"))
            }
            _ => None,
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Kind(Kind::Sequence | Kind::Int) => DataType::Int64,
            Self::Kind(Kind::Timestamp) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Kind(Kind::Float) => DataType::Float64,
            Self::Text(_) | Self::Key(_) => DataType::Utf8,
        }
    }

    fn row_bytes(&self) -> u64 {
        const OFFSET_BYTES: u64 = 4;
        match self {
            Self::Kind(_) => 8,
            Self::Text(Text { len }) => OFFSET_BYTES + u64::from(*len),
            Self::Key(key) => OFFSET_BYTES + key.text_len() as u64,
        }
    }

    fn array(&self, numbers: Numbers, rows: Range<u64>) -> ArrayRef {
        match self {
            Self::Kind(Kind::Sequence) => Arc::new(Int64Array::from_iter_values(rows.map(u64::cast_signed))),
            Self::Kind(Kind::Timestamp) => Arc::new(
                TimestampMicrosecondArray::from_iter_values(rows.map(timestamp_micros)).with_timezone("UTC"),
            ),
            Self::Kind(Kind::Int) => {
                let value = |row| (numbers.at(row) >> 1).cast_signed();
                Arc::new(Int64Array::from_iter_values(rows.map(value)))
            }
            Self::Kind(Kind::Float) => {
                Arc::new(Float64Array::from_iter_values(rows.map(|row| unit_float(numbers.at(row)))))
            }
            Self::Text(text) => Arc::new(text.array(numbers, rows)),
            Self::Key(key) => Arc::new(key.array(numbers, rows)),
        }
    }
}

impl Text {
    fn array(self, numbers: Numbers, rows: Range<u64>) -> arrow::array::StringArray {
        const LETTERS: [char; 32] = [
            'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o', 'p', 'q', 'r', 's',
            't', 'u', 'v', 'w', 'x', 'y', 'z', '2', '3', '4', '5', '6', '7',
        ];
        let len = usize::try_from(self.len).unwrap_or(usize::MAX);
        let mut builder = string_builder(&rows, len);
        let mut text = String::with_capacity(len + 8);
        for row in rows {
            text.clear();
            let own = Numbers { key: numbers.at(row) };
            let words = (0..).map(|n| own.at(n).to_le_bytes());
            text.extend(words.flatten().take(len).map(|byte| LETTERS[usize::from(byte & 31)]));
            builder.append_value(&text);
        }
        builder.finish()
    }
}

impl Key {
    fn text_len(self) -> usize {
        format!("k{}", self.cardinality.saturating_sub(1)).len()
    }

    fn array(self, numbers: Numbers, rows: Range<u64>) -> arrow::array::StringArray {
        use std::fmt::Write;
        let mut builder = string_builder(&rows, self.text_len());
        for row in rows {
            // Writing into a builder in memory cannot fail.
            let _ = write!(builder, "k{}", numbers.at(row) % self.cardinality);
            builder.append_value("");
        }
        builder.finish()
    }
}

/// A builder with exactly the room that is needed: spare capacity would be weighed and paid for.
fn string_builder(rows: &Range<u64>, text_len: usize) -> StringBuilder {
    let n_rows = ByteCount::new(rows.end - rows.start).as_usize();
    StringBuilder::with_capacity(n_rows, n_rows.saturating_mul(text_len))
}

fn timestamp_micros(row: u64) -> i64 {
    row.cast_signed().wrapping_mul(1_000_000).wrapping_add(FIRST_TIMESTAMP_MICROS)
}

/// The 53 highest bits as a number from 0 up to 1: as many as a double holds.
#[expect(clippy::cast_precision_loss, reason = "53 bits are exact in a double")]
fn unit_float(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Random numbers by place: the n-th is known without those before it.
#[derive(Clone, Copy)]
struct Numbers {
    key: u64,
}

impl Numbers {
    fn at(self, n: u64) -> u64 {
        mix(self.key.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(seed: u64) -> Config {
        serde_json::from_value(json!({
            "rows": 5000, "seed": seed,
            "columns": {"id": "sequence", "ts": "timestamp", "text": {"len": 20}, "key": {"cardinality": 10},
                        "x": "float", "n": "int"},
        }))
        .unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_rows_however_they_are_cut() {
        let whole = config(7).batch(0..100).unwrap();
        let cut = [config(7).batch(0..33).unwrap(), config(7).batch(33..100).unwrap()];
        assert_eq!(whole, arrow::compute::concat_batches(&whole.schema(), &cut).unwrap());
        assert_ne!(whole, config(8).batch(0..100).unwrap());
    }

    #[test]
    fn columns_keep_their_order_and_hold_what_they_promise() {
        let rows = config(1).batch(0..5000).unwrap();
        let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["id", "ts", "text", "key", "x", "n"]);
        let strings = |column: usize| -> Vec<_> {
            arrow::array::AsArray::as_string::<i32>(rows.column(column)).iter().flatten().collect()
        };
        assert!(strings(2).iter().all(|text| text.len() == 20));
        let keys: std::collections::BTreeSet<_> = strings(3).into_iter().collect();
        assert_eq!(keys.len(), 10);
    }

    #[test]
    fn a_row_never_weighs_more_than_was_planned_for_it() {
        let rows = config(1).batch(0..4096).unwrap();
        let weight = aqueduct_core::retained_bytes(&rows).get();
        assert!(weight <= config(1).row_bytes() * 4096 + 1024, "{weight}");
    }

    #[test]
    fn what_cannot_be_made_is_refused_at_its_place() {
        let mut config = config(1);
        config.columns.insert("a/b".into(), Column::Key(Key { cardinality: 0 }));
        let problems = config.validate();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].pointer, "/columns/a~1b");
    }
}

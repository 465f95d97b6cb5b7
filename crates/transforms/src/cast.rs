//! `cast`: gives columns other types. Rows stay in order; the memory is that of the new columns. A value that
//! has no counterpart in the new type makes its row a bad one; digits that the new type has no room for after
//! the point are cut off.

use std::sync::Arc;

use aqueduct_core::{
    ComponentInfo, Context, Error, ErrorKind, Factory, MapRows, Problem, Result, Stage, StageConfig,
    find_column, map_stage, only_input, pointer_to,
};
use aqueduct_formats::{ColumnType, TimeFormat, parse_type, without_hints};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::array_value_to_string;
use chrono::format::{Parsed, StrftimeItems, parse};
use chrono::{NaiveTime, TimeZone, Utc};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::columns::{check, schema_of};
use crate::pairs::Pairs;
use crate::rows::{Findings, compute_rows};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "cast",
    summary: "Gives columns other types; a value that does not fit makes its row a rejected one",
    example: "cast: { id: string, price: \"decimal(10,2)\", day: \"timestamp('%d/%m/%Y', 'Europe/Paris')\" }",
});

/// Column names and types: `int8` to `int64`, `uint8` to `uint64`, `float32`, `float64`, `string`, `bool`,
/// `date`, `timestamp`, `timestamp('PATTERN', 'ZONE')`, `decimal(p,s)`, `binary`, `list<T>`, `struct<a: T>`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Config(Pairs);

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        self.0.iter().filter_map(|(name, text)| read_type(name, text).err()).collect()
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let mut fields = input.fields().to_vec();
        let mut casts = Vec::new();
        let mut problems = Vec::new();
        for (name, text) in self.0.iter() {
            match OneCast::new(name, text, &input) {
                Ok(one) => {
                    fields[one.at] = Arc::clone(&one.field);
                    casts.push(one);
                }
                Err(problem) => problems.push(problem),
            }
        }
        check(problems)?;
        let schema = schema_of(fields, &input);
        Ok(map_stage(Cast { casts, schema, findings: Findings::default() }))
    }
}

fn read_type(name: &str, text: &str) -> Result<ColumnType, Problem> {
    parse_type(text).map_err(|problem| Problem::at(pointer_to(name), problem.message))
}

struct Cast {
    casts: Vec<OneCast>,
    schema: SchemaRef,
    findings: Findings,
}

impl MapRows for Cast {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, cx: &Context) -> Result<RecordBatch> {
        let (casts, schema) = (&self.casts, &self.schema);
        let mut compute = |rows: &RecordBatch| {
            let mut columns = rows.columns().to_vec();
            for one in casts {
                columns[one.at] = one.apply(&columns[one.at])?;
            }
            RecordBatch::try_new(SchemaRef::clone(schema), columns)
                .map_err(|error| Error::bug("cast", error.to_string()))
        };
        compute_rows(&records, schema, cx, &mut self.findings, &mut compute)
    }

    fn settle(&mut self, cx: &Context) -> Result<()> {
        self.findings.settle(cx)
    }
}

/// The cast of one column.
struct OneCast {
    at: usize,
    field: FieldRef,
    /// As the flow file says it.
    type_text: String,
    time: Option<TimeFormat>,
}

impl OneCast {
    fn new(name: &str, type_text: &str, input: &Schema) -> Result<Self, Problem> {
        let place = pointer_to(name);
        let at = find_column(input, name, &place)?;
        let column = read_type(name, type_text)?;
        let field = Arc::clone(&without_hints(&Schema::new(vec![column.field(name)])).fields()[0]);
        let from = input.field(at).data_type();
        if column.time.is_some() && !from.is_string() {
            let message =
                format!("a time pattern reads text, and `{name}` is {from}; write `timestamp` alone");
            return Err(Problem::at(place, message));
        }
        if !can_cast_types(from, field.data_type()) {
            let message = format!("`{name}` is {from}, which cannot be cast to {type_text}");
            return Err(Problem::at(place, message));
        }
        Ok(Self { at, field, type_text: type_text.trim().to_owned(), time: column.time })
    }

    fn apply(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let made = match &self.time {
            Some(format) => read_times(values, format),
            None => {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(values, self.field.data_type(), &options)
            }
        };
        made.map_err(|error| self.misfit(values, &error))
    }

    /// The error over the first of these values; it is read only when there is no other.
    fn misfit(&self, values: &ArrayRef, error: &ArrowError) -> Error {
        let value = array_value_to_string(values, 0).unwrap_or_else(|_| error.to_string());
        let value: String = value.chars().take(MAX_SHOWN_CHARS).collect();
        let message = format!("`{value}` of type {} is no {}", values.data_type(), self.type_text);
        Error::new(ErrorKind::Data, "cast", message).with("column", self.field.name())
    }
}

/// More of a value makes a message that nobody reads.
const MAX_SHOWN_CHARS: usize = 80;

fn read_times(texts: &ArrayRef, format: &TimeFormat) -> Result<ArrayRef, ArrowError> {
    let texts = cast(texts, &DataType::Utf8)?;
    let times: Result<TimestampMicrosecondArray, ArrowError> = texts
        .as_string::<i32>()
        .iter()
        .map(|text| match text {
            None => Ok(None),
            Some(text) => {
                read_time(text, format).map(Some).ok_or_else(|| ArrowError::CastError(text.to_owned()))
            }
        })
        .collect();
    Ok(Arc::new(times?.with_timezone("UTC")))
}

/// Microseconds since 1970 in UTC. A pattern without a time of day means midnight; of an hour that comes
/// twice a year the earlier one; an hour that a zone leaves out is no time.
fn read_time(text: &str, format: &TimeFormat) -> Option<i64> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text.trim(), StrftimeItems::new(&format.pattern)).ok()?;
    if let Ok(instant) = parsed.to_datetime() {
        return Some(instant.timestamp_micros());
    }
    let local = parsed
        .to_naive_datetime_with_offset(0)
        .or_else(|_| parsed.to_naive_date().map(|day| day.and_time(NaiveTime::MIN)))
        .ok()?;
    match format.zone {
        Some(zone) => Some(zone.from_local_datetime(&local).earliest()?.timestamp_micros()),
        None => Some(Utc.from_utc_datetime(&local).timestamp_micros()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Bench, batch_of, int_column, problems, strings_column};
    use arrow::datatypes::TimestampMicrosecondType;
    use serde_json::json;

    #[tokio::test]
    async fn values_take_the_new_type() {
        let rows = batch_of(r#"[{"id": 7, "n": "42", "x": 1.5}, {"id": null, "n": null, "x": -2.0}]"#);
        let options = json!({"id": "string", "n": "int64", "x": "int64"});
        let out = Bench::new().run("cast", options, vec![rows]).await.unwrap();
        assert_eq!(strings_column(&out, "id"), ["7", ""]);
        assert_eq!(int_column(&out, "n"), [42, 0]);
        assert_eq!(int_column(&out, "x"), [1, -2]);
        assert!(out.column(0).is_null(1) && out.column(1).is_null(1));
    }

    #[tokio::test]
    async fn a_value_that_does_not_fit_rejects_its_row_with_column_and_both_types() {
        let rows = batch_of(r#"[{"n": 1}, {"n": 300}, {"n": 2}]"#);
        let bench = Bench::forgiving();
        let out = bench.run("cast", json!({"n": "uint8"}), vec![rows]).await.unwrap();
        assert_eq!(out.num_rows(), 2);
        let reject = &bench.rejects()[0];
        assert_eq!(reject.message, "`300` of type Int64 is no uint8");
        assert_eq!((reject.reason, reject.origin.column.as_deref()), ("type", Some("n")));
        assert_eq!(reject.raw, br#"{"n":300}"#);
    }

    #[tokio::test]
    async fn times_are_read_by_their_pattern_and_zone() {
        let rows = batch_of(r#"[{"t": "02/07/2026 10:00"}, {"t": "32/07/2026 10:00"}]"#);
        let bench = Bench::forgiving();
        let options = json!({"t": "timestamp('%d/%m/%Y %H:%M', 'Europe/Paris')"});
        let out = bench.run("cast", options, vec![rows]).await.unwrap();
        let noon_in_paris = "2026-07-02T08:00:00Z".parse::<chrono::DateTime<Utc>>().unwrap();
        let times = out.column(0).as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.values(), &[noon_in_paris.timestamp_micros()]);
        assert_eq!(bench.rejects().len(), 1);
    }

    #[test]
    fn what_cannot_fit_is_refused_before_the_run() {
        let rows = batch_of(r#"[{"a": 1, "b": {"c": 1}}]"#);
        let wrong = problems("cast", json!({"x": "string", "a": "timestamp('%d')", "b": "int64"}), &rows);
        let places: Vec<_> = wrong.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(places, ["/x", "/a", "/b"]);
        assert_eq!(problems("cast", json!({"a": "itn64"}), &rows)[0].pointer, "/a");
    }
}

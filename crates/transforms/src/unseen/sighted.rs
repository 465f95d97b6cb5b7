//! What is recorded of each row beside its key's fingerprint: the key as text, and where the row came from.

use std::fmt::Write;
use std::sync::Arc;

use aqueduct_commit::Sightings;
use aqueduct_core::{Error, Problem, Result, find_column};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_json::WriterBuilder;
use arrow_json::writer::LineDelimited;

/// Keys of so many rows are text at once.
const ROWS_AT_ONCE: usize = 1024;

/// Where rows come from, if nobody says: the first of these that is a column.
const PLACES: [&str; 2] = ["feed_url", "_file"];

/// Where in a row stands what is recorded.
#[derive(Clone, Debug)]
pub(super) struct Sighted {
    keys: Vec<usize>,
    /// The columns of the keys alone.
    schema: SchemaRef,
    place: Option<usize>,
}

impl Sighted {
    /// Of rows with these keys, and the column that says where they come from.
    ///
    /// # Errors
    /// There is no such column, or a key has no text.
    pub(super) fn bind(schema: &Schema, keys: &[usize], place: Option<&str>) -> Result<Self, Problem> {
        let place = match place {
            Some(name) => Some(find_column(schema, name, "/sightings_from")?),
            None => PLACES.iter().find_map(|name| schema.index_of(name).ok()),
        };
        let of_keys = Arc::new(schema.project(keys).map_err(|error| wrong(&error.to_string()))?);
        let sighted = Self { keys: keys.to_vec(), schema: of_keys, place };
        let none = RecordBatch::new_empty(Arc::new(schema.clone()));
        sighted.record(&none, |_, _| Ok(())).map_err(|error| wrong(&error.chain()))?;
        Ok(sighted)
    }

    /// All rows of a batch are seen, at a time in microseconds since 1970.
    pub(super) fn add(&self, records: &RecordBatch, at: i64, to: &mut Sightings) -> Result<()> {
        for first in (0..records.num_rows()).step_by(ROWS_AT_ONCE) {
            let rows = records.slice(first, ROWS_AT_ONCE.min(records.num_rows() - first));
            self.record(&rows, |key, place| to.add(key, at, place))?;
        }
        Ok(())
    }

    /// Takes the key and the place of each row, in order.
    fn record(
        &self,
        rows: &RecordBatch,
        mut take: impl FnMut(&str, Option<&str>) -> Result<()>,
    ) -> Result<()> {
        let keys = self.keys(rows)?;
        let places = self.place.map(|at| Places::of(rows.column(at))).transpose()?;
        let mut text = String::new();
        for (row, key) in keys.lines().enumerate() {
            let place = match &places {
                Some(places) => places.of_row(row, &mut text)?,
                None => None,
            };
            take(key, place)?;
        }
        Ok(())
    }

    /// The keys of rows as JSON, one a line.
    fn keys(&self, rows: &RecordBatch) -> Result<String> {
        let columns: Vec<ArrayRef> = self.keys.iter().map(|at| Arc::clone(rows.column(*at))).collect();
        let unwritten = |error| Error::bug("record sightings", "a key has no JSON").with_source(error);
        let keys = RecordBatch::try_new(SchemaRef::clone(&self.schema), columns).map_err(unwritten)?;
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
        writer.write(&keys).and_then(|()| writer.finish()).map_err(unwritten)?;
        String::from_utf8(writer.into_inner())
            .map_err(|error| Error::bug("record sightings", "JSON that is no text").with_source(error))
    }
}

fn wrong(why: &str) -> Problem {
    let message = format!(
        "what is seen is recorded as JSON, which these keys have not ({why}); cast them to string before"
    );
    Problem::at("/sightings", message)
}

/// Where rows come from, as text.
struct Places<'a> {
    column: &'a ArrayRef,
    text: ArrayFormatter<'a>,
}

impl<'a> Places<'a> {
    fn of(column: &'a ArrayRef) -> Result<Self> {
        let text = ArrayFormatter::try_new(column, &FormatOptions::new())
            .map_err(|error| Error::bug("record sightings", "a place has no text").with_source(error))?;
        Ok(Self { column, text })
    }

    fn of_row<'t>(&self, row: usize, text: &'t mut String) -> Result<Option<&'t str>> {
        text.clear();
        if self.column.is_null(row) {
            return Ok(None);
        }
        write!(text, "{}", self.text.value(row))
            .map_err(|error| Error::bug("record sightings", "a place has no text").with_source(error))?;
        Ok(Some(text))
    }
}

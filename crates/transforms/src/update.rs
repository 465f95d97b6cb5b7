//! `update`: edits rows: sets members, removes them, merges a patch onto each row.
//!
//! ```yaml
//! update:
//!   set: { properties.platform: "{satellite}-{unit}", assets.*.roles: [data] }
//!   remove: [assets.thumbnail, links.*.title]
//!   merge: { properties: { license: CC-BY-4.0, internal_id: null } }
//! ```
//!
//! First `set` in the order of the file, then `remove`, then `merge` (RFC 7396). A path is names with dots between them,
//! or a JSON pointer (`/assets/b.04/href`) where a name has a dot in it; `*` is each member of a struct that a row has, or
//! each element of a list. In rows of STAC items `properties.` may be left out: what an item has there are columns.
//! `{column}` in a text is the value of the row as it came, null where that is; a text that is one template alone keeps
//! the column's type; `{{` and `}}` are braces.
//!
//! Columns and members that are there keep their type, and what does not fit it is refused before anything runs; new ones
//! have the type of their value. Rows stay in order; the memory is that of what is new, which is looked at before it is made: a
//! batch of which too much would come is turned in halves.

mod apply;
mod expr;
mod literal;
#[cfg(test)]
mod oracle;
mod path;
mod shape;

use aqueduct_core::{
    ComponentInfo, Context, Error, ErrorKind, Factory, MapRows, Problem, Result, Stage, StageConfig,
    map_stage, only_input, pointer_to, retained_bytes,
};
use aqueduct_formats::stac_item::is_item_layout;
use arrow::array::{RecordBatch, StructArray};
use arrow::datatypes::{Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use self::expr::{Expr, Given, Room};
use self::path::{Path, PathStep};
use crate::columns::{check, schema_of};

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "update",
    summary: "Sets and removes columns and what is within them, and merges a patch onto each row",
    example: "update: { set: { properties.platform: \"{satellite}\" }, remove: [assets.thumbnail] }",
});

/// What is changed in each row: first `set`, then `remove`, then `merge`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Paths, and what is to stand there: any value, `{column}` in its texts for a value of the row.
    #[serde(default)]
    set: Map<String, Value>,
    /// Paths of what is to go.
    #[serde(default)]
    remove: Vec<String>,
    /// A JSON merge patch (RFC 7396): objects are merged, null removes, any other value is set.
    #[serde(default)]
    merge: Map<String, Value>,
}

/// One edit as it is written: where, what, and where in the options it stands.
struct Written<'a> {
    path: Path,
    what: What<'a>,
    pointer: String,
}

/// What is to happen at a path.
#[derive(Clone, Copy)]
enum What<'a> {
    Set(&'a Value),
    Remove,
    /// By a patch: nothing has to be there.
    RemoveIfThere,
    /// By an empty object of a patch: there is to be an object.
    BeObject,
    /// By an object of a patch: the same, where there is a column or member for it.
    BeObjectIfThere,
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        if self.set.is_empty() && self.remove.is_empty() && self.merge.is_empty() {
            return vec![Problem::at("", "nothing to change; give `set`, `remove` or `merge`")];
        }
        self.written().err().unwrap_or_default()
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let mut fields = input.fields().clone();
        let mut edits = Vec::new();
        let mut problems = Vec::new();
        for written in self.written()? {
            match Edit::new(&written, &fields, &input) {
                Ok(None) => {}
                Ok(Some(edit)) => {
                    fields = edit.fields.clone();
                    edits.push(edit);
                }
                Err(message) => problems.push(Problem::at(written.pointer, message)),
            }
        }
        check(problems)?;
        let schema = schema_of(fields.to_vec(), &input);
        Ok(map_stage(Update { edits, schema }))
    }
}

impl Config {
    /// All edits, in order; a patch as one for each of its leaves.
    fn written(&self) -> Result<Vec<Written<'_>>, Vec<Problem>> {
        let mut all = Vec::new();
        let mut problems = Vec::new();
        let set = self
            .set
            .iter()
            .map(|(path, value)| (path, What::Set(value), format!("/set{}", pointer_to(path))));
        let remove = self.remove.iter().enumerate();
        let remove = remove.map(|(n, path)| (path, What::Remove, format!("/remove/{n}")));
        for (path, what, pointer) in set.chain(remove) {
            match Path::parse(path) {
                Ok(path) => all.push(Written { path, what, pointer }),
                Err(message) => problems.push(Problem::at(pointer, message)),
            }
        }
        patch(&self.merge, &Path::default(), "/merge", &mut all);
        check(problems)?;
        Ok(all)
    }
}

/// The leaves of a merge patch.
fn patch<'a>(object: &'a Map<String, Value>, at: &Path, pointer: &str, all: &mut Vec<Written<'a>>) {
    for (name, value) in object {
        let (path, pointer) = (at.to(name), format!("{pointer}{}", pointer_to(name)));
        match value {
            Value::Object(members) if !members.is_empty() => {
                all.push(Written {
                    path: path.clone(),
                    what: What::BeObjectIfThere,
                    pointer: pointer.clone(),
                });
                patch(members, &path, &pointer, all);
            }
            Value::Object(_) => all.push(Written { path, what: What::BeObject, pointer }),
            Value::Null => all.push(Written { path, what: What::RemoveIfThere, pointer }),
            value => all.push(Written { path, what: What::Set(value), pointer }),
        }
    }
}

/// One edit, ready.
struct Edit {
    steps: Vec<PathStep>,
    change: Change,
    /// The columns after it.
    fields: Fields,
}

/// What is done where a path ends.
enum Change {
    Set(Expr),
    Remove,
    BeObject,
}

impl Edit {
    /// Nothing, when there is nothing to do.
    fn new(written: &Written<'_>, fields: &Fields, input: &Schema) -> Result<Option<Self>, String> {
        let is_item = is_item_layout(input);
        if matches!(written.what, What::BeObjectIfThere) && is_item && written.path.is_properties() {
            return Ok(None);
        }
        let steps = written.path.steps(is_item)?;
        let change = match written.what {
            What::Set(value) => Change::Set(Expr::new(value, input, is_item)?),
            What::Remove | What::RemoveIfThere => Change::Remove,
            What::BeObject | What::BeObjectIfThere => Change::BeObject,
        };
        if matches!(written.what, What::RemoveIfThere | What::BeObjectIfThere)
            && !shape::is_there(fields, &steps)
        {
            return Ok(None);
        }
        let fields = shape::changed(fields, &steps, &change)?;
        if fields.is_empty() {
            return Err("no column would be left; keep at least one".into());
        }
        Ok(Some(Self { steps, change, fields }))
    }
}

struct Update {
    edits: Vec<Edit>,
    schema: SchemaRef,
}

impl MapRows for Update {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    fn map(&mut self, records: RecordBatch, cx: &Context) -> Result<RecordBatch> {
        let most = cx.share().total().saturating_add(retained_bytes(&records));
        let mut rows = StructArray::from(records.clone());
        // What one edit has made is held until the last is done.
        let room = Room::new(most);
        for edit in &self.edits {
            rows = apply::edited(&rows, edit, Given { batch: &records, room: &room }).map_err(failed)?;
        }
        RecordBatch::try_new(self.schema(), rows.into_parts().1)
            .map_err(|error| Error::bug("update", error.to_string()))
    }
}

/// What is set may take more than there is; nothing else can fail.
fn failed(error: ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(beyond) => {
            Error::new(ErrorKind::Limit, "update", "what is set takes more than the step's memory")
                .with_source(beyond)
        }
        error => Error::bug("update", error.to_string()),
    }
}

#[cfg(test)]
mod tests;

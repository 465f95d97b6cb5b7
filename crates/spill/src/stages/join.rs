//! `join`: left rows with the right rows of their key. Both sides may be of any size.
//!
//! The left side is the step's input, the right one what `with` names. A right side that fits into a quarter of
//! the share is looked up, and left rows keep their order: those that come before it has ended wait in memory, or
//! on disk if they are many. Else both sides are sorted by their keys, and no order is promised. Memory: the
//! step's share, from the first row to the last; a key with many rows on both sides takes no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use aqueduct_core::{
    BatchStream, ComponentInfo, Context, Factory, Inputs, MemoryNeed, Planning, Problem, Result, Stage,
    StageConfig, column_clashes, find_column,
};
use arrow::datatypes::SchemaRef;
use schemars::JsonSchema;
use serde::Deserialize;

use super::order_by::check_order;
use super::{MIN_LEASE, WANTED_LEASE};
use crate::beside::beside;
use crate::join::{How, JoinColumns, JoinSpec, KeyPair, common_type, join};
use crate::plain::plain_schema;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "join",
    summary: "Rows with those of another step or source that have the same key",
    example: "join: { with: { files: { paths: ['none-here/*.csv'] } }, on: [id], how: left }",
})
.with_side_input("with");

/// With what, on which columns, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The right side: the name of a step, or a source.
    #[expect(dead_code, reason = "it has become an input before the step is made")]
    with: With,
    /// The columns that are to be equal: `name` where it is the same on both sides, else `{left: a, right: b}`. A null
    /// equals nothing.
    on: Vec<On>,
    /// Which rows come out.
    #[serde(default)]
    how: Method,
    /// Behind the names of right columns that the left side has, too.
    #[serde(default = "default_suffix")]
    suffix: String,
    /// Whether each right row of a key counts, or the first only.
    #[serde(default)]
    matches: Matches,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum With {
    /// The name of a step.
    Step(#[expect(dead_code, reason = "see above")] String),
    /// A source: its name and its options.
    Source(#[expect(dead_code, reason = "see above")] BTreeMap<String, serde_json::Value>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum On {
    /// A column of both sides.
    Same(String),
    /// A column of each.
    Pair(Pair),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pair {
    /// On the left.
    left: String,
    /// On the right.
    right: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Method {
    /// Left rows with their right rows.
    #[default]
    Inner,
    /// And left rows without one, with nulls.
    Left,
    /// Left rows that have a right row, once.
    Semi,
    /// Left rows that have none.
    Anti,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Matches {
    /// A left row comes out once for each.
    #[default]
    All,
    /// Once, with the right row that came first.
    One,
}

fn default_suffix() -> String {
    "_right".to_owned()
}

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        match self.on.is_empty() {
            true => vec![Problem::at("/on", "no column is to be equal; expected at least one")],
            false => Vec::new(),
        }
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::between(MIN_LEASE, WANTED_LEASE)
    }

    fn spills(&self) -> bool {
        true
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let [left, right] = inputs else {
            return Err(vec![Problem::at("", format!("takes two inputs, found {}", inputs.len()))]);
        };
        let how = match self.how {
            Method::Inner => How::Inner,
            Method::Left => How::Left,
            Method::Semi => How::Semi,
            Method::Anti => How::Anti,
        };
        let keys = self.keys(&plain_schema(left), &plain_schema(right))?;
        let columns = JoinColumns::new(left, right, keys, how.gives_right(), &self.suffix);
        let clashes = column_clashes(&columns.output, "/suffix");
        if !clashes.is_empty() {
            return Err(clashes);
        }
        let one_match = self.matches == Matches::One;
        Ok(Box::new(Join { spec: JoinSpec { how, one_match, columns } }))
    }
}

impl Config {
    fn keys(&self, left: &SchemaRef, right: &SchemaRef) -> Result<Vec<KeyPair>, Vec<Problem>> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for (n, on) in self.on.iter().enumerate() {
            match on.keys(left, right, &format!("/on/{n}")) {
                Ok(pair) => keys.push(pair),
                Err(wrong) => problems.extend(wrong),
            }
        }
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }
}

impl On {
    fn keys(&self, left: &SchemaRef, right: &SchemaRef, pointer: &str) -> Result<KeyPair, Vec<Problem>> {
        let (on_left, on_right) = match self {
            Self::Same(name) => ((name, pointer.to_owned()), (name, pointer.to_owned())),
            Self::Pair(pair) => {
                ((&pair.left, format!("{pointer}/left")), (&pair.right, format!("{pointer}/right")))
            }
        };
        let at_left = find_column(left, on_left.0, &on_left.1).map_err(|problem| of_side("left", problem));
        let at_right =
            find_column(right, on_right.0, &on_right.1).map_err(|problem| of_side("right", problem));
        let (at_left, at_right) = match (at_left, at_right) {
            (Ok(at_left), Ok(at_right)) => (at_left, at_right),
            (l, r) => return Err([l.err(), r.err()].into_iter().flatten().collect()),
        };
        let kind = common_type(left.field(at_left), right.field(at_right), pointer)
            .and_then(|kind| check_order(&kind, on_left.0, pointer).map(|()| kind))
            .map_err(|problem| vec![problem])?;
        Ok(KeyPair { left: at_left, right: at_right, kind })
    }
}

fn of_side(side: &str, problem: Problem) -> Problem {
    Problem { message: format!("on the {side}: {}", problem.message), ..problem }
}

struct Join {
    spec: JoinSpec,
}

impl Stage for Join {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.spec.columns.output)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        beside(inputs, self.schema(), cx, move |desk| join(desk, self.spec))
    }
}

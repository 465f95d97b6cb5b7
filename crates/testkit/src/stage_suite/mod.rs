//! What every stage promises.
//!
//! In the crate of the stages, `tests/it/conformance.rs` holds a table of [`Fixture`]s and one line that makes
//! the tests:
//!
//! ```ignore
//! aqueduct_testkit::stage_suite!(aqueduct_transforms::ALL, fixtures);
//! ```
//!
//! A third argument is a function that puts clients and pools into the context of every trial.

mod cases;
mod feed;

use aqueduct_core::{BatchStream, Stage, StageFactory};
use aqueduct_primitives::ByteCount;
use arrow::array::RecordBatch;
use serde_json::Value;

use self::feed::{Cut, Feed};
use crate::suite::room::{Folders, Memory, Room, Share};
use crate::suite::{Objection, Time, Verdict, on_runtime, row};

pub use cases::*;

/// A table of fixtures over a list of stages.
pub type Suite = crate::suite::Suite<dyn StageFactory, Fixture>;

/// Makes one `#[test]` of every case: of a list of stages, and a function that gives the table of
/// [`Fixture`](crate::stage_suite::Fixture)s.
#[macro_export]
macro_rules! stage_suite {
    ($components:expr, $fixtures:expr) => {
        $crate::stage_suite!($components, $fixtures, |_| {});
    };
    ($components:expr, $fixtures:expr, $services:expr) => {
        $crate::stage_cases!([$crate::conformance_tests] stage_suite, $components, $fixtures, $services;);
    };
}

/// Calls a macro with what is given and then the names of all cases: who has something to do for each of them,
/// forgets none.
#[macro_export]
macro_rules! stage_cases {
    ([$($then:tt)+] $($with:tt)*) => {
        $($then)+! {
            $($with)*
            the_schema_is_as_declared,
            positions_pass_and_never_overtake_their_rows,
            positions_pass_even_when_all_rows_are_dropped,
            halves_of_a_batch_give_the_same_rows,
            nothing_is_held_at_the_end,
            an_empty_input_ends_cleanly,
            dropping_the_output_drops_the_inputs,
            an_error_of_the_input_is_passed_on_and_is_last,
            it_never_waits_for_the_memory_of_the_flow,
        }
    };
}

/// How one stage is tried.
pub struct Fixture {
    /// The stage's name.
    pub component: &'static str,
    /// Which of several fixtures; may be empty.
    pub variant: &'static str,
    /// Its options. Paths are relative to the flow's folder.
    pub options: Value,
    /// The rows of each input; the first has at least ten.
    pub inputs: Vec<RecordBatch>,
    /// The rows that come of them, as [`texts`](crate::suite::texts) writes them.
    pub rows: Vec<String>,
    /// Options under which no row of these inputs comes out; or why every row does.
    pub dropping: Result<(Value, Vec<RecordBatch>), &'static str>,
    /// Whether it asks a server: time then passes as on the wall.
    pub asks_a_server: bool,
}

row!(Fixture);

/// One fixture, about to be tried.
pub struct Trial {
    factory: &'static dyn StageFactory,
    fixture: Fixture,
    services: fn(&mut aqueduct_core::RunContext),
}

/// A promise, one of the functions of this module.
pub type Case<V> = fn(Trial) -> V;

/// Tries a case on every fixture.
///
/// # Panics
/// A stage breaks the promise.
pub fn judge<V: Future<Output = Verdict> + 'static>(suite: Suite, case: &str, run: Case<V>) {
    let services = suite.services;
    suite.judge(case, |factory, fixture| {
        let time = if fixture.asks_a_server { Time::Real } else { Time::Still };
        on_runtime(time, move || run(Trial { factory, fixture, services }))
    });
}

/// A stage that runs over its inputs, in surroundings of its own.
struct Running {
    room: Room,
    schema: arrow::datatypes::SchemaRef,
    feeds: Vec<Feed>,
    stream: BatchStream,
}

impl Trial {
    /// The stage over its inputs, cut into pieces, in the least memory that it works in.
    fn run(&self, cut: Cut) -> Result<Running, Objection> {
        self.run_over(&self.fixture.options, &self.fixture.inputs, cut)
    }

    /// As [`Trial::run`], with other options and inputs. The flow has just the memory that the inputs weigh.
    fn run_over(&self, options: &Value, inputs: &[RecordBatch], cut: Cut) -> Result<Running, Objection> {
        let pieces = inputs.iter().map(|input| cut.pieces(input)).collect::<Result<Vec<_>, _>>()?;
        let weight: ByteCount = pieces.iter().flatten().map(aqueduct_core::retained_bytes).sum();
        let folders = Folders::new()?;
        let config = self.factory.configure(options.clone())?;
        let share = Share::Least.of(config.memory(&folders.planning()));
        let room = Room::new(folders, Memory { flow: weight, share }, self.services)?;
        let feeds = pieces.into_iter().enumerate().map(|(n, pieces)| Feed::new(n, &room, pieces, cut));
        let mut feeds = feeds.collect::<Result<Vec<_>, _>>()?;
        let schemas: Vec<_> = inputs.iter().map(RecordBatch::schema).collect();
        let stage: Box<dyn Stage> = config.bind(&schemas)?;
        let (schema, inputs) = (stage.schema(), feeds.iter_mut().map(Feed::stream).collect());
        let stream = stage.run(inputs, room.cx().clone());
        Ok(Running { room, schema, feeds, stream })
    }
}

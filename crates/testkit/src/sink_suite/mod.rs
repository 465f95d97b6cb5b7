//! What every sink promises.
//!
//! In the crate of the sinks, `tests/it/conformance.rs` holds a table of [`Fixture`]s and one line that makes
//! the tests:
//!
//! ```ignore
//! aqueduct_testkit::sink_suite!(aqueduct_sinks::ALL, fixtures);
//! ```

mod cases;
mod parts;

use std::sync::Arc;

use aqueduct_core::{Batch, Fs, Positions, Sink, SinkConfig, SinkFactory, StdFs};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde_json::Value;

use crate::suite::room::{FLOW_BYTES, Folders, Memory, Room, Share};
use crate::suite::{Objection, Time, Verdict, on_runtime, row};

pub use cases::*;

/// A table of fixtures over a list of sinks.
pub type Suite = crate::suite::Suite<dyn SinkFactory, Fixture>;

/// Makes one `#[test]` of every case: of a list of sinks, and a function that gives the table of
/// [`Fixture`](crate::sink_suite::Fixture)s.
#[macro_export]
macro_rules! sink_suite {
    ($components:expr, $fixtures:expr) => {
        $crate::sink_cases!([$crate::conformance_tests] sink_suite, $components, $fixtures, |_| {};);
    };
}

/// Calls a macro with what is given and then the names of all cases: who has something to do for each of them,
/// forgets none.
#[macro_export]
macro_rules! sink_cases {
    ([$($then:tt)+] $($with:tt)*) => {
        $($then)+! {
            $($with)*
            parts_are_what_is_on_disk,
            nothing_is_visible_before_it_is_published,
            abort_leaves_nothing_staged,
            two_seals_hold_all_rows,
            what_is_written_is_held_in_its_share,
            an_empty_input_gives_a_valid_output,
            a_failing_disk_is_an_error_and_leaves_nothing,
        }
    };
}

/// How one sink is tried.
pub struct Fixture {
    /// The sink's name.
    pub component: &'static str,
    /// Which of several fixtures; may be empty.
    pub variant: &'static str,
    /// Its options. Paths are relative to the flow's folder.
    pub options: Value,
    /// What it is to write: at least two batches, none empty, and after the first half of them a seal may come.
    pub batches: Vec<(RecordBatch, Positions)>,
    /// How its parts are read back.
    pub reading: Reading,
}

/// How the parts of a sink are read back.
#[derive(Clone)]
pub enum Reading {
    /// The rows in a part's name and bytes, as [`texts`](crate::suite::texts) writes them: one for each row.
    Rows(fn(&str, &[u8]) -> Vec<String>),
    /// The output is not of rows: each part is the text that all its rows make, and these are all the texts.
    Whole(Vec<String>),
    /// It has no parts: its rows are gone from here when they are written.
    NoParts,
}

row!(Fixture);

/// One fixture, about to be tried.
pub struct Trial {
    factory: &'static dyn SinkFactory,
    fixture: Fixture,
    services: fn(&mut aqueduct_core::RunContext),
}

/// A promise, one of the functions of this module.
pub type Case<V> = fn(Trial) -> V;

/// Tries a case on every fixture.
///
/// # Panics
/// A sink breaks the promise.
pub fn judge<V: Future<Output = Verdict> + 'static>(suite: Suite, case: &str, run: Case<V>) {
    let services = suite.services;
    suite.judge(case, |factory, fixture| {
        on_runtime(Time::Still, move || run(Trial { factory, fixture, services }))
    });
}

impl Trial {
    fn configure(&self) -> Result<Box<dyn SinkConfig>, Objection> {
        Ok(self.factory.configure(self.fixture.options.clone())?)
    }

    /// Surroundings with the least memory that the sink works in.
    fn room(&self) -> Result<Room, Objection> {
        self.room_on(Arc::new(StdFs))
    }

    fn room_on(&self, fs: Arc<dyn Fs>) -> Result<Room, Objection> {
        let folders = Folders::new()?;
        let share = Share::Least.of(self.configure()?.memory(&folders.planning()));
        Ok(Room::on(fs, folders, Memory { flow: FLOW_BYTES, share }, self.services)?)
    }

    async fn open(&self, room: &Room) -> Result<Box<dyn Sink>, Objection> {
        let (config, schema) = self.fitted()?;
        Ok(config.open(schema, room.cx()).await?)
    }

    /// Its options, which fit the columns of the fixture, and these.
    fn fitted(&self) -> Result<(Box<dyn SinkConfig>, SchemaRef), Objection> {
        let Some((first, _)) = self.fixture.batches.first() else {
            return Err(Objection::Wrong("the fixture has no batch".into()));
        };
        let config = self.configure()?;
        let problems = config.fit(&first.schema());
        if problems.is_empty() { Ok((config, first.schema())) } else { Err(problems.into()) }
    }

    /// A batch as it comes to a sink: covered by memory of the flow.
    async fn batch(&self, room: &Room, at: usize) -> aqueduct_core::Result<Batch> {
        let (records, positions) = &self.fixture.batches[at];
        Ok(room.cx().admit(records.clone()).await?.with_positions(positions.clone()))
    }

    async fn write(
        &self,
        room: &Room,
        sink: &mut dyn Sink,
        batches: std::ops::Range<usize>,
    ) -> aqueduct_core::Result<()> {
        for at in batches {
            sink.write(self.batch(room, at).await?).await?;
        }
        Ok(())
    }

    fn n_batches(&self) -> usize {
        self.fixture.batches.len()
    }
}

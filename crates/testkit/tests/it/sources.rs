//! Sources that break a promise each.

use std::sync::Arc;

use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Error, ErrorKind, Factory, MemoryNeed, Origin, Planning,
    Positions, Problem, Reject, RejectedItem, Result, Source, SourceCaps, SourceConfig, SourceFactory,
};
use aqueduct_primitives::{ByteCount, Reservation};
use aqueduct_testkit::source_suite::{self, Fixture, Input, Suite};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{check_fault, faults, told};

static FACTORY: Factory<Config> =
    Factory::new(ComponentInfo { name: "bad", summary: "Breaks a promise", example: "bad: {}" });

const ALL: &[&dyn SourceFactory] = &[&FACTORY];

/// 20 batches of 500 rows weigh 2 MB.
const N_BATCHES: u64 = 20;
const BATCH_ROWS: i64 = 500;
const TEXT_BYTES: usize = 200;

#[derive(Debug, Deserialize, JsonSchema)]
struct Config {
    #[serde(default)]
    fault: Fault,
    #[serde(default = "all")]
    n_batches: u64,
}

fn all() -> u64 {
    N_BATCHES
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
enum Fault {
    #[default]
    None,
    OtherColumns,
    NotReserved,
    KeepsMemory,
    LeavesTask,
    StartsAgain,
    OnlyWholeSplits,
    RejectsAgain,
    SkipsRows,
    GivesRowsOfNothing,
    GoesBack,
    GoesOn,
    Panics,
}

#[async_trait]
impl SourceConfig for Config {
    fn known_schema(&self, _: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(None)
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::default()
    }

    async fn open(self: Box<Self>, _: &Context) -> Result<Box<dyn Source>> {
        Ok(self)
    }
}

fn rows(name: &str, batch: u64) -> RecordBatch {
    let first = i64::try_from(batch).unwrap() * BATCH_ROWS;
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + BATCH_ROWS));
    let texts = std::iter::repeat_n("x".repeat(TEXT_BYTES), BATCH_ROWS.try_into().unwrap());
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    RecordBatch::try_from_iter([(name, numbers), ("text", texts)]).unwrap()
}

impl Source for Config {
    fn schema(&self) -> SchemaRef {
        rows("n", 0).schema()
    }

    fn capabilities(&self) -> SourceCaps {
        let ordered = self.fault != Fault::OnlyWholeSplits;
        SourceCaps { replayable: true, ordered, endless: false, remote: false, summed_up_in: None }
    }

    fn run(self: Box<Self>, cx: Context, from: Positions) -> BatchStream {
        let Self { fault, n_batches } = *self;
        let done = from.get("all").and_then(|position| position.as_u64()).unwrap_or(0);
        let first = match fault {
            Fault::StartsAgain => 0,
            Fault::SkipsRows if done > 0 => done + 1,
            // What is told of two batches is what is complete of the first.
            Fault::OnlyWholeSplits => done / 2 * 2,
            _ => done,
        };
        let n_batches = if fault == Fault::GivesRowsOfNothing { n_batches.max(1) } else { n_batches };
        if fault == Fault::LeavesTask {
            std::mem::forget(cx.tasks().spawn(std::future::pending::<()>()));
        }
        let failing: Result<()> = Err(Error::new(ErrorKind::Data, "read", "it failed"));
        let batches = try_stream! {
            if fault == Fault::RejectsAgain {
                let (item, origin) = (RejectedItem::Row, Origin::default());
                cx.reject(Reject { item, reason: "bad", message: String::new(), origin, raw: Vec::new() })?;
            }
            for n in first..n_batches {
                assert!(fault != Fault::Panics, "a bad source");
                let records = rows(if fault == Fault::OtherColumns { "m" } else { "n" }, n);
                let mut batch = match fault {
                    Fault::NotReserved => Batch::new(records, Reservation::empty()),
                    _ => cx.admit(records).await?,
                };
                if fault == Fault::KeepsMemory && n == 1 {
                    std::mem::forget(batch.reservation_mut().split(ByteCount::new(8)));
                }
                yield batch.with_positions(match fault {
                    Fault::GoesBack => Positions::of("all", 1.into()),
                    _ => Positions::of("all", (n + 1).into()),
                });
            }
            if n_batches == 3 {
                failing?;
            }
        };
        match fault {
            Fault::GoesOn => Box::pin(futures::StreamExt::chain(batches, futures::stream::once(after_all()))),
            _ => Box::pin(batches),
        }
    }
}

async fn after_all() -> Result<Batch> {
    Err(Error::new(ErrorKind::Data, "read", "it failed again"))
}

fn fixture(fault: Fault) -> Fixture {
    Fixture {
        component: "bad",
        variant: "",
        usual: match fault {
            Fault::RejectsAgain => Input::of(json!({"fault": fault})).rejected(1),
            _ => Input::of(json!({"fault": fault})),
        },
        rows: (0..N_BATCHES).flat_map(|n| aqueduct_testkit::suite::texts(&rows("n", n))).collect(),
        n_splits: 1,
        empty: Input::of(json!({"fault": fault, "n_batches": 0})),
        failing: Ok(Input::of(json!({"fault": fault, "n_batches": 3}))),
    }
}

fn suite(fault: Fault) -> Suite {
    suite_of(vec![fixture(fault)])
}

fn suite_of(fixtures: Vec<Fixture>) -> Suite {
    Suite { components: ALL, fixtures, services: |_| {}, file: "tests/it/conformance.rs" }
}

aqueduct_testkit::source_cases!([faults] source_suite;);

#[test]
fn each_broken_promise_is_found_and_names_component_and_case() {
    let faults = Faults {
        the_schema_is_constant: (Fault::OtherColumns, "and a batch has"),
        an_empty_input_ends_cleanly: (Fault::GivesRowsOfNothing, "500 rows of nothing"),
        dropped_mid_stream_it_gives_everything_back: (Fault::KeepsMemory, "MEM-1: 8"),
        a_slow_consumer_stays_inside_the_budget: (Fault::NotReserved, "MEM-2"),
        an_error_is_the_last_item: (Fault::GoesOn, "something comes after the error"),
        positions_come_in_order_and_end_each_split_once: (Fault::GoesBack, "was at 1, and then at 1"),
        a_resumed_run_repeats_and_skips_nothing: (Fault::StartsAgain, "too often"),
        cancelling_leaves_no_task: (Fault::LeavesTask, "waits for ever"),
    };
    faults.check();
    check_fault!(source_suite, the_schema_is_constant, Fault::Panics, "it panicked: a bad source");
    check_fault!(source_suite, a_resumed_run_repeats_and_skips_nothing, Fault::SkipsRows, "is missing");
    let (within, twice) = (Fault::OnlyWholeSplits, "too often");
    check_fault!(source_suite, a_resumed_run_repeats_and_skips_nothing, within, twice);
    let (again, told) = (Fault::RejectsAgain, "of what is rejected");
    check_fault!(source_suite, a_resumed_run_repeats_and_skips_nothing, again, told);
}

#[test]
fn a_component_without_a_fixture_is_told_where_to_add_one() {
    let missing = told(|| suite_of(Vec::new()).every_component_has_a_fixture());
    assert!(missing.contains("source `bad` has no fixture: add a row"), "{missing}");
    assert!(missing.contains("tests/it/conformance.rs"), "{missing}");
    let gone = Fixture { component: "gone", ..fixture(Fault::None) };
    let stale = told(|| suite_of(vec![gone, fixture(Fault::None)]).every_component_has_a_fixture());
    assert!(stale.contains("source `gone` in tests/it/conformance.rs: there is no such source"), "{stale}");
}

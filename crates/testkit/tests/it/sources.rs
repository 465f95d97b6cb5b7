//! Sources that break a promise each.

use std::sync::Arc;

use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Error, ErrorKind, Factory, MemoryNeed, Planning, Positions,
    Problem, Result, Source, SourceCaps, SourceConfig, SourceFactory,
};
use aqueduct_primitives::{ByteCount, Reservation};
use aqueduct_testkit::source_suite::{self, Fixture, Input, Suite};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::told;

static FACTORY: Factory<Config> =
    Factory::new(ComponentInfo { name: "bad", summary: "Breaks a promise", example: "bad: {}" });

const ALL: &[&dyn SourceFactory] = &[&FACTORY];

/// 500 batches of 500 rows weigh 2 MB.
const N_BATCHES: u64 = 500;
const BATCH_ROWS: i64 = 500;

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

#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
enum Fault {
    #[default]
    None,
    OtherColumns,
    NotReserved,
    KeepsMemory,
    LeavesTask,
    StartsAgain,
    SkipsRows,
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
    RecordBatch::try_from_iter([(name, numbers)]).unwrap()
}

impl Source for Config {
    fn schema(&self) -> SchemaRef {
        rows("n", 0).schema()
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps { replayable: true, ordered: true, endless: false }
    }

    fn run(self: Box<Self>, cx: Context, from: Positions) -> BatchStream {
        let Self { fault, n_batches } = *self;
        let done = from.get("all").and_then(|position| position.as_u64()).unwrap_or(0);
        let first = match fault {
            Fault::StartsAgain => 0,
            Fault::SkipsRows if done > 0 => done + 1,
            _ => done,
        };
        if fault == Fault::LeavesTask {
            std::mem::forget(cx.tasks().spawn(std::future::pending::<()>()));
        }
        let failing: Result<()> = Err(Error::new(ErrorKind::Data, "read", "it failed"));
        let batches = try_stream! {
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
                let position = if fault == Fault::GoesBack { 1 } else { n + 1 };
                yield batch.with_positions(Positions::of("all", position.into()));
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

fn fixture(fault: &str) -> Fixture {
    Fixture {
        component: "bad",
        variant: "",
        usual: Input::of(json!({"fault": fault})),
        rows: (0..N_BATCHES).flat_map(|n| aqueduct_testkit::suite::texts(&rows("n", n))).collect(),
        n_splits: 1,
        empty: Input::of(json!({"fault": fault, "n_batches": 0})),
        failing: Ok(Input::of(json!({"fault": fault, "n_batches": 3}))),
    }
}

fn suite(fixtures: fn() -> Vec<Fixture>) -> Suite {
    Suite { components: ALL, fixtures, services: |_| {}, file: "tests/it/conformance.rs" }
}

macro_rules! judged {
    ($fault:literal, $case:ident) => {
        source_suite::judge(&suite(|| vec![fixture($fault)]), stringify!($case), source_suite::$case)
    };
}

#[test]
fn a_good_source_passes() {
    judged!("None", the_schema_is_constant);
    judged!("None", an_empty_input_ends_cleanly);
    judged!("None", dropped_mid_stream_it_gives_everything_back);
    judged!("None", a_slow_consumer_stays_inside_the_budget);
    judged!("None", an_error_is_the_last_item);
    judged!("None", positions_come_in_order_and_end_each_split_once);
    judged!("None", a_resumed_run_repeats_and_skips_nothing);
    judged!("None", cancelling_leaves_no_task);
}

#[test]
fn each_broken_promise_is_found_and_names_component_and_case() {
    let found = [
        (told(|| judged!("OtherColumns", the_schema_is_constant)), "and a batch has"),
        (told(|| judged!("Panics", the_schema_is_constant)), "it panicked: a bad source"),
        (told(|| judged!("KeepsMemory", dropped_mid_stream_it_gives_everything_back)), "MEM-1: 8"),
        (told(|| judged!("NotReserved", a_slow_consumer_stays_inside_the_budget)), "MEM-2"),
        (told(|| judged!("GoesOn", an_error_is_the_last_item)), "something comes after the error"),
        (
            told(|| judged!("GoesBack", positions_come_in_order_and_end_each_split_once)),
            "was at 1, and then at 1",
        ),
        (told(|| judged!("StartsAgain", a_resumed_run_repeats_and_skips_nothing)), "too often"),
        (told(|| judged!("SkipsRows", a_resumed_run_repeats_and_skips_nothing)), "is missing"),
        (told(|| judged!("LeavesTask", cancelling_leaves_no_task)), "waits for ever"),
    ];
    for (found, expected) in found {
        assert!(found.contains(expected), "expected `{expected}` in {found}");
        assert!(found.contains("source `bad`, case `"), "{found}");
    }
}

#[test]
fn a_component_without_a_fixture_is_told_where_to_add_one() {
    let missing = told(|| suite(Vec::new).every_component_has_a_fixture());
    assert!(missing.contains("source `bad` has no fixture: add a row"), "{missing}");
    assert!(missing.contains("tests/it/conformance.rs"), "{missing}");
    let stale = || vec![Fixture { component: "gone", ..fixture("None") }, fixture("None")];
    let stale = told(|| suite(stale).every_component_has_a_fixture());
    assert!(stale.contains("source `gone` in tests/it/conformance.rs: there is no such source"), "{stale}");
}

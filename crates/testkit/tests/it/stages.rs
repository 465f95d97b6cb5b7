//! Stages that break a promise each.

use std::sync::Arc;

use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Error, ErrorKind, Factory, Inputs, Positions, Problem,
    Result, Stage, StageConfig, StageFactory,
};
use aqueduct_primitives::{ByteCount, Reservation};
use aqueduct_testkit::stage_suite::{self, Fixture, Suite};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{check_fault, faults};

static FACTORY: Factory<Config> =
    Factory::new(ComponentInfo { name: "bad", summary: "Breaks a promise", example: "bad: None" });

const ALL: &[&dyn StageFactory] = &[&FACTORY];

#[derive(Debug, Deserialize, JsonSchema)]
struct Config(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
enum Fault {
    None,
    /// None, with options under which no row passes.
    DropsRows,
    OtherColumns,
    DropsBatches,
    MakesRows,
    LosesPositions,
    HurriesPositions,
    FirstOfEach,
    WaitsForFlow,
    KeepsInput,
    SwallowsErrors,
    KeepsMemory,
}

impl StageConfig for Config {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        Ok(Box::new(Bad { fault: self.0, schema: Arc::clone(&inputs[0]) }))
    }
}

struct Bad {
    fault: Fault,
    schema: SchemaRef,
}

impl Stage for Bad {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(self: Box<Self>, mut inputs: Inputs, cx: Context) -> BatchStream {
        let Self { fault, schema } = *self;
        let mut input = inputs.remove(0);
        if fault == Fault::KeepsInput {
            let (kept, empty) = (input, futures::stream::empty());
            std::mem::forget(kept);
            return Box::pin(empty);
        }
        Box::pin(try_stream! {
            while let Some(batch) = input.next().await {
                let batch = match batch {
                    Err(_) if fault == Fault::SwallowsErrors => break,
                    other => other?,
                };
                let positions = batch.positions().clone();
                if fault == Fault::HurriesPositions {
                    yield Batch::only_positions(Arc::clone(&schema), positions);
                    yield batch.with_positions(Positions::default());
                    continue;
                }
                if fault != Fault::DropsBatches {
                    yield broken(fault, batch, &cx).await?;
                }
            }
            if fault == Fault::MakesRows {
                yield Batch::new(numbers("n"), Reservation::empty());
            }
        })
    }
}

async fn broken(fault: Fault, mut batch: Batch, cx: &Context) -> Result<Batch> {
    match fault {
        Fault::DropsRows => Ok(Batch::only_positions(batch.schema(), batch.positions().clone())),
        Fault::OtherColumns => {
            let renamed = RecordBatch::try_from_iter([("m", Arc::clone(batch.records().column(0)))]);
            Ok(batch.with_records(renamed.unwrap()))
        }
        Fault::LosesPositions => Ok(batch.with_positions(Positions::default())),
        Fault::FirstOfEach => {
            let first = batch.records().slice(0, batch.num_rows().min(1));
            Ok(batch.with_records(first))
        }
        Fault::WaitsForFlow => {
            let fresh = cx.admit(batch.records().clone()).await?;
            Ok(fresh.with_positions(batch.positions().clone()))
        }
        Fault::KeepsMemory => {
            std::mem::forget(batch.reservation_mut().split(ByteCount::new(1)));
            Ok(batch)
        }
        Fault::None | Fault::SwallowsErrors | Fault::MakesRows => Ok(batch),
        other => Err(Error::new(ErrorKind::Bug, "test", format!("{other:?}"))),
    }
}

fn numbers(name: &str) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40));
    RecordBatch::try_from_iter([(name, numbers)]).unwrap()
}

fn suite(fault: Fault) -> Suite {
    let dropping = if fault == Fault::None { Fault::DropsRows } else { fault };
    let fixture = Fixture {
        component: "bad",
        variant: "of 40 rows",
        options: json!(fault),
        inputs: vec![numbers("n")],
        rows: (0..40).map(|n| n.to_string()).collect(),
        dropping: Ok((json!(dropping), vec![numbers("n")])),
        asks_a_server: false,
    };
    Suite { components: ALL, fixtures: vec![fixture], services: |_| {}, file: file!() }
}

aqueduct_testkit::stage_cases!([faults] stage_suite;);

#[test]
fn each_broken_promise_is_found_and_names_component_and_case() {
    let faults = Faults {
        the_schema_is_as_declared: (Fault::OtherColumns, "and gave"),
        positions_pass_and_never_overtake_their_rows: (Fault::LosesPositions, "went out"),
        positions_pass_even_when_all_rows_are_dropped: (Fault::DropsBatches, "went out"),
        halves_of_a_batch_give_the_same_rows: (Fault::FirstOfEach, "is missing"),
        nothing_is_held_at_the_end: (Fault::KeepsMemory, "MEM-1"),
        an_empty_input_ends_cleanly: (Fault::MakesRows, "40 rows of nothing"),
        dropping_the_output_drops_the_inputs: (Fault::KeepsInput, "it holds its inputs"),
        an_error_of_the_input_is_passed_on_and_is_last: (Fault::SwallowsErrors, "the error became"),
        it_never_waits_for_the_memory_of_the_flow: (Fault::WaitsForFlow, "waits for ever"),
    };
    faults.check();
    let (hurried, expected) = (Fault::HurriesPositions, "came out after");
    check_fault!(stage_suite, positions_pass_and_never_overtake_their_rows, hurried, expected);
}

//! Stages that break a promise each.

use std::sync::Arc;

use aqueduct_core::{
    Batch, BatchStream, ComponentInfo, Context, Error, ErrorKind, Factory, Inputs, Positions, Problem,
    Result, Stage, StageConfig, StageFactory,
};
use aqueduct_primitives::ByteCount;
use aqueduct_testkit::stage_suite::{self, Fixture, Suite};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::told;

static FACTORY: Factory<Config> =
    Factory::new(ComponentInfo { name: "bad", summary: "Breaks a promise", example: "bad: None" });

const ALL: &[&dyn StageFactory] = &[&FACTORY];

#[derive(Debug, Deserialize, JsonSchema)]
struct Config(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
enum Fault {
    None,
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
                yield broken(fault, batch, &cx).await?;
            }
        })
    }
}

async fn broken(fault: Fault, mut batch: Batch, cx: &Context) -> Result<Batch> {
    match fault {
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
        Fault::None | Fault::SwallowsErrors => Ok(batch),
        other => Err(Error::new(ErrorKind::Bug, "test", format!("{other:?}"))),
    }
}

fn fixture(fault: &str) -> Fixture {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..40));
    Fixture {
        component: "bad",
        variant: "of 40 rows",
        options: json!(fault),
        inputs: vec![RecordBatch::try_from_iter([("n", numbers)]).unwrap()],
        rows: (0..40).map(|n| n.to_string()).collect(),
        dropping: Err("it passes every row"),
    }
}

macro_rules! judged {
    ($fault:literal, $case:ident) => {{
        let fixtures = || vec![fixture($fault)];
        let suite = Suite { components: ALL, fixtures, services: |_| {}, file: file!() };
        stage_suite::judge(&suite, stringify!($case), stage_suite::$case)
    }};
}

#[test]
fn a_good_stage_passes() {
    judged!("None", the_schema_is_as_declared);
    judged!("None", positions_pass_and_never_overtake_their_rows);
    judged!("None", positions_pass_even_when_all_rows_are_dropped);
    judged!("None", halves_of_a_batch_give_the_same_rows);
    judged!("None", nothing_is_held_at_the_end);
    judged!("None", an_empty_input_ends_cleanly);
    judged!("None", dropping_the_output_drops_the_inputs);
    judged!("None", an_error_of_the_input_is_passed_on_and_is_last);
    judged!("None", it_never_waits_for_the_memory_of_the_flow);
}

#[test]
fn each_broken_promise_is_found_and_names_component_and_case() {
    let found = [
        (told(|| judged!("LosesPositions", positions_pass_and_never_overtake_their_rows)), "went out"),
        (
            told(|| judged!("HurriesPositions", positions_pass_and_never_overtake_their_rows)),
            "came out after",
        ),
        (told(|| judged!("FirstOfEach", halves_of_a_batch_give_the_same_rows)), "is missing"),
        (told(|| judged!("WaitsForFlow", it_never_waits_for_the_memory_of_the_flow)), "waits for ever"),
        (told(|| judged!("KeepsInput", dropping_the_output_drops_the_inputs)), "it holds its inputs"),
        (
            told(|| judged!("SwallowsErrors", an_error_of_the_input_is_passed_on_and_is_last)),
            "the error became",
        ),
        (told(|| judged!("KeepsMemory", nothing_is_held_at_the_end)), "MEM-1"),
    ];
    for (found, expected) in found {
        assert!(found.contains(expected), "expected `{expected}` in {found}");
        assert!(found.contains("stage `bad` (of 40 rows), case `"), "{found}");
    }
}

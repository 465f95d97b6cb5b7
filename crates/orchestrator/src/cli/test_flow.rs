//! `aqueduct test`: the flow's own tests, on rows that they give.

use std::collections::BTreeMap;
use std::path::Path;

use aqueduct_core::{Error, Result};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::Program;
use super::arguments::FlowArguments;
use super::exit;
use crate::flow::{Expected, Flow, FlowTest};
use crate::plan::plan;
use crate::report::Report;
use crate::run::{self, CollectSink, Collected, Failure, RunOptions};

/// A test is over small inputs: more rows than this at one step are an error.
const MAX_ROWS_OF_A_TEST: u64 = 100_000;

/// Runs every test of a flow; 0 when all hold, 1 when one does not.
pub(super) async fn test(program: &Program, arguments: FlowArguments) -> u8 {
    let tests = match program.load(&arguments) {
        Ok(flows) => flows.first().map(|flow| flow.tests.clone()).unwrap_or_default(),
        Err(code) => return code,
    };
    let mut n_failed = 0;
    for one in &tests {
        // Each test takes a flow apart, so each gets its own.
        let flow = match program.load(&arguments) {
            Ok(flows) => flows.into_iter().next(),
            Err(code) => return code,
        };
        let Some(flow) = flow else { break };
        let told = Box::pin(run_test(program, flow, one)).await;
        let verdict = if told.is_empty() { "ok" } else { "FAILED" };
        program.write_out(format!("{verdict}  {}\n", one.name).as_bytes());
        for line in &told {
            program.write_out(format!("    {}\n", program.console.masked(line)).as_bytes());
        }
        n_failed += usize::from(!told.is_empty());
    }
    program.write_out(format!("{} passed, {n_failed} failed\n", tests.len() - n_failed).as_bytes());
    if n_failed == 0 { exit::DONE } else { exit::FAILED }
}

/// What does not hold.
async fn run_test(program: &Program, flow: Flow, test: &FlowTest) -> Vec<String> {
    let about = flow.without_steps();
    let collected: BTreeMap<String, Collected> =
        test.expect.keys().map(|step| (step.clone(), Collected::default())).collect();
    let report = match run_given(program, flow, test, &collected).await {
        Ok(report) => report,
        Err(message) => return vec![message],
    };
    let mut told = Vec::new();
    for (step, expected) in &test.expect {
        let got = rows_of(&collected[step]);
        let problem = match (got, expected) {
            (Err(error), _) => Some(error.chain()),
            (Ok(got), Expected::Rows(n)) => (got.len() as u64 != *n)
                .then(|| format!("step `{step}`: expected {n} rows, got {}", got.len())),
            (Ok(got), Expected::File(path)) => match read_rows(program, &about, path).await {
                Ok(wanted) => difference(step, wanted, got),
                Err(message) => Some(message),
            },
        };
        told.extend(problem);
    }
    if let Some(limit) = test.peak_memory
        && report.rss_peak_bytes > limit.get()
    {
        told.push(format!("expected at most {limit} resident, got {}", report.rss_peak_bytes));
    }
    told
}

async fn run_given(
    program: &Program,
    flow: Flow,
    test: &FlowTest,
    collected: &BTreeMap<String, Collected>,
) -> Result<Report, String> {
    let flow = run::with_given(flow, &test.given, &program.registry)?;
    let mut sinks = Vec::new();
    for (step, rows) in collected {
        sinks
            .push((flow.step_named(step)?, CollectSink { into: rows.clone(), max_rows: MAX_ROWS_OF_A_TEST }));
    }
    run_quietly(run::collected_at(flow, sinks, None)).await
}

async fn run_quietly(flow: Flow) -> Result<Report, String> {
    let plan = plan(&flow).map_err(|errors| errors.to_string())?;
    let ended =
        run::run(flow, plan, None, RunOptions::default(), async |_| std::future::pending().await).await;
    match ended.failure {
        None => Ok(ended.report),
        Some(Failure::Interrupted { .. }) => Err("interrupted".to_owned()),
        Some(Failure::Flow(errors)) => Err(errors.to_string()),
        Some(Failure::Error(error)) => Err(error.chain()),
    }
}

/// The rows of a file, read as the `files` source reads it.
async fn read_rows(program: &Program, about: &Flow, path: &Path) -> Result<Vec<Value>, String> {
    let rows = Collected::default();
    let sink = CollectSink { into: rows.clone(), max_rows: MAX_ROWS_OF_A_TEST };
    let flow = run::over_file(about.without_steps(), path, sink, &program.registry)?;
    run_quietly(flow).await?;
    rows_of(&rows).map_err(|error| error.chain())
}

fn rows_of(collected: &Collected) -> Result<Vec<Value>> {
    let (_, batches) = collected.take();
    batches.iter().map(json_rows).collect::<Result<Vec<_>>>().map(|rows| rows.concat())
}

fn json_rows(records: &RecordBatch) -> Result<Vec<Value>> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::bug("compare rows", "the rows are not JSON").with_source(error)
    };
    let mut writer = arrow_json::ArrayWriter::new(Vec::new());
    writer.write(records).and_then(|()| writer.finish()).map_err(|error| failed(error.into()))?;
    let bytes = writer.into_inner();
    if bytes.is_empty() {
        Ok(Vec::new())
    } else {
        serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))
    }
}

/// The first row that is missing or too many, in any order.
fn difference(step: &str, wanted: Vec<Value>, got: Vec<Value>) -> Option<String> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for row in &wanted {
        *counts.entry(sorted(row).to_string()).or_default() += 1;
    }
    for row in &got {
        *counts.entry(sorted(row).to_string()).or_default() -= 1;
    }
    let (row, n) = counts.into_iter().find(|(_, n)| *n != 0)?;
    let what = if n > 0 { "is missing" } else { "was not expected" };
    Some(format!("step `{step}`: expected {} rows, got {}; this row {what}: {row}", wanted.len(), got.len()))
}

/// The value with its keys sorted and its nulls left out, as a writer may leave them.
fn sorted(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let fields: BTreeMap<&String, Value> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key, sorted(value)))
        .collect();
    json!(fields)
}

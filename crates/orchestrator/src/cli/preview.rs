//! `aqueduct preview`: the first rows after a step.

use arrow::util::pretty::pretty_format_batches;
use tokio_util::sync::CancellationToken;

use super::arguments::PreviewArguments;
use super::execute::Signals;
use super::{Program, exit};
use crate::flow::Flow;
use crate::plan::plan;
use crate::run::{self, CollectSink, Collected, Failure, RunOptions};

/// Prints the first rows after a step as a table; the exit code.
pub(super) async fn preview(program: &Program, arguments: PreviewArguments) -> u8 {
    let flow = match program.load(&arguments.flow) {
        Ok(flows) => flows.into_iter().next(),
        Err(code) => return code,
    };
    let Some(flow) = flow else { return exit::DONE };
    let rows = Collected::default();
    let flow = match up_to(flow, arguments.at.as_deref(), arguments.n, &rows) {
        Ok(flow) => flow,
        Err(message) => {
            program.say_error(&message);
            return exit::WRONG;
        }
    };
    let plan = match plan(&flow) {
        Ok(plan) => plan,
        Err(errors) => {
            program.console.line(&errors.to_string());
            return exit::WRONG;
        }
    };
    let stop = CancellationToken::new();
    let options = RunOptions { stop: stop.clone(), ..RunOptions::default() };
    let ended = tokio::select! {
        ended = run::run(flow, plan, None, options, async |_| std::future::pending().await) => ended,
        () = Signals::listen().stop(stop, program.console.clone()) => return exit::INTERRUPTED,
    };
    match ended.failure {
        None => print_table(program, &rows),
        Some(Failure::Interrupted { .. }) => exit::INTERRUPTED,
        Some(Failure::Flow(errors)) => {
            program.console.line(&errors.to_string());
            exit::WRONG
        }
        Some(Failure::Error(error)) => {
            program.say_error(&error.chain());
            exit::FAILED
        }
    }
}

/// The flow up to a step, with its first rows collected in the place of every sink.
fn up_to(flow: Flow, at: Option<&str>, n_rows: u64, rows: &Collected) -> Result<Flow, String> {
    let step = match at {
        Some(name) => flow.step_named(name)?,
        None => flow.steps.iter().position(|step| step.is_sink()).ok_or("the flow has no sink")?,
    };
    let collect = CollectSink { into: rows.clone(), max_rows: n_rows };
    Ok(run::collected_at(flow, vec![(step, collect)], Some(n_rows)))
}

fn print_table(program: &Program, rows: &Collected) -> u8 {
    let (schema, mut batches) = rows.take();
    if let (true, Some(schema)) = (batches.is_empty(), schema) {
        batches.push(arrow::record_batch::RecordBatch::new_empty(schema));
    }
    match pretty_format_batches(&batches) {
        Ok(table) => {
            program.write_out(program.console.masked(&format!("{table}\n")).as_bytes());
            exit::DONE
        }
        Err(error) => {
            program.say_error(&format!("cannot show the rows: {error}"));
            exit::FAILED
        }
    }
}

//! `aqueduct explain`: what a run would do, as text, as JSON, or as a graph.

use std::io::{self, Write};
use std::path::Path;

use aqueduct_core::{Guarantee, Planning, Registry};
use arrow::datatypes::Schema;
use serde_json::{Value, json};

use super::{DONE, ExplainFormat, columns, role, title, unwritten};
use crate::flow::{Flow, Settings, Step, StepKind, load};
use crate::plan::{Plan, plan};

/// Prints the plan of a flow: steps, columns, memory shares, parallelism, what spills, the mode, and the
/// guarantee of each sink.
///
/// # Errors
/// The flow is wrong, or cannot work within its memory: the text to print, one line a mistake.
pub fn explain(
    path: &Path,
    settings: &Settings,
    registry: &Registry,
    format: ExplainFormat,
    out: &mut dyn Write,
) -> Result<u8, String> {
    let flows = load(path, settings, registry).map_err(|errors| errors.to_string())?;
    let mut planned = Vec::new();
    for flow in flows {
        let plan = plan(&flow).map_err(|errors| errors.to_string())?;
        planned.push((flow, plan));
    }
    let written = match format {
        ExplainFormat::Text => planned.iter().try_for_each(|(flow, plan)| print_text(flow, plan, out)),
        ExplainFormat::Json => print_json(&planned, out),
        ExplainFormat::Mermaid => print_mermaid(&planned, out),
    };
    written.map_err(unwritten)?;
    Ok(DONE)
}

fn print_text(flow: &Flow, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let mask = |text: &str| flow.masks.mask(text);
    writeln!(out, "flow {}", title(flow))?;
    writeln!(out, "\nsteps")?;
    for (step, schema) in flow.steps.iter().zip(&plan.schemas) {
        let inputs: Vec<&str> = step.inputs.iter().map(|input| flow.steps[*input].name.as_str()).collect();
        let from = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(", ")) };
        writeln!(out, "  {}{from}: {} {}{}", step.name, step.component, role(step), parallelism(flow, step))?;
        writeln!(out, "    columns: {}", mask(&columns(schema.as_deref())))?;
    }
    print_memory(flow, plan, out)?;
    print_spill(flow, plan, out)?;
    print_modes(flow, out)?;
    writeln!(out, "\nguarantees")?;
    for step in &flow.steps {
        if let StepKind::Sink(sink) = &step.kind {
            let to = output(flow, step).map(|path| format!(" -> {path}")).unwrap_or_default();
            writeln!(out, "  {}: {}{}", step.name, promise(sink.guarantee()), mask(&to))?;
        }
    }
    writeln!(out)
}

fn print_modes(flow: &Flow, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out)?;
    for (at, step) in flow.steps.iter().enumerate() {
        if let Some((_, mode)) = flow.output_of(at) {
            writeln!(out, "{}: {}", step.name, mode.sentence())?;
        }
    }
    Ok(())
}

fn print_memory(flow: &Flow, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let width = flow.steps.iter().map(|step| step.name.len()).max().unwrap_or(0).max("data in flight".len());
    writeln!(out, "\nmemory {} (at least {})", flow.memory, plan.smallest)?;
    writeln!(out, "  {:width$}  {:>9}", "data in flight", plan.flow_bytes.human())?;
    for (step, share) in flow.steps.iter().zip(&plan.shares) {
        writeln!(out, "  {:width$}  {:>9}", step.name, share.human())?;
    }
    writeln!(out, "  batches of at most {} rows and {}", plan.batch_rows, plan.batch_bytes)?;
    let room = plan.record_room;
    if plan.flow_bytes >= room.in_flight {
        return Ok(());
    }
    let enough = room.memory.round_up_to_mb();
    writeln!(out, "  records near `max_record_bytes` do not fit; with memory {enough} they would")
}

/// What a source fetches at once; what a stage or a sink does at once is told if somebody set it.
fn parallelism(flow: &Flow, step: &Step) -> String {
    if step.is_source() || step.max_concurrency.is_some() {
        return format!(", window of at most {} at once", at_once(flow, step));
    }
    String::new()
}

fn at_once(flow: &Flow, step: &Step) -> usize {
    flow.planning(step).max_concurrency
}

fn print_spill(flow: &Flow, plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nspill")?;
    let globals: Vec<usize> = (0..flow.steps.len()).filter(|place| plan.leases[*place].is_some()).collect();
    if globals.is_empty() {
        return writeln!(out, "  nothing spills: every step works row by row within its share");
    }
    for (phase, place) in (1..).zip(&globals) {
        let (step, share) = (&flow.steps[*place], plan.shares[*place]);
        let earlier = globals.iter().take_while(|earlier| *earlier < place);
        let same = earlier.filter(|earlier| plan.leases[**earlier] == plan.leases[*place]).last();
        let turns = same
            .map_or(String::new(), |same| format!(", that of {}, which has ended", flow.steps[*same].name));
        let StepKind::Stage(stage) = &step.kind else { continue };
        let takes = if stage.takes_all_first() { "takes in all rows" } else { "sorts or groups rows" };
        writeln!(out, "  phase {phase}: {} {takes}; lease {}{turns}", step.name, share.human())?;
        writeln!(out, "    {}", stage.spill_note(share))?;
    }
    let most = flow.execution.spill.max_bytes.map_or("80 % of what is free".into(), |most| most.human());
    writeln!(out, "  to {}, at most {most} at once", flow.spill_dir().display())
}

fn promise(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::ExactlyOnce => "exactly once: each row once, whatever happens",
        Guarantee::AtLeastOnce => "at least once: after a crash some rows come twice",
        Guarantee::Live => "live: to whoever listens at that moment",
    }
}

fn output(flow: &Flow, step: &Step) -> Option<String> {
    let StepKind::Sink(sink) = &step.kind else { return None };
    let planning: Planning = flow.planning(step);
    sink.output(&planning).map(|output| output.path.display().to_string())
}

fn print_json(planned: &[(Flow, Plan)], out: &mut dyn Write) -> io::Result<()> {
    let mut plans: Vec<Value> =
        planned.iter().map(|(flow, plan)| masked(&as_json(flow, plan), flow)).collect();
    let value = if plans.len() == 1 { plans.remove(0) } else { Value::Array(plans) };
    writeln!(out, "{value:#}")
}

fn as_json(flow: &Flow, plan: &Plan) -> Value {
    let steps: Vec<Value> = (0..flow.steps.len()).map(|place| step_json(flow, plan, place)).collect();
    let entry: serde_json::Map<String, Value> =
        flow.entry.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    json!({
        "flow": flow.name,
        "entry": entry,
        "memory_bytes": flow.memory.get(),
        "smallest_memory_bytes": plan.smallest.get(),
        "in_flight_bytes": plan.flow_bytes.get(),
        "batch_rows": plan.batch_rows,
        "batch_bytes": plan.batch_bytes.get(),
        "steps": steps,
    })
}

fn step_json(flow: &Flow, plan: &Plan, place: usize) -> Value {
    let step = &flow.steps[place];
    let mode = flow.output_of(place).map(|(_, mode)| mode);
    let (spills, guarantee) = match &step.kind {
        StepKind::Source(_) => (false, None),
        StepKind::Stage(stage) => (stage.spills(), None),
        StepKind::Sink(sink) => (false, Some(guarantee_name(sink.guarantee()))),
    };
    json!({
        "name": step.name,
        "kind": role(step),
        "mode": mode.as_ref().map(|mode| mode.mode.name()),
        "mode_because": mode.and_then(|mode| mode.because),
        "component": step.component,
        "inputs": step.inputs.iter().map(|input| &flow.steps[*input].name).collect::<Vec<_>>(),
        "columns": plan.schemas[place].as_deref().map(columns_json),
        "max_concurrency": at_once(flow, step),
        "memory_bytes": plan.shares[place].get(),
        "lease": plan.leases[place],
        "spills": spills,
        "guarantee": guarantee,
        "output": output(flow, step),
    })
}

fn guarantee_name(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::ExactlyOnce => "exactly once",
        Guarantee::AtLeastOnce => "at least once",
        Guarantee::Live => "live",
    }
}

fn columns_json(schema: &Schema) -> Value {
    let column = |field: &std::sync::Arc<arrow::datatypes::Field>| json!({ "name": field.name(), "type": field.data_type().to_string(), "nullable": field.is_nullable() });
    schema.fields().iter().map(column).collect()
}

/// Every text in a value, masked. Done before printing, as printing escapes.
fn masked(value: &Value, flow: &Flow) -> Value {
    match value {
        Value::String(text) => flow.masks.mask(text).into(),
        Value::Array(items) => items.iter().map(|item| masked(item, flow)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (flow.masks.mask(key), masked(value, flow))).collect()
        }
        other => other.clone(),
    }
}

/// One graph; several flows of a matrix as subgraphs.
fn print_mermaid(planned: &[(Flow, Plan)], out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "flowchart LR")?;
    for (n, (flow, _)) in planned.iter().enumerate() {
        if planned.len() > 1 {
            writeln!(out, "  subgraph f{n} [\"{}\"]", quoted(&title(flow)))?;
        }
        // Ids are numbers, as a step may be called `end`, which is a word of the language.
        for (place, step) in flow.steps.iter().enumerate() {
            let label = quoted(&flow.masks.mask(&format!("{} ({})", step.name, step.component)));
            match step.kind {
                StepKind::Stage(_) => writeln!(out, "  f{n}s{place}[\"{label}\"]")?,
                StepKind::Source(_) | StepKind::Sink(_) => writeln!(out, "  f{n}s{place}[(\"{label}\")]")?,
            }
        }
        for (place, step) in flow.steps.iter().enumerate() {
            for input in &step.inputs {
                writeln!(out, "  f{n}s{input} --> f{n}s{place}")?;
            }
        }
        if planned.len() > 1 {
            writeln!(out, "  end")?;
        }
    }
    Ok(())
}

fn quoted(text: &str) -> String {
    text.replace('"', "#quot;")
}

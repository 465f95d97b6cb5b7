//! A flow over what it has rejected: sources read rejected records, or files that could not be read, in the place of all that
//! they have; a stage gets the rows that it rejected. Sources of which nothing was rejected give nothing, but for those that only
//! stand at the side of a join, which are read as ever.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::{
    BatchStream, Context, MemoryNeed, OtherFiles, Planning, Positions, Problem, Registry, Result, Source,
    SourceCaps, SourceConfig,
};
use aqueduct_formats::{EXTRA, FILE, ROW, type_text};
use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use futures::StreamExt;
use serde_json::json;

use super::subset::internal;
use crate::flow::{Flow, MaxRejected, OnError, Step, StepKind};

/// What a step gets again.
#[derive(Clone, Debug)]
pub(crate) struct Again {
    /// The step that rejected it.
    pub(crate) step: String,
    /// The file that names the files to read.
    pub(crate) list: PathBuf,
    pub(crate) what: What,
}

/// What the files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// Files of a source, as they are.
    Files,
    /// Records of a source.
    Records,
    /// Rows of a stage's input.
    Rows,
}

/// The flow over these alone. What is rejected once more is kept aside, rows are added to the outputs.
///
/// # Errors
/// A step cannot read it again, or its columns are not known.
pub(crate) fn over_rejected(flow: Flow, again: &[Again], registry: &Registry) -> Result<Flow, String> {
    let beside = beside_joins(&flow)?;
    let mut over = Over { flow: added_to(flow), extra: Vec::new(), taken: BTreeSet::new() };
    let mut in_order: Vec<_> = again.iter().collect();
    // How records are read is told by the source as it reads files.
    in_order.sort_by_key(|one| one.what);
    for one in in_order {
        let at = over.flow.step_named(&one.step)?;
        if beside.contains(&at) {
            let name = &one.step;
            return Err(format!("`{name}` stands at the side of a join, whose rows cannot be made again"));
        }
        match one.what {
            What::Rows => over.stage(at, one, registry)?,
            What::Records | What::Files => over.source(at, one)?,
        }
    }
    over.silence(&beside)?;
    Ok(over.numbered_anew())
}

fn added_to(mut flow: Flow) -> Flow {
    flow.adds_only = true;
    flow.execution.on_error = OnError::DeadLetter;
    flow.execution.max_rejected = MaxRejected::Percent(100.0);
    flow.steps.iter_mut().for_each(|step| step.on_error = None);
    flow
}

/// The steps that lead to the side of a join and nowhere else.
///
/// # Errors
/// A source leads to both: without its rows the join would find nothing.
fn beside_joins(flow: &Flow) -> Result<BTreeSet<usize>, String> {
    let (mut beside, mut leads_there) = (BTreeSet::new(), BTreeSet::new());
    // Each step comes after its inputs.
    for at in (0..flow.steps.len()).rev() {
        let readers: Vec<_> =
            (0..flow.steps.len()).filter(|reader| flow.steps[*reader].inputs.contains(&at)).collect();
        let is_side = |reader: &usize| {
            let step = &flow.steps[*reader];
            step.has_side_input && step.inputs.last() == Some(&at)
        };
        if !readers.is_empty() && readers.iter().all(|one| beside.contains(one) || is_side(one)) {
            beside.insert(at);
        }
        if readers.iter().any(|one| leads_there.contains(one) || is_side(one)) {
            leads_there.insert(at);
        }
    }
    match flow
        .steps
        .iter()
        .enumerate()
        .find(|(at, step)| step.is_source() && leads_there.contains(at) && !beside.contains(at))
    {
        None => Ok(beside),
        Some((_, source)) => {
            let name = &source.name;
            Err(format!(
                "`{name}` is read by a join on both sides; what was rejected alone would find nothing there"
            ))
        }
    }
}

/// A flow that is being changed.
struct Over {
    flow: Flow,
    /// Sources that come before all steps, each with those that read it.
    extra: Vec<(Step, SchemaRef, Vec<usize>)>,
    /// Sources that read something else already.
    taken: BTreeSet<usize>,
}

impl Over {
    fn source(&mut self, at: usize, again: &Again) -> Result<(), String> {
        let schema = self.columns(at)?;
        let StepKind::Source(config) = &self.flow.steps[at].kind else {
            return Err(format!("`{}` is no source any more", again.step));
        };
        let records = match again.what {
            What::Records => Some(columns_of_records(&schema, &again.step)?),
            What::Files | What::Rows => None,
        };
        let files = OtherFiles { list: again.list.clone(), records };
        let config = config.over(&files).ok_or_else(|| format!("`{}` reads no files", again.step))?;
        let kind = StepKind::Source(config);
        if self.taken.insert(at) {
            self.flow.steps[at].kind = kind;
        } else {
            let readers =
                (0..self.flow.steps.len()).filter(|reader| self.flow.steps[*reader].inputs.contains(&at));
            let readers = readers.collect();
            self.extra.push((internal(format!("{}.records", again.step), kind, Vec::new()), schema, readers));
        }
        Ok(())
    }

    fn stage(&mut self, at: usize, again: &Again, registry: &Registry) -> Result<(), String> {
        let step = &self.flow.steps[at];
        let [input, ..] = step.inputs.as_slice() else {
            return Err(format!("`{}` has no input", again.step));
        };
        let schema = self.columns(*input)?;
        let records = Some(texts(&schema, &[], &again.step)?);
        let factory = registry.source("files").ok_or("this program has no source `files`")?;
        let rows = factory.configure(json!({ "paths": "rows.ndjson", "format": "ndjson" })).ok();
        let config = rows.and_then(|rows| rows.over(&OtherFiles { list: again.list.clone(), records }));
        let kind = StepKind::Source(config.ok_or("this program's source `files` reads no other files")?);
        self.extra.push((internal(format!("{}.rows", again.step), kind, Vec::new()), schema, vec![at]));
        Ok(())
    }

    fn columns(&self, at: usize) -> Result<SchemaRef, String> {
        let schema = self.flow.schemas.get(at).cloned().flatten();
        schema.ok_or_else(|| {
            format!(
                "the columns of `{}` are not known before it is read; declare them in `schema`",
                self.flow.steps[at].name
            )
        })
    }

    /// Of the other sources nothing is read.
    fn silence(&mut self, beside: &BTreeSet<usize>) -> Result<(), String> {
        for at in 0..self.flow.steps.len() {
            if self.flow.steps[at].is_source() && !beside.contains(&at) && !self.taken.contains(&at) {
                self.flow.steps[at].kind = StepKind::Source(Box::new(Silent(self.columns(at)?)));
            }
        }
        Ok(())
    }

    fn numbered_anew(self) -> Flow {
        let Self { mut flow, extra, .. } = self;
        let n_extra = extra.len();
        let mut steps = std::mem::take(&mut flow.steps);
        for step in &mut steps {
            step.inputs.iter_mut().for_each(|input| *input += n_extra);
        }
        for (n, (_, _, readers)) in extra.iter().enumerate() {
            for reader in readers {
                let step = &mut steps[*reader];
                let before_side = step.inputs.len() - usize::from(step.has_side_input);
                step.inputs.insert(before_side, n);
            }
        }
        let (sources, schemas): (Vec<_>, Vec<_>) =
            extra.into_iter().map(|(step, schema, _)| (step, Some(schema))).unzip();
        flow.steps = sources.into_iter().chain(steps).collect();
        flow.schemas = schemas.into_iter().chain(std::mem::take(&mut flow.schemas)).collect();
        flow
    }
}

/// Columns as they are written in `schema:`, but for some.
fn texts(schema: &SchemaRef, but: &[&str], step: &str) -> Result<Vec<(String, String)>, String> {
    let text = |field: &Arc<Field>| {
        let text = type_text(field.data_type()).ok_or_else(|| {
            format!(
                "column `{}` of `{step}` is {}, which is not read from text",
                field.name(),
                field.data_type()
            )
        })?;
        Ok((field.name().clone(), text))
    };
    schema.fields().iter().filter(|field| !but.contains(&field.name().as_str())).map(text).collect()
}

/// The columns of a source's records. That source itself adds what it does not know, and cannot say any more where a record
/// stood.
fn columns_of_records(schema: &SchemaRef, step: &str) -> Result<Vec<(String, String)>, String> {
    if schema.index_of(FILE).is_ok() || schema.index_of(ROW).is_ok() {
        return Err(format!(
            "`{step}` adds `{FILE}` and `{ROW}`, which would be those of a letter; mend the input and run the flow again, or \
             replay without `origin`"
        ));
    }
    texts(schema, &[EXTRA], step)
}

/// A source without rows.
struct Silent(SchemaRef);

#[async_trait]
impl SourceConfig for Silent {
    fn known_schema(&self, _planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(Some(Arc::clone(&self.0)))
    }

    fn memory(&self, _planning: &Planning) -> MemoryNeed {
        MemoryNeed::default()
    }

    async fn open(self: Box<Self>, _cx: &Context) -> Result<Box<dyn Source>> {
        Ok(self)
    }
}

impl Source for Silent {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps { replayable: true, ordered: true, ..SourceCaps::default() }
    }

    fn run(self: Box<Self>, _cx: Context, _from: Positions) -> BatchStream {
        futures::stream::empty().boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::fake::load_yaml;

    fn beside(text: &str) -> Result<Vec<String>, String> {
        let flow = load_yaml(text).unwrap_or_else(|errors| panic!("{errors}")).remove(0);
        let beside = beside_joins(&flow)?;
        Ok(beside.into_iter().map(|at| flow.steps[at].name.clone()).collect())
    }

    fn joined(main: &str, side: &str) -> Result<Vec<String>, String> {
        beside(&format!(
            "name: x\nsources: {{ a: {{ files: {{ paths: [a] }} }}, b: {{ files: {{ paths: [b] }} }} }}\nstages: {{ few: {{ input: {main}, \
             limit: 5 }}, j: {{ input: few, join: {{ with: {side} }} }} }}\nsinks: {{ o: {{ input: j, parquet: {{ path: o }} }} }}\n"
        ))
    }

    #[test]
    fn what_is_read_at_the_side_of_a_join_alone_is_told_from_what_is_not() {
        let text = "name: x\nsource: { files: { paths: [a] } }\nstages: [{ limit: 5 }]\nsink: { parquet: { path: o } }\n";
        assert_eq!(beside(text), Ok(Vec::new()));
        assert_eq!(joined("a", "b"), Ok(vec!["b".to_owned()]));
        let told = joined("[a, b]", "b").unwrap_err();
        assert!(told.contains("`b` is read by a join on both sides"), "{told}");
    }
}

//! Joins opened steps into streams, with the gates and copies that commits before the end need.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{BatchStream, Context, Durable, Source, Stage, StepMetrics};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use tokio::sync::mpsc;

use super::checkpoints::{Checkpoints, Due};
use super::commits::{Commits, positions_of};
use super::copies::Copy;
use super::drive::{Graph, Opened};
use super::sinks::{Driven, Pace, Reports, Sealed};
use super::{RunOptions, wire};
use crate::flow::Commit;

/// How often what is copied for a global stage is committed, unless the flow says.
const COPIES: Commit = Commit { every: Some(Duration::from_secs(15)), bytes: Some(ByteCount::mib(128)) };

/// How often a run commits that never ends by itself, unless the flow says.
const ENDLESS: Commit = Commit { every: Some(Duration::from_secs(60)), bytes: Some(ByteCount::mib(128)) };

/// How a run commits before its end.
pub(super) struct Midway {
    /// Global stages whose input is copied.
    copied: BTreeSet<usize>,
    /// Whether a source never ends by itself.
    is_endless: bool,
}

impl Midway {
    /// How, or why not.
    pub(super) fn of(
        graph: &Graph<'_>,
        opened: &[Opened],
        commits: &Commits,
        options: &RunOptions,
    ) -> Result<Self, String> {
        if !commits.can_commit() || options.limit_rows.is_some() {
            return Err("only some rows are asked for".into());
        }
        if !options.at_end.is_empty() {
            return Err("all of it is committed at once".into());
        }
        let named = |at: usize, why: &str| Err(format!("`{}` {why}", graph.contexts[at].step()));
        for at in (0..opened.len()).filter(|at| !graph.steps[*at].is_behind_global) {
            let step = &graph.steps[at];
            match &opened[at] {
                Opened::Source(source) if !source.capabilities().replayable => {
                    return named(at, "cannot be read again");
                }
                Opened::Stage(..) if !step.is_global && !step.is_resumable => {
                    return named(at, "depends on all rows before");
                }
                Opened::Sink(_) if step.is_one_file => return named(at, "writes one file"),
                Opened::Sink(_) if graph.run.whole_files && !step.takes_whole_files => {
                    return named(at, "takes rows, and another sink takes files whole");
                }
                _ => {}
            }
        }
        let is_first_global = |at: &usize| graph.steps[*at].is_global && !graph.steps[*at].is_behind_global;
        let copied: BTreeSet<_> = (0..opened.len()).filter(is_first_global).collect();
        let is_remote = |one: &Opened| matches!(one, Opened::Source(source) if source.capabilities().remote);
        let is_endless =
            |one: &Opened| matches!(one, Opened::Source(source) if source.capabilities().endless);
        match copied.first() {
            Some(global) if !opened.iter().any(is_remote) => {
                named(*global, "gives nothing before it has all rows, and what it reads is near")
            }
            _ => Ok(Self { copied, is_endless: opened.iter().any(is_endless) }),
        }
    }
}

/// What is joined so far.
pub(super) struct Wiring<'g> {
    graph: &'g Graph<'g>,
    options: &'g RunOptions,
    midway: Option<Midway>,
    gates: Arc<Checkpoints>,
    reports: mpsc::Sender<Sealed>,
    commits: &'g Commits,
    /// The rows of each step, once for each that reads them.
    ports: Vec<Vec<BatchStream>>,
    copies: Vec<(String, Arc<Durable>)>,
    copy_metrics: Vec<Arc<StepMetrics>>,
}

impl<'g> Wiring<'g> {
    pub(super) fn new(
        graph: &'g Graph<'g>,
        options: &'g RunOptions,
        midway: Option<Midway>,
        reports: mpsc::Sender<Sealed>,
        commits: &'g Commits,
    ) -> Self {
        Self {
            graph,
            options,
            midway,
            gates: Arc::default(),
            reports,
            commits,
            ports: Vec::new(),
            copies: Vec::new(),
            copy_metrics: Vec::new(),
        }
    }

    /// Joins all steps; the sinks with what they are to write.
    pub(super) fn all(&mut self, opened: Vec<Opened>, schemas: &[SchemaRef]) -> Vec<Driven> {
        let tasks = self.graph.run.tasks.clone();
        let mut driven = Vec::new();
        for (at, step) in opened.into_iter().enumerate() {
            let inputs: Vec<_> =
                self.graph.steps[at].inputs.iter().filter_map(|input| self.ports[*input].pop()).collect();
            let stream = match step {
                Opened::Source(source) => self.source(at, source),
                Opened::Stage(stage, schemas) => self.stage(at, stage, inputs, &schemas),
                Opened::Sink(sink) => {
                    let input = wire::on_own_task(wire::merged(inputs, &schemas[at]), &tasks);
                    let (context, guard) = (self.graph.contexts[at].clone(), self.graph.guard(at));
                    driven.push(Driven { step: at, sink, input, context, guard });
                    self.ports.push(Vec::new());
                    continue;
                }
            };
            self.ports.push(match self.n_readers(at) {
                0 | 1 => vec![stream],
                n => wire::fan_out(stream, n, &tasks),
            });
        }
        driven
    }

    /// The copies, by name.
    pub(super) fn into_copies(self) -> Vec<(String, Arc<Durable>)> {
        self.copies
    }

    /// When those who take rows are brought to a stand, if they are.
    pub(super) fn pace(&self, when: Commit, driven: &[Driven]) -> Option<Pace> {
        let midway = self.midway.as_ref()?;
        let has_copies = !midway.copied.is_empty();
        let when = match when {
            said if said != Commit::default() => said,
            _ if has_copies => COPIES,
            _ if midway.is_endless => ENDLESS,
            unsaid => unsaid,
        };
        let standing = driven.iter().filter(|one| !self.graph.steps[one.step].is_behind_global);
        let copies = (0..self.copies.len()).map(|n| self.graph.steps.len() + n);
        let metrics = standing.clone().map(|one| Arc::clone(one.context.metrics()));
        let due = Due::new(when, metrics.chain(self.copy_metrics.iter().cloned()).collect());
        let standing = standing.map(|one| one.step).chain(copies).collect();
        Some(Pace { gates: Arc::clone(&self.gates), due, standing, has_copies })
    }

    fn n_readers(&self, step: usize) -> usize {
        self.graph.steps.iter().flat_map(|other| &other.inputs).filter(|input| **input == step).count()
    }

    fn source(&self, at: usize, source: Box<dyn Source>) -> BatchStream {
        let context = &self.graph.contexts[at];
        let (schema, caps) = (source.schema(), source.capabilities());
        let from = positions_of(self.commits.resumed(), context.step());
        let mut stream = self.graph.guard(at).stream(|| source.run(context.clone(), from));
        if let Some(n_rows) = self.options.limit_rows {
            stream = wire::first_rows(stream, n_rows);
        }
        if self.midway.is_some() {
            stream = self.gates.gate(stream, (context.step().to_owned(), schema), caps);
        }
        wire::counted(stream, context.metrics(), |metrics, n| metrics.rows_out.add(n))
    }

    fn stage(
        &mut self,
        at: usize,
        stage: Box<dyn Stage>,
        mut inputs: Vec<BatchStream>,
        schemas: &[SchemaRef],
    ) -> BatchStream {
        let context = self.graph.contexts[at].clone();
        let side = if schemas.len() > 1 { inputs.pop() } else { None };
        let merged = wire::merged(inputs, &schemas[0]);
        let copied = std::iter::once(merged).chain(side).enumerate();
        let copied: Vec<_> = copied.map(|(n, input)| self.copied(at, n, input, &context)).collect();
        let counted = |input| wire::counted(input, context.metrics(), |metrics, n| metrics.rows_in.add(n));
        let inputs = copied.into_iter().map(counted).collect();
        let output = self.graph.guard(at).stream(|| stage.run(inputs, context.clone()));
        wire::counted(output, context.metrics(), |metrics, n| metrics.rows_out.add(n))
    }

    /// An input of a stage, copied if the run is to go on from there.
    fn copied(&mut self, at: usize, n: usize, input: BatchStream, context: &Context) -> BatchStream {
        let is_copied = self.midway.as_ref().is_some_and(|midway| midway.copied.contains(&at));
        let name = format!("{}.input{n}", context.step());
        let Some(durable) = self.commits.durable(&name).filter(|_| is_copied) else { return input };
        let copy = Copy::new(durable, context.clone());
        let reports = Reports { of: self.graph.steps.len() + self.copies.len(), to: self.reports.clone() };
        self.copies.push((name, copy.durable()));
        self.copy_metrics.push(copy.metrics());
        copy.run(input, reports)
    }
}

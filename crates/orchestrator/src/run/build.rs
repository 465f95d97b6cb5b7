//! Carves the memory of a run and makes the context of each step.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::Resumed;
use aqueduct_core::{
    Context, Error, ErrorKind, Notices, Result, RunContext, Scratch, Services, StdFs, StepContext,
    StepMetrics, SystemClock,
};
use aqueduct_net::Fetcher;
use aqueduct_net::server::Mounts;
use aqueduct_primitives::{Budget, ByteCount, Tasks};

use super::commits::{Commits, Opening, Seams};
use super::committing::BY_REASON;
use super::live::{Live, LiveStep, Role};
use super::panics::Panics;
use super::rejects::{Policy, Rejects};
use crate::flow::{Commit, Flow, OnError, Step, StepKind, StepPlace};
use crate::plan::Plan;

/// Of what is free on the disk, for spill unless told otherwise: outputs need room, too.
const PERCENT_OF_FREE_DISK: u64 = 80;

/// A flow whose outputs are claimed, whose memory is carved and whose contexts are made. Nothing is read yet.
pub(super) struct Prepared {
    /// When to commit before the end.
    pub(super) when: Commit,
    pub(super) run: Arc<RunContext>,
    /// The steps in topological order, without their options.
    pub(super) steps: Vec<PreparedStep>,
    /// The options of each step, taken when it is opened.
    pub(super) kinds: Vec<StepKind>,
    pub(super) contexts: Vec<Context>,
    pub(super) commits: Commits,
    pub(super) rejects: Arc<Rejects>,
    pub(super) live: Arc<Live>,
    pub(super) panics: Panics,
}

/// A step, as far as the runner needs it.
pub(super) struct PreparedStep {
    pub(super) inputs: Vec<usize>,
    pub(super) has_side_input: bool,
    pub(super) is_source: bool,
    pub(super) is_sink: bool,
    /// What it does with a row depends on no row before it.
    pub(super) is_resumable: bool,
    /// It takes in all rows before it gives the first, or may.
    pub(super) is_global: bool,
    /// Such a step comes before it.
    pub(super) is_behind_global: bool,
    /// It writes one file, which is complete at the end alone.
    pub(super) is_one_file: bool,
    /// It takes files whole.
    pub(super) takes_whole_files: bool,
    pub(super) at: StepPlace,
}

impl Prepared {
    /// Carves memory as planned, builds the clients, claims the outputs, and begins or goes on.
    ///
    /// # Errors
    /// The shares do not fit `memory`, a client cannot be built, an output cannot be written.
    pub(super) async fn new(
        flow: Flow,
        plan: &Plan,
        opening: Option<Opening>,
        mounts: Option<Mounts>,
    ) -> Result<Self> {
        let memory = Budget::new("memory", flow.memory);
        let tasks = Tasks::default();
        let (services, scratch) = (services_of(&flow, &tasks, mounts)?, scratch_of(&flow, &tasks).await?);
        let fs = flow.fs();
        let seams = Seams { tasks: tasks.clone(), fs: Arc::clone(&fs), clock: Arc::new(SystemClock) };
        let commits = Commits::begin(&flow, opening, seams).await?;
        let rejects = Arc::new(rejects_of(&flow, commits.part_run()));
        let run = RunContext {
            flow_name: flow.name.clone(),
            run_id: flow.run.id.clone(),
            part_run: commits.part_run(),
            whole_files: flow.steps.iter().any(takes_whole_files),
            base_dir: flow.base_dir.clone(),
            fs,
            clock: Arc::new(SystemClock),
            tasks,
            flow: memory.carve("data in flight", plan.flow_bytes)?,
            batch_rows: plan.batch_rows,
            batch_bytes: plan.batch_bytes,
            rejects: Arc::clone(&rejects) as _,
            notices: Notices::default(),
            services,
            scratch,
            record_room: plan.record_room,
        };
        let run = Arc::new(run);
        let mut contexts = Vec::new();
        let mut live_steps: Vec<LiveStep> = Vec::new();
        for (at, (step, share)) in flow.steps.iter().zip(&plan.shares).enumerate() {
            let before =
                (0..at).find(|before| plan.leases[at].is_some() && plan.leases[*before] == plan.leases[at]);
            let share = match before {
                Some(before) => live_steps[before].share.clone(),
                None => memory.carve(step.name.clone(), *share)?,
            };
            let own = StepContext {
                name: step.name.clone(),
                share,
                max_concurrency: step.max_concurrency.unwrap_or(flow.execution.max_concurrency),
                stage_dir: commits.stage_dir(at),
                metrics: Arc::new(StepMetrics::default()),
                durable: commits.durable(&step.name),
                stored: stored_of(&flow, at).and_then(|sink| commits.stored(sink)),
            };
            live_steps.push(live_step(step, &own, before.is_some()));
            contexts.push(Context::new(Arc::clone(&run), Arc::new(own)));
        }
        let live = Arc::new(Live::new(flow.memory, run.flow.clone(), live_steps, Arc::clone(&rejects)));
        let one_file = |at: usize| flow.output_of(at).is_some_and(|(output, _)| output.is_file);
        let are_one_file: Vec<_> = (0..flow.steps.len()).map(one_file).collect();
        let steps = flow.steps.into_iter().zip(are_one_file);
        let (mut steps, kinds): (Vec<_>, Vec<_>) =
            steps.map(|(step, is_one_file)| split(step, is_one_file)).unzip();
        mark_behind_global(&mut steps);
        go_on_counting(&steps, &contexts, &rejects, commits.resumed());
        let (when, panics) = (flow.commit, Panics::default());
        Ok(Self { when, run, steps, kinds, contexts, commits, rejects, live, panics })
    }
}

/// The sink whose output a step looks at: itself, or the one that it merges for.
fn stored_of(flow: &Flow, at: usize) -> Option<usize> {
    let merges = |sink: &Step| match &sink.kind {
        StepKind::Sink(kind) => kind.merging().is_some() && sink.inputs == [at],
        _ => false,
    };
    match flow.steps.get(at)?.is_sink() {
        true => Some(at),
        false => flow.steps.iter().position(merges),
    }
}

/// Clients that all steps share.
fn services_of(flow: &Flow, tasks: &Tasks, mounts: Option<Mounts>) -> Result<Services> {
    let mut services = Services::default();
    let fetcher = Fetcher::new(flow.http.clone(), flow.storage.clone(), tasks.clone())?;
    fetcher.trust(flow.hosts.iter().cloned());
    services.insert(Arc::new(fetcher));
    if let Some(mounts) = mounts {
        services.insert(Arc::new(mounts));
    }
    if let Some(worker) = &flow.worker {
        services.insert(Arc::new(worker.clone()));
    }
    Ok(services)
}

/// The folder for spill, and how much may be there.
async fn scratch_of(flow: &Flow, tasks: &Tasks) -> Result<Scratch> {
    let dir = flow.spill_dir();
    let max_bytes = match flow.execution.spill.max_bytes {
        Some(max_bytes) => max_bytes,
        None => {
            let dir = dir.clone();
            tasks.block(move || free_bytes(&dir)).await??.percent(PERCENT_OF_FREE_DISK)
        }
    };
    Ok(Scratch::new(dir, max_bytes))
}

/// What is free where a folder is, or will be.
fn free_bytes(dir: &Path) -> Result<ByteCount> {
    // Of a relative path, the folders above do not lead to one that is there.
    let absolute = std::path::absolute(dir).unwrap_or_default();
    let disk = absolute.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok()).ok_or_else(|| {
        let message = "cannot tell how much is free on the disk; set `execution.spill.max_bytes`";
        Error::new(ErrorKind::Io, "make room for spill", message).with("path", dir.display())
    })?;
    Ok(ByteCount::new(disk.f_bavail.saturating_mul(disk.f_frsize)))
}

fn live_step(step: &Step, own: &StepContext, takes_turns: bool) -> LiveStep {
    LiveStep {
        name: step.name.clone(),
        component: step.component,
        role: match step.kind {
            StepKind::Source(_) => Role::Source,
            StepKind::Stage(_) => Role::Stage,
            StepKind::Sink(_) => Role::Sink,
        },
        inputs: step.inputs.clone(),
        metrics: Arc::clone(&own.metrics),
        share: own.share.clone(),
        takes_turns,
    }
}

fn split(step: Step, is_one_file: bool) -> (PreparedStep, StepKind) {
    let prepared = PreparedStep {
        is_source: step.is_source(),
        is_sink: step.is_sink(),
        is_resumable: !matches!(&step.kind, StepKind::Stage(stage) if !stage.is_resumable()),
        is_global: matches!(&step.kind, StepKind::Stage(stage) if stage.spills()),
        is_behind_global: false,
        is_one_file,
        takes_whole_files: takes_whole_files(&step),
        has_side_input: step.has_side_input,
        inputs: step.inputs,
        at: step.at,
    };
    (prepared, step.kind)
}

fn takes_whole_files(step: &Step) -> bool {
    matches!(&step.kind, StepKind::Sink(sink) if sink.takes_whole_files())
}

fn mark_behind_global(steps: &mut [PreparedStep]) {
    // Each step comes after its inputs.
    for at in 0..steps.len() {
        let is_behind = |input: &usize| steps[*input].is_global || steps[*input].is_behind_global;
        steps[at].is_behind_global = steps[at].inputs.iter().any(is_behind);
    }
}

/// A run that goes on counts from where it was; a global stage, and what comes behind it, begins anew with the copy of its
/// rows.
fn go_on_counting(
    steps: &[PreparedStep],
    contexts: &[Context],
    rejects: &Rejects,
    resumed: Option<&Resumed>,
) {
    let Some(resumed) = resumed else { return };
    for (_, context) in
        steps.iter().zip(contexts).filter(|(step, _)| !step.is_global && !step.is_behind_global)
    {
        if let Some(counted) = resumed.counters.get(context.step()) {
            context.metrics().add_all(counted);
        }
    }
    let sum = |of: fn(&StepMetrics) -> u64| contexts.iter().map(|context| of(context.metrics())).sum();
    if let Some(by_reason) = resumed.counters.get(BY_REASON) {
        rejects.add_all(by_reason, sum(|m| m.rows_rejected.get()), sum(|m| m.files_rejected.get()));
    }
}

fn rejects_of(flow: &Flow, part_run: String) -> Rejects {
    let policy =
        |on_error: OnError, folder: &PathBuf| Policy { on_error, folder: flow.base_dir.join(folder) };
    let default = policy(flow.execution.on_error, &flow.execution.dead_letter);
    let has_own = |step: &&Step| step.on_error.is_some() || step.dead_letter.is_some();
    let own = flow.steps.iter().filter(has_own).map(|step| {
        let folder = step.dead_letter.as_ref().unwrap_or(&flow.execution.dead_letter);
        // A folder of its own says that bad rows go there.
        let on_error = step.on_error.unwrap_or(if step.dead_letter.is_some() {
            OnError::DeadLetter
        } else {
            flow.execution.on_error
        });
        (step.name.clone(), policy(on_error, folder))
    });
    Rejects::new(
        default,
        own.collect::<HashMap<_, _>>(),
        flow.execution.max_rejected,
        Arc::new(StdFs),
        part_run,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_folder_that_is_not_there_yet_has_the_disk_of_the_working_directory() {
        let here = free_bytes(Path::new(".")).unwrap();
        let below = free_bytes(Path::new("not-there/spill")).unwrap();
        assert!(here.get() > 0 && below < ByteCount::new(u64::MAX), "{here} {below}");
        let told = free_bytes(Path::new("")).unwrap_err().chain();
        assert!(told.contains("execution.spill.max_bytes"), "{told}");
    }
}

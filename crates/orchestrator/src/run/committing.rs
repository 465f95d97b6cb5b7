//! Gathers all that belongs to a commit, while every row that was let in is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use aqueduct_commit::{Counters, Counts, End, Epoch};
use aqueduct_core::{Context, Durable, Error, Part, Positions, Result, RunContext};
use serde_json::Value;

use super::build::PreparedStep;
use super::commits::Commits;
use super::panics::Panics;
use super::rejects::Rejects;

/// Under this name, which no step can have, stand the rejected items by reason.
pub(super) const BY_REASON: &str = "rejected by reason";

/// The commits of a run, with all that they are made of.
pub(super) struct Committing<'r> {
    pub(super) commits: Commits,
    pub(super) rejects: Arc<Rejects>,
    pub(super) run: &'r RunContext,
    pub(super) steps: &'r [PreparedStep],
    pub(super) contexts: &'r [Context],
    /// Whether only the first rows of each source were let in: of what it has read, sources keep nothing.
    pub(super) is_trial: bool,
    /// What is kept beside what steps keep, by name: copies of what goes into global stages, say.
    pub(super) beside: Vec<(String, Arc<Durable>)>,
    pub(super) panics: Panics,
}

impl Committing<'_> {
    /// Commits what sinks have sealed, by step, and how far sources were read for it. A commit before the end that would
    /// say nothing new is left out.
    ///
    /// # Errors
    /// A step has panicked, too much was rejected, rows were lost on their way, or something cannot be made durable:
    /// nothing is committed. Or it is, and a step cannot do what follows from it.
    pub(super) async fn commit(
        &mut self,
        parts: Vec<(usize, Vec<Part>)>,
        positions: BTreeMap<String, Positions>,
        end: End,
    ) -> Result<()> {
        self.panics.check()?;
        self.judge(end)?;
        let letters = self.seal_letters().await?;
        let is_new =
            !positions.is_empty() || !letters.is_empty() || parts.iter().any(|(_, parts)| !parts.is_empty());
        if !is_new && end == End::GoOn {
            return Ok(());
        }
        let epoch = Epoch {
            positions,
            counts: self.counts(),
            counters: self.counters(),
            kept: self.keep().await?,
            letters,
            ..Epoch::default()
        };
        self.commits.commit(parts, epoch, end).await?;
        self.rejects.are_public();
        self.tell(end).await
    }

    /// Tells steps that what they keep is committed. One that panics then changes nothing of it: the next commit, or the end
    /// of the run, finds that.
    async fn tell(&self, end: End) -> Result<()> {
        for (name, durable) in self.durables() {
            let Some(keeper) = durable.keeper() else { continue };
            let told = self.panics.guard(name).wait(keeper.committed(end == End::Finish)).await;
            told.unwrap_or(Ok(())).map_err(|error| {
                error.with("step", name).with("state", "committed before it: what was written stands")
            })?;
        }
        Ok(())
    }

    /// What steps keep by, with their names.
    fn durables(&self) -> impl Iterator<Item = (&str, &Durable)> {
        let steps = self.steps.iter().zip(self.contexts);
        let kept = steps.filter(|(step, _)| !(self.is_trial && step.is_source));
        let of_steps = kept.filter_map(|(_, cx)| Some((cx.step(), cx.durable()?)));
        of_steps.chain(self.beside.iter().map(|(name, durable)| (name.as_str(), &**durable)))
    }

    fn judge(&self, end: End) -> Result<()> {
        for (step, context) in self.steps.iter().zip(self.contexts) {
            self.rejects.judge(context.step(), step.is_source, context.metrics(), end)?;
        }
        if end == End::GoOn { self.check_nothing_lost() } else { Ok(()) }
    }

    /// While sources stand, every row that a step gave was taken by the next.
    fn check_nothing_lost(&self) -> Result<()> {
        let n_readers = |at: usize| self.steps.iter().filter(|step| step.inputs.contains(&at)).count();
        let stands = |step: &PreparedStep| !step.inputs.is_empty() && !step.is_behind_global;
        for (step, context) in self.steps.iter().zip(self.contexts).filter(|(step, _)| stands(step)) {
            if step.inputs.iter().any(|input| n_readers(*input) != 1) {
                continue;
            }
            let given: u64 =
                step.inputs.iter().map(|input| self.contexts[*input].metrics().rows_out.get()).sum();
            let taken = context.metrics().rows_in.get();
            if given != taken {
                let message =
                    format!("{given} rows were given and {taken} taken; the run stops before it commits");
                return Err(Error::bug("commit", message).with("step", context.step()));
            }
        }
        Ok(())
    }

    async fn seal_letters(&self) -> Result<Vec<aqueduct_commit::Letter>> {
        let rejects = Arc::clone(&self.rejects);
        self.run.tasks.block(move || rejects.seal()).await?
    }

    /// What steps keep, as far as they do.
    async fn keep(&self) -> Result<BTreeMap<String, Value>> {
        let mut kept = BTreeMap::new();
        for (name, durable) in self.durables() {
            let Some(keeper) = durable.keeper() else { continue };
            let value = self.panics.guard(name).wait(keeper.keep()).await.flatten();
            let value = value.map_err(|error| error.with("step", name))?;
            kept.extend(value.map(|value| (name.to_owned(), value)));
        }
        Ok(kept)
    }

    fn counts(&self) -> Counts {
        let sum = |of: fn(&aqueduct_core::StepMetrics) -> u64| {
            self.contexts.iter().map(|cx| of(cx.metrics())).sum()
        };
        let of = |is_wanted: fn(&PreparedStep) -> bool| {
            let wanted = self.steps.iter().zip(self.contexts).filter(move |(step, _)| is_wanted(step));
            wanted.map(|(_, context)| context.metrics())
        };
        Counts {
            rows_in: of(|step| step.is_source).map(|metrics| metrics.rows_read()).sum(),
            rows_out: of(|step| step.is_sink).map(|metrics| metrics.rows_out.get()).sum(),
            rows_filtered: sum(|metrics| metrics.rows_filtered.get()),
            rows_duplicate: sum(|metrics| metrics.rows_duplicate.get()),
            rows_rejected: sum(|metrics| metrics.rows_rejected.get()),
        }
    }

    fn counters(&self) -> Counters {
        let of_step = |context: &Context| (context.step().to_owned(), context.metrics().snapshot());
        let by_reason = (BY_REASON.to_owned(), self.rejects.by_reason());
        self.contexts.iter().map(of_step).chain([by_reason]).collect()
    }
}

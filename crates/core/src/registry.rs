//! The list of components that a program knows.

use crate::worker::{Worker, WorkerTask};
use crate::{Merging, SinkFactory, SourceFactory, StageConfig, StageFactory, nearest};

/// Sources, stages and sinks by name. An explicit list, read from top to bottom.
#[derive(Clone, Default)]
pub struct Registry {
    sources: Vec<&'static dyn SourceFactory>,
    stages: Vec<&'static dyn StageFactory>,
    sinks: Vec<&'static dyn SinkFactory>,
    merge: Option<MergeBefore>,
    worker_tasks: Vec<WorkerTask>,
    worker: Option<Worker>,
}

/// Makes the stage that is put before a sink whose output is [merged](crate::Mode::Merge).
pub type MergeBefore = fn(Merging) -> Box<dyn StageConfig>;

impl Registry {
    /// One without components.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds sources. Of two with one name, the later counts.
    #[must_use]
    pub fn with_sources(mut self, sources: &[&'static dyn SourceFactory]) -> Self {
        self.sources.extend_from_slice(sources);
        self
    }

    /// Adds stages. Of two with one name, the later counts.
    #[must_use]
    pub fn with_stages(mut self, stages: &[&'static dyn StageFactory]) -> Self {
        self.stages.extend_from_slice(stages);
        self
    }

    /// Adds sinks. Of two with one name, the later counts.
    #[must_use]
    pub fn with_sinks(mut self, sinks: &[&'static dyn SinkFactory]) -> Self {
        self.sinks.extend_from_slice(sinks);
        self
    }

    /// Says what is put before sinks that merge; without it, none can.
    #[must_use]
    pub fn with_merge(mut self, merge: MergeBefore) -> Self {
        self.merge = Some(merge);
        self
    }

    /// Adds what child processes do for components.
    #[must_use]
    pub fn with_worker_tasks(mut self, tasks: &[WorkerTask]) -> Self {
        self.worker_tasks.extend_from_slice(tasks);
        self
    }

    /// Says how child processes are started; without it, components that need one do not open.
    #[must_use]
    pub fn with_worker(mut self, worker: Worker) -> Self {
        self.worker = Some(worker);
        self
    }

    /// What child processes do.
    pub fn worker_tasks(&self) -> &[WorkerTask] {
        &self.worker_tasks
    }

    /// How child processes are started.
    pub fn worker(&self) -> Option<&Worker> {
        self.worker.as_ref()
    }

    /// What is put before sinks that merge.
    pub fn merge(&self) -> Option<MergeBefore> {
        self.merge
    }

    /// All sources, in the order they were added.
    pub fn sources(&self) -> &[&'static dyn SourceFactory] {
        &self.sources
    }

    /// All stages, in the order they were added.
    pub fn stages(&self) -> &[&'static dyn StageFactory] {
        &self.stages
    }

    /// All sinks, in the order they were added.
    pub fn sinks(&self) -> &[&'static dyn SinkFactory] {
        &self.sinks
    }

    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&'static dyn SourceFactory> {
        self.sources.iter().rev().find(|factory| factory.info().name == name).copied()
    }

    /// The stage of this name.
    pub fn stage(&self, name: &str) -> Option<&'static dyn StageFactory> {
        self.stages.iter().rev().find(|factory| factory.info().name == name).copied()
    }

    /// The sink of this name.
    pub fn sink(&self, name: &str) -> Option<&'static dyn SinkFactory> {
        self.sinks.iter().rev().find(|factory| factory.info().name == name).copied()
    }

    /// The source name nearest to a wrong one.
    pub fn nearest_source(&self, wrong: &str) -> Option<&'static str> {
        nearest(wrong, self.sources.iter().map(|factory| factory.info().name))
    }

    /// The stage name nearest to a wrong one.
    pub fn nearest_stage(&self, wrong: &str) -> Option<&'static str> {
        nearest(wrong, self.stages.iter().map(|factory| factory.info().name))
    }

    /// The sink name nearest to a wrong one.
    pub fn nearest_sink(&self, wrong: &str) -> Option<&'static str> {
        nearest(wrong, self.sinks.iter().map(|factory| factory.info().name))
    }
}

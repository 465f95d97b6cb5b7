//! The surroundings of one trial, and what must be left of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{
    Context, Durable, Fs, MemoryNeed, Origin, Planning, Reject, RejectPolicy, RunContext, StdFs, StepContext,
};
use aqueduct_primitives::{Budget, ByteCount};
use arrow::array::RecordBatch;
use serde_json::Value;
use tempfile::TempDir;

use super::{Objection, Verdict, ensure, texts};
use crate::faults::FixedClock;

/// Rows in a batch at most: few, so that small inputs make many batches.
pub(crate) const BATCH_ROWS: usize = 500;

/// Bytes in a batch at most.
pub(crate) const BATCH_BYTES: ByteCount = ByteCount::kib(128);

/// For data in flight: eight batches. Inputs must be larger, or nobody ever waits.
pub(crate) const FLOW_BYTES: ByteCount = ByteCount::mib(1);

/// Files, pages or requests at once.
const CONCURRENCY: usize = 2;

/// 2026-06-01T00:00:00Z, the time in all trials.
const NOW: i64 = 1_780_272_000;

/// Which share of memory a step gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    /// With less it cannot work.
    Least,
    /// With more it gets no better.
    Best,
}

impl Share {
    pub(crate) fn of(self, need: MemoryNeed) -> ByteCount {
        match self {
            Self::Least => need.min,
            Self::Best => need.want.max(need.min),
        }
    }
}

/// Folders that a trial has to itself.
pub(crate) struct Folders {
    /// Where relative paths start from.
    base: TempDir,
    /// Where a sink stages its parts.
    stage: TempDir,
}

impl Folders {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self { base: tempfile::tempdir()?, stage: tempfile::tempdir()? })
    }

    /// What a component may know of them before it is opened.
    pub(crate) fn planning(&self) -> Planning {
        Planning {
            base_dir: self.base.path().to_owned(),
            batch_rows: BATCH_ROWS,
            batch_bytes: BATCH_BYTES,
            max_concurrency: CONCURRENCY,
        }
    }
}

/// How much memory there is in a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// For data in flight.
    pub(crate) flow: ByteCount,
    /// For the step alone.
    pub(crate) share: ByteCount,
}

/// A budget, a context and folders that one component has to itself.
pub(crate) struct Room {
    folders: Folders,
    memory: Memory,
    budget: Budget,
    cx: Context,
}

/// Items that were rejected, each as a text, while the run goes on.
#[derive(Debug, Default)]
pub(crate) struct Rejected(Mutex<Vec<String>>);

impl RejectPolicy for Rejected {
    fn reject(&self, _step: &str, reject: Reject) -> aqueduct_core::Result<()> {
        let Origin { file, row, byte, .. } = &reject.origin;
        let name = file.rsplit('/').next().unwrap_or_default();
        let text = format!("{:?} {name} {row:?} {byte:?} {}", reject.item, reject.reason);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        Ok(())
    }
}

impl Rejected {
    /// All of them so far.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Room {
    /// Rows as [`texts`] writes them, paths relative to the flow's folder.
    pub(crate) fn texts(&self, records: &RecordBatch) -> Vec<String> {
        let folder = format!("{}/", self.cx().base_dir().display());
        texts(records).into_iter().map(|row| row.replace(&folder, "")).collect()
    }

    /// Surroundings on a disk that works.
    pub(crate) fn new(
        folders: Folders,
        memory: Memory,
        services: fn(&mut RunContext),
    ) -> aqueduct_core::Result<Self> {
        Self::on(Arc::new(StdFs), folders, memory, services)
    }

    /// Surroundings on this disk.
    pub(crate) fn on(
        fs: Arc<dyn Fs>,
        folders: Folders,
        memory: Memory,
        services: fn(&mut RunContext),
    ) -> aqueduct_core::Result<Self> {
        let change_run = |run: &mut RunContext| {
            run.fs = fs;
            services(run);
        };
        Self::with(folders, memory, change_run, |_| {})
    }

    /// Surroundings in which a step keeps what it must know when its run goes on, as it was kept by the last commit.
    pub(crate) fn durable(
        folders: Folders,
        memory: Memory,
        kept: Option<Value>,
        change_run: impl FnOnce(&mut RunContext),
    ) -> aqueduct_core::Result<Self> {
        let state = folders.stage.path().join("state");
        let durable = Durable::new(kept, state.join("step"), state.join("run"));
        Self::with(folders, memory, change_run, |step| step.durable = Some(durable))
    }

    fn with(
        folders: Folders,
        memory: Memory,
        change_run: impl FnOnce(&mut RunContext),
        change_step: impl FnOnce(&mut StepContext),
    ) -> aqueduct_core::Result<Self> {
        let budget = Budget::new("conformance", memory.flow.saturating_add(memory.share));
        let (flow, share) = (budget.carve("flow", memory.flow)?, budget.carve("share", memory.share)?);
        let cx = Context::standalone_with(
            // What it carves of its own is put aside at once.
            &Budget::new("unused", ByteCount::ZERO),
            |run| {
                run.run_id = "r1".into();
                run.part_run = "r1".into();
                run.base_dir = folders.base.path().to_owned();
                run.clock = Arc::new(FixedClock::at(NOW));
                run.flow = flow;
                (run.batch_rows, run.batch_bytes) = (BATCH_ROWS, BATCH_BYTES);
                change_run(run);
            },
            |step| {
                step.name = "component".into();
                step.share = share;
                step.max_concurrency = CONCURRENCY;
                step.stage_dir = Some(folders.stage.path().to_owned());
                change_step(step);
            },
        )?;
        Ok(Self { folders, memory, budget, cx })
    }

    pub(crate) fn cx(&self) -> &Context {
        &self.cx
    }

    pub(crate) fn planning(&self) -> Planning {
        self.folders.planning()
    }

    pub(crate) fn base(&self) -> &Path {
        self.folders.base.path()
    }

    pub(crate) fn stage(&self) -> &Path {
        self.folders.stage.path()
    }

    /// Waits for every task, and checks that all memory is back. // MEM-1
    pub(crate) async fn check_all_is_back(&self) -> Verdict {
        self.cx.tasks().join().await;
        let n_running = self.cx.tasks().n_running();
        ensure!(n_running == 0, "{n_running} tasks are still running");
        for part in [self.cx.flow(), self.cx.share()] {
            let missing = part.total().saturating_sub(part.free());
            ensure!(missing == ByteCount::ZERO, "MEM-1: {missing} of the {} never came back", part.name());
        }
        Ok(())
    }

    /// What another process finds in its place: the folders, and as much memory.
    pub(crate) async fn into_what_stays(self) -> Result<(Folders, Memory), Objection> {
        self.check_all_is_back().await?;
        Ok((self.folders, self.memory))
    }

    /// [`Room::check_all_is_back`], and that nothing holds the context itself any more.
    pub(crate) async fn leave(self) -> Verdict {
        self.check_all_is_back().await?;
        drop(self.cx);
        let missing = self.budget.total().saturating_sub(self.budget.free());
        ensure!(missing == ByteCount::ZERO, "MEM-1: {missing} are held by a context that nobody let go of");
        Ok(())
    }
}

/// All files below a folder, at whatever depth.
pub(crate) fn files_below(folder: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for entry in StdFs.list(folder)? {
        match entry.is_dir {
            true => files.extend(files_below(&entry.path)?),
            false => files.extend([entry.path]),
        }
    }
    Ok(files)
}

//! The outputs of a run: claimed before anything is read, all sealed before the first becomes public.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{Published, RunStamp, Staging};
use aqueduct_core::{Error, Output, Part, Result, RunContext};

use crate::report::OutputReport;

/// The claimed outputs, by step; `None` for a step that leaves no files.
#[derive(Debug)]
pub(crate) struct Outputs {
    staged: Vec<Option<Staging>>,
}

impl Outputs {
    /// Locks every output and makes sure that nothing foreign is in its place.
    ///
    /// # Errors
    /// One of them cannot be written; none is held then.
    pub(crate) async fn claim(run: &RunContext, outputs: Vec<Option<Output>>) -> Result<Self> {
        let (fs, run_id) = (Arc::clone(&run.fs), run.run_id.clone());
        run.tasks
            .block(move || {
                let mut staged = Vec::new();
                for output in outputs {
                    match output.map(|output| Staging::prepare(&fs, &output, &run_id)).transpose() {
                        Ok(staging) => staged.push(staging),
                        Err(error) => {
                            abort_all(staged);
                            return Err(error);
                        }
                    }
                }
                Ok(Self { staged })
            })
            .await?
    }

    /// Where the sink at a step stages its parts.
    pub(crate) fn stage_dir(&self, step: usize) -> Option<PathBuf> {
        Some(self.staged.get(step)?.as_ref()?.stage_dir().to_owned())
    }

    /// Makes all parts durable, then all outputs public: those that are, and what went wrong. If something could
    /// not be made durable, every output is as it was; if one could not be put in its place once all are durable,
    /// those before it are public already.
    pub(crate) async fn publish(
        self,
        parts: Vec<(usize, Vec<Part>)>,
        run: &RunContext,
        flow: &str,
    ) -> (Vec<OutputReport>, Option<Error>) {
        let stamp = RunStamp {
            flow: flow.to_owned(),
            run_id: run.run_id.clone(),
            mode: "replace",
            written: run.clock.now(),
            inputs: None,
        };
        let base_dir = run.base_dir.clone();
        match run.tasks.block(move || publish_all(self.staged, parts, &stamp)).await {
            Ok((published, failed)) => {
                (published.iter().map(|one| report_of(&base_dir, one)).collect(), failed)
            }
            Err(error) => (Vec::new(), Some(error.into())),
        }
    }

    /// Drops what was staged.
    pub(crate) async fn abandon(self, run: &RunContext) {
        if let Err(error) = run.tasks.block(move || abort_all(self.staged)).await {
            tracing::warn!(error = %Error::from(error).chain(), "staged files were not removed; the next run will");
        }
    }
}

fn publish_all(
    mut staged: Vec<Option<Staging>>,
    parts: Vec<(usize, Vec<Part>)>,
    stamp: &RunStamp,
) -> (Vec<Published>, Option<Error>) {
    let mut published = Vec::new();
    let result = seal_then_publish(&mut staged, parts, stamp, &mut published);
    if result.is_err() {
        abort_all(staged);
    }
    (published, result.err())
}

fn seal_then_publish(
    staged: &mut [Option<Staging>],
    parts: Vec<(usize, Vec<Part>)>,
    stamp: &RunStamp,
    published: &mut Vec<Published>,
) -> Result<()> {
    for (step, parts) in parts {
        if let Some(staging) = staged.get_mut(step).and_then(Option::as_mut) {
            staging.seal(parts, stamp)?;
        }
    }
    for staging in staged.iter_mut().flatten() {
        published.push(staging.publish()?);
    }
    Ok(())
}

fn abort_all(staged: Vec<Option<Staging>>) {
    for staging in staged.into_iter().flatten() {
        if let Err(error) = staging.abort() {
            tracing::warn!(error = %error.chain(), "staged files were not removed; the next run will");
        }
    }
}

fn report_of(base_dir: &Path, published: &Published) -> OutputReport {
    let path = published.path.strip_prefix(base_dir).unwrap_or(&published.path);
    OutputReport { path: path.display().to_string(), rows: published.rows, bytes: published.n_bytes }
}

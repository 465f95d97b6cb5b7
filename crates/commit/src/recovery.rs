//! What a dead run left behind: a publication that it had begun is completed or undone, the rest is swept.
//!
//! Runs under the output's lock, so that every staged folder found belongs to a run that is gone. Each step
//! can be repeated: a crash in here is found by the next run.

use std::path::Path;

use aqueduct_core::Result;

use crate::Manifest;
use crate::disk::Disk;
use crate::layout::{Layout, Stage};

/// Brings the output into a whole state.
pub(crate) fn recover(disk: &Disk, layout: &Layout) -> Result<()> {
    let stages = stages(disk, layout)?;
    if layout.is_file {
        complete_file(disk, layout)?;
    } else if !disk.exists(&layout.path)? {
        for stage in &stages {
            put_old_back(disk, layout, stage)?;
        }
    }
    for stage in stages {
        disk.remove_dir_all(&stage.0)?;
    }
    Ok(())
}

fn stages(disk: &Disk, layout: &Layout) -> Result<Vec<Stage>> {
    let home = layout.home();
    if !disk.exists(&home)? {
        return Ok(Vec::new());
    }
    let entries = disk.list(&home)?.into_iter();
    Ok(entries.filter(|entry| Layout::is_stage(&entry.path)).map(|entry| Stage(entry.path)).collect())
}

/// One file is published by its manifest; a file that is still staged only has to follow.
fn complete_file(disk: &Disk, layout: &Layout) -> Result<()> {
    let Some(manifest) = Manifest::load(disk, &layout.manifest())? else { return Ok(()) };
    let staged = layout.stage(&manifest.run_id).next().join(&layout.name);
    if disk.exists(&staged)? {
        tracing::info!(path = %layout.path.display(), "completing what a dead run had begun to publish");
        disk.rename(&staged, &layout.path)?;
        disk.sync_dir(layout.parent())?;
    }
    Ok(())
}

/// The process died between the two renames that replace an exchange: the old output is the committed one.
fn put_old_back(disk: &Disk, layout: &Layout, stage: &Stage) -> Result<()> {
    let old: &Path = &stage.old();
    if disk.exists(old)? {
        tracing::info!(path = %layout.path.display(), "putting back what a dead run had begun to replace");
        disk.rename_no_replace(old, &layout.path)?;
        disk.sync_dir(layout.parent())?;
    }
    Ok(())
}

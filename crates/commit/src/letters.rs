//! Files of rejected items become public with the commit that names them.

use std::path::Path;

use aqueduct_core::{Result, kill_point};

use crate::Letter;
use crate::disk::Disk;

/// Moves each to its place, unless it is there already. All are tried, whatever fails.
pub(crate) fn publish(disk: &Disk, letters: &[Letter]) -> Result<()> {
    letters.iter().map(|letter| publish_one(disk, letter)).fold(Ok(()), Result::and)
}

fn publish_one(disk: &Disk, letter: &Letter) -> Result<()> {
    let folder = letter.public.parent().unwrap_or(Path::new("."));
    if disk.exists(&letter.staged)? {
        disk.create_durable_dir(folder)?;
        disk.rename_no_replace(&letter.staged, &letter.public)?;
        kill_point("commit.letters.moved");
    }
    // Else somebody has removed what was public.
    if disk.exists(folder)? {
        disk.sync_dir(folder)?;
        kill_point("commit.letters.synced");
    }
    Ok(())
}

//! Small files that are there whole, or not at all.

use std::path::Path;

use aqueduct_core::{Error, Fs, Result};

/// What the name of a file ends with while it is written.
const DRAFT: &str = "new";

/// Whether a file was being written.
pub(super) fn is_draft(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == DRAFT)
}

/// Writes a file in the place of what is there. It is durable when this returns. Blocks.
///
/// # Errors
/// The disk fails; what was there is there still.
pub(super) fn write_durably(fs: &dyn Fs, dir: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (path, draft) = (dir.join(name), dir.join(format!("{name}.{DRAFT}")));
    let written = || {
        // That of a run that was killed while it wrote.
        fs.remove_file(&draft)?;
        let mut file = fs.create_private(&draft)?;
        file.write_all(bytes)?;
        file.sync()?;
        drop(file);
        fs.rename(&draft, &path)?;
        fs.sync_dir(dir)
    };
    written().map_err(|error| Error::io("write", path.display(), error))
}

/// Makes a folder, and durable that it is there, up to `above`. Blocks.
///
/// # Errors
/// The disk fails.
pub(super) fn make_dir_durably(fs: &dyn Fs, dir: &Path, above: &Path) -> Result<()> {
    let made = || {
        fs.create_dir_all(dir)?;
        let folders = dir.ancestors().skip(1).take_while(|folder| folder.starts_with(above));
        folders.into_iter().try_for_each(|folder| fs.sync_dir(folder))
    };
    made().map_err(|error| Error::io("make folder", dir.display(), error))
}

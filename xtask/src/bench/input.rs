//! Inputs: made once, kept in the cache.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};

use crate::text::{self, say};

/// What is known of a file, which is made if it is not there. Who makes it tells what is then known, for later runs.
///
/// # Errors
/// It cannot be written.
pub(super) fn made<T: Serialize + DeserializeOwned>(
    path: &Path,
    what: &str,
    write: impl FnOnce(BufWriter<File>) -> Result<T>,
) -> Result<T> {
    let note = path.with_extension("rows");
    let known = text::read(&note).ok().and_then(|text| serde_json::from_str(&text).ok());
    if let Some(known) = known.filter(|_| path.exists()) {
        return Ok(known);
    }
    say(format_args!("making {what} in {}", path.display()));
    let unfinished = path.with_extension("part");
    let file = File::create(&unfinished).with_context(|| format!("{}", unfinished.display()))?;
    let known = write(BufWriter::with_capacity(1 << 20, file))?;
    fs::rename(&unfinished, path)?;
    text::write(&note, &serde_json::to_string(&known)?)?;
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_made_once_and_what_is_known_of_it_stays_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.ndjson");
        let make = |n_rows: u64| {
            let write = |mut out: BufWriter<File>| Ok(out.write_all(b"{}\n").map(|()| n_rows)?);
            made(&path, "rows", write).unwrap()
        };
        assert_eq!((make(1), make(2)), (1, 1));
        fs::remove_file(&path).unwrap();
        assert_eq!((make(3), text::read(&path).unwrap()), (3, "{}\n".to_owned()));
    }
}

//! The peers: Python packages at pinned versions, in environments of their own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::process::{check, command, output};
use crate::text::{self, say};

/// What is installed. Another version is another environment.
const PACKAGES: &[&str] = &["datafusion==55.0.0", "duckdb==2.0.0", "obstore==0.12.1"];

/// What is installed for items of STAC: more than half a gigabyte with all that they need, which
/// no other bench has to wait for.
const STAC_PACKAGES: &[&str] = &["pyarrow==25.0.1", "rustac==0.9.18", "stac-geoparquet==0.8.3"];

/// The Python that has the peers, installed if it is not there.
///
/// # Errors
/// There is no Python, or a package cannot be had.
pub(crate) fn python(cache: &Path) -> Result<PathBuf> {
    python_with(PACKAGES, cache)
}

/// The Python that has the peers for items of STAC, installed if it is not there.
///
/// # Errors
/// There is no Python, or a package cannot be had.
pub(super) fn stac_python(cache: &Path) -> Result<PathBuf> {
    python_with(STAC_PACKAGES, cache)
}

fn python_with(packages: &[&str], cache: &Path) -> Result<PathBuf> {
    let folder = cache.join(format!("peers-{}", packages.join("-").replace("==", "_")));
    let python = folder.join("bin/python");
    let complete = folder.join("complete");
    if !complete.exists() {
        say(format_args!("installing {} in {}", packages.join(", "), folder.display()));
        check(command("python3", cache).args(["-m", "venv"]).arg(&folder))
            .context("the peers need python3")?;
        check(command(&python, cache).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
        text::write(&complete, "")?;
    }
    Ok(python)
}

/// Rows and sum of `seq` of Parquet files, as DuckDB reads them.
///
/// # Errors
/// They cannot be read.
pub(super) fn rows_and_sum(python: &Path, parquet: &Path) -> Result<(u64, u64)> {
    const SCRIPT: &str = "import duckdb, sys\n\
        duckdb.execute('set enable_progress_bar = false')\n\
        query = 'select count(*), coalesce(sum(seq), 0)::ubigint from read_parquet(?)'\n\
        print(*duckdb.execute(query, [sys.argv[1]]).fetchone())";
    let folder = parquet.parent().context("a Parquet file lies in a folder")?;
    let told = output(command(python, folder).args(["-c", SCRIPT]).arg(parquet))?;
    let mut numbers = told.split_whitespace().map(str::parse);
    let mut next = || Ok::<u64, anyhow::Error>(numbers.next().context("a number is missing")??);
    Ok((next()?, next()?))
}

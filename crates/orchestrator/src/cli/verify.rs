//! `aqueduct verify`: a committed output, read again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_commit::{Flaw, Manifest, ManifestPart, Verified};
use aqueduct_core::{Error, ErrorKind, Fs, is_in_store};
use aqueduct_formats::count_rows;
use aqueduct_net::{Fetcher, HttpOptions, Location, StorageOptions, StoreFs, Trust};
use aqueduct_primitives::{ByteCount, Tasks};

use super::{Program, exit};
use crate::progress::grouped;

/// Proves an output, prints what is wrong, one line each, and a summary; the exit code.
pub(super) async fn verify(program: &Program, path: PathBuf) -> u8 {
    match prove(&path).await {
        Ok(Some(proof)) => proof.tell(program, &path),
        Ok(None) => {
            program.say_error(&format!(
                "{} has no manifest, so there is nothing to prove it by; name the output of a flow, a folder or one file",
                path.display()
            ));
            exit::WRONG
        }
        Err(error) => {
            program.say_error(&error.chain());
            if error.kind() == ErrorKind::Newer { exit::WRONG } else { exit::FAILED }
        }
    }
}

/// What was found.
struct Proof {
    manifest: Manifest,
    flaws: Vec<Flaw>,
    n_not_counted: usize,
}

async fn prove(path: &Path) -> Result<Option<Proof>, Error> {
    let tasks = Tasks::default();
    let named = path.to_owned();
    let fs: Arc<dyn Fs> = Arc::new(StoreFs::default());
    let verified = tasks.block(move || aqueduct_commit::verify(&fs, &named)).await??;
    let Some(Verified { manifest, intact, mut flaws, .. }) = verified else { return Ok(None) };
    let n_intact = intact.len();
    let fetcher = Fetcher::new(HttpOptions::default(), StorageOptions::default(), tasks.clone())?;
    let mut n_counted = 0;
    // Copies of files have no rows that a sink has written.
    let of_tables = intact.into_iter().filter(|_| manifest.table.is_some());
    for (part, path) in of_tables {
        match count(&fetcher, &tasks, part, path).await {
            Counted::No => continue,
            Counted::Right => {}
            Counted::Wrong(flaw) => flaws.push(flaw),
        }
        n_counted += 1;
    }
    Ok(Some(Proof { manifest, flaws, n_not_counted: n_intact.saturating_sub(n_counted) }))
}

enum Counted {
    /// It has no rows that could be counted.
    No,
    Right,
    Wrong(Flaw),
}

async fn count(fetcher: &Fetcher, tasks: &Tasks, part: ManifestPart, path: PathBuf) -> Counted {
    let result = async {
        let at = match path.to_str().filter(|_| is_in_store(&path)) {
            Some(url) => Location::parse(url, Path::new(""))?,
            None => Location::Local(path),
        };
        let file = fetcher.random_access(&at, Trust::Flow, &Arc::default()).await?;
        count_rows(file.file, &part.name, tasks).await
    };
    let found = match result.await {
        Ok(None) => return Counted::No,
        Ok(Some(rows)) if rows == part.rows => return Counted::Right,
        Ok(Some(rows)) => format!("has {rows} rows, the manifest says {}", part.rows),
        Err(error) => format!("its rows cannot be counted: {}", error.chain()),
    };
    Counted::Wrong(Flaw { name: part.name, found })
}

impl Proof {
    fn tell(&self, program: &Program, path: &Path) -> u8 {
        let mut text = String::new();
        for flaw in &self.flaws {
            text.push_str(&format!("{}\n", one_line(flaw)));
        }
        let code = match self.flaws.as_slice() {
            [] => {
                text.push_str(&format!("ok: {}", self.summary()));
                exit::DONE
            }
            [first, more @ ..] => {
                let problems = several(self.flaws.len(), "problem");
                text.push_str(&format!("wrong: {problems}; the manifest lists {}", self.summary()));
                let rest = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
                program.say_error(&format!(
                    "{} is not what its manifest says: {}{rest}",
                    path.display(),
                    one_line(first)
                ));
                exit::FAILED
            }
        };
        text.push('\n');
        program.write_out(text.as_bytes());
        code
    }

    fn summary(&self) -> String {
        let Manifest { rows, parts, .. } = &self.manifest;
        let bytes = ByteCount::new(self.manifest.n_bytes()).human();
        let mut text = format!("{}, {} rows, {bytes}", several(parts.len(), "part"), grouped(*rows));
        if self.n_not_counted > 0 {
            let parts = several(self.n_not_counted, "part");
            text.push_str(&format!(" (of {parts} the bytes alone were proved: there are no rows to count)"));
        }
        text
    }
}

fn several(n: usize, what: &str) -> String {
    format!("{} {what}{}", grouped(n as u64), if n == 1 { "" } else { "s" })
}

/// Names of files may hold anything, line ends as well.
fn one_line(flaw: &Flaw) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    flaw.to_string().chars().map(shown).collect()
}

//! 200 files of 20 MB from a server of this machine onto its disk, ten at a time, beside curl and obstore. All
//! sides make what they wrote durable before they end.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::contest::{Contestant, clear, compete, named, times};
use super::events::Random;
use super::file_server::FileServer;
use super::{Bench, Promise, peers};
use crate::process::command;
use crate::text::{self, say};

/// How many files are downloaded.
const N_FILES: usize = 200;

/// How large each is.
const FILE_BYTES: u64 = 20_000_000;

/// So many of them differ; the others are links to these, so that all fit into the page cache.
const N_DISTINCT: usize = 20;

const CURL: &str =
    "curl --silent --show-error --fail --parallel --parallel-max 10 --config \"$0\" && sync \"$1\"/*";

const OBSTORE: &str = include_str!("obstore_download.py");

/// Runs it.
///
/// # Errors
/// A side cannot be started, or ours comes out wrong.
pub(super) fn run(bench: &Bench) -> Result<Vec<Promise>> {
    let files = Files::make(&bench.cache, FILE_BYTES / bench.divisor)?;
    let server = FileServer::start(files.folder.clone())?;
    let python = peers::python(&bench.cache)?;
    let lists = Lists::write(bench, &server)?;
    let contestant = |name, target: PathBuf, command: MakeCommand| {
        let (files, checked) = (&files, target.clone());
        let prepare = move || {
            clear(&target)?;
            command(&target)
        };
        let outcome = move || {
            let told = files.check(&checked);
            clear(&checked)?;
            told
        };
        Contestant { name, prepare: Box::new(prepare), outcome: Box::new(outcome) }
    };
    let target = bench.output("downloads");
    let contestants = [
        contestant("aqueduct", target.clone(), ours(bench, &lists, &target)?),
        contestant("curl --parallel", target.clone(), curl(&lists)),
        contestant("obstore", target, obstore(python, server.root(), &lists)),
    ];
    let figures = compete(&contestants, bench.n_runs)?;
    Ok(promises(&figures))
}

fn promises(figures: &[super::contest::Figures]) -> Vec<Promise> {
    let Some(ours) = figures.first() else { return Vec::new() };
    let against = |name| named(figures, name).map(|peer| times(ours.wall, peer.wall));
    let says = |name, ratio: Option<f64>| match ratio {
        Some(ratio) => format!("no slower than {name}: {ratio:.2} of its time"),
        None => format!("there is no figure of {name} to compare with"),
    };
    let (curl, obstore) = (against("curl --parallel"), against("obstore"));
    vec![
        Promise::must(says("curl --parallel", curl), curl.is_some_and(|ratio| ratio <= 1.0)),
        Promise::goal(says("obstore", obstore), obstore.is_some_and(|ratio| ratio < 1.0)),
    ]
}

type MakeCommand = Box<dyn Fn(&Path) -> Result<Command>>;

fn ours(bench: &Bench, lists: &Lists, target: &Path) -> Result<MakeCommand> {
    let flow = format!(
        "name: bench-download\nmemory: 64MB\n\
         source: {{ files: {{ paths: {{ file: \"{}\" }}, format: binary, compression: none, window: 10 }} }}\n\
         sink: {{ files: {{ path: \"{}\", name: from_url, sync: true }} }}\n",
        lists.urls.display(),
        target.display()
    );
    let (command, _) = bench.flow("download", &flow)?;
    let (program, folder) = (command.get_program().to_owned(), bench.output("flow-download"));
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    Ok(Box::new(move |_| {
        let mut command = crate::process::command(&program, &folder);
        command.args(&arguments);
        Ok(command)
    }))
}

fn curl(lists: &Lists) -> MakeCommand {
    let config = lists.curl.clone();
    Box::new(move |target| {
        text::make_dir(target)?;
        let mut shell = command("sh", target);
        shell.args(["-c", CURL]).args([&config, target]);
        Ok(shell)
    })
}

fn obstore(python: PathBuf, root: String, lists: &Lists) -> MakeCommand {
    let names = lists.names.clone();
    Box::new(move |target| {
        text::make_dir(target)?;
        let mut run = command(&python, target);
        run.args(["-c", OBSTORE, &root]).args([&names, target]);
        Ok(run)
    })
}

/// What is to be downloaded, as each side wants to be told.
struct Lists {
    urls: PathBuf,
    names: PathBuf,
    curl: PathBuf,
}

impl Lists {
    fn write(bench: &Bench, server: &FileServer) -> Result<Self> {
        let lists = Self {
            urls: bench.output("urls.txt"),
            names: bench.output("names.txt"),
            curl: bench.output("curl.txt"),
        };
        let lines =
            |line: &dyn Fn(&str) -> String| (0..N_FILES).map(|n| line(&name(n)) + "\n").collect::<String>();
        text::write(&lists.urls, &lines(&|name| server.url(name)))?;
        text::write(&lists.names, &lines(&str::to_owned))?;
        text::write(
            &lists.curl,
            &lines(&|name| format!("url = \"{}\"\noutput = \"{name}\"", server.url(name))),
        )?;
        Ok(lists)
    }
}

fn name(n: usize) -> String {
    format!("f{n:03}.bin")
}

/// The files that are served.
struct Files {
    folder: PathBuf,
    n_bytes: u64,
}

impl Files {
    fn make(cache: &Path, n_bytes: u64) -> Result<Self> {
        let files = Self { folder: cache.join(format!("www-{n_bytes}")), n_bytes };
        let complete = files.folder.join("complete");
        if complete.exists() {
            return Ok(files);
        }
        say(format_args!("making {N_DISTINCT} files of {n_bytes} bytes in {}", files.folder.display()));
        clear(&files.folder)?;
        text::make_dir(&files.folder)?;
        for n in 0..N_FILES {
            let path = files.folder.join(name(n));
            if n < N_DISTINCT {
                fill(&path, n_bytes, &mut Random(n as u64))?;
            } else {
                fs::hard_link(files.folder.join(name(n % N_DISTINCT)), path)?;
            }
        }
        text::write(&complete, "")?;
        Ok(files)
    }

    /// Whether a folder holds all files, each as it was served.
    fn check(&self, folder: &Path) -> Result<String> {
        for n in 0..N_FILES {
            same(&self.folder.join(name(n)), &folder.join(name(n)))?;
        }
        Ok(format!("{N_FILES} files, {} MB", super::megabytes(self.n_bytes * N_FILES as u64)))
    }
}

fn fill(path: &Path, n_bytes: u64, random: &mut Random) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for _ in 0..n_bytes / 8 {
        file.write_all(&random.next().to_le_bytes())?;
    }
    file.flush()?;
    Ok(())
}

/// Compares two files, a block at a time.
fn same(served: &Path, found: &Path) -> Result<()> {
    const BLOCK_BYTES: u64 = 1 << 20;
    let open = |path: &Path| File::open(path).with_context(|| format!("{}", path.display()));
    let (a, b) = (open(served)?, open(found)?);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        (&a).take(BLOCK_BYTES).read_to_end(&mut left)?;
        (&b).take(BLOCK_BYTES).read_to_end(&mut right)?;
        ensure!(left == right, "{}: not what was served", found.display());
        if left.is_empty() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_short_or_changed_is_named() {
        let (cache, found) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = Files::make(cache.path(), 80).unwrap();
        for n in 0..N_FILES {
            fs::copy(files.folder.join(name(n)), found.path().join(name(n))).unwrap();
        }
        assert!(files.check(found.path()).is_ok());
        fs::write(found.path().join(name(117)), [0; 80]).unwrap();
        assert!(files.check(found.path()).unwrap_err().to_string().contains("f117.bin: not what was served"));
        fs::remove_file(found.path().join(name(5))).unwrap();
        assert!(files.check(found.path()).unwrap_err().to_string().contains("f005.bin"));
    }
}

//! `cargo xtask soak kills`: the binary, killed at random moments, at every system call that changes the disk and at every
//! point that has a name in the sources (`aqueduct_core::kill_point`), while a reader looks at what it writes. After each
//! kill the run is made again, and all its rows must be there, once.

mod named;
mod night;
mod points;
mod results;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::bench::file_server::FileServer;
use crate::bench::{Bench, random};
use crate::process::{answers, check, command};
use crate::text::say;
use crate::workspace::Workspace;
use night::{ALL_SHAPES, Field, Folder, Kill, SHAPES, Shape};
use results::{Results, Tally};

/// Where the results are kept, in the project.
const RESULTS: &str = "docs/proofs/kills.tsv";

/// The system calls with which a run changes the disk.
const CALLS: [&str; 6] = ["write", "fsync", "renameat2,rename", "linkat,link", "openat", "unlinkat,unlink"];

/// In CI.
const CI_KILLS: u64 = 100;
const CI_ORDINALS: u64 = 60;
const CI_ORDINALS_PER_CALL: u64 = 24;
/// A call that is struck in one run may not be made in the next, where threads share the work otherwise: what is missing
/// is made up for, so often.
const CI_MAX_ROUNDS: usize = 6;

/// More calls of one kind than a small run makes.
const MAX_ORDINAL: u64 = 5000;

/// Kills in one night before it is let be.
const MAX_KILLS_A_NIGHT: u64 = 4;

/// Nights over one folder; then a new one is begun, for outputs that are added to grow.
const NIGHTS_A_FOLDER: u64 = 4;

/// Kills at every named point and every ordinal of every call that was not tried with this build, and then at random until
/// the time is up.
///
/// # Errors
/// A row was lost, came twice, or was seen too early; a run failed that was not killed; or no run passes some point.
pub(super) fn run(workspace: &Workspace, bench: &Bench, state: Option<&Path>, minutes: u64) -> Result<()> {
    let path = state.map_or_else(|| workspace.root().join(RESULTS), Path::to_owned);
    let mut results = Results::read(&path, workspace)?;
    let server = FileServer::start(bench.scratch.path().to_owned())?;
    let field = Field { bench, server: &server };
    let (started, at_most) = (Instant::now(), Duration::from_secs(minutes * 60));
    let is_up = || started.elapsed() > at_most;
    at_points(field, &named::on_disks(workspace.root())?, &mut results, is_up)?;
    for shape in SHAPES {
        for call in CALLS {
            if !is_up() && !results.has(shape, call) {
                let tally = every_ordinal(field, shape, call, None)?;
                results.add(shape, call, tally)?;
            }
        }
    }
    while !is_up() {
        for shape in SHAPES {
            let seed = results.n_kills(shape, "random");
            let tally = at_random(field, shape, seed, 50)?;
            results.add(shape, "random", tally)?;
        }
    }
    say(format_args!("{}: {}", path.display(), results.told()));
    Ok(())
}

/// The part that CI runs; nothing is kept.
///
/// # Errors
/// As [`run`].
pub(crate) fn ci(workspace: &Workspace, binary: &Path) -> Result<()> {
    let bench = Bench::with(workspace, binary.to_owned(), 1, 1)?;
    let server = FileServer::start(bench.scratch.path().to_owned())?;
    let field = Field { bench: &bench, server: &server };
    let names = named::on_disks(workspace.root())?;
    let points = points::each_once(field, &names)?;
    let mut random = Tally::default();
    for shape in SHAPES {
        random.add(at_random(field, shape, 7, CI_KILLS.div_ceil(SHAPES.len() as u64))?);
    }
    let mut ordinals = Tally::default();
    for round in 0..CI_MAX_ROUNDS {
        for (call, shape) in CALLS.iter().zip(SHAPES.iter().cycle().skip(round)) {
            if round == 0 || ordinals.kills < CI_ORDINALS {
                ordinals.add(every_ordinal(field, *shape, call, Some(CI_ORDINALS_PER_CALL))?);
            }
        }
    }
    let n_points = names.len();
    say(format_args!(
        "at all {n_points} named points: {points}\nat random: {random}\nat system calls: {ordinals}"
    ));
    ensure!(ordinals.kills >= CI_ORDINALS, "only {} system calls were struck", ordinals.kills);
    ensure!(random.kills >= CI_KILLS, "only {} kills hit a run", random.kills);
    Ok(())
}

/// Kills runs at every named point in every shape of flow that passes it.
fn at_points(
    field: Field<'_>,
    names: &[String],
    results: &mut Results,
    is_up: impl Fn() -> bool,
) -> Result<()> {
    for shape in ALL_SHAPES {
        for name in names {
            let mut tally = Tally::default();
            let is_to_do = !is_up() && !results.has(shape, name);
            if is_to_do && points::dies(field, shape, name, &mut tally)? {
                results.add(shape, name, tally)?;
            }
        }
    }
    if is_up() {
        return Ok(());
    }
    named::check_all_hit(names, |name| ALL_SHAPES.iter().any(|shape| results.has(*shape, name)))
}

/// Kills runs at random moments until so many have hit.
fn at_random(field: Field<'_>, shape: Shape, seed: u64, n_kills: u64) -> Result<Tally> {
    let mut random = random(seed.wrapping_add(1));
    let mut tally = Tally::default();
    while tally.kills < n_kills {
        let mut folder = Folder::new(field, shape)?;
        let took = folder.night(&mut tally, |_| None)?;
        for _ in 0..NIGHTS_A_FOLDER {
            let n_kills = 1 + random.next() % MAX_KILLS_A_NIGHT;
            folder.night(&mut tally, |nth| {
                let part = random.next() % 1000;
                (nth < n_kills).then(|| Kill::After(took * u32::try_from(part).unwrap_or(0) / 1000))
            })?;
        }
    }
    Ok(tally)
}

/// Kills a run at the first, the second, … call of a kind, or at so many of them, spread over all.
fn every_ordinal(field: Field<'_>, shape: Shape, call: &str, at_most: Option<u64>) -> Result<Tally> {
    strace(field.bench)?;
    let mut tally = Tally::default();
    let mut folder = Folder::new(field, shape)?;
    folder.night(&mut tally, |_| None)?;
    let n_calls = folder.count(call)?;
    let apart = at_most.map_or(1, |at_most| n_calls.div_ceil(at_most).max(1));
    let mut n_nights = 0;
    for ordinal in (1..=n_calls.min(MAX_ORDINAL)).step_by(usize::try_from(apart)?) {
        if n_nights == NIGHTS_A_FOLDER {
            n_nights = 0;
            folder = Folder::new(field, shape)?;
            folder.night(&mut tally, |_| None)?;
        }
        folder.night(&mut tally, |nth| (nth == 0).then(|| Kill::At { call: call.to_owned(), ordinal }))?;
        n_nights += 1;
    }
    Ok(tally)
}

/// The tracer, which is installed where it is missing.
fn strace(bench: &Bench) -> Result<()> {
    let folder = bench.scratch.path();
    if answers(command("strace", folder).arg("-V")) {
        return Ok(());
    }
    check(command("apt-get", folder).args(["install", "-y", "strace"]))
        .context("kills at system calls need `strace`; install it")
}

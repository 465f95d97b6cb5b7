//! The promises of a sink, one function each.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Fs, Part};
use aqueduct_primitives::ByteCount;

use super::{Reading, Trial, parts};
use crate::faults::FailingFs;
use crate::suite::room::{Room, files_below};
use crate::suite::{Objection, Verdict, ensure};

/// Sealed parts have the rows, bytes and BLAKE3 that they say, and together all rows; nothing else is staged.
///
/// # Errors
/// It is not so.
pub async fn parts_are_what_is_on_disk(trial: Trial) -> Verdict {
    let room = trial.room()?;
    let mut sink = trial.open(&room).await?;
    trial.write(&room, &mut *sink, 0..trial.n_batches()).await?;
    let parts = sink.seal().await?;
    parts::check_all(&trial, &room, &parts)?;
    let names = parts.iter().map(|part| &part.name).collect::<std::collections::BTreeSet<_>>();
    ensure!(names.len() == parts.len(), "two parts have one name: {names:?}");
    let has_output = trial.configure()?.output(&room.planning()).is_some();
    ensure!(has_output != matches!(trial.fixture.reading, Reading::NoParts), "output and parts do not agree");
    drop(sink);
    room.leave().await
}

/// Until somebody publishes the parts, nothing stands where the output will, or anywhere beside it.
///
/// # Errors
/// It is not so.
pub async fn nothing_is_visible_before_it_is_published(trial: Trial) -> Verdict {
    let room = trial.room()?;
    let mut sink = trial.open(&room).await?;
    check_nothing_at(room.base(), "opened")?;
    trial.write(&room, &mut *sink, 0..trial.n_batches()).await?;
    check_nothing_at(room.base(), "written")?;
    sink.seal().await?;
    check_nothing_at(room.base(), "sealed")?;
    drop(sink);
    room.leave().await
}

fn check_nothing_at(base: &Path, when: &str) -> Verdict {
    let n_entries = std::fs::read_dir(base)?.count();
    ensure!(n_entries == 0, "once {when}, {:?} are in sight", files_below(base)?);
    Ok(())
}

/// Aborted at any moment it leaves no file that was not sealed, no open file, no task and no memory; what was
/// sealed stays.
///
/// # Errors
/// It is not so.
pub async fn abort_leaves_nothing_staged(trial: Trial) -> Verdict {
    for n_written in 0..=trial.n_batches() {
        let room = trial.room()?;
        let mut sink = trial.open(&room).await?;
        trial.write(&room, &mut *sink, 0..n_written).await?;
        sink.abort().await;
        check_staged(&room, &[])?;
        room.leave().await?;
    }
    let (room, half) = (trial.room()?, trial.n_batches() / 2);
    let mut sink = trial.open(&room).await?;
    trial.write(&room, &mut *sink, 0..half).await?;
    let sealed = sink.seal().await?;
    trial.write(&room, &mut *sink, half..trial.n_batches()).await?;
    sink.abort().await;
    check_staged(&room, &sealed)?;
    room.leave().await
}

/// Whether these parts are staged, nothing else is, and no file of the folder is open.
fn check_staged(room: &Room, sealed: &[Part]) -> Verdict {
    let expected = sealed.iter().map(|part| part.staged.clone()).collect();
    let staged = files_below(room.stage())?;
    ensure!(staged == expected, "staged are {staged:?}, and sealed were {expected:?}");
    let open = open_files_in(room.stage())?;
    ensure!(open.is_empty(), "still open: {open:?}");
    Ok(())
}

/// The files below a folder that this process has open.
fn open_files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        // Descriptors come and go while they are listed.
        open.extend(std::fs::read_link(entry?.path()).ok().filter(|path| path.starts_with(folder)));
    }
    Ok(open)
}

/// Rows may follow a seal: two seals give two sets of parts, which together hold all rows.
///
/// # Errors
/// It is not so.
pub async fn two_seals_hold_all_rows(trial: Trial) -> Verdict {
    let (room, half) = (trial.room()?, trial.n_batches() / 2);
    let mut sink = trial.open(&room).await?;
    trial.write(&room, &mut *sink, 0..half).await?;
    let mut parts = sink.seal().await?;
    let first: Vec<_> = parts::read(&trial, &room, &parts)?;
    trial.write(&room, &mut *sink, half..trial.n_batches()).await?;
    let second = sink.seal().await?;
    let is_of_rows = !matches!(trial.fixture.reading, Reading::NoParts);
    ensure!(
        !is_of_rows || !(first.is_empty() || second.is_empty()),
        "a seal gave no part although rows came"
    );
    parts.extend(second);
    parts::check_all(&trial, &room, &parts)?;
    let more = sink.seal().await?;
    ensure!(more.is_empty(), "{} parts although nothing came since", more.len());
    drop(sink);
    room.leave().await
}

/// In the least memory: once a batch is written, nothing of the flow's memory is held; what the sink keeps of it, it
/// keeps in its share, which gives no more than it has. // MEM-2
///
/// # Errors
/// It is not so.
pub async fn what_is_written_is_held_in_its_share(trial: Trial) -> Verdict {
    let room = trial.room()?;
    let mut sink = trial.open(&room).await?;
    for at in 0..trial.n_batches() {
        trial.write(&room, &mut *sink, at..at + 1).await?;
        let held = room.cx().flow().total().saturating_sub(room.cx().flow().free());
        ensure!(held == ByteCount::ZERO, "MEM-2: {held} of batch {at} are held after it was written");
    }
    sink.seal().await?;
    drop(sink);
    room.leave().await
}

/// Without rows it gives parts without rows that can be read, or none.
///
/// # Errors
/// It is not so.
pub async fn an_empty_input_gives_a_valid_output(trial: Trial) -> Verdict {
    let room = trial.room()?;
    let mut sink = trial.open(&room).await?;
    let schema = trial.fixture.batches[0].0.schema();
    sink.write(aqueduct_core::Batch::only_positions(schema, aqueduct_core::Positions::default())).await?;
    let parts = sink.seal().await?;
    let found = parts::read(&trial, &room, &parts)?;
    ensure!(found.is_empty(), "{} rows of nothing", found.len());
    if trial.configure()?.output(&room.planning()).is_some_and(|output| output.is_file) {
        ensure!(parts.len() == 1, "an output of one file needs one part, and there are {}", parts.len());
    }
    drop(sink);
    room.leave().await
}

/// Whichever change on the disk fails, alone, is told by an error; and once aborted nothing is left.
///
/// # Errors
/// It is not so.
pub async fn a_failing_disk_is_an_error_and_leaves_nothing(trial: Trial) -> Verdict {
    let counting = Arc::new(FailingFs::counting());
    let room = trial.room_on(Arc::clone(&counting) as Arc<dyn Fs>)?;
    let mut sink = trial.open(&room).await?;
    trial.write(&room, &mut *sink, 0..trial.n_batches()).await?;
    sink.seal().await?;
    drop(sink);
    room.leave().await?;
    for n_good in 0..counting.n_changes() {
        let room = trial.room_on(Arc::new(FailingFs::fails_once_after(n_good)))?;
        let Some(error) = what_fails(&trial, &room).await? else {
            return Err(Objection::Wrong(format!("change {n_good} failed, and nobody was told")));
        };
        let is_io = matches!(error.kind(), ErrorKind::Io | ErrorKind::DiskFull);
        ensure!(is_io, "change {n_good} failed, and the error is of another kind: {error:?}");
        check_staged(&room, &[])?;
        room.leave().await?;
    }
    Ok(())
}

/// The error with which opening, writing or sealing ends; the sink is then aborted.
async fn what_fails(trial: &Trial, room: &Room) -> Result<Option<Error>, Objection> {
    let (config, schema) = trial.fitted()?;
    let mut sink = match config.open(schema, room.cx()).await {
        Ok(sink) => sink,
        Err(error) => return Ok(Some(error)),
    };
    let failed = match trial.write(room, &mut *sink, 0..trial.n_batches()).await {
        Ok(()) => sink.seal().await.err(),
        Err(error) => Some(error),
    };
    if failed.is_some() {
        sink.abort().await;
    }
    Ok(failed)
}

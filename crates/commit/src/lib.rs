//! Staged parts become public in one act.
//!
//! A flow has one log, the [`FlowLog`], over all of its outputs; a run of it is a [`Transaction`]. Sinks write their parts
//! below [`Transaction::stage_dir`], where nobody looks; [`Transaction::commit`] makes a set of them durable and public, with
//! a [`Manifest`] that lists each part's rows, bytes and BLAKE3:
//!
//! | | folder | one file |
//! |---|---|---|
//! | the output | `PATH/` | `PATH` |
//! | its manifest | `PATH/_aqueduct/manifest.json` | `PARENT/_aqueduct/NAME.manifest.json` |
//! | of items of STAC, their [collections](aqueduct_core::collections) | `PATH/_aqueduct/collection.json` | `PARENT/_aqueduct/NAME.collection.json` |
//! | while a run is under way | `PARENT/_aqueduct/NAME/stage-RUN.SEQ/`, `PARENT/_aqueduct/NAME.lock` | the same |
//! | replaced by | exchanging the folder with the staged one | renaming the file, then the manifest |
//!
//! Who looks at the output sees committed rows only, at every moment and after a crash. Files that aqueduct did not write
//! are never replaced and never removed.
//!
//! A record `epoch` of the log says which parts became durable, how far the sources were read for them, what steps keep from
//! run to run, and what was rejected; a record `finish` says that the run is complete. In this order:
//!
//! 1. parts, the list of them and the manifest that is to be public become durable where nobody looks;
//! 2. the record gets its number, which only one writer can give: **committed**;
//! 3. each output is published: of folders that are replaced, all at once; of those that are appended to, part by part, and
//!    then the manifest, behind the document that follows from it. Whoever opens the log next does what is left of this, and it
//!    can be begun any number of times.
//!
//! What was staged and is in no record is removed at the next opening. Each opening begins with a record of its own and
//! moves what was staged to another place: a writer that was thought dead can neither commit nor publish any more.
//!
//! ```no_run
//! # use std::collections::BTreeMap;
//! # use std::{path::Path, sync::Arc};
//! # use aqueduct_commit::{End, Epoch, FlowLog, Mode, NewRun, Start, Target};
//! # use aqueduct_core::{Fs, Output, Part, StdFs};
//! # fn parts() -> Vec<Part> { Vec::new() }
//! # fn main() -> aqueduct_core::Result<()> {
//! # let now = chrono::DateTime::UNIX_EPOCH;
//! let fs: Arc<dyn Fs> = Arc::new(StdFs);
//! let output = Output { path: "lake/events".into(), is_file: false, allow_empty: false, mode: None };
//! let run = NewRun {
//!     flow: "events".into(),
//!     run_id: "20260101T000000".into(),
//!     now,
//!     identity: BTreeMap::new(),
//!     fixed: BTreeMap::new(),
//!     targets: vec![Target { output, mode: Mode::Append, is_filled_last: false }],
//! };
//! let log = FlowLog::open(&fs, Path::new(".aqueduct/flows/events"))?;
//! let mut run = log.begin(run, Start::Resume)?;
//! // A sink writes below `run.stage_dir(0)`, and gives its parts.
//! let committed = run.commit(Epoch { parts: vec![parts()], ..Epoch::default() }, End::Finish, now)?;
//! println!("{} parts are public", committed.published.iter().map(|one| one.n_parts).sum::<usize>());
//! run.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Keys seen by earlier runs
//! A [`KeyStore`] remembers keys from run to run in sorted files that a commit names: what it says is right as of the last
//! commit, whenever the process ended.
//!
//! All calls block; make them through `Tasks::block` from async code. Knows nothing of what the rows mean.

mod carried;
mod checkpoint;
mod clean;
mod dataset;
mod disk;
mod flow_log;
mod folders;
mod foreign;
mod history;
mod in_store;
mod keys;
mod layout;
mod letters;
mod lock;
mod log;
mod manifest;
mod names;
mod record;
mod run;
mod stage;
mod transaction;
mod verify;

pub use aqueduct_core::Mode;
pub use clean::{Clean, Cleaned, Leftover};
pub use flow_log::{FlowLog, Unfinished};
pub use keys::{
    KeyStats, KeyStore, Keyed, KeysIn, KeysKept, Remembering, Sighting, Sightings, SightingsKept,
    SightingsReader,
};
pub use manifest::{LogStamp, Manifest, ManifestPart};
pub use record::{Counters, Counts, Letter};
pub use run::{
    Began, Committed, End, Epoch, KeptChange, LastRun, NewRun, Published, Resumed, Stands, Start, Target,
};
pub use transaction::Transaction;
pub use verify::{Flaw, Verified, verify};

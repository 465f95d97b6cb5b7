//! Staged parts become public in one act.
//!
//! A [`Staging`] is one output of one run. Sinks write their parts below [`Staging::stage_dir`], where nobody
//! looks; [`Staging::seal`] makes a finished set of them durable, with a [`Manifest`] that lists each part's
//! rows, bytes and BLAKE3; [`Staging::publish`] puts the set in the place of what was there, at once:
//!
//! | | folder | one file |
//! |---|---|---|
//! | the output | `PATH/` | `PATH` |
//! | its manifest | `PATH/_aqueduct/manifest.json` | `PARENT/_aqueduct/NAME.manifest.json` |
//! | while a run is under way | `PARENT/_aqueduct/NAME/stage-RUN/`, `PARENT/_aqueduct/NAME.lock` | the same |
//! | the act | the folder is exchanged with the staged one | the manifest is renamed, then the file |
//!
//! Who looks at the output sees the whole old or the whole new rows, at every moment and after a crash. What
//! a dead run left behind is swept, and a publication that it had begun is completed, by the next
//! [`Staging::prepare`]. Files that aqueduct did not write are never replaced and never removed.
//!
//! All calls block; make them through `Tasks::block` from async code. Knows nothing of what the rows mean.

mod disk;
mod folders;
mod foreign;
mod layout;
mod lock;
mod manifest;
mod recovery;
mod staging;

pub use manifest::{Manifest, ManifestPart, RunStamp};
pub use staging::{Published, Staging};

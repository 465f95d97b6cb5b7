//! One output of one run, from the first staged byte to the moment it is public.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Fs, Output, Part, Result};

use crate::disk::Disk;
use crate::folders::Folders;
use crate::layout::{HIDDEN, Layout, MANIFEST, Stage};
use crate::lock::OutputLock;
use crate::manifest::{Manifest, ManifestPart, RunStamp};
use crate::{foreign, recovery};

/// An output being written. Holds the output's lock, so that no other run writes it meanwhile.
///
/// The calls come in this order: `prepare`, then `seal` once all rows are in sealed parts, then `publish`; or
/// `abort` at any time. Several outputs of one run are all sealed before the first is published. Dropped
/// without any of them, it lets go of the lock, and the next run sweeps what was staged.
#[derive(Debug)]
pub struct Staging {
    disk: Disk,
    layout: Layout,
    stage: Stage,
    stage_dir: PathBuf,
    allow_empty: bool,
    previous: Option<Manifest>,
    sealed: Option<Published>,
    /// Folders above the output that this run made, the deepest first.
    made: Vec<PathBuf>,
    lock: Option<OutputLock>,
}

/// What became public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The file or folder.
    pub path: PathBuf,
    /// Rows in all parts.
    pub rows: u64,
    /// Bytes in all parts.
    pub n_bytes: u64,
    /// How many parts.
    pub n_parts: usize,
}

impl Staging {
    /// Gets ready to write an output: locks it, completes or sweeps what dead runs left, makes sure that
    /// nothing stands in its place but what earlier runs wrote, and makes a folder to stage in. To be called
    /// before the run reads anything. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: another run is writing there, or a foreign file is in the way, which is
    /// named; or the folder cannot be made. Nothing is left behind then.
    pub fn prepare(fs: &Arc<dyn Fs>, output: &Output, run_id: &str) -> Result<Self> {
        let disk = Disk(Arc::clone(fs));
        let layout = Layout::of(output)?;
        let made = disk.missing_above(layout.parent())?;
        let lock = match OutputLock::take(&disk, &layout) {
            Ok(lock) => lock,
            Err(error) => {
                remove_empty_folders(&disk, &layout, &made);
                return Err(error);
            }
        };
        let stage = layout.stage(run_id);
        let mut staging = Self {
            stage_dir: stage.parts(),
            allow_empty: output.allow_empty,
            previous: None,
            sealed: None,
            lock: Some(lock),
            disk,
            layout,
            stage,
            made,
        };
        match staging.recover_and_check() {
            Ok(()) => Ok(staging),
            Err(error) => {
                staging.clean_up();
                Err(error)
            }
        }
    }

    fn recover_and_check(&mut self) -> Result<()> {
        recovery::recover(&self.disk, &self.layout)?;
        self.previous = Manifest::load(&self.disk, &self.layout.manifest())?;
        foreign::check(&self.disk, &self.layout, self.previous.as_ref())?;
        self.disk.create_dir_all(&self.stage_dir)
    }

    /// Where the sink writes its parts, each under its name or any other. On the output's file system.
    pub fn stage_dir(&self) -> &Path {
        &self.stage_dir
    }

    /// What stands at the output's path now, if an earlier run wrote it.
    pub fn previous(&self) -> Option<&Manifest> {
        self.previous.as_ref()
    }

    /// Makes a set of parts durable as one, not yet public. What else was staged is dropped. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there are no rows, the output that is there has some, and it does not
    /// allow that; or the disk fails. Only [`Staging::abort`] may follow.
    pub fn seal(&mut self, mut parts: Vec<Part>, stamp: &RunStamp) -> Result<()> {
        self.check_not_empty(&parts)?;
        if self.layout.is_file {
            parts.iter_mut().for_each(|part| part.name.clone_from(&self.layout.name));
        }
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        self.check_names(&parts)?;
        self.collect(&parts)?;
        let manifest = Manifest::new(stamp, parts.into_iter().map(ManifestPart::from).collect());
        self.store(&manifest)?;
        self.sealed = Some(Published {
            path: self.layout.path.clone(),
            rows: manifest.rows,
            n_bytes: manifest.n_bytes(),
            n_parts: manifest.parts.len(),
        });
        Ok(())
    }

    fn check_not_empty(&self, parts: &[Part]) -> Result<()> {
        let earlier = self.previous.as_ref().map_or(0, |manifest| manifest.rows);
        if self.allow_empty || earlier == 0 || parts.iter().any(|part| part.rows > 0) {
            return Ok(());
        }
        let message =
            "the run gave no rows, and the output has some; it was kept (`allow_empty: true` replaces it)";
        Err(Error::new(ErrorKind::Conflict, "replace output", message)
            .with("path", self.layout.path.display())
            .with("rows", earlier))
    }

    fn check_names(&self, parts: &[Part]) -> Result<()> {
        let bug = |message: &str| Err(Error::bug("seal output", message));
        if self.layout.is_file && parts.len() > 1 {
            let message = "rows that were sealed several times cannot become one file; write to a folder";
            return Err(Error::new(ErrorKind::Config, "seal output", message)
                .with("path", self.layout.path.display())
                .with("n_parts", parts.len()));
        }
        if self.layout.is_file && parts.is_empty() {
            return bug("an output of one file needs a part");
        }
        if parts.windows(2).any(|two| two[0].name == two[1].name) {
            return bug("two parts have one name");
        }
        let is_inside = |part: &Part| {
            let plain = |step: std::path::Component<'_>| matches!(step, std::path::Component::Normal(_));
            !part.name.is_empty() && Path::new(&part.name).components().all(plain)
        };
        if parts.iter().all(is_inside) { Ok(()) } else { bug("a part's name leads out of the output") }
    }

    /// Moves the parts to where they stand in the output, and makes the folders durable.
    fn collect(&self, parts: &[Part]) -> Result<()> {
        let next = self.stage.next();
        self.disk.create_dir_all(&next)?;
        let mut changed = Folders::below(&self.disk, &next);
        let mut open: Option<PathBuf> = None;
        for part in parts {
            let place = next.join(&part.name);
            let folder = place.parent().unwrap_or(&next);
            if open.as_deref() != Some(folder) {
                self.disk.create_dir_all(folder)?;
                if let Some(left) = open.replace(folder.to_owned()) {
                    changed.add(&left)?;
                }
            }
            self.disk.rename_no_replace(&part.staged, &place)?;
        }
        if let Some(last) = open {
            changed.add(&last)?;
        }
        changed.finish()
    }

    fn store(&self, manifest: &Manifest) -> Result<()> {
        if self.layout.is_file {
            manifest.store(&self.disk, &self.stage.manifest())?;
        } else {
            let hidden = self.stage.next().join(HIDDEN);
            self.disk.create_dir_all(&hidden)?;
            manifest.store(&self.disk, &hidden.join(MANIFEST))?;
            self.disk.sync_dir(&hidden)?;
            self.disk.sync_dir(&self.stage.next())?;
        }
        self.disk.sync_dir(&self.stage.0)?;
        self.disk.sync_dir(&self.layout.home())
    }

    /// Puts the sealed parts in the place of what was there, in one act, and lets go of the output. Blocks.
    ///
    /// # Errors
    /// A foreign file has appeared in the meantime, or the disk fails. The old output or the new one is then
    /// in sight, whole; [`Staging::abort`] cleans up.
    pub fn publish(&mut self) -> Result<Published> {
        let Some(published) = self.sealed.take() else {
            return Err(Error::bug("publish output", "nothing was sealed"));
        };
        foreign::check(&self.disk, &self.layout, self.previous.as_ref())?;
        if self.layout.is_file {
            self.publish_file()?
        } else {
            self.publish_folder()?
        }
        self.clean_up();
        Ok(published)
    }

    /// The manifest goes first: from then on, recovery moves the file if this run cannot.
    fn publish_file(&self) -> Result<()> {
        let staged = self.stage.next().join(&self.layout.name);
        self.disk.rename(&self.stage.manifest(), &self.layout.manifest())?;
        self.disk.sync_dir(&self.layout.hidden())?;
        if self.previous.is_some() {
            self.disk.rename(&staged, &self.layout.path)?;
        } else {
            self.disk.rename_no_replace(&staged, &self.layout.path)?;
        }
        self.disk.sync_dir(self.layout.parent())
    }

    fn publish_folder(&self) -> Result<()> {
        let next = self.stage.next();
        if !self.disk.exists(&self.layout.path)? {
            self.disk.rename_no_replace(&next, &self.layout.path)?;
        } else if !self.disk.exchange(&next, &self.layout.path)? {
            self.disk.rename_no_replace(&self.layout.path, &self.stage.old())?;
            self.disk.rename_no_replace(&next, &self.layout.path)?;
        }
        self.disk.sync_dir(self.layout.parent())?;
        self.disk.sync_dir(&self.stage.0)
    }

    /// Drops what was staged and lets go of the output, as if the run had never begun. Blocks.
    ///
    /// # Errors
    /// What was staged could not be removed; the next run will try again.
    pub fn abort(mut self) -> Result<()> {
        match recovery::recover(&self.disk, &self.layout) {
            Ok(()) => {
                self.clean_up();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves nothing behind that is not needed. What cannot be removed now is swept by the next run.
    fn clean_up(&mut self) {
        if self.lock.is_none() {
            return;
        }
        if let Err(error) = self.disk.remove_dir_all(&self.stage.0) {
            tracing::warn!(error = error.chain(), "staged files were not removed; the next run will");
        }
        self.lock = None;
        remove_empty_folders(&self.disk, &self.layout, &self.made);
    }
}

fn remove_empty_folders(disk: &Disk, layout: &Layout, made: &[PathBuf]) {
    let ours = [layout.home(), layout.hidden()];
    for folder in ours.iter().chain(made) {
        if let Err(error) = disk.remove_empty_dir(folder) {
            tracing::debug!(error = error.chain(), "an empty folder was not removed");
        }
    }
}

//! Where things lie: the paths that belong to one output.

use std::path::{Path, PathBuf};

use aqueduct_core::collections::{COLLECTION, COLLECTIONS};
use aqueduct_core::{Error, ErrorKind, Output, Result, is_in_store};

/// The folder for all that is not data, in an output folder and beside an output file.
pub(crate) const HIDDEN: &str = "_aqueduct";
/// The manifest's name in [`HIDDEN`].
pub(crate) const MANIFEST: &str = "manifest.json";
/// The names of documents of collections in [`HIDDEN`], which follow from the manifest: one of them is there, or none.
pub(crate) const DOCUMENTS: [&str; 2] = [COLLECTION, COLLECTIONS];

/// Whether a file of an output, by its name within it, is none of its data but tells of them.
pub(crate) fn tells_of_data(name: &str) -> bool {
    let inner = name.strip_prefix(HIDDEN).and_then(|name| name.strip_prefix('/'));
    inner.is_some_and(|name| name == MANIFEST || DOCUMENTS.contains(&name))
}

/// The paths of one output.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The output itself.
    pub(crate) path: PathBuf,
    /// Its last component.
    pub(crate) name: String,
    /// Whether it is one file.
    pub(crate) is_file: bool,
}

impl Layout {
    pub(crate) fn of(output: &Output) -> Result<Self> {
        if is_in_store(&output.path) && output.path.components().count() < 3 {
            let message = "an output in an object store needs a name below the bucket: s3://BUCKET/NAME";
            return Err(
                Error::new(ErrorKind::Config, "prepare output", message).with("path", output.path.display())
            );
        }
        let name = output.path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.filter(|name| *name != HIDDEN) else {
            let message = "an output needs a name of its own, in UTF-8 and other than `_aqueduct`";
            return Err(
                Error::new(ErrorKind::Config, "prepare output", message).with("path", output.path.display())
            );
        };
        Ok(Self { path: output.path.clone(), name: name.to_owned(), is_file: output.is_file })
    }

    /// The folder that the output stands in; `.` for a bare name.
    pub(crate) fn parent(&self) -> &Path {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        }
    }

    /// `PARENT/_aqueduct`.
    pub(crate) fn hidden(&self) -> PathBuf {
        self.parent().join(HIDDEN)
    }

    /// `PARENT/_aqueduct/NAME`, where runs stage.
    pub(crate) fn home(&self) -> PathBuf {
        self.hidden().join(&self.name)
    }

    /// The file whose lock is held while a run writes this output.
    pub(crate) fn lock(&self) -> PathBuf {
        self.hidden().join(format!("{}.lock", self.name))
    }

    /// The manifest of what is public.
    pub(crate) fn manifest(&self) -> PathBuf {
        self.described_in(MANIFEST)
    }

    /// A file that tells of what is public: of one file, under its name.
    pub(crate) fn described_in(&self, name: &str) -> PathBuf {
        if self.is_file {
            self.hidden().join(format!("{}.{name}", self.name))
        } else {
            self.path.join(HIDDEN).join(name)
        }
    }
}

//! Where things are: the project, what cargo builds, what tasks keep between runs.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

use crate::process::{cargo, check};

/// The cargo profile of tests and of the black-box suite.
pub(crate) const PROFILE: &str = "ci";

/// The project and its folders.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// What cargo knows of it.
    pub(crate) metadata: Metadata,
}

impl Workspace {
    /// The project that cargo runs this program for. Asked when it runs, because clones share a build folder and the
    /// program may have been compiled in another one.
    ///
    /// # Errors
    /// Cargo did not start this program, or the manifests cannot be read.
    pub(crate) fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR").context("start this as `cargo xtask`")?;
        let manifest = Path::new(&package).with_file_name("Cargo.toml");
        let metadata = MetadataCommand::new()
            .manifest_path(&manifest)
            .exec()
            .with_context(|| format!("{}: cargo metadata failed", manifest.display()))?;
        Ok(Self { metadata })
    }

    /// The project's folder.
    pub(crate) fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        self.metadata.target_directory.as_std_path()
    }

    /// A folder for inputs and peers that outlive a run, outside the project.
    pub(crate) fn cache(&self) -> PathBuf {
        let folder = env::var_os("AQUEDUCT_CI_CACHE").map(PathBuf::from).or_else(|| {
            let caches = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let caches = caches.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cache")));
            Some(caches?.join("aqueduct-ci"))
        });
        folder.unwrap_or_else(|| self.target().join("cache"))
    }

    /// Builds the binary with a profile and says where it lies.
    ///
    /// # Errors
    /// It does not compile.
    pub(crate) fn binary(&self, profile: &str) -> Result<PathBuf> {
        check(cargo(self.root()).args(["build", "--profile", profile, "--package", "aqueduct"]))?;
        Ok(self.binary_path(profile))
    }

    /// Where cargo leaves the binary.
    pub(crate) fn binary_path(&self, profile: &str) -> PathBuf {
        self.target().join(profile).join("aqueduct")
    }
}

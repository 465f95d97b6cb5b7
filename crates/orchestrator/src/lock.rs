//! One run of a flow at a time.

use std::path::{Path, PathBuf};

use aqueduct_core::{Fs, FsLock};

/// The right to run a flow, held until dropped or until the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct FlowLock {
    _held: Box<dyn FsLock>,
}

/// Why a flow cannot run now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another process runs it.
    #[error("the flow is running already, as process {pid}; wait for it, or stop it (lock: {})", path.display())]
    Running { pid: String, path: PathBuf },
    /// The state folder cannot be used.
    #[error("cannot lock the flow (path: {}): {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl FlowLock {
    /// Takes the lock of a flow, or says who holds it.
    pub(crate) fn take(fs: &dyn Fs, state_dir: &Path, name: &str) -> Result<Self, LockError> {
        let path = state_dir.join("locks").join(format!("{name}.lock"));
        let failed = |source| LockError::Io { path: path.clone(), source };
        fs.create_dir_all(&state_dir.join("locks")).map_err(failed)?;
        let Some(mut held) = fs.try_lock(&path).map_err(failed)? else {
            return Err(LockError::Running { pid: holder(fs, &path), path });
        };
        held.set_content(std::process::id().to_string().as_bytes()).map_err(failed)?;
        Ok(Self { _held: held })
    }
}

/// The process that wrote itself into the lock.
fn holder(fs: &dyn Fs, path: &Path) -> String {
    /// A process number has fewer digits.
    const MAX_PID_BYTES: u64 = 20;
    let pid = fs.read(path, MAX_PID_BYTES).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    pid.filter(|pid| !pid.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::StdFs;

    #[test]
    fn a_second_run_is_told_who_holds_the_lock() {
        let state = tempfile::tempdir().unwrap();
        let first = FlowLock::take(&StdFs, state.path(), "flow").unwrap();
        let told = FlowLock::take(&StdFs, state.path(), "flow").unwrap_err().to_string();
        assert!(told.contains(&format!("process {}", std::process::id())), "{told}");
        FlowLock::take(&StdFs, state.path(), "other").unwrap();
        drop(first);
        FlowLock::take(&StdFs, state.path(), "flow").unwrap();
    }
}

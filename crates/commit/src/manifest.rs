//! What an output consists of: the file that lists its parts, all that a proof of it needs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use aqueduct_core::collections::{self, Extents, FileOfItems};
use aqueduct_core::{Error, ErrorKind, FsFile, Part, Result, TableShape};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::disk::Disk;

/// The format written by this version. A newer one is refused, never guessed at.
const VERSION: u32 = 1;
/// Room for about a million parts. With less, an output with many partitions could not be replaced; with
/// more, a wrong file in the manifest's place would be read into memory.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 256 << 20;

/// Which run wrote an output, for its manifest.
#[derive(Clone, Debug)]
pub(crate) struct RunStamp {
    /// The flow's name.
    pub(crate) flow: String,
    /// The run's name.
    pub(crate) run_id: String,
    /// How the output relates to earlier ones: `replace`.
    pub(crate) mode: &'static str,
    /// When.
    pub(crate) written: DateTime<Utc>,
    /// What the run read, resolved, if the flow wants it kept.
    pub(crate) inputs: Option<serde_json::Value>,
}

/// The content of a `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format's version, 1.
    pub version: u32,
    /// The flow's name.
    pub flow: String,
    /// The run's name.
    pub run_id: String,
    /// How the output relates to earlier ones: `replace`.
    pub mode: String,
    /// When it was written.
    pub written: DateTime<Utc>,
    /// Rows in all parts.
    pub rows: u64,
    /// What the run read, if kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<serde_json::Value>,
    /// The record of a flow's log that made this public; outputs of runs before there were logs have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogStamp>,
    /// In an object store, the newest record of each log whose rows were public here, by the log's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub logs: BTreeMap<String, u64>,
    /// In an object store, where rows were updated: the record that made public what they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<LogStamp>,
    /// What its rows look like; outputs of files that are no tables, and of earlier versions, do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableShape>,
    /// The parts, by name.
    pub parts: Vec<ManifestPart>,
}

/// A record of a flow's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStamp {
    /// The log's name: the run of its first record.
    pub id: String,
    /// The record's number.
    pub n: u64,
}

/// One file of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestPart {
    /// Its name within the output, with `/` between folders; of one file, its own name.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
    /// BLAKE3 of its bytes, in hex.
    pub blake3: String,
    /// Where and when the items in it are, if it has items.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extents: Option<Extents>,
}

impl From<Part> for ManifestPart {
    fn from(part: Part) -> Self {
        let Part { name, rows, n_bytes: bytes, blake3, extents, .. } = part;
        Self { name, rows, bytes, blake3, extents }
    }
}

impl Manifest {
    /// The manifest of these parts, which must be sorted by name.
    pub(crate) fn new(stamp: &RunStamp, parts: Vec<ManifestPart>) -> Self {
        Self {
            version: VERSION,
            flow: stamp.flow.clone(),
            run_id: stamp.run_id.clone(),
            mode: stamp.mode.to_owned(),
            written: stamp.written,
            rows: parts.iter().map(|part| part.rows).sum(),
            inputs: stamp.inputs.clone(),
            log: None,
            logs: BTreeMap::new(),
            updates: None,
            table: None,
            parts,
        }
    }

    /// Reads one from its text.
    ///
    /// # Errors
    /// [`ErrorKind::Newer`]: a newer version wrote it. [`ErrorKind::Conflict`]: it is no manifest.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let conflict = |message| Error::new(ErrorKind::Conflict, "read manifest", message);
        let header: Header = serde_json::from_slice(text)
            .map_err(|error| conflict("this is no manifest of aqueduct").with_source(error))?;
        if header.version > VERSION {
            return Err(Error::new(
                ErrorKind::Newer,
                "read manifest",
                "written by a newer aqueduct; use that one",
            )
            .with("version", header.version)
            .with("known", VERSION));
        }
        serde_json::from_slice(text).map_err(|error| conflict("the manifest is damaged").with_source(error))
    }

    /// The document of the collections in it, and its name: it follows from the parts.
    pub(crate) fn document(&self) -> Option<(&'static str, Vec<u8>)> {
        let files = self.parts.iter().map(|part| FileOfItems {
            name: &part.name,
            rows: part.rows,
            extents: part.extents.as_ref(),
        });
        collections::documents(&files.collect::<Vec<_>>())
    }

    /// The part of this name.
    pub fn part(&self, name: &str) -> Option<&ManifestPart> {
        let at = self.parts.binary_search_by(|part| part.name.as_str().cmp(name)).ok()?;
        self.parts.get(at)
    }

    /// Bytes in all parts.
    pub fn n_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// The manifest at a path, if there is one.
    pub(crate) fn load(disk: &Disk, path: &Path) -> Result<Option<Self>> {
        if !disk.exists(path)? {
            return Ok(None);
        }
        let text = disk.read(path, MAX_MANIFEST_BYTES)?;
        let mut manifest = Self::parse(&text).map_err(|error| error.with("path", path.display()))?;
        manifest.parts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(manifest))
    }

    /// The same with these parts in the place of its own.
    pub(crate) fn with_parts(&self, parts: impl Iterator<Item = ManifestPart>) -> Self {
        let by_name: BTreeMap<_, _> = parts.map(|part| (part.name.clone(), part)).collect();
        let parts: Vec<_> = by_name.into_values().collect();
        Self { rows: parts.iter().map(|part| part.rows).sum(), parts, ..self.clone() }
    }

    /// Its text.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let failed = |error| Error::bug("write manifest", "a manifest has no JSON").with_source(error);
        let mut text = serde_json::to_vec(self).map_err(failed)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Writes it to a new file, durable once the folder is; its BLAKE3.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`]: it is longer than what is read again; nothing is left of it. The disk's.
    pub(crate) fn store(&self, disk: &Disk, path: &Path) -> Result<String> {
        self.store_within(disk, path, MAX_MANIFEST_BYTES)
    }

    fn store_within(&self, disk: &Disk, path: &Path, max_bytes: u64) -> Result<String> {
        let failed = |error: std::io::Error| Error::io("write manifest", path.display(), error);
        let mut file = std::io::BufWriter::new(Hashing {
            file: disk.create_new(path)?,
            hasher: Box::default(),
            n_bytes: 0,
        });
        serde_json::to_writer(&mut file, self).map_err(|error| failed(error.into()))?;
        file.write_all(b"\n").map_err(failed)?;
        let Hashing { mut file, hasher, n_bytes } =
            file.into_inner().map_err(|error| failed(error.into_error()))?;
        if n_bytes > max_bytes {
            drop(file);
            disk.remove_file(path)?;
            return Err(too_long(self.parts.len(), n_bytes, max_bytes));
        }
        file.sync().map_err(failed)?;
        Ok(hasher.finalize().to_hex().to_string())
    }
}

/// What could not be read again must not be committed: the output could be neither read nor written any more.
fn too_long(n_parts: usize, n_bytes: u64, max_bytes: u64) -> Error {
    let message = "the output has too many parts to list; write fewer and larger ones, or another output";
    let error = Error::new(ErrorKind::Limit, "write manifest", message).with("parts", n_parts);
    error.with("bytes", n_bytes).with("limit", max_bytes)
}

/// A file that is hashed and counted while it is written.
struct Hashing {
    file: Box<dyn FsFile>,
    /// Boxed, for it is 2 kB.
    hasher: Box<blake3::Hasher>,
    n_bytes: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.n_bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

#[derive(Deserialize)]
struct Header {
    version: u32,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aqueduct_core::StdFs;

    use super::*;

    #[test]
    fn newer_manifests_and_other_files_are_refused() {
        let newer = Manifest::parse(br#"{"version": 2, "parts": "who knows"}"#).unwrap_err();
        assert_eq!(newer.kind(), ErrorKind::Newer);
        assert!(newer.to_string().contains("newer"), "{newer}");
        let other = Manifest::parse(b"precious\n").unwrap_err();
        assert!(other.to_string().contains("no manifest"), "{other}");
    }

    #[test]
    fn a_manifest_that_could_not_be_read_again_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (Disk(Arc::new(StdFs)), dir.path().join("manifest.json"));
        let stamp = RunStamp {
            flow: "f".into(),
            run_id: "r".into(),
            mode: "append",
            written: DateTime::UNIX_EPOCH,
            inputs: None,
        };
        let manifest = Manifest::new(&stamp, Vec::new());
        let n_bytes = manifest.encode().unwrap().len() as u64;
        let error = manifest.store_within(&disk, &path, n_bytes - 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.message().contains("too many parts") && !path.exists(), "{error}");
        manifest.store_within(&disk, &path, n_bytes).unwrap();
        assert_eq!(Manifest::load(&disk, &path).unwrap(), Some(manifest));
    }
}

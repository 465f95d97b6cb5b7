//! A JSON Schema from a file, with the files beside it that it refers to.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aqueduct_core::{Error, ErrorKind, Result};
use jsonschema::{Retrieve, Uri, Validator};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde_json::Value;

use super::fault::{Detail, Fault, Faults};

/// A schema has no more text than this, the files that it refers to among it.
const MAX_SCHEMA_BYTES: u64 = 1024 * 1024;
/// What does not stand in a URL as it is.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'[')
    .add(b']')
    .add(b'^')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'\\');

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A schema of the user's, compiled.
pub(super) struct FileSchema {
    validator: Validator,
    name: String,
    n_bytes: u64,
}

impl FileSchema {
    /// Reads and compiles. Blocks.
    ///
    /// # Errors
    /// It cannot be read, is no JSON Schema, or refers to what is not in its folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |message: String| {
            Error::new(ErrorKind::Config, "read schema", message).with("path", path.display())
        };
        let path = path.canonicalize().map_err(|error| Error::io("read schema", path.display(), error))?;
        let read = Arc::new(AtomicU64::new(0));
        let schema = read_json(&path, &read).map_err(|error| failed(error.to_string()))?;
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed("it is no file".into()));
        };
        let name = name.to_string_lossy().into_owned();
        let beside = Beside::new(folder, &schema, Arc::clone(&read));
        let validator = jsonschema::options()
            .with_base_uri(format!("{}{}", beside.folder_url(), encoded(&name)))
            .with_retriever(beside)
            .build(&schema)
            .map_err(|error| failed(format!("it cannot be used as a JSON Schema: {error}")))?;
        Ok(Self { validator, name, n_bytes: read.load(Relaxed) })
    }

    /// How long its text is, with that of all files it refers to.
    pub(super) fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// What is wrong with a document.
    pub(super) fn fault(&self, document: &Value, detail: Detail) -> Option<Fault> {
        let mut faults = Faults::default();
        faults.look(&self.validator, &self.name, document, detail);
        faults.told()
    }
}

/// Gives a schema the files of its folder that it refers to, and nothing else.
struct Beside {
    folder: PathBuf,
    /// What the addresses of the folder's files begin with: its own address, and that of the schema's `$id`.
    prefixes: Vec<String>,
    read: Arc<AtomicU64>,
}

impl Beside {
    fn new(folder: &Path, schema: &Value, read: Arc<AtomicU64>) -> Self {
        let own = format!("file://{}/", encoded(&folder.to_string_lossy()));
        let id = ["$id", "id"].iter().find_map(|key| schema.get(key)?.as_str());
        let of_id = id.and_then(|id| id.rsplit_once('/')).map(|(folder, _)| format!("{folder}/"));
        let prefixes = [Some(own), of_id.filter(|prefix| prefix.contains("://"))];
        Self { folder: folder.to_owned(), prefixes: prefixes.into_iter().flatten().collect(), read }
    }

    fn folder_url(&self) -> &str {
        self.prefixes.first().map_or("", String::as_str)
    }

    fn file_of(&self, address: &str) -> Result<PathBuf, Failure> {
        let address = address.split('#').next().unwrap_or_default();
        let name = self.prefixes.iter().find_map(|prefix| address.strip_prefix(prefix.as_str()));
        let Some(name) = name else {
            let reason = if address.starts_with("file:") {
                "lies outside of the schema's folder"
            } else {
                "is not on this machine"
            };
            return Err(format!(
                "`{address}` {reason}; put it beside the schema, and refer to it by its name"
            )
            .into());
        };
        let name = percent_decode_str(name).decode_utf8()?;
        let path = self.folder.join(&*name).canonicalize().map_err(|error| format!("`{name}`: {error}"))?;
        if !path.starts_with(&self.folder) {
            return Err(format!("`{name}` leads out of the schema's folder").into());
        }
        Ok(path)
    }
}

impl Retrieve for Beside {
    fn retrieve(&self, address: &Uri<String>) -> Result<Value, Failure> {
        let path = self.file_of(address.as_str())?;
        read_json(&path, &self.read).map_err(|error| format!("`{}`: {error}", path.display()).into())
    }
}

fn encoded(path: &str) -> String {
    utf8_percent_encode(path, ENCODED).to_string()
}

/// Reads a file, whose bytes are added to those that were read.
fn read_json(path: &Path, read: &AtomicU64) -> Result<Value, io::Error> {
    let mut text = Vec::new();
    let left = MAX_SCHEMA_BYTES.saturating_sub(read.load(Relaxed));
    File::open(path)?.take(left + 1).read_to_end(&mut text)?;
    if text.len() as u64 > left {
        return Err(io::Error::other(format!(
            "a schema has at most {MAX_SCHEMA_BYTES} bytes, with what it refers to, and this one has more"
        )));
    }
    read.fetch_add(text.len() as u64, Relaxed);
    serde_json::from_slice(&text).map_err(|error| io::Error::other(format!("no JSON: {error}")))
}

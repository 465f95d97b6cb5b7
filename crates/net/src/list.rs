//! What a path, glob, folder or prefix stands for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::Tasks;
use async_stream::try_stream;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use glob::{MatchOptions, Paths, Pattern};
use object_store::ObjectMeta;

use crate::inner::Inner;
use crate::objects::{self, Object};
use crate::{Location, Validator, local};

/// What is not data in a dataset's folder.
const PRIVATE_FOLDER: &str = "_aqueduct";

/// So many files are looked up at once off the async threads.
const FILES_AT_ONCE: usize = 256;

const WILDCARDS: [char; 3] = ['*', '?', '['];

/// `*` stays within one level, and hidden files are only matched by name.
const MATCHING: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// One file or object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub location: Location,
    /// How many bytes it has; unknown for URLs, which are not asked.
    pub n_bytes: Option<u64>,
    /// When it was last changed.
    pub modified: Option<DateTime<Utc>>,
    /// Names this version of it, in an object store.
    pub etag: Option<String>,
}

impl Listed {
    /// What tells this version of the file from another; nothing of a URL, which is not asked.
    pub fn validator(&self) -> Validator {
        Validator::new(self.etag.as_deref(), self.modified, self.n_bytes)
    }
}

/// See [`Fetcher::list`](crate::Fetcher::list).
pub(crate) fn list(inner: &Arc<Inner>, pattern: &str, base_dir: &Path) -> BoxStream<'static, Result<Listed>> {
    match Location::parse(pattern, base_dir) {
        Err(error) => failing(error),
        Ok(location @ Location::Http(_)) => {
            one(Listed { location, n_bytes: None, modified: None, etag: None })
        }
        Ok(Location::Store { root, key }) => store_list(Arc::clone(inner), root, key),
        Ok(Location::Local(path)) => local_list(inner.tasks.clone(), path),
    }
}

fn one(listed: Listed) -> BoxStream<'static, Result<Listed>> {
    futures::stream::iter([Ok(listed)]).boxed()
}

fn failing(error: Error) -> BoxStream<'static, Result<Listed>> {
    futures::stream::iter([Err(error)]).boxed()
}

fn local_list(tasks: Tasks, path: PathBuf) -> BoxStream<'static, Result<Listed>> {
    try_stream! {
        let start = path.clone();
        let mut walk = tasks.block(move || Walk::new(&start)).await??;
        while let Some((rest, files)) = tasks.block(move || walk.next_files()).await?? {
            walk = rest;
            for file in files {
                yield file;
            }
        }
    }
    .boxed()
}

/// A walk over what a local path stands for.
enum Walk {
    File(PathBuf),
    Matches(Box<Paths>),
    Done,
}

impl Walk {
    /// A name that is there is taken as it is, wildcards in it or not.
    fn new(path: &Path) -> Result<Self> {
        let text = path.to_string_lossy();
        match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                let below = Path::new(&Pattern::escape(&text)).join("**").join("*");
                Self::matching(&below.to_string_lossy())
            }
            Ok(_) => Ok(Self::File(path.to_owned())),
            Err(_) if text.contains(WILDCARDS) => Self::matching(&text),
            Err(error) => Err(Error::io("open", path.display(), error)),
        }
    }

    fn matching(pattern: &str) -> Result<Self> {
        let paths = glob::glob_with(pattern, MATCHING).map_err(|error| {
            Error::new(ErrorKind::Config, "list", "not a pattern").with("path", pattern).with_source(error)
        })?;
        Ok(Self::Matches(Box::new(paths)))
    }

    /// The next few files, and the walk as it goes on.
    fn next_files(mut self) -> Result<Option<(Self, Vec<Listed>)>> {
        match &mut self {
            Self::Done => Ok(None),
            Self::File(path) => {
                let listed = local_listed(std::mem::take(path))?;
                Ok(Some((Self::Done, vec![listed])))
            }
            Self::Matches(paths) => {
                let mut files = Vec::new();
                for path in paths.by_ref() {
                    let path =
                        path.map_err(|e| Error::io("list", e.path().display().to_string(), e.into()))?;
                    if !is_private(&path) && path.is_file() {
                        files.push(local_listed(path)?);
                    }
                    if files.len() == FILES_AT_ONCE {
                        break;
                    }
                }
                Ok((!files.is_empty()).then_some((self, files)))
            }
        }
    }
}

fn is_private(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == PRIVATE_FOLDER)
}

fn local_listed(path: PathBuf) -> Result<Listed> {
    let meta = local::found(&path)?;
    Ok(Listed { location: meta.location, n_bytes: meta.n_bytes, modified: meta.modified, etag: meta.etag })
}

fn store_list(inner: Arc<Inner>, root: String, key: String) -> BoxStream<'static, Result<Listed>> {
    try_stream! {
        let wild = key.find(WILDCARDS);
        if let Some(found) = named_object(&inner, &root, &key).await? {
            yield listed(&root, found);
            return;
        }
        let prefix = wild.map_or(key.as_str(), |at| folder_of(&key[..at]));
        let pattern = wild.map(|_| key_pattern(&root, &key)).transpose()?;
        let mut objects = objects::list(&inner, &root, prefix)?;
        let mut n_found = 0u64;
        while let Some(found) = objects.try_next().await? {
            n_found += 1;
            let name = found.location.as_ref();
            let is_wanted = match &pattern {
                Some(pattern) => pattern.matches_with(name, MATCHING),
                None => !below(name, prefix).split('/').any(|part| part.starts_with('.')),
            };
            if is_wanted && !name.split('/').any(|part| part == PRIVATE_FOLDER) {
                yield listed(&root, found);
            }
        }
        if n_found == 0 && wild.is_none() {
            let message = "no such object, and nothing below it";
            Err(Error::new(ErrorKind::NotFound, "list", message).with("url", format!("{root}/{key}")))?;
        }
    }
    .boxed()
}

/// The object of exactly this key, unless the key can only mean several.
async fn named_object(inner: &Arc<Inner>, root: &str, key: &str) -> Result<Option<ObjectMeta>> {
    if key.is_empty() || key.ends_with('/') || key.contains(WILDCARDS) {
        return Ok(None);
    }
    Object::new(inner, root, key)?.find().await
}

fn listed(root: &str, found: ObjectMeta) -> Listed {
    Listed {
        location: Location::Store { root: root.to_owned(), key: found.location.to_string() },
        n_bytes: Some(found.size),
        modified: Some(found.last_modified),
        etag: found.e_tag,
    }
}

fn key_pattern(root: &str, key: &str) -> Result<Pattern> {
    Pattern::new(key).map_err(|error| {
        let shown = format!("{root}/{key}");
        Error::new(ErrorKind::Config, "list", "not a pattern").with("url", shown).with_source(error)
    })
}

/// All of a key's beginning up to its last slash.
fn folder_of(start: &str) -> &str {
    start.rfind('/').map_or("", |at| &start[..at])
}

fn below<'k>(name: &'k str, prefix: &str) -> &'k str {
    name.strip_prefix(prefix.trim_matches('/')).unwrap_or(name)
}

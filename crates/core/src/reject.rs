//! What is wrong with one row, file or item: a value that the flow's policy decides on.

use std::fmt;
use std::sync::Arc;

use crate::Result;

/// One bad item, on its way to the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// What was rejected.
    pub item: RejectedItem,
    /// One of few words, for counting: `json`, `type`, `utf8`, `too long`, `http`.
    pub reason: &'static str,
    /// What was found, what was expected, in which column.
    pub message: String,
    /// Where it came from.
    pub origin: Origin,
    /// The input as it was, cut to a few KiB by whoever made this; empty for a file.
    pub raw: Vec<u8>,
}

/// How much was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectedItem {
    /// One row or record.
    Row,
    /// A whole file, page or document, or what was left of it.
    File,
}

/// Where an item stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The file's path or its URL without secrets.
    pub file: String,
    /// The row within the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// The byte at which the row begins, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// The column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The record that names the fields of this one, as CSV has it: with it, the record can be read by itself.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub header: Option<Arc<str>>,
}

fn text<S: serde::Serializer>(header: &Option<Arc<str>>, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(header.as_deref().unwrap_or_default())
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(row) = self.row {
            write!(f, ", row {row}")?;
        }
        if let Some(byte) = self.byte {
            write!(f, ", byte {byte}")?;
        }
        match &self.column {
            Some(column) => write!(f, ", column `{column}`"),
            None => Ok(()),
        }
    }
}

/// Decides about bad items: fail, count and drop, or keep aside.
pub trait RejectPolicy: fmt::Debug + Send + Sync {
    /// Takes a bad item. May write a little to a local file, buffered.
    ///
    /// # Errors
    /// The policy says that the run fails, or too many were rejected; the caller passes the error on.
    fn reject(&self, step: &str, reject: Reject) -> Result<()>;
}

/// The default: the first bad item is an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailOnReject;

impl RejectPolicy for FailOnReject {
    fn reject(&self, _step: &str, reject: Reject) -> Result<()> {
        Err(reject.into_error())
    }
}

impl Reject {
    /// This item as the error that ends a run.
    pub fn into_error(self) -> crate::Error {
        crate::Error::new(crate::ErrorKind::Data, "read", self.message).with("at", self.origin)
    }
}

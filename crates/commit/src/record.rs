//! What a flow's log consists of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use aqueduct_core::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::carried::FilesChange;
use crate::{Mode, Target};

/// The newest format that this version knows. A newer one is refused, never guessed at. A record has the oldest format that has
/// its event.
const VERSION: u32 = 2;

/// One entry of the log. As a file: its JSON in one line, and the BLAKE3 of that line in the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) version: u32,
    /// Its number, from 1 without a gap.
    pub(crate) n: u64,
    /// The BLAKE3 of the record before; the first has none.
    pub(crate) previous: Option<String>,
    pub(crate) flow: String,
    pub(crate) run_id: String,
    pub(crate) written: DateTime<Utc>,
    pub(crate) event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// A process has taken over the log; whoever wrote to it before must stop. A run begins, or goes on.
    Begin(Begin),
    /// Rows of a run are durable, and how far its sources were read for them.
    Epoch(Commit),
    /// As an epoch, and the run is complete.
    Finish(Commit),
    /// The run will not be gone on with.
    Abandon,
    /// What steps keep was changed by hand. A run that was under way will not be gone on with.
    Edit(Edit),
}

impl Event {
    /// The first format that has it.
    fn version(&self) -> u32 {
        match self {
            Self::Begin(_) | Self::Epoch(_) | Self::Finish(_) | Self::Abandon => 1,
            Self::Edit(_) => 2,
        }
    }
}

/// What some steps keep from now on, in the place of what they kept; nothing, where a step is to forget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edit {
    pub(crate) kept: BTreeMap<String, Option<Value>>,
}

/// What a run is, as of its begin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Begin {
    /// What makes two runs the same flow: a hash by the key's path.
    pub(crate) identity: BTreeMap<String, String>,
    /// What was fixed at the run's first start.
    pub(crate) fixed: BTreeMap<String, String>,
    pub(crate) outputs: Vec<OutputRef>,
    /// Whether it begins without what steps kept.
    #[serde(default)]
    pub(crate) forgets: bool,
}

/// An output of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutputRef {
    pub(crate) path: PathBuf,
    pub(crate) is_file: bool,
    pub(crate) mode: Mode,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_filled_last: bool,
}

impl OutputRef {
    pub(crate) fn of(target: &Target) -> Self {
        let Target { output, mode, is_filled_last } = target;
        Self {
            path: output.path.clone(),
            is_file: output.is_file,
            mode: *mode,
            is_filled_last: *is_filled_last,
        }
    }

    /// Whether nothing of a run is public here before its end.
    pub(crate) fn waits_for_end(&self) -> bool {
        self.is_file || self.mode != Mode::Append || self.is_filled_last
    }
}

/// What became durable, over all outputs at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// By output, in the order of the begin.
    pub(crate) outputs: Vec<Change>,
    /// Splits whose position has changed, by source.
    pub(crate) positions: BTreeMap<String, BTreeMap<String, Value>>,
    /// Of the whole run so far.
    pub(crate) counts: Counts,
    /// What was counted so far, by step and name.
    #[serde(default)]
    pub(crate) counters: Counters,
    /// What steps keep, by step: in the place of what they kept before.
    #[serde(default)]
    pub(crate) kept: BTreeMap<String, Value>,
    /// What was rejected.
    #[serde(default)]
    pub(crate) letters: Vec<Letter>,
    /// The files that steps keep, of a log in an object store, if they are others than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<FilesChange>,
}

/// What a run has counted so far, by step and name.
pub type Counters = BTreeMap<String, BTreeMap<String, u64>>;

/// A file of rejected items: durable where it is staged, and public with the commit that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Where it was written; on the file system of the other.
    pub staged: PathBuf,
    /// Where it is to be. Nobody else has the name.
    pub public: PathBuf,
}

/// What changes in one output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// The BLAKE3 of the list of parts that were added; none, when none were.
    pub(crate) parts: Option<String>,
    /// The BLAKE3 of the manifest that is to be public; none, when nothing is to be seen yet.
    pub(crate) manifest: Option<String>,
    /// Folders of which nothing stays that earlier runs wrote.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) replaced: BTreeSet<String>,
}

/// Rows of a run so far. `rows_in` is the sum of the others, or something was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows read, bad ones among them.
    pub rows_in: u64,
    /// Rows written.
    pub rows_out: u64,
    /// Rows that a filter dropped.
    pub rows_filtered: u64,
    /// Rows that were there already.
    pub rows_duplicate: u64,
    /// Rows that were kept aside.
    pub rows_rejected: u64,
}

impl Record {
    /// Its bytes, and the hash that the next record names.
    pub(crate) fn encode(&self) -> Result<(Vec<u8>, String)> {
        let failed = |error| Error::bug("write record", "a record has no JSON").with_source(error);
        let mut bytes = serde_json::to_vec(self).map_err(failed)?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        bytes.push(b'\n');
        bytes.extend_from_slice(hash.as_bytes());
        bytes.push(b'\n');
        Ok((bytes, hash))
    }

    /// The record in these bytes, and its hash.
    ///
    /// # Errors
    /// [`ErrorKind::Newer`]: a newer version wrote it. [`ErrorKind::Conflict`]: its bytes are not those that were written.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(Self, String)> {
        let damaged = |message| Error::new(ErrorKind::Conflict, "read record", message);
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let (Some(body), Some(told)) = (lines.next(), lines.next()) else {
            return Err(damaged("the record is cut off"));
        };
        let hash = blake3::hash(body).to_hex().to_string();
        if told != hash.as_bytes() {
            return Err(damaged("the record was changed after it was written"));
        }
        let unknown = |error| damaged("this is no record of aqueduct").with_source(error);
        let header: Header = serde_json::from_slice(body).map_err(unknown)?;
        if header.version > VERSION {
            return Err(Error::new(
                ErrorKind::Newer,
                "read record",
                "written by a newer aqueduct; use that one",
            )
            .with("version", header.version)
            .with("known", VERSION));
        }
        Ok((serde_json::from_slice(body).map_err(unknown)?, hash))
    }
}

/// A record without what a newer version may have changed.
#[derive(Deserialize)]
struct Header {
    version: u32,
}

impl Record {
    /// The record that comes after one of this number and hash.
    pub(crate) fn after(tip: &Tip, about: &About<'_>, event: Event) -> Self {
        Self {
            version: event.version(),
            n: tip.n + 1,
            previous: tip.hash.clone(),
            flow: about.flow.to_owned(),
            run_id: about.run_id.to_owned(),
            written: about.written,
            event,
        }
    }
}

/// The newest record of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tip {
    /// Its number; 0 before the first.
    pub(crate) n: u64,
    pub(crate) hash: Option<String>,
}

/// Who writes a record, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) flow: &'a str,
    pub(crate) run_id: &'a str,
    pub(crate) written: DateTime<Utc>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let about = About { flow: "f", run_id: "r", written: DateTime::UNIX_EPOCH };
        Record::after(&Tip::default(), &about, Event::Begin(Begin::default()))
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let (bytes, hash) = record().encode().unwrap();
        assert_eq!(Record::decode(&bytes).unwrap(), (record(), hash));
    }

    #[test]
    fn only_an_event_that_older_versions_do_not_know_is_refused_by_them() {
        let about = About { flow: "f", run_id: "r", written: DateTime::UNIX_EPOCH };
        let edit = Edit { kept: BTreeMap::from([("a".into(), None), ("b".into(), Some(Value::from(1)))]) };
        let edited = Record::after(&Tip::default(), &about, Event::Edit(edit));
        assert_eq!((record().version, edited.version), (1, 2));
        assert_eq!(Record::decode(&edited.encode().unwrap().0).unwrap().0, edited);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_told() {
        let (bytes, _) = record().encode().unwrap();
        for at in 0..bytes.len() - 1 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            let error = Record::decode(&flipped).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "byte {at}");
            Record::decode(&bytes[..at]).unwrap_err();
        }
    }

    #[test]
    fn a_newer_version_is_told_as_such() {
        let (bytes, _) = Record { version: VERSION + 1, ..record() }.encode().unwrap();
        assert_eq!(Record::decode(&bytes).unwrap_err().kind(), ErrorKind::Newer);
    }
}

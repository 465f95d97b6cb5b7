//! What a log says up to one of its records, so that whoever opens it need not read those before.
//!
//! `DIR/log/checkpoint-00000000000000000256` holds what follows from records 1 to 256: JSON in one line, and the BLAKE3 of that
//! line in the next, as a record has it. It is of use and never needed: one that is damaged, or that is of another log, is passed
//! over. The records before it stay, because their names keep writers out that were thought dead.

use std::path::Path;

use aqueduct_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::record::Tip;

/// After so many records another one is written, if nothing else is said.
pub(crate) const EVERY: u64 = 256;
/// Of so many the oldest goes: the newest may be cut off.
pub(crate) const N_KEPT: usize = 2;
const VERSION: u32 = 1;
const PREFIX: &str = "checkpoint-";

/// A checkpoint.
#[derive(Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    version: u32,
    /// The newest record that it knows.
    pub(crate) tip: Tip,
    pub(crate) history: History,
}

impl Checkpoint {
    pub(crate) fn new(tip: Tip, history: History) -> Self {
        Self { version: VERSION, tip, history }
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let failed = |error| Error::bug("write checkpoint", "a checkpoint has no JSON").with_source(error);
        let mut bytes = serde_json::to_vec(self).map_err(failed)?;
        let hash = blake3::hash(&bytes).to_hex();
        bytes.push(b'\n');
        bytes.extend_from_slice(hash.as_bytes());
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The checkpoint in these bytes; nothing, if they are not as they were written, or a newer version wrote them.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let (body, told) = (lines.next()?, lines.next()?);
        if told != blake3::hash(body).to_hex().as_bytes() {
            return None;
        }
        let checkpoint: Self = serde_json::from_slice(body).ok()?;
        (checkpoint.version == VERSION).then_some(checkpoint)
    }
}

/// The name of the checkpoint behind a record.
pub(crate) fn name(n: u64) -> String {
    format!("{PREFIX}{n:020}")
}

/// The record behind which the checkpoint of this path is.
pub(crate) fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

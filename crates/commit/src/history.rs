//! What the records of a log say, taken together.

use std::collections::BTreeMap;

use aqueduct_core::{Error, ErrorKind, Positions, Result};
use chrono::{DateTime, Utc};

use crate::record::{Begin, Change, Commit, Counts, Event, OutputRef, Record};

/// What a log says.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The log's name: the run of its first record. A log that was deleted and begun anew has another.
    pub(crate) log_id: Option<String>,
    /// The run that the newest begin names.
    pub(crate) run: Option<Run>,
    /// The last run before it that has committed something.
    before: Option<Run>,
}

/// A run, as far as the log tells.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    pub(crate) started: DateTime<Utc>,
    pub(crate) begin: Begin,
    /// The records of its epochs, in order.
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) positions: BTreeMap<String, Positions>,
    pub(crate) counts: Counts,
    /// Nothing more comes of it.
    pub(crate) has_ended: bool,
}

/// What one epoch added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Epoch {
    pub(crate) n: u64,
    pub(crate) outputs: Vec<Change>,
}

/// A commit whose outputs may not be public yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending<'a> {
    pub(crate) n: u64,
    pub(crate) run_id: &'a str,
    pub(crate) outputs: &'a [OutputRef],
    /// All epochs of the run up to this one.
    pub(crate) epochs: &'a [Epoch],
}

impl History {
    /// Takes the next record in.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`]: it makes no sense where it stands.
    pub(crate) fn add(&mut self, record: Record) -> Result<()> {
        self.log_id.get_or_insert_with(|| record.run_id.clone());
        let about = (record.n, record.run_id, record.written);
        match record.event {
            Event::Begin(begin) => self.begin(about, begin),
            Event::Epoch(commit) => self.commit(&about, commit, false)?,
            Event::Finish(commit) => self.commit(&about, commit, true)?,
            Event::Abandon => self.run_named(&about.1)?.has_ended = true,
        }
        Ok(())
    }

    fn begin(&mut self, (_, run_id, started): (u64, String, DateTime<Utc>), begin: Begin) {
        if self.run.as_ref().is_some_and(|run| run.run_id == run_id) {
            return;
        }
        self.before = self.run.take().filter(|run| !run.epochs.is_empty()).or(self.before.take());
        let (epochs, positions) = (Vec::new(), BTreeMap::new());
        let counts = Counts::default();
        self.run = Some(Run { run_id, started, begin, epochs, positions, counts, has_ended: false });
    }

    fn commit(&mut self, about: &(u64, String, DateTime<Utc>), commit: Commit, ends: bool) -> Result<()> {
        let run = self.run_named(&about.1)?;
        if commit.outputs.len() != run.begin.outputs.len() {
            return Err(senseless("a record has other outputs than its run"));
        }
        run.epochs.push(Epoch { n: about.0, outputs: commit.outputs });
        run.counts = commit.counts;
        run.has_ended = ends;
        for (source, splits) in commit.positions {
            let positions = run.positions.entry(source).or_default();
            for (split, position) in splits {
                positions.merge(Positions::of(split, position));
            }
        }
        Ok(())
    }

    fn run_named(&mut self, run_id: &str) -> Result<&mut Run> {
        let run = self.run.as_mut().filter(|run| run.run_id == run_id && !run.has_ended);
        run.ok_or_else(|| senseless("a record belongs to a run that is not under way"))
    }

    /// What the newest epoch or finish says is to be public, of whichever run.
    pub(crate) fn newest(&self) -> Option<Pending<'_>> {
        let committed = self.run.iter().chain(&self.before).find(|run| !run.epochs.is_empty())?;
        let n = committed.epochs.last()?.n;
        let (outputs, epochs) = (&committed.begin.outputs, &committed.epochs);
        Some(Pending { n, run_id: &committed.run_id, outputs, epochs })
    }

    /// The run to go on with: it has committed something, and has not ended.
    pub(crate) fn unfinished(&self) -> Option<&Run> {
        self.run.as_ref().filter(|run| !run.has_ended && !run.epochs.is_empty())
    }
}

fn senseless(message: &str) -> Error {
    Error::new(ErrorKind::Conflict, "read log", message)
}

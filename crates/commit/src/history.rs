//! What the records of a log say, taken together.

use std::collections::BTreeMap;

use aqueduct_core::{Error, ErrorKind, Positions, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::carried::{Files, without_runs};
use crate::record::{Begin, Change, Commit, Counters, Counts, Edit, Event, Letter, OutputRef, Record};

/// What a log says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct History {
    /// The log's name: the run of its first record. A log that was deleted and begun anew has another.
    pub(crate) log_id: Option<String>,
    /// The run that the newest begin names.
    pub(crate) run: Option<Run>,
    /// The last run before it that has committed something.
    before: Option<Run>,
    /// What steps keep, by step, as far as the rows that belong to it are public or will be.
    pub(crate) kept: BTreeMap<String, Value>,
    /// The files that steps keep, of a log in an object store.
    pub(crate) files: Files,
}

/// A run, as far as the log tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) run_id: String,
    pub(crate) started: DateTime<Utc>,
    pub(crate) begin: Begin,
    /// Its epochs, in order: the last, and of those before it the ones that something waits in.
    pub(crate) epochs: Vec<Epoch>,
    #[serde(with = "by_split")]
    pub(crate) positions: BTreeMap<String, Positions>,
    pub(crate) counts: Counts,
    pub(crate) counters: Counters,
    /// Nothing more comes of it.
    pub(crate) has_ended: bool,
    /// When it committed last.
    pub(crate) committed: Option<DateTime<Utc>>,
    /// It has ended with all of its rows.
    pub(crate) is_complete: bool,
    /// What steps kept before it.
    kept_before: BTreeMap<String, Value>,
}

/// What one epoch added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) n: u64,
    pub(crate) outputs: Vec<Change>,
    pub(crate) letters: Vec<Letter>,
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
            Event::Abandon => self.abandon(&about.1)?,
            Event::Edit(edit) => self.edit(edit),
        }
        Ok(())
    }

    fn begin(&mut self, (_, run_id, started): (u64, String, DateTime<Utc>), begin: Begin) {
        if self.run.as_ref().is_some_and(|run| run.run_id == run_id && !run.has_ended) {
            return;
        }
        self.files = without_runs(&self.files);
        let kept_before = self.kept_for_later().clone();
        self.kept = self.kept_from(&run_id, begin.forgets);
        self.before = self.run.take().filter(|run| !run.epochs.is_empty()).or(self.before.take());
        self.run = Some(Run {
            run_id,
            started,
            begin,
            epochs: Vec::new(),
            positions: BTreeMap::new(),
            counts: Counts::default(),
            counters: Counters::new(),
            has_ended: false,
            committed: None,
            is_complete: false,
            kept_before,
        });
    }

    fn commit(&mut self, about: &(u64, String, DateTime<Utc>), commit: Commit, ends: bool) -> Result<()> {
        let run = self.run_named(&about.1)?;
        if commit.outputs.len() != run.begin.outputs.len() {
            return Err(senseless("a record has other outputs than its run"));
        }
        let epoch = Epoch { n: about.0, outputs: commit.outputs, letters: commit.letters };
        add_epoch(&mut run.epochs, epoch, |at| {
            run.begin.outputs.get(at).is_some_and(OutputRef::waits_for_end)
        });
        run.counts = commit.counts;
        run.counters = commit.counters;
        run.has_ended = ends;
        run.committed = Some(about.2);
        run.is_complete = ends;
        for (source, splits) in commit.positions {
            let positions = run.positions.entry(source).or_default();
            for (split, position) in splits {
                positions.merge(Positions::of(split, position));
            }
        }
        self.kept.extend(commit.kept);
        commit.files.into_iter().for_each(|change| change.apply(&mut self.files));
        Ok(())
    }

    /// Nothing more comes of a run.
    ///
    /// # Errors
    /// It is not under way.
    pub(crate) fn abandon(&mut self, run_id: &str) -> Result<()> {
        self.run_named(run_id)?.has_ended = true;
        Ok(())
    }

    /// Of a run that was under way, nothing more comes.
    pub(crate) fn edit(&mut self, edit: Edit) {
        self.kept = self.kept_for_later().clone();
        for (step, value) in edit.kept {
            match value {
                Some(value) => self.kept.insert(step, value),
                None => self.kept.remove(&step),
            };
        }
        if let Some(run) = &mut self.run {
            run.has_ended = true;
            run.kept_before.clone_from(&self.kept);
        }
    }

    /// What the next run will know of what steps kept, if it is not told to forget.
    pub(crate) fn kept_now(&self) -> &BTreeMap<String, Value> {
        if self.unfinished().is_some() { &self.kept } else { self.kept_for_later() }
    }

    /// All values that some run may yet begin with, by step.
    pub(crate) fn all_kept(&self) -> impl Iterator<Item = (&String, &Value)> {
        let before = self.run.iter().flat_map(|run| &run.kept_before);
        self.kept.iter().chain(before)
    }

    /// What a run that begins so may know of what steps kept.
    pub(crate) fn kept_from(&self, run_id: &str, forgets: bool) -> BTreeMap<String, Value> {
        match &self.run {
            Some(run) if run.run_id == run_id && !run.has_ended => self.kept.clone(),
            _ if forgets => BTreeMap::new(),
            _ => self.kept_for_later().clone(),
        }
    }

    /// What counts again if the run of this name, gone on with or about to begin, never sees its end.
    pub(crate) fn kept_without(&self, run_id: &str) -> BTreeMap<String, Value> {
        match &self.run {
            Some(run) if run.run_id == run_id && !run.has_ended => run.kept_before.clone(),
            _ => self.kept_for_later().clone(),
        }
    }

    /// The same for any later run. Rows of a run that waited for its end and will not see it are nowhere: what was kept
    /// for them was never kept.
    fn kept_for_later(&self) -> &BTreeMap<String, Value> {
        match &self.run {
            Some(run) if !run.is_complete && run.begin.outputs.iter().any(OutputRef::waits_for_end) => {
                &run.kept_before
            }
            _ => &self.kept,
        }
    }

    fn run_named(&mut self, run_id: &str) -> Result<&mut Run> {
        let run = self.run.as_mut().filter(|run| run.run_id == run_id && !run.has_ended);
        run.ok_or_else(|| senseless("a record belongs to a run that is not under way"))
    }

    /// What the newest epoch or finish says is to be public, of whichever run.
    pub(crate) fn newest(&self) -> Option<Pending<'_>> {
        let committed = self.last_committed()?;
        let n = committed.epochs.last()?.n;
        let (outputs, epochs) = (&committed.begin.outputs, &committed.epochs);
        Some(Pending { n, run_id: &committed.run_id, outputs, epochs })
    }

    /// The last run that has committed something.
    pub(crate) fn last_committed(&self) -> Option<&Run> {
        self.run.iter().chain(&self.before).find(|run| !run.epochs.is_empty())
    }

    /// The outputs of the newest runs.
    pub(crate) fn outputs(&self) -> impl Iterator<Item = &OutputRef> {
        self.run.iter().chain(&self.before).flat_map(|run| &run.begin.outputs)
    }

    /// The run to go on with: it has committed something, and has not ended.
    pub(crate) fn unfinished(&self) -> Option<&Run> {
        self.run.as_ref().filter(|run| !run.has_ended && !run.epochs.is_empty())
    }
}

/// Adds an epoch. The one before it is forgotten if nothing waits in it any more: a run without an end has no end of them.
pub(crate) fn add_epoch(epochs: &mut Vec<Epoch>, epoch: Epoch, waits_for_end: impl Fn(usize) -> bool) {
    let has_waiting = |before: &Epoch| {
        let is_waiting = |(at, change): (usize, &Change)| waits_for_end(at) && *change != Change::default();
        before.outputs.iter().enumerate().any(is_waiting)
    };
    if epochs.last().is_some_and(|before| !has_waiting(before)) {
        epochs.pop();
    }
    epochs.push(epoch);
}

/// Positions as values by split.
mod by_split {
    use std::collections::BTreeMap;

    use aqueduct_core::Positions;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(
        positions: &BTreeMap<String, Positions>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let splits = |positions: &Positions| {
            positions.iter().map(|(split, at)| (split.to_owned(), at.clone())).collect::<BTreeMap<_, _>>()
        };
        let positions: BTreeMap<_, _> =
            positions.iter().map(|(source, positions)| (source, splits(positions))).collect();
        positions.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Positions>, D::Error> {
        let sources = BTreeMap::<String, BTreeMap<String, Value>>::deserialize(deserializer)?;
        let positions = sources.into_iter().map(|(source, splits)| {
            let mut positions = Positions::default();
            splits.into_iter().for_each(|(split, at)| positions.merge(Positions::of(split, at)));
            (source, positions)
        });
        Ok(positions.collect())
    }
}

fn senseless(message: &str) -> Error {
    Error::new(ErrorKind::Conflict, "read log", message)
}

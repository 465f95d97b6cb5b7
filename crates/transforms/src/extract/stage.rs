//! The stage as it runs: rows in, questions, rows out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use aqueduct_core::{Batch, BatchStream, Context, Error, ErrorKind, Inputs, Result, Stage, array_bytes};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::answers::Answers;
use super::call::{Allowance, Caller};
use super::config::Config;
use super::form::{Form, column_of};
use super::journal::Journal;
use super::line::{First, Line, Row, Rows};
use super::pace::Pace;
use super::remote::Remotes;
use super::section::{Label, SectionColumns};
use super::service::service_of;
use super::shop::{Outcome, Shop};
use super::trouble::{Trouble, TroubleKind};

/// `extract` over its columns.
pub(super) struct Extract {
    pub(super) config: Config,
    pub(super) schema: SchemaRef,
    pub(super) columns: SectionColumns,
    pub(super) form: Option<Form>,
}

impl Stage for Extract {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn run(self: Box<Self>, inputs: Inputs, cx: Context) -> BatchStream {
        Box::pin(try_stream! {
            let mut work = Box::pin(self.open(&cx)).await?;
            let mut input = futures::stream::iter(inputs).flatten();
            let mut ended: Option<Result<()>> = None;
            loop {
                while let Some(batch) = work.give()? {
                    yield batch;
                }
                if work.begin_one(&cx).await? {
                    continue;
                }
                let takes_more = ended.is_none() && work.takes_more();
                if !takes_more && work.line.n_asked() == 0 {
                    break;
                }
                let event = tokio::select! {
                    settled = work.line.settle_one(), if work.line.n_asked() > 0 => Event::Settled(settled),
                    batch = input.next(), if takes_more => Event::Came(batch),
                };
                match event {
                    Event::Settled(settled) => settled?,
                    Event::Came(Some(Ok(batch))) => work.put(batch),
                    Event::Came(Some(Err(error))) => ended = Some(Err(error)),
                    Event::Came(None) => ended = Some(Ok(())),
                }
            }
            drop(input);
            work.shop.remotes.delete_rest().await?;
            work.tell(&cx);
            work.check_all_asked()?;
            if let Some(ended) = ended {
                ended?;
            }
        })
    }
}

enum Event {
    Settled(Result<()>),
    Came(Option<Result<Batch>>),
}

impl Extract {
    /// Looks at what earlier runs have left.
    async fn open(&self, cx: &Context) -> Result<Work> {
        let config = &self.config;
        let (service, url) = service_of(config, self.form.clone());
        let n_at_once = config.n_at_once(cx.max_concurrency());
        let pace = match config.is_adaptive() {
            true => Pace::adaptive(n_at_once),
            false => Pace::fixed(n_at_once),
        };
        let pace = Arc::new(pace);
        let caller = Caller::new(config, &url, Arc::clone(&pace), cx)?;
        let (journal, orphans) = match cx.durable() {
            Some(durable) => {
                let (journal, orphans) = Journal::open(cx.fs(), durable.dir(), cx.tasks()).await?;
                (Some(journal), orphans)
            }
            None => (None, Vec::new()),
        };
        let answers = match cx.durable() {
            Some(durable) => {
                let dir = if config.cache { durable.dir() } else { durable.run_dir() };
                Some(Answers::open(cx.fs(), dir, cx.tasks(), config.max_answer_bytes).await?)
            }
            None => None,
        };
        let salt = self.salt(&url);
        let place = (config.service.name(), url);
        let remotes = Remotes { service, caller, place, metrics: Arc::clone(cx.metrics()), journal };
        remotes.delete_orphans(orphans).await;
        let shop = Shop {
            remotes,
            answers,
            allowance: Allowance::new(config.max_requests),
            tasks: cx.tasks().clone(),
            salt,
            delay: config.delay,
            n_at_once,
            n_begun: AtomicUsize::new(0),
        };
        let stop = CancellationToken::new();
        Ok(Work {
            shop: Arc::new(shop),
            schema: Arc::clone(&self.schema),
            columns: self.columns.clone(),
            form: self.form.clone(),
            slot: config.slot(),
            max_answer_bytes: config.max_answer_bytes,
            pace,
            line: Line::default(),
            rows: None,
            label: Label::default(),
            is_drained: false,
            n_sections: 0,
            n_failed: BTreeMap::new(),
            _unless_dropped: stop.clone().drop_guard(),
            stop,
        })
    }

    /// What all questions have in common, so that other options are another question.
    fn salt(&self, url: &str) -> Vec<u8> {
        let Config { service, model, options, upload, api, .. } = &self.config;
        let form = self.form.as_ref().map(Form::json_schema);
        format!("1 {service:?} {url} {model:?} {options:?} {upload} {form:?} {api:?}").into_bytes()
    }
}

/// What is under way.
struct Work {
    shop: Arc<Shop>,
    schema: SchemaRef,
    columns: SectionColumns,
    form: Option<Form>,
    slot: ByteCount,
    max_answer_bytes: ByteCount,
    pace: Arc<Pace>,
    line: Line,
    /// The batch whose rows are next.
    rows: Option<Rows>,
    label: Label,
    /// No more questions may be asked.
    is_drained: bool,
    n_sections: u64,
    n_failed: BTreeMap<TroubleKind, u64>,
    stop: CancellationToken,
    _unless_dropped: tokio_util::sync::DropGuard,
}

impl Work {
    fn takes_more(&self) -> bool {
        self.rows.is_none() && !self.is_drained && self.line.has_room(self.pace.limit())
    }

    fn put(&mut self, batch: Batch) {
        match batch.num_rows() {
            0 => self.line.pass(batch),
            _ => self.rows = Some(Rows::of(batch)),
        }
    }

    /// Begins with the next row, if there is one, and room for it.
    async fn begin_one(&mut self, cx: &Context) -> Result<bool> {
        if self.is_drained || !self.line.has_room(self.pace.limit()) {
            return Ok(false);
        }
        let Some((records, at)) = self.rows.as_ref().and_then(Rows::peek) else { return Ok(false) };
        let slot = match self.line.is_empty() {
            // Only rows that have gone on hold any of it.
            true => cx.share().reserve(self.slot).await?,
            false => match cx.share().try_reserve(self.slot) {
                Ok(slot) => slot,
                Err(_) => return Ok(false),
            },
        };
        self.label = self.columns.label(records, at, &self.label);
        let section = self.columns.section(records, at, &self.label);
        let Some(row) = self.rows.as_mut().and_then(Rows::take) else { return Ok(false) };
        if self.rows.as_ref().is_some_and(|rows| rows.peek().is_none()) {
            self.rows = None;
        }
        match section {
            Ok(section) => {
                let seen_through = Arc::clone(&self.shop).see_through(Arc::new(section), self.stop.clone());
                self.line.ask(row, slot, cx.tasks().spawn_owed(seen_through));
            }
            Err(trouble) => self.line.done(row, slot, Outcome::Failed(trouble)),
        }
        Ok(true)
    }

    /// The first in the line, if it is done.
    fn give(&mut self) -> Result<Option<Batch>> {
        if self.is_drained {
            // Rows behind the one that may not be asked about are not told apart from it.
            while self.line.take_first().is_some() {}
            return Ok(None);
        }
        match self.line.take_first() {
            None => Ok(None),
            Some(First::Passing(batch)) => {
                Ok(Some(batch.with_records(RecordBatch::new_empty(Arc::clone(&self.schema)))))
            }
            Some(First::Done(_, _, Outcome::Drained)) => {
                self.is_drained = true;
                self.rows = None;
                Ok(None)
            }
            Some(First::Done(row, slot, outcome)) => self.made(row, slot, outcome).map(Some),
        }
    }

    fn made(&mut self, row: Row, mut slot: Reservation, outcome: Outcome) -> Result<Batch> {
        let (answer, trouble) = match outcome {
            Outcome::Answered(answer) => match self.answer_column(&answer.text) {
                Ok(column) => (column, None),
                Err(trouble) => (self.no_answer()?, Some(trouble)),
            },
            Outcome::Failed(trouble) => (self.no_answer()?, Some(trouble)),
            Outcome::Drained => {
                return Err(Error::bug("ask service", "a row that was not asked about goes on"));
            }
        };
        self.n_sections += 1;
        if let Some(trouble) = &trouble {
            *self.n_failed.entry(trouble.kind).or_default() += 1;
        }
        let one = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let status = one(Some(if trouble.is_some() { "failed" } else { "ok" }));
        let error = one(trouble.as_ref().map(|trouble| trouble.kind.word()));
        let message = one(trouble.as_ref().map(|trouble| trouble.message.as_str()));
        let added = [answer, status, error, message];
        let weight: ByteCount = added.iter().map(|column| array_bytes(column)).sum();
        if weight > slot.size() {
            return Err(Error::new(
                ErrorKind::Limit,
                "ask service",
                "an answer takes more memory than its share",
            )
            .with("bytes", weight)
            .with("limit", slot.size()));
        }
        slot.shrink_to(weight);
        let columns = row.records.columns().iter().cloned().chain(added).collect();
        let records = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|error| {
            Error::bug("ask service", "answers do not fit their columns").with_source(error)
        })?;
        let mut reservation = row.reservation;
        reservation.merge(slot);
        Ok(Batch::new(records, reservation).with_positions(row.positions).with_cut(row.cut))
    }

    fn answer_column(&self, text: &str) -> Result<ArrayRef, Trouble> {
        if text.len() > self.max_answer_bytes.as_usize() {
            let message =
                format!("the answer is longer than {}; raise `max_answer_bytes`", self.max_answer_bytes);
            return Err(Trouble::new(TroubleKind::BadAnswer, message));
        }
        column_of(self.form.as_ref(), Some(text))
    }

    fn no_answer(&self) -> Result<ArrayRef> {
        column_of(self.form.as_ref(), None).map_err(|trouble| Error::bug("ask service", trouble.message))
    }

    /// Says what became of the sections.
    fn tell(&self, cx: &Context) {
        let own = cx.metrics().own();
        let count = |name: &str| own.get(name).copied().unwrap_or_default();
        tracing::info!(
            sections = self.n_sections,
            failed = self.n_failed.values().sum::<u64>(),
            questions = count("questions"),
            tokens = count("tokens"),
            cached = count("cached"),
            uploads = count("uploads"),
            deletes = count("deletes"),
            deletes_failed = count("deletes_failed"),
            orphans_deleted = count("orphans_deleted"),
            "all sections are processed"
        );
        if !self.n_failed.is_empty() {
            let kinds = self.n_failed.iter().map(|(kind, n)| format!("{} {n}", kind.word()));
            let n_failed: u64 = self.n_failed.values().sum();
            let kinds = kinds.collect::<Vec<_>>().join(", ");
            cx.warn(format!("{n_failed} of {} sections have no answer: {kinds}", self.n_sections));
        }
    }

    fn check_all_asked(&self) -> Result<()> {
        if self.is_drained { Err(self.shop.allowance.used_up()) } else { Ok(()) }
    }
}

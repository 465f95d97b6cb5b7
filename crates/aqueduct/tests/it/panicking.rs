//! A source, a stage and a sink that panic when the environment says so, and the program that has them.

use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context as TaskContext, Poll};

use aqueduct::core::{
    Batch, BatchStream, ComponentInfo, Context, Guarantee, Inputs, Keeper, MemoryNeed, Merging, Output, Part,
    Planning, Positions, Problem, Registry, Result, Sink, SinkConfig, SinkFactory, Source, SourceCaps,
    SourceConfig, SourceFactory, Stage, StageConfig, StageFactory, Stored,
};
use aqueduct::primitives::Budget;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;
use futures::future::BoxFuture;
use schemars::Schema;
use serde_json::Value;
use tokio::sync::watch;

use crate::job::{Done, Job, finish};

/// Who panics, and where: `stage end drop`.
const PANICS: &str = "AQUEDUCT_TEST_PANICS";
/// What the program is asked to do.
const WORDS: &str = "AQUEDUCT_TEST_WORDS";

/// Runs the program in a folder.
pub(crate) fn run(job: &Job, panics: &str, words: &str) -> Done {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["panicking::the_program", "--exact", "--nocapture", "--test-threads=1"]);
    command.current_dir(job.path(".")).env(PANICS, panics).env(WORDS, words);
    finish(command)
}

/// The program; as a test, nothing. Its code is 101 where memory or disk is not given back.
#[test]
fn the_program() {
    let Ok(words) = std::env::var(WORDS) else { return };
    let registry: Registry =
        aqueduct::registry().with_sources(&[&Panicking]).with_stages(&[&Panicking]).with_sinks(&[&Panicking]);
    let words = std::iter::once("aqueduct").chain(words.split_whitespace());
    let ended = aqueduct::cli_main_from(registry, words);
    for budget in budgets().lock().unwrap().iter() {
        assert_eq!(budget.free(), budget.total(), "{}", budget.name());
    }
    let code = (0..=u8::MAX).find(|code| ExitCode::from(*code) == ended);
    std::process::exit(code.unwrap().into());
}

/// What the steps here have of the memory and of the disk.
fn budgets() -> &'static Mutex<Vec<Budget>> {
    static BUDGETS: OnceLock<Mutex<Vec<Budget>>> = OnceLock::new();
    BUDGETS.get_or_init(Mutex::default)
}

fn note_budgets(cx: &Context) {
    let of_step = [cx.flow(), cx.share(), &cx.scratch().disk].map(Budget::clone);
    budgets().lock().unwrap().extend(of_step);
}

fn is_asked(role: &str, place: &str) -> bool {
    let asked = std::env::var(PANICS).unwrap_or_default();
    let mut words = asked.split_whitespace();
    words.next() == Some(role) && words.any(|word| word == place)
}

fn here(role: &str, place: &str) {
    assert!(!is_asked(role, place), "{role} at {place}");
}

/// The factories of all three: `panicking`.
struct Panicking;

const INFO: ComponentInfo = ComponentInfo {
    name: "panicking",
    summary: "Panics when the environment says so",
    example: "panicking: {}",
};

fn generate() -> &'static dyn SourceFactory {
    aqueduct::registry().source("generate").unwrap()
}

fn ndjson() -> &'static dyn SinkFactory {
    aqueduct::registry().sink("ndjson").unwrap()
}

/// `generate`.
impl SourceFactory for Panicking {
    fn info(&self) -> &ComponentInfo {
        &INFO
    }

    fn options(&self) -> Schema {
        generate().options()
    }

    fn configure(&self, options: Value) -> Result<Box<dyn SourceConfig>, Vec<Problem>> {
        Ok(Box::new(Around(generate().configure(options)?)))
    }
}

/// Passes all rows on.
impl StageFactory for Panicking {
    fn info(&self) -> &ComponentInfo {
        &INFO
    }

    fn options(&self) -> Schema {
        schemars::json_schema!({ "type": "object" })
    }

    fn configure(&self, _: Value) -> Result<Box<dyn StageConfig>, Vec<Problem>> {
        here("stage", "configure");
        Ok(Box::new(PassingOn))
    }
}

/// `ndjson`.
impl SinkFactory for Panicking {
    fn info(&self) -> &ComponentInfo {
        &INFO
    }

    fn options(&self) -> Schema {
        ndjson().options()
    }

    fn configure(&self, options: Value) -> Result<Box<dyn SinkConfig>, Vec<Problem>> {
        Ok(Box::new(Around(ndjson().configure(options)?)))
    }
}

/// What a built-in component does, and panics.
struct Around<T>(T);

#[async_trait]
impl SourceConfig for Around<Box<dyn SourceConfig>> {
    // Not known, so that all steps are bound when the run has begun.
    fn known_schema(&self, _: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(None)
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        self.0.memory(planning)
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        note_budgets(cx);
        here("source", "open");
        Ok(Box::new(Around(self.0.open(cx).await?)))
    }
}

impl Source for Around<Box<dyn Source>> {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn capabilities(&self) -> SourceCaps {
        self.0.capabilities()
    }

    fn run(self: Box<Self>, cx: Context, from: Positions) -> BatchStream {
        here("source", "run");
        let committed = Committed::of("source", &cx);
        Box::pin(Rows::new("source", self.0.run(cx, from), committed))
    }
}

struct PassingOn;

impl StageConfig for PassingOn {
    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        here("stage", "bind");
        Ok(Box::new(PassesOn(SchemaRef::clone(&inputs[0]))))
    }
}

struct PassesOn(SchemaRef);

impl Stage for PassesOn {
    fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.0)
    }

    fn run(self: Box<Self>, mut inputs: Inputs, cx: Context) -> BatchStream {
        note_budgets(&cx);
        here("stage", "run");
        let committed = Committed::of("stage", &cx);
        Box::pin(Rows::new("stage", inputs.remove(0), committed))
    }
}

/// Told of commits.
struct Committed {
    role: &'static str,
    is_made: watch::Sender<bool>,
}

impl Committed {
    /// Told of the commits of the run.
    fn of(role: &'static str, cx: &Context) -> Arc<Self> {
        let committed = Arc::new(Self { role, is_made: watch::Sender::new(false) });
        if let Some(durable) = cx.durable() {
            durable.register(Arc::clone(&committed) as _);
        }
        committed
    }

    /// Waits for a commit. Behind it, a source is asked for rows only when it is made.
    async fn wait(self: Arc<Self>) {
        self.is_made.subscribe().wait_for(|is_made| *is_made).await.unwrap();
    }
}

#[async_trait]
impl Keeper for Committed {
    async fn keep(&self) -> Result<Option<Value>> {
        here(self.role, "keep");
        self.is_made.send_replace(true);
        Ok(None)
    }
}

/// Rows, and a panic at some place among them.
struct Rows {
    role: &'static str,
    rows: BatchStream,
    n_batches: usize,
    /// Where the panic is to come after a commit.
    commit: Option<BoxFuture<'static, ()>>,
}

impl Rows {
    fn new(role: &'static str, rows: BatchStream, committed: Arc<Committed>) -> Self {
        let commit = is_asked(role, "commit").then(|| Box::pin(committed.wait()) as _);
        Self { role, rows, n_batches: 0, commit }
    }
}

impl Stream for Rows {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let has_given = self.n_batches > 0;
        if let Some(commit) = self.commit.as_mut().filter(|_| has_given) {
            std::task::ready!(commit.as_mut().poll(cx));
            here(self.role, "commit");
        }
        let next = std::task::ready!(self.rows.as_mut().poll_next(cx));
        match &next {
            Some(Ok(batch)) if batch.num_rows() > 0 => {
                self.n_batches += 1;
                match self.n_batches {
                    1 => here(self.role, "first"),
                    2 => here(self.role, "second"),
                    _ => {}
                }
            }
            None => here(self.role, "end"),
            _ => {}
        }
        Poll::Ready(next)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        here(self.role, "drop");
    }
}

#[async_trait]
impl SinkConfig for Around<Box<dyn SinkConfig>> {
    fn fit(&self, input: &SchemaRef) -> Vec<Problem> {
        here("sink", "fit");
        self.0.fit(input)
    }

    fn fit_stored(&self, input: &SchemaRef, stored: &Stored) -> Vec<Problem> {
        self.0.fit_stored(input, stored)
    }

    fn output(&self, planning: &Planning) -> Option<Output> {
        self.0.output(planning)
    }

    fn guarantee(&self) -> Guarantee {
        self.0.guarantee()
    }

    fn merging(&self) -> Option<Merging> {
        self.0.merging()
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        self.0.memory(planning)
    }

    async fn open(self: Box<Self>, input: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        note_budgets(cx);
        here("sink", "open");
        Ok(Box::new(PanickingSink { sink: self.0.open(input, cx).await?, dropped: Dropped }))
    }
}

struct PanickingSink {
    sink: Box<dyn Sink>,
    dropped: Dropped,
}

#[async_trait]
impl Sink for PanickingSink {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        here("sink", "write");
        self.sink.write(batch).await
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        here("sink", "seal");
        self.sink.seal().await
    }

    async fn abort(self: Box<Self>) {
        let Self { sink, dropped } = *self;
        sink.abort().await;
        drop(dropped);
        here("sink", "abort");
    }
}

/// Panics when the sink is dropped.
struct Dropped;

impl Drop for Dropped {
    fn drop(&mut self) {
        here("sink", "drop");
    }
}

//! What every source promises.
//!
//! In the crate of the sources, `tests/it/conformance.rs` holds a table of [`Fixture`]s and one line that makes
//! the tests:
//!
//! ```ignore
//! aqueduct_testkit::source_suite!(aqueduct_sources::ALL, fixtures, services);
//! ```

mod cases;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{BatchStream, Positions, Source, SourceConfig, SourceFactory};
use bytes::Bytes;
use serde_json::Value;

use crate::http::{Answer, Request, Server};
use crate::suite::room::{FLOW_BYTES, Folders, Memory, Rejected, Room, Share};
use crate::suite::{Objection, Time, Verdict, on_runtime, row};

pub use cases::*;

/// A table of fixtures over a list of sources.
pub type Suite = crate::suite::Suite<dyn SourceFactory, Fixture>;

/// Makes one `#[test]` of every case: of a list of sources, a function that gives the table of
/// [`Fixture`](crate::source_suite::Fixture)s, and one that puts clients into the context.
#[macro_export]
macro_rules! source_suite {
    ($components:expr, $fixtures:expr, $services:expr) => {
        $crate::source_cases!([$crate::conformance_tests] source_suite, $components, $fixtures, $services;);
    };
}

/// Calls a macro with what is given and then the names of all cases: who has something to do for each of them,
/// forgets none.
#[macro_export]
macro_rules! source_cases {
    ([$($then:tt)+] $($with:tt)*) => {
        $($then)+! {
            $($with)*
            the_schema_is_constant,
            an_empty_input_ends_cleanly,
            dropped_mid_stream_it_gives_everything_back,
            a_slow_consumer_stays_inside_the_budget,
            an_error_is_the_last_item,
            positions_come_in_order_and_end_each_split_once,
            a_resumed_run_repeats_and_skips_nothing,
            cancelling_leaves_no_task,
        }
    };
}

/// How one source is tried. Its rows must weigh more than 1 MiB in all, so that a slow consumer makes it wait, and come
/// in more batches than one: a batch has at most 500 rows. Every split has some. What is [served](Input::served)
/// is one file: of several, it might wait for room in a window where it is to wait for memory.
pub struct Fixture {
    /// The source's name.
    pub component: &'static str,
    /// Which of several fixtures; may be empty.
    pub variant: &'static str,
    /// What it reads.
    pub usual: Input,
    /// The rows that come of it, as [`texts`](crate::suite::texts) writes them.
    pub rows: Vec<String>,
    /// How many splits its positions speak of in the end.
    pub n_splits: usize,
    /// The same source where there is nothing to read.
    pub empty: Input,
    /// The same source where reading fails after it was opened; or why that cannot be.
    pub failing: Result<Input, &'static str>,
}

row!(Fixture);

/// Makes a file the standard input of the process.
pub type Redirect = fn(&Path) -> std::io::Result<()>;

/// What a server answers to a request.
type Script = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// Options, and what they speak of.
#[derive(Default)]
pub struct Input {
    options: Value,
    files: Vec<(String, Vec<u8>)>,
    served: Vec<(String, Script)>,
    stdin: Option<(String, Redirect)>,
    from: Positions,
    n_rejected: Option<usize>,
}

impl Input {
    /// Options alone. In texts, `{server}` stands for the address of the server of [`Input::served`].
    pub fn of(options: Value) -> Self {
        Self { options, ..Self::default() }
    }

    /// Lays down a file, relative to the flow's folder.
    #[must_use]
    pub fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
        self
    }

    /// Serves bytes over HTTP at a path that begins with `/`.
    #[must_use]
    pub fn served(self, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Bytes::from(bytes.into());
        self.answered(path, move |request| Answer::file(request, &bytes, "\"v1\""))
    }

    /// Answers requests for a path that begins with `/`.
    #[must_use]
    pub fn answered(
        mut self,
        path: &str,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.served.push((path.to_owned(), Arc::new(answer)));
        self
    }

    /// Makes one of the files what the whole process reads from its standard input, each time before the
    /// source is opened. Trials that do so run one after the other.
    #[must_use]
    pub fn stdin(mut self, name: &str, redirect: Redirect) -> Self {
        self.stdin = Some((name.to_owned(), redirect));
        self
    }

    /// So many rows and files of it are bad. They are rejected, and the run goes on; of an input without this, the first
    /// bad one ends the run.
    #[must_use]
    pub fn rejected(mut self, n_rejected: usize) -> Self {
        self.n_rejected = Some(n_rejected);
        self
    }

    /// Begins after these positions.
    #[must_use]
    pub fn from(mut self, positions: Positions) -> Self {
        self.from = positions;
        self
    }
}

/// One fixture, about to be tried.
pub struct Trial {
    factory: &'static dyn SourceFactory,
    fixture: Fixture,
    services: fn(&mut aqueduct_core::RunContext),
    server: Option<Server>,
    time: Time,
}

/// The standard input of the process, of which there is one.
static STDIN: Mutex<()> = Mutex::new(());

/// A promise, one of the functions of this module.
pub type Case<V> = fn(Trial) -> V;

/// Tries a case on every fixture.
///
/// # Panics
/// A source breaks the promise.
pub fn judge<V: Future<Output = Verdict> + 'static>(suite: Suite, case: &str, run: Case<V>) {
    let services = suite.services;
    suite.judge(case, |factory, fixture| {
        let reads_stdin = fixture.usual.stdin.is_some();
        let _alone = reads_stdin.then(|| STDIN.lock().unwrap_or_else(PoisonError::into_inner));
        let is_served = !fixture.usual.served.is_empty();
        let time = if is_served || reads_stdin { Time::Real } else { Time::Still };
        on_runtime(time, move || async move {
            let server = if is_served { Some(Server::start().await) } else { None };
            run(Trial { factory, fixture, services, server, time }).await
        })
    });
}

impl Trial {
    /// Surroundings in which an input is laid down.
    fn room(&self, input: &Input, share: Share) -> Result<Room, Objection> {
        self.room_that_tells(input, share, Arc::default())
    }

    /// [`Trial::room`]; what is rejected is told here.
    fn room_that_tells(
        &self,
        input: &Input,
        share: Share,
        rejected: Arc<Rejected>,
    ) -> Result<Room, Objection> {
        let folders = Folders::new()?;
        let share = share.of(self.configure(input)?.memory(&folders.planning()));
        let room = self.room_in(folders, Memory { flow: FLOW_BYTES, share }, input, None, rejected)?;
        for (name, bytes) in &input.files {
            let path = room.base().join(name);
            path.parent().map(std::fs::create_dir_all).transpose()?;
            std::fs::write(path, bytes)?;
        }
        for (path, answer) in &input.served {
            let answer = Arc::clone(answer);
            self.server.as_ref().map(|server| server.route(path, move |request| answer(request)));
        }
        Ok(room)
    }

    /// Surroundings as another process finds them after a commit that kept this, with nothing new laid down.
    fn room_in(
        &self,
        folders: Folders,
        memory: Memory,
        input: &Input,
        kept: Option<Value>,
        rejected: Arc<Rejected>,
    ) -> aqueduct_core::Result<Room> {
        Room::durable(folders, memory, kept, |run| {
            if input.n_rejected.is_some() {
                run.rejects = rejected;
            }
            (self.services)(run);
        })
    }

    fn configure(&self, input: &Input) -> Result<Box<dyn SourceConfig>, Objection> {
        let address = self.server.as_ref().map(|server| server.url("")).unwrap_or_default();
        Ok(self.factory.configure(replaced(&input.options, &address))?)
    }

    async fn open(&self, room: &Room, input: &Input) -> Result<Box<dyn Source>, Objection> {
        if let Some((name, redirect)) = &input.stdin {
            redirect(&room.base().join(name))?;
        }
        Ok(self.configure(input)?.open(room.cx()).await?)
    }

    /// The batches that come after these positions.
    async fn stream(&self, room: &Room, input: &Input, from: &Positions) -> Result<BatchStream, Objection> {
        Ok(self.open(room, input).await?.run(room.cx().clone(), from.clone()))
    }
}

/// Options in which `{server}` is a server's address.
fn replaced(options: &Value, address: &str) -> Value {
    match options {
        Value::String(text) => Value::String(text.replace("{server}", address)),
        Value::Array(items) => items.iter().map(|item| replaced(item, address)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), replaced(value, address))).collect()
        }
        other => other.clone(),
    }
}

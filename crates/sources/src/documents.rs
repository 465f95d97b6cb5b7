//! `documents`: PDFs, section by section.
//!
//! Order: the sections of a document as they stand in it; documents as they are listed, or, where several are read at once,
//! as they come. Memory: for each document that is being read a reserve, in which a child process holds the file and the
//! section that it makes; a section of more than a quarter of a MiB waits for the flow's memory before it leaves the child, and
//! the next for that to be free again. A document that is not on this machine is fetched once, to disk.
//!
//! PDFs are read in a child process with limits, see [`core::worker`](aqueduct_core::worker): one that crashes it, loops or takes
//! too much memory is rejected, or only the section that did.

use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::worker::WorkerTask;
use aqueduct_core::{
    ComponentInfo, Context, Factory, MemoryNeed, Planning, Problem, Result, Source, SourceConfig, units,
};
use aqueduct_formats::ReadOptions;
use aqueduct_net::HttpOptions;
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::files::{self, OnChange, Order, Paths};

mod child;
mod parent;
mod rows;
mod sections;
mod wire;

pub use sections::{NamedRange, PageRange, Sections};

use self::rows::DocumentRows;

/// The component.
pub static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "documents",
    summary: "PDFs, section by section: their text and, when asked, each section as a PDF of its own",
    example: "documents: { paths: [\"in/*.pdf\"], sections: { pages: 10 } }",
});

/// What child processes do for it.
pub const WORKER_TASK: WorkerTask = WorkerTask { name: "pdf", run: child::run };

/// Options of `documents`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What to read: paths, globs, folders, URLs, object-store prefixes; or `{file: LIST}`, a file that names one a line.
    pub paths: Paths,
    /// How documents are cut: `{pages: N}` every N pages, `{outline: true}` by the bookmarks of the outermost level,
    /// `{ranges: [{name, pages}]}` by pages as `3`, `3-7` or `3-`.
    pub sections: Sections,
    /// Whether each section comes as a PDF of its own, too, in the column `pdf`.
    #[serde(default)]
    pub pdf: bool,
    /// How many documents are read at once, one section of each: a number, or `adaptive`, as many as memory and
    /// `max_concurrency` admit.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// How long the reader of PDFs may take to open a document, and for each section.
    #[serde(
        default = "default_timeout",
        deserialize_with = "units::duration",
        serialize_with = "units::write_duration"
    )]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// A section whose text, or whose PDF, is larger is rejected.
    #[serde(default = "default_max_record_bytes", deserialize_with = "units::byte_count")]
    #[schemars(with = "String")]
    pub max_record_bytes: ByteCount,
    /// Whether it is fine that there is no document at all.
    #[serde(default)]
    pub allow_empty: bool,
    /// How documents are fetched, on top of the flow's `http`.
    #[serde(flatten)]
    pub http: HttpOptions,
}

/// How many documents are read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Concurrency {
    /// So many.
    Documents(usize),
    /// As many as there is room for.
    Named(Adaptive),
}

/// As many as there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Adaptive {
    /// The only one.
    Adaptive,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::Documents(1)
    }
}

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_max_record_bytes() -> ByteCount {
    ReadOptions::default().max_record_bytes
}

/// The reserve of a document: with less, even a small one does not fit.
const MIN_OF_DOCUMENT: ByteCount = ByteCount::mib(16);
/// Before other steps get more than they must have: what documents can be read at all depends on it.
const FIRST_FOR_DOCUMENTS: ByteCount = ByteCount::mib(48);
/// A larger one takes no more than this.
const MAX_OF_DOCUMENT: ByteCount = ByteCount::mib(1024);
/// Texts of sections are offsets of 32 bits.
const MAX_RECORD_BYTES: ByteCount = ByteCount::mib(1024);

#[async_trait]
impl SourceConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = self.files(1).validate();
        problems.extend(self.sections.problems());
        if self.concurrency == Concurrency::Documents(0) {
            problems.push(Problem::at("/concurrency", "expected at least 1 document at once, or `adaptive`"));
        }
        if self.timeout < Duration::from_secs(1) {
            problems.push(Problem::at("/timeout", "expected at least 1s"));
        }
        if self.max_record_bytes > MAX_RECORD_BYTES {
            problems.push(Problem::at("/max_record_bytes", "expected at most 1GiB"));
        }
        problems
    }

    fn known_schema(&self, _planning: &Planning) -> Result<Option<SchemaRef>, Vec<Problem>> {
        Ok(Some(rows::schema(self.pdf)))
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        let n_documents = self.n_documents(planning.max_concurrency) as u64;
        let MemoryNeed { min, want, .. } = need_of_document();
        MemoryNeed::between(min, want.saturating_mul(n_documents)).at_first(FIRST_FOR_DOCUMENTS)
    }

    fn is_replayable(&self) -> bool {
        true
    }

    async fn open(self: Box<Self>, cx: &Context) -> Result<Box<dyn Source>> {
        let worker = cx.worker()?;
        let files = self.files(self.n_documents(cx.max_concurrency()));
        let rows_of = DocumentRows::new(&self, worker, cx);
        Ok(Box::new(files.open_with(Some(Arc::new(rows_of)), cx).await?))
    }
}

/// The reserve of one document.
fn need_of_document() -> MemoryNeed {
    MemoryNeed::between(MIN_OF_DOCUMENT, MAX_OF_DOCUMENT)
}

impl Config {
    fn n_documents(&self, max_concurrency: usize) -> usize {
        match self.concurrency {
            Concurrency::Documents(n) => n,
            Concurrency::Named(Adaptive::Adaptive) => max_concurrency,
        }
        .max(1)
    }

    /// The files that the documents are.
    fn files(&self, n_at_once: usize) -> files::Config {
        files::Config {
            paths: Some(self.paths.clone()),
            list: None,
            window: Some(n_at_once),
            order: if n_at_once > 1 { Order::Any } else { Order::Listed },
            origin: false,
            allow_empty: self.allow_empty,
            incremental: None,
            on_change: OnChange::Fail,
            read: ReadOptions { max_record_bytes: self.max_record_bytes, ..ReadOptions::default() },
            http: self.http.clone(),
        }
    }
}

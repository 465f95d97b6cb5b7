//! What the sinks that write tables share: rows into staged parts, off the async threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use aqueduct_core::{
    Batch, Context, Error, ErrorKind, MemoryNeed, Merging, Mode, Output, Part, Planning, Problem, Result,
    Sink, Stored, TableShape, is_in_store,
};
use aqueduct_formats::write::WriteFormat;
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::Evolve;
use crate::ledger::Ledger;
use crate::part::{Names, PartMaker};
use crate::partition::{By, ByOptions, Limits, Partitioned};
use crate::single::Single;
use crate::stored::StoredTable;

/// The least that a table sink works with, beside the rows at hand.
const MIN_MEMORY: ByteCount = ByteCount::mib(2);

/// A table sink's options, whatever its format.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) path: String,
    pub(crate) is_file: bool,
    pub(crate) format: WriteFormat,
    pub(crate) file_bytes: Option<ByteCount>,
    pub(crate) partition_by: Vec<String>,
    pub(crate) partition_columns: bool,
    pub(crate) max_partitions: usize,
    pub(crate) allow_empty: bool,
    pub(crate) mode: Option<Mode>,
    pub(crate) evolve: Evolve,
    /// None, where the format does not keep types as they are.
    pub(crate) merge: Option<Merge>,
    /// Columns, those within columns counted, that it must have the memory for although none is known yet.
    pub(crate) n_leaves: usize,
}

/// What `mode: merge` goes by.
#[derive(Clone, Debug)]
pub(crate) struct Merge {
    pub(crate) keys: Vec<String>,
    pub(crate) by: Vec<String>,
}

impl Table {
    /// All that is wrong with the options themselves.
    pub(crate) fn validate(&self) -> Vec<Problem> {
        let mut problems = path_problems(&self.path);
        if self.is_file && !self.partition_by.is_empty() {
            let message = format!("partitions need a folder, and `{}` is one file", self.path);
            problems.push(Problem::at("/partition_by", message));
        }
        if self.is_file && self.file_bytes.is_some() {
            let message = format!("several files need a folder, and `{}` is one file", self.path);
            problems.push(Problem::at("/file_bytes", message));
        }
        if self.is_file && self.mode == Some(Mode::Append) {
            let message = format!("appending needs a folder, and `{}` is one file", self.path);
            problems.push(Problem::at("/mode", message));
        }
        problems.extend(self.update_problems());
        if self.file_bytes == Some(ByteCount::ZERO) {
            problems.push(Problem::at("/file_bytes", "0 bytes; expected at least 1"));
        }
        if self.max_partitions == 0 {
            problems.push(Problem::at("/max_partitions", "0 partitions; expected at least 1"));
        }
        problems
    }

    fn update_problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.mode == Some(Mode::ReplacePartitions) && self.partition_by.is_empty() {
            let message =
                "`replace_partitions` needs `partition_by`: the columns that say what a run replaces";
            problems.push(Problem::at("/mode", message));
        }
        let merges = self.mode == Some(Mode::Merge);
        match &self.merge {
            None if merges => {
                let message = "`merge` reads rows back, and this format does not keep types and nulls as they are; \
                               expected the sink `parquet` or `arrow`";
                problems.push(Problem::at("/mode", message));
            }
            Some(merge) if merges && merge.keys.is_empty() => {
                let message =
                    "`merge` needs `keys`: the columns in which rows are equal that take each other's place";
                problems.push(Problem::at("/mode", message));
            }
            Some(merge) if !merges => {
                let given = [("keys", &merge.keys), ("by", &merge.by)];
                for (option, _) in given.into_iter().filter(|(_, columns)| !columns.is_empty()) {
                    let message = format!("`{option}` is of `mode: merge` alone");
                    problems.push(Problem::at(format!("/{option}"), message));
                }
            }
            _ => {}
        }
        problems
    }

    /// What is asked of the step before, if rows are merged.
    pub(crate) fn merging(&self) -> Option<Merging> {
        let merge = self.merge.as_ref().filter(|_| self.mode == Some(Mode::Merge))?;
        let rows = Arc::new(StoredTable::of(self));
        Some(Merging { keys: merge.keys.clone(), by: merge.by.clone(), rows })
    }

    /// The columns that go into the files.
    pub(crate) fn written(&self, input: &SchemaRef) -> Result<SchemaRef, Vec<Problem>> {
        Ok(SchemaRef::clone(self.by(input)?.as_ref().map_or(input, By::data_schema)))
    }

    /// All that does not fit the columns.
    pub(crate) fn fit(&self, input: &SchemaRef) -> Vec<Problem> {
        let schema = match self.written(input) {
            Ok(schema) => schema,
            Err(problems) => return problems,
        };
        match self.format.check(&schema) {
            Ok(()) => Vec::new(),
            Err(error) => vec![Problem::at("", error.chain())],
        }
    }

    /// All columns that do not fit those that are there.
    pub(crate) fn fit_stored(&self, input: &SchemaRef, stored: &Stored) -> Vec<Problem> {
        let Some(there) = stored.shape() else { return Vec::new() };
        let new = self.shape(input);
        if new.format != there.format {
            let (found, given) = (&there.format, &new.format);
            let message = format!("the files that are there are {found}, and these would be {given}");
            return vec![Problem::at("/path", message)];
        }
        let unfit = new.columns.iter().filter_map(|column| {
            let message = match there.column(&column.name) {
                Some(other) if other.kind == column.kind => return None,
                Some(other) => format!(
                    "column `{}` is {}, and in what is there it is {}; cast it, or write to another path",
                    column.name, column.kind, other.kind
                ),
                None if self.evolve == Evolve::Add => return None,
                None => format!(
                    "column `{}` is not in what is there, and `evolve: freeze` lets none in",
                    column.name
                ),
            };
            Some(Problem::at("", message))
        });
        unfit.collect()
    }

    fn shape(&self, input: &SchemaRef) -> TableShape {
        TableShape::new(self.format.name(), input)
    }

    pub(crate) fn output(&self, planning: &Planning) -> Output {
        Output {
            path: planning.resolve(&self.path),
            is_file: self.is_file,
            allow_empty: self.allow_empty,
            mode: self.mode,
        }
    }

    /// Two batches at hand and the least buffers, up to what the format makes use of.
    pub(crate) fn memory(&self, planning: &Planning) -> MemoryNeed {
        let at_hand = planning.batch_bytes.saturating_mul(2);
        let one_file = self.format.least_memory(self.n_leaves).saturating_mul(2);
        let least = MIN_MEMORY.max(one_file);
        let useful = match &self.format {
            WriteFormat::Parquet(options) => options.row_group_bytes.percent(134).max(least),
            _ => least.saturating_mul(2),
        };
        MemoryNeed::between(least.saturating_add(at_hand), useful.saturating_add(at_hand))
    }

    /// The sink.
    pub(crate) fn open(self, input: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        let by = self.by(&input).map_err(|problems| unfit(&problems))?;
        cx.stored().into_iter().for_each(|stored| stored.describe(self.shape(&input)));
        let schema = by.as_ref().map_or(input, |by| SchemaRef::clone(by.data_schema()));
        let names = match Path::new(&self.path).file_name() {
            Some(name) if self.is_file => {
                Names::One { name: name.to_string_lossy().into_owned(), n_parts: 0 }
            }
            _ => Names::Numbered { run_id: cx.part_run().to_owned(), n_parts: 0 },
        };
        let maker = PartMaker::new(cx, self.format, schema, names)?;
        let limits = Limits { max_partitions: self.max_partitions, file_bytes: self.file_bytes };
        let route = match by {
            Some(by) => Route::Partitioned(Box::new(Partitioned::new(by, maker, limits))),
            None => Route::Single(Box::new(Single::new(maker, self.file_bytes))),
        };
        let writing = Writing { route, ledger: Ledger::new(cx.share()) };
        let updated = cx.stored().filter(|_| self.mode.is_some_and(Mode::updates)).cloned();
        Ok(Box::new(TableSink { cx: cx.clone(), updated, writing: Some(Box::new(writing)) }))
    }

    pub(crate) fn by(&self, input: &SchemaRef) -> Result<Option<By>, Vec<Problem>> {
        if self.partition_by.is_empty() {
            return Ok(None);
        }
        let options = ByOptions { items: self.partition_by.clone(), keep_columns: self.partition_columns };
        By::bind(&options, input).map(Some)
    }
}

/// Whether a path names one file of these suffixes, rather than a folder of parts.
pub(crate) fn is_one_file(path: &str, suffixes: &[&str]) -> bool {
    let name = Path::new(path).file_name().map(|name| name.to_string_lossy().to_ascii_lowercase());
    name.is_some_and(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)))
}

/// What is wrong with the path of an output.
pub(crate) fn path_problems(path: &str) -> Vec<Problem> {
    let problem = |message: String| vec![Problem::at("/path", message)];
    if path.contains("://") && (!is_in_store(Path::new(path)) || path.starts_with("memory:")) {
        return problem(format!(
            "`{path}` cannot be written to; expected a path, or an s3://, gs:// or az:// URL"
        ));
    }
    if is_in_store(Path::new(path)) && Path::new(path).components().count() < 3 {
        return problem(format!("`{path}` is a whole bucket; expected a name in it, as s3://BUCKET/NAME"));
    }
    match PathBuf::from(path).file_name().and_then(|name| name.to_str()) {
        None => problem(format!("`{path}` has no name of its own; expected a file or folder to write")),
        Some("_aqueduct") => problem("`_aqueduct` is kept for what is not data; choose another name".into()),
        Some(_) => Vec::new(),
    }
}

fn unfit(problems: &[Problem]) -> Error {
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    Error::new(ErrorKind::Config, "open sink", messages.join("; "))
}

/// The sink over a [`Route`]. Every call moves the files to a compute job and back.
struct TableSink {
    cx: Context,
    /// The output, if what is there of it makes way for what is written.
    updated: Option<Arc<Stored>>,
    /// Not there while a job has it, or after one failed.
    writing: Option<Box<Writing>>,
}

/// The files under way and what they hold.
struct Writing {
    route: Route,
    ledger: Ledger,
}

enum Route {
    Single(Box<Single>),
    Partitioned(Box<Partitioned>),
}

impl Writing {
    fn write(&mut self, batch: Batch) -> Result<()> {
        match &mut self.route {
            Route::Single(single) => single.write(batch.records(), batch.cut(), &mut self.ledger),
            Route::Partitioned(many) => many.write(batch.records(), batch.cut(), &mut self.ledger),
        }
    }

    fn seal(&mut self) -> Result<Vec<Part>> {
        match &mut self.route {
            Route::Single(single) => single.seal(&mut self.ledger),
            Route::Partitioned(many) => many.seal(&mut self.ledger),
        }
    }
}

impl TableSink {
    async fn compute<T: Send + 'static>(
        &mut self,
        job: impl FnOnce(&mut Writing) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(mut writing) = self.writing.take() else {
            return Err(Error::bug("write", "the sink has failed before"));
        };
        let metrics = Arc::clone(self.cx.metrics());
        let done = self.cx.tasks().compute(move || {
            let started = Instant::now();
            let result = job(&mut writing);
            metrics.add_busy(started.elapsed());
            result.map(|value| (value, writing))
        });
        let (value, writing) = done.await??;
        self.writing = Some(writing);
        Ok(value)
    }
}

#[async_trait]
impl Sink for TableSink {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.compute(move |writing| writing.write(batch)).await
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        let parts = self.compute(Writing::seal).await?;
        if let Some(stored) = &self.updated {
            parts.iter().filter(|part| part.rows > 0).for_each(|part| stored.replace_folder_of(&part.name));
        }
        Ok(parts)
    }

    async fn abort(mut self: Box<Self>) {
        let writing = self.writing.take();
        // Dropped off the async threads, for that removes files. A panic there leaves them to the folder's owner.
        let _ = self.cx.tasks().block(move || drop(writing)).await;
    }
}

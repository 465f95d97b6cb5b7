//! Many files as one source: a sliding window over a lazy list of them.
//!
//! A file passes through four hands. The window gives it a place and its reserve of memory, in the order of
//! the inputs. A task of its own opens it and decodes it, and stops as soon as its events wait to be taken.
//! The consumer takes rows into the flow's memory ([`Context::admit`]), one batch at a time: in the order in
//! which files are ready, or file after file. With the file's last batch goes its place in the window, which is
//! free again when that batch is dropped.
//!
//! Order: within a file by row, always. Memory: the reserves of the files that are open. A list of inputs is
//! never held, however long.
//!
//! A run goes on after any batch. Each carries a position of one split, of the size of the window, which tells files that
//! are done and rows that were given of others ([`progress`]); rejects are told together with the batch that covers them. What
//! the numbers of the files mean lies in a folder of the run ([`frozen`]), and which versions of them were read
//! ([`journal`]): a file that changed in between ends the run ([`unchanged`]). One that changes while it is read ends the
//! attempt, or the run ([`on_change`]).
//!
//! The columns are those of the first file that has any; of STAC, where a file may hold but one item, those of more files
//! ([`sample`]).
//!
//! Where only new files are to be read, what earlier runs have committed is known by keys ([`seen`]), and left out of the
//! list before it is fixed ([`sift`]).

pub(crate) mod frozen;
pub(crate) mod gaps;
pub(crate) mod input;
pub(crate) mod journal;
pub(crate) mod lines;
pub(crate) mod memory;
pub(crate) mod ndjson;
pub(crate) mod on_change;
pub(crate) mod open;
pub(crate) mod oversize;
pub(crate) mod peek;
pub(crate) mod progress;
pub(crate) mod read;
pub(crate) mod sample;
pub(crate) mod seen;
pub(crate) mod sift;
pub(crate) mod spool;
pub(crate) mod unchanged;
pub(crate) mod verify;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{
    BatchStream, Context, Durable, Error, ErrorKind, Keeper, Origin, Positions, Reject, RejectedItem, Result,
    Source, SourceCaps,
};
use aqueduct_formats::{Inference, ReadOptions, declared_schema, output_schema};
use aqueduct_net::{Fetcher, Validator};
use aqueduct_primitives::ByteCount;
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;

use self::frozen::Frozen;
use self::input::{Found, Input, Inputs, Missing, Queued};
use self::journal::Journal;
use self::memory::{Division, need_of_file};
use self::ndjson::Disk;
use self::on_change::OnChange;
use self::open::{Opener, RowsOf};
use self::progress::{Progress, SPLIT};
use self::seen::{Ended, OnlyNew, Seen, memory_of_keys};
use self::sift::Sift;

/// So many empty files are passed over in search of one that tells the columns. More would be a list of empty
/// files, all opened before the first row.
const MAX_EMPTY_FILES: usize = 100;

/// How files are read.
#[derive(Clone)]
pub(crate) struct Settings {
    /// How each is read.
    pub(crate) options: ReadOptions,
    /// How many at once; at least one.
    pub(crate) window: usize,
    /// Whether file after file, in the order of the inputs.
    pub(crate) is_ordered: bool,
    /// Whether to add `_file` and `_row`.
    pub(crate) origin: bool,
    /// Whether no file at all is fine.
    pub(crate) allow_empty: bool,
    /// What was looked for, for the error when nothing is there.
    pub(crate) what: String,
    /// Whether some come over a network.
    pub(crate) is_remote: bool,
    /// By what files of earlier runs are known, which are not read again.
    pub(crate) incremental: Option<OnlyNew>,
    /// Of the step's share, so much is for other things than files.
    pub(crate) beside: ByteCount,
    /// What becomes of the run when one changes while it is read.
    pub(crate) on_change: OnChange,
    /// Who makes rows of a file, where that is no format that is decoded as it comes.
    pub(crate) rows_of: Option<Arc<dyn RowsOf>>,
}

/// Files, ready to be read.
pub(crate) struct FileSet {
    opener: Arc<Opener>,
    inputs: BoxStream<'static, Result<Queued>>,
    /// The columns to read.
    read: SchemaRef,
    /// The columns that come out.
    output: SchemaRef,
    is_ordered: bool,
    is_remote: bool,
    /// Those that were given up in search of the columns.
    given_up: Progress,
    /// What the run keeps on the disk; nothing, where it leaves nothing behind.
    kept: Option<Kept>,
}

/// What a run keeps of its files on the disk.
struct Kept {
    journal: Journal,
    frozen: Frozen,
    seen: Option<Seen>,
}

impl Kept {
    /// The list of the run, made of what is new if that is asked for; from now on each commit asks what is kept.
    async fn open(
        cx: &Context,
        durable: &Durable,
        opener: &Opener,
        only_new: Option<OnlyNew>,
        inputs: impl FnOnce(Option<&Seen>) -> Inputs + Send,
    ) -> Result<Self> {
        let seen = match only_new {
            Some(only_new) => Some(Seen::open(cx, durable, only_new, &opener.options).await?),
            None => None,
        };
        let inputs = inputs(seen.as_ref());
        let inputs = match &seen {
            Some(seen) => {
                let (cx, fetcher, seen) = (cx.clone(), opener.fetcher.clone(), seen.clone());
                Sift::new(cx, fetcher, opener.division, seen, opener.on_change).only_new(inputs)
            }
            None => inputs,
        };
        let frozen = Frozen::open(cx, durable, inputs).await?;
        let journal = Journal::new(Disk::of(cx), durable);
        durable.register(Arc::new(FilesKeeper { journal: journal.clone(), seen: seen.clone() }));
        Ok(Self { journal, frozen, seen })
    }
}

/// Makes durable what is known of files.
struct FilesKeeper {
    journal: Journal,
    seen: Option<Seen>,
}

#[async_trait]
impl Keeper for FilesKeeper {
    async fn keep(&self) -> Result<Option<Value>> {
        self.journal.sync().await?;
        match &self.seen {
            Some(seen) => Ok(Some(seen.keep().await?)),
            None => Ok(None),
        }
    }
}

impl FileSet {
    /// Finds the columns: declared, or those of the first file that has any.
    ///
    /// # Errors
    /// There is no input, the list of inputs fails, or the policy says that a bad file ends the run.
    ///
    /// # Cancel safety
    /// Dropping the future closes what it had opened.
    pub(crate) async fn open(
        cx: &Context,
        fetcher: Fetcher,
        settings: Settings,
        inputs: impl FnOnce(Option<&Seen>) -> Inputs + Send,
    ) -> Result<Self> {
        let Settings { options, window, is_ordered, origin, allow_empty, what, is_remote, .. } = settings;
        let (incremental, on_change) = (settings.incremental, settings.on_change);
        let keys = incremental.map_or(ByteCount::ZERO, |_| memory_of_keys(cx.share().total()));
        let others = keys.saturating_add(settings.beside);
        let need = settings.rows_of.as_ref().map_or_else(need_of_file, |rows_of| rows_of.need_of_file());
        let division = Division::by(need, cx.share().total().saturating_sub(others), window);
        check_memory(cx, division)?;
        if division.n_files < window {
            tracing::debug!(window, n_files = division.n_files, "fewer files at once, to keep to the memory");
        }
        let declared = match &settings.rows_of {
            Some(rows_of) => Some(rows_of.schema()),
            None => declared_schema(&options, options.format.named())?,
        };
        let opener = Opener::new(cx, fetcher, options, origin, division, on_change);
        let opener = Arc::new(opener.with_rows_of(settings.rows_of));
        let (kept, inputs) = match cx.durable() {
            None => (None, inputs(None)),
            Some(durable) => {
                let kept = Kept::open(cx, durable, &opener, incremental, inputs).await?;
                let inputs = kept.frozen.inputs();
                (Some(kept), inputs)
            }
        };
        let committed = Committed::default();
        let seen = kept.as_ref().and_then(|kept| kept.seen.clone());
        let mut inputs = numbered(inputs, cx, seen.as_ref(), &committed);
        let known = match (&kept, declared) {
            (_, Some(declared)) => Some(declared),
            (Some(kept), None) => kept.frozen.columns().await?,
            (None, None) => None,
        };
        let mut looked = Looked::default();
        let (read, is_found) = match known {
            Some(schema) => {
                looked.head.extend(inputs.next().await.transpose()?);
                (schema, false)
            }
            None => {
                let found = looked.for_columns(&opener, seen.as_ref(), &mut inputs).await?;
                let frozen = kept.as_ref().map(|kept| &kept.frozen);
                let found = looked.for_more(found, &opener, frozen, &mut inputs).await?;
                (columns_or_earlier(found.schema()?, &opener, &committed).await?, true)
            }
        };
        let Looked { head, given_up, .. } = looked;
        if head.is_empty() && committed.is_empty() {
            check_emptiness(cx, allow_empty, &what)?;
        }
        if let Some(kept) = kept.as_ref().filter(|_| is_found) {
            kept.frozen.keep_columns(&read).await?;
        }
        let output = output_schema(&read, &opener.options, origin);
        let inputs = stream::iter(head.into_iter().map(Ok)).chain(inputs).boxed();
        Ok(Self { opener, inputs, read, output, is_ordered, is_remote, given_up, kept })
    }
}

/// The first few files that earlier runs have committed.
#[derive(Clone, Default)]
struct Committed(Arc<Mutex<Vec<Input>>>);

impl Committed {
    fn lock(&self) -> MutexGuard<'_, Vec<Input>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Where no new file has columns, they are those of a file that was committed, if one of them still tells.
async fn columns_or_earlier(columns: SchemaRef, opener: &Opener, earlier: &Committed) -> Result<SchemaRef> {
    if !columns.fields().is_empty() {
        return Ok(columns);
    }
    let earlier = earlier.lock().clone();
    let _reserve = opener.cx.share().reserve(opener.division.per_file).await?;
    for input in &earlier {
        match opener.infer(input).await {
            Ok((columns, ..)) if !columns.fields().is_empty() => return Ok(columns),
            Ok(_) => {}
            Err(error) => tracing::debug!(file = &*input.name, error = %error.chain(), "tells no columns"),
        }
    }
    Ok(columns)
}

/// Gives each file its number, and tells what is missing. Files of earlier runs go aside.
fn numbered(
    inputs: Inputs,
    cx: &Context,
    seen: Option<&Seen>,
    committed: &Committed,
) -> BoxStream<'static, Result<Queued>> {
    let (cx, seen, committed) = (cx.clone(), seen.cloned(), committed.clone());
    Box::pin(try_stream! {
        futures::pin_mut!(inputs);
        let mut numbers = 0_u64..;
        while let Some(found) = inputs.next().await {
            match found? {
                Found::Known(input) => committed.lock().push(*input),
                Found::Gap(gap) => cx.gap(gap),
                Found::Missing(missing) => {
                    if let Some(seen) = &seen {
                        seen.make_room().await?;
                    }
                    tell(&cx, seen.as_ref(), missing);
                }
                Found::Input(input) => {
                    let number = numbers.next().unwrap_or(u64::MAX);
                    yield Queued::new(number, *input);
                }
            }
        }
    })
}

/// Says that something is missing, and remembers since when.
fn tell(cx: &Context, seen: Option<&Seen>, missing: Missing) {
    let Missing { told, is_given_up, note } = missing;
    if let (Some(seen), Some(note)) = (seen, note) {
        seen.note(note);
    }
    if is_given_up { cx.warn(told) } else { cx.gap(told) }
}

impl Source for FileSet {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.output)
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps {
            replayable: true,
            ordered: self.is_ordered,
            endless: false,
            remote: self.is_remote,
            summed_up_in: Some(SPLIT),
        }
    }

    fn run(self: Box<Self>, _cx: Context, from: Positions) -> BatchStream {
        read::run(*self, from)
    }
}

fn check_memory(cx: &Context, division: Division) -> Result<()> {
    if division.per_file <= cx.share().total() {
        return Ok(());
    }
    let message = "the step's memory is too small to read one file; raise `memory`";
    Err(Error::new(ErrorKind::Limit, "open source", message)
        .with("step", cx.step())
        .with("needed", division.per_file)
        .with("share", cx.share().total()))
}

/// Whether it is fine that no file was found.
fn check_emptiness(cx: &Context, allow_empty: bool, what: &str) -> Result<()> {
    let message = if cx.metrics().files_rejected.get() > 0 {
        "none of the files could be read; see what was rejected"
    } else if allow_empty {
        return Ok(());
    } else {
        "nothing matches; correct the names, or set `allow_empty: true` if there may be nothing"
    };
    Err(Error::new(ErrorKind::NotFound, "find files", message).with("looked_for", what))
}

/// What was opened in search of columns.
#[derive(Default)]
struct Looked {
    /// What is still to be read.
    head: Vec<Queued>,
    /// What cannot be read, which the policy was told.
    given_up: Progress,
    /// How many inputs those are together.
    n_taken: usize,
}

impl Looked {
    /// What the first file looks like that has any columns.
    async fn for_columns(
        &mut self,
        opener: &Opener,
        seen: Option<&Seen>,
        inputs: &mut BoxStream<'static, Result<Queued>>,
    ) -> Result<Inference> {
        let _reserve = opener.cx.share().reserve(opener.division.per_file).await?;
        while let Some(queued) = inputs.next().await {
            let queued = queued?;
            self.n_taken += 1;
            match opener.infer(&queued.input).await {
                Ok((columns, found, opened)) if !columns.fields().is_empty() => {
                    self.head.push(Queued { opened, ..queued });
                    return Ok(found);
                }
                Ok(_) => self.head.push(queued),
                Err(error) => {
                    let error = opener.on_change.unless_again(&queued.input, error)?;
                    opener.cx.metrics().files_total.add(1);
                    Failed::of(seen, &queued.input, error).await?.settle(
                        &opener.cx,
                        seen,
                        &queued.input,
                        (0, &Validator::default()),
                    )?;
                    self.given_up.end(queued.number);
                }
            }
            if self.head.len() >= MAX_EMPTY_FILES {
                break;
            }
        }
        Ok(Inference::default())
    }
}

/// A file that cannot be read, or not to its end, with all that must be known to say so at once.
struct Failed {
    error: Error,
    /// A list names it and it is not there: what to say of that, if that is to be said.
    gone: Option<Option<Missing>>,
}

impl Failed {
    /// Looks up what is known of it, and makes room for what will be.
    async fn of(seen: Option<&Seen>, input: &Input, error: Error) -> Result<Self> {
        let Some(seen) = seen else { return Ok(Self { error, gone: None }) };
        seen.make_room().await?;
        let gone = match seen.gaps().filter(|_| is_gap(input, &error)) {
            Some(gaps) => Some(gaps.gone(seen, input, gap(input)).await?),
            None => None,
        };
        Ok(Self { error, gone })
    }

    /// Tells the policy, of a version of which so many rows were given, and remembers what is bad as it is and need not be tried again before it is another.
    fn settle(
        self,
        cx: &Context,
        seen: Option<&Seen>,
        input: &Input,
        (n_rows, read): (u64, &Validator),
    ) -> Result<()> {
        if let Some(gone) = self.gone {
            gone.into_iter().for_each(|missing| tell(cx, seen, missing));
            return Ok(());
        }
        let is_bad = matches!(self.error.kind(), ErrorKind::Data | ErrorKind::Limit);
        give_up(cx, input, n_rows, self.error)?;
        if let Some(seen) = seen.filter(|_| is_bad) {
            seen.end(input, read, Ended::Bad);
        }
        Ok(())
    }
}

fn is_gap(input: &Input, error: &Error) -> bool {
    input.may_be_missing && error.kind() == ErrorKind::NotFound
}

fn gap(input: &Input) -> String {
    format!("{} is listed, and missing", input.name)
}

/// Hands a file that cannot be read, or not to its end, to the policy. `n_rows` of it were given.
fn give_up(cx: &Context, input: &Input, n_rows: u64, error: Error) -> Result<()> {
    if is_gap(input, &error) {
        cx.gap(gap(input));
        return Ok(());
    }
    if !error.kind().is_about_one_item() {
        return Err(error.with("file", &input.name));
    }
    cx.reject(Reject {
        item: RejectedItem::File,
        reason: reason(error.kind()),
        message: error.chain(),
        origin: Origin {
            file: input.name.to_string(),
            row: (n_rows > 0).then_some(n_rows + 1),
            ..Origin::default()
        },
        raw: Vec::new(),
    })
}

fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "missing",
        ErrorKind::Denied => "denied",
        ErrorKind::Limit => "limit",
        ErrorKind::Io => "io",
        _ => "data",
    }
}

//! Fetches pages, and saves them to disk: for as long as they are read, or, where a run reads them twice, until it is complete.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_core::{
    ByteStream, Changed, Context, Error, ErrorKind, Fs, FsFile, RandomAccess, Result, Scratch,
};
use aqueduct_formats::{
    Compression, CompressionOption, Format, FormatOption, ReadOptions, declared_schema, decode_file, stac,
};
use aqueduct_net::{ContentEncoding, Fetched, Fetcher, Location, Trust};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::AsArray;
use arrow::datatypes::Schema;
use bytes::Bytes;
use futures::StreamExt;

use super::decoding::Decoding;
use super::{Ask, Envelope, Service};
use crate::file_set::ndjson::{Disk, failed, make_folder, rename};
use crate::file_set::spool::Spool;

/// A page that becomes another while it is fetched is begun anew so often.
const MAX_FRESH_STARTS: u32 = 3;

/// How a page may be encoded as it comes.
const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Gzip, Compression::Zstd];

/// So much of a page tells whether it is one.
const MAX_HEAD_BYTES: u64 = 1024;

/// A page, on the disk.
pub(crate) struct Page {
    /// Its number within the slice, from 1.
    pub(crate) number: u64,
    pub(crate) ask: Ask,
    /// Its bytes.
    pub(crate) file: Arc<dyn RandomAccess>,
    /// How they are read.
    pub(crate) options: Arc<ReadOptions>,
    /// The BLAKE3 of its bytes, where it was fetched for the moment.
    pub(crate) digest: Option<String>,
    /// The request of the page after it.
    pub(crate) next: Option<Ask>,
}

/// Where pages come from.
pub(crate) struct Pages {
    pub(crate) cx: Context,
    pub(crate) fetcher: Fetcher,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) options: Arc<ReadOptions>,
    pub(crate) decoding: Decoding,
    /// Who named the pages after the first.
    pub(crate) trust: Trust,
    /// The server as the flow names it.
    pub(crate) home: Location,
    /// Where they stay until the run is complete, if they are to.
    pub(crate) kept: Option<KeptPages>,
}

/// The folder of pages that are read twice.
pub(crate) struct KeptPages {
    dir: PathBuf,
    disk: Disk,
    scratch: Scratch,
    space: Mutex<Reservation>,
}

impl Pages {
    /// A page of a slice.
    ///
    /// # Errors
    /// It cannot be fetched, saved, or read for what it says beside its items.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; what was saved of the page does not count.
    pub(crate) async fn get(&self, slice: u64, number: u64, ask: Ask) -> Result<Page> {
        let page = async {
            match &self.kept {
                Some(kept) => self.keep(kept, slice, number, &ask).await,
                None => self.fetch_for_now(&ask).await,
            }
        };
        let Saved { file, compression, digest } =
            page.await.map_err(|error| self.at(slice, number, error))?;
        let options = Arc::new(ReadOptions {
            compression: CompressionOption::Is(compression),
            ..(*self.options).clone()
        });
        let envelope = self.envelope(&file, &ask, compression).await;
        let envelope = envelope.map_err(|error| self.at(slice, number, error))?;
        let next =
            self.service.next(slice, &ask, &envelope).map_err(|error| self.at(slice, number, error))?;
        Ok(Page { number, ask, file, options, digest, next })
    }

    fn at(&self, slice: u64, number: u64, error: Error) -> Error {
        error.with("slice", self.service.name(slice)).with("page", number)
    }

    /// What the page says beside its items.
    async fn envelope(
        &self,
        file: &Arc<dyn RandomAccess>,
        ask: &Ask,
        compression: Compression,
    ) -> Result<Envelope> {
        let options = ReadOptions {
            format: FormatOption::Is(Format::Binary),
            compression: CompressionOption::Is(compression),
            ..ReadOptions::default()
        };
        let schema =
            declared_schema(&options, Some(Format::Binary))?.unwrap_or_else(|| Arc::new(Schema::empty()));
        let spec = self.decoding.spec(&self.cx, &ask.shown(), Arc::new(options), schema, 0);
        let mut pieces = decode_file(Arc::clone(file), spec, self.cx.tasks());
        let mut envelope = stac::Envelope::default();
        while let Some(piece) = pieces.next().await {
            let piece = piece?.records;
            let bytes = piece.column_by_name("bytes").and_then(|column| column.as_binary_opt::<i32>());
            for bytes in bytes.into_iter().flat_map(|bytes| bytes.iter()).flatten() {
                envelope.feed(bytes)?;
            }
        }
        match envelope.finish() {
            Ok(envelope) => Ok(envelope),
            Err(_) if is_markup(file).await? => {
                let message = "what came is a page of HTML or XML; expected JSON, a page of items";
                Err(Error::new(ErrorKind::Data, "read page", message).with("url", ask.shown()))
            }
            Err(error) => Err(error.with("url", ask.shown())),
        }
    }

    async fn fetch_for_now(&self, ask: &Ask) -> Result<Saved> {
        let spool = Spool::of(&self.cx);
        let mut n_starts = 1;
        loop {
            let (body, compression) = self.open(ask).await?;
            let (body, hash) = hashed(body);
            match spool.save(body, self.cx.tasks()).await {
                Ok(file) => return Ok(Saved { file, compression, digest: Some(hash.hex()) }),
                Err(error) if n_starts < MAX_FRESH_STARTS && has_changed(&error) => n_starts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn open(&self, ask: &Ask) -> Result<(ByteStream, Compression)> {
        let at = self.with_credentials(Location::parse(&ask.url, Path::new(""))?);
        let metrics = self.cx.metrics();
        let trust = self.trust.clone();
        let Fetched { meta, body } = match &ask.body {
            None => self.fetcher.get(&at, trust, metrics).await?,
            Some(question) => {
                let question = Bytes::from(question.to_string());
                self.fetcher.ask(&at, trust, question, metrics).await?
            }
        };
        let counted = Arc::clone(metrics);
        let body = body.inspect(move |chunk| {
            if let Ok(chunk) = chunk {
                counted.bytes.add_len(chunk.len());
            }
        });
        let compression = match meta.content_encoding {
            None => Compression::None,
            Some(ContentEncoding::Gzip) => Compression::Gzip,
            Some(ContentEncoding::Zstd) => Compression::Zstd,
        };
        Ok((body.boxed(), compression))
    }

    /// A URL of the flow's own server, with the user and password that the flow names in its URL. What is kept of a run has none.
    fn with_credentials(&self, at: Location) -> Location {
        let (Location::Http(mut url), Location::Http(home)) = (at.clone(), &self.home) else { return at };
        let is_home = url.origin() == home.origin() && !home.username().is_empty();
        let is_set = is_home
            && url.set_username(home.username()).and_then(|()| url.set_password(home.password())).is_ok();
        if is_set { Location::Http(url) } else { at }
    }

    /// Lets go of the first pages of a slice that are kept: they lead nowhere.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn forget(&self, slice: u64, n_pages: u64) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let pages = (1..=n_pages).flat_map(|number| COMPRESSIONS.map(|of| kept.path(slice, number, of)));
        let paths: Vec<_> = pages.collect();
        let remove = move |fs: &dyn Fs| {
            paths.iter().try_for_each(|path| fs.remove_file(path).map_err(|error| failed(path, error)))
        };
        kept.disk.block(remove).await
    }

    /// A page that stays. One that an earlier process of the run has kept is not fetched again.
    async fn keep(&self, kept: &KeptPages, slice: u64, number: u64, ask: &Ask) -> Result<Saved> {
        for compression in COMPRESSIONS {
            let path = kept.path(slice, number, compression);
            if kept.disk.block(move |fs| Ok(fs.stat(&path).is_ok_and(|there| there.is_some()))).await? {
                return self.kept(kept.path(slice, number, compression), compression).await;
            }
        }
        let mut n_starts = 1;
        loop {
            let (body, compression) = self.open(ask).await?;
            let path = kept.path(slice, number, compression);
            match kept.save(body, path.clone()).await {
                Ok(()) => return self.kept(path, compression).await,
                Err(error) if n_starts < MAX_FRESH_STARTS && has_changed(&error) => n_starts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn kept(&self, path: PathBuf, compression: Compression) -> Result<Saved> {
        let found =
            self.fetcher.random_access(&Location::Local(path), Trust::Flow, self.cx.metrics()).await?;
        Ok(Saved { file: found.file, compression, digest: None })
    }
}

impl KeptPages {
    /// A folder within what a run keeps.
    pub(crate) fn new(cx: &Context, run_dir: &Path) -> Self {
        let (disk, scratch) = (Disk::of(cx), cx.scratch().clone());
        Self { dir: run_dir.join("pages"), disk, scratch, space: Mutex::new(Reservation::empty()) }
    }

    fn path(&self, slice: u64, number: u64, compression: Compression) -> PathBuf {
        let suffix = match compression {
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
            _ => "",
        };
        self.dir.join(format!("{slice:06}-{number:06}.json{suffix}"))
    }

    /// Saves a body under a name, all of it or nothing.
    async fn save(&self, mut body: ByteStream, path: PathBuf) -> Result<()> {
        let fresh = path.with_extension("new");
        let (dir, begun) = (self.dir.clone(), fresh.clone());
        let begin = move |fs: &dyn Fs| {
            make_folder(fs, &dir)?;
            fs.remove_file(&begun)
                .and_then(|()| fs.create_private(&begun))
                .map_err(|error| failed(&begun, error))
        };
        let mut file = self.disk.block(begin).await?;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let more = self.scratch.take(ByteCount::of(chunk.len()))?;
            self.space.lock().unwrap_or_else(PoisonError::into_inner).merge(more);
            let at = fresh.clone();
            file = self.disk.block(move |_| append(file, &chunk, &at)).await?;
        }
        self.disk
            .block(move |fs| {
                file.sync().map_err(|error| failed(&fresh, error))?;
                rename(fs, &fresh, &path)
            })
            .await
    }
}

fn append(mut file: Box<dyn FsFile>, chunk: &Bytes, path: &Path) -> Result<Box<dyn FsFile>> {
    file.write_all(chunk).map_err(|error| failed(path, error))?;
    Ok(file)
}

struct Saved {
    file: Arc<dyn RandomAccess>,
    compression: Compression,
    digest: Option<String>,
}

/// The hash of what has passed.
struct Hash(Arc<Mutex<blake3::Hasher>>);

impl Hash {
    fn hex(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).finalize().to_hex().to_string()
    }
}

fn hashed(body: ByteStream) -> (ByteStream, Hash) {
    let hash = Hash(Arc::default());
    let hasher = Arc::clone(&hash.0);
    let body = body.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            hasher.lock().unwrap_or_else(PoisonError::into_inner).update(chunk);
        }
    });
    (body.boxed(), hash)
}

/// Whether a file begins as a page for people does: a login, an error of a proxy.
async fn is_markup(file: &Arc<dyn RandomAccess>) -> Result<bool> {
    let head = file.read(0..file.len().min(MAX_HEAD_BYTES)).await?;
    Ok(head.trim_ascii_start().starts_with(b"<"))
}

/// Whether a page was made anew while it was fetched: its start and its end are of different answers.
fn has_changed(error: &Error) -> bool {
    error.cause::<Changed>().is_some()
}

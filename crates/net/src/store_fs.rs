//! Durable writes to object stores, behind the seam that they go to the disk through.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_core::{
    Fs, FsEntry, FsFile, FsLock, FsRead, Objects, StdFs, Upload, Version, is_in_store, kill_point,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::multipart::PartId;
use object_store::path::Path as Key;
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStoreExt, PutMode, PutOptions, UpdateVersion,
};
use tokio::runtime::{Builder, Runtime};

use crate::store::{Store, Stores};
use crate::{HttpOptions, Location, StorageOptions};

/// A store makes its own tries within this time; past it a request is given up.
const MAX_REQUEST_TIME: Duration = Duration::from_secs(300);
/// A file is sent in pieces of this size, and of a larger one when it would be more pieces than stores take.
const PIECE_BYTES: u64 = 8 << 20;
/// S3 takes 10,000 pieces.
const MAX_PIECES: u64 = 9_000;
/// Pieces under way at once. More hold more memory, which no budget counts.
const N_SENT_AT_ONCE: usize = 2;
/// How often what may be sent again is sent.
const MAX_TRIES: usize = 3;
/// A piece that takes longer is on a connection that is dead.
const MAX_PIECE_TIME: Duration = Duration::from_secs(90);
/// Objects that a listing gives at once.
const N_LISTED: usize = 1000;

/// The file system of this machine and, by their URLs, object stores: `s3://bucket/key`, `gs://…`, `az://…`.
///
/// A file on this machine is what [`StdFs`] makes of it. In a store, an object appears when the file that is being written is
/// synced; see [`Objects`] for what more there is to do. All calls block, from any thread; those to a store are made by a thread
/// of its own, which starts with the first of them and ends with the last clone.
///
/// ```no_run
/// use std::path::Path;
///
/// use aqueduct_core::Fs;
/// use aqueduct_net::{HttpOptions, StorageOptions, StoreFs};
///
/// let fs = StoreFs::new(StorageOptions::default(), HttpOptions::default());
/// for entry in fs.list(Path::new("s3://lake/events"))? {
///     println!("{} {}", entry.path.display(), entry.n_bytes);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct StoreFs {
    inner: Arc<Inner>,
}

struct Inner {
    stores: Stores,
    /// Starts with the first request.
    runtime: Mutex<Option<Runtime>>,
}

/// An object or a prefix, and the store that has it.
#[derive(Clone)]
struct At {
    inner: Arc<Inner>,
    store: Arc<dyn Store>,
    key: Key,
}

impl StoreFs {
    /// Stores that are reached so. Opens no connection.
    pub fn new(storage: StorageOptions, http: HttpOptions) -> Self {
        Self { inner: Arc::new(Inner { stores: Stores::new(storage, http), runtime: Mutex::default() }) }
    }

    /// The object of a path, if it is in a store.
    fn at(&self, path: &Path) -> io::Result<Option<At>> {
        if !is_in_store(path) {
            return Ok(None);
        }
        let text = path.to_str().map(|text| text.trim_end_matches('/')).unwrap_or_default();
        let Location::Store { root, key } = Location::parse(text, Path::new("")).map_err(io::Error::other)?
        else {
            return Ok(None);
        };
        let store = self.inner.stores.store(&root, &key).map_err(io::Error::other)?;
        let key = Key::parse(&key).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Some(At { inner: Arc::clone(&self.inner), store, key }))
    }

    /// As [`StoreFs::at`], where only an object is of use.
    fn object(&self, path: &Path) -> io::Result<At> {
        self.at(path)?.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

impl Default for StoreFs {
    /// Stores that are reached as the environment says.
    fn default() -> Self {
        Self::new(StorageOptions::default(), HttpOptions::default())
    }
}

impl fmt::Debug for StoreFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreFs").finish_non_exhaustive()
    }
}

impl Inner {
    /// Has a request made; what comes of it is to be waited for.
    fn start<T: Send + 'static>(
        &self,
        request: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> io::Result<Receiver<io::Result<T>>> {
        let (send, receive) = sync_channel(1);
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = match &mut *runtime {
            Some(runtime) => runtime,
            none => none.insert(
                Builder::new_multi_thread().worker_threads(1).thread_name("objects").enable_all().build()?,
            ),
        };
        runtime.spawn(async move {
            let done = tokio::time::timeout(MAX_REQUEST_TIME, request).await;
            let done =
                done.map_err(|_| io::ErrorKind::TimedOut.into()).and_then(|done| done.map_err(of_store));
            // Nobody waits any more: the caller has failed.
            let _ = send.send(done);
        });
        Ok(receive)
    }
}

fn wait<T>(receive: &Receiver<io::Result<T>>) -> io::Result<T> {
    receive.recv().unwrap_or_else(|_| Err(io::Error::other("the request was dropped")))
}

impl Drop for Inner {
    fn drop(&mut self) {
        let runtime = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        // Every request was waited for, or nobody wants it: waiting here would block whoever drops this.
        runtime.into_iter().for_each(Runtime::shutdown_background);
    }
}

impl At {
    /// Makes a request and waits for it.
    fn ask<T: Send + 'static, F>(&self, request: impl FnOnce(Arc<dyn Store>, Key) -> F) -> io::Result<T>
    where
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        wait(&self.inner.start(request(Arc::clone(&self.store), self.key.clone()))?)
    }

    fn head(&self) -> io::Result<Option<ObjectMeta>> {
        match self.ask(|store, key| async move { store.head(&key).await }) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A whole object and its version; nothing, where there is none.
    fn get(&self, max_bytes: u64) -> io::Result<Option<(Bytes, Version)>> {
        let read = self.ask(move |store, key| async move {
            let found = store.get_opts(&key, GetOptions::default()).await?;
            let ObjectMeta { e_tag, version: generation, size, .. } = found.meta.clone();
            match size > max_bytes {
                true => Ok(None),
                false => Ok(Some((found.bytes().await?, Version { e_tag, generation }))),
            }
        });
        match read {
            Ok(Some(read)) => Ok(Some(read)),
            Ok(None) => Err(io::ErrorKind::FileTooLarge.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, bytes: Bytes, mode: PutMode) -> io::Result<()> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.ask(|store, key| async move { store.put_opts(&key, bytes.into(), options).await }).map(drop)
    }

    fn delete(&self) -> io::Result<()> {
        match self.ask(|store, key| async move { store.delete(&key).await }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn complete(&self, upload: &Upload) -> io::Result<()> {
        let Upload { id, pieces } = upload.clone();
        let pieces = pieces.into_iter().map(|content_id| PartId { content_id }).collect();
        self.ask(|store, key| async move { store.complete_multipart(&key, &id, pieces).await }).map(drop)
    }

    /// Every object below, so many at once.
    fn each(&self, mut give: impl FnMut(ObjectMeta) -> io::Result<()>) -> io::Result<()> {
        let mut listed = self.store.list(Some(&self.key));
        loop {
            let (rest, page) = self.ask(|_, _| async move {
                let page = (&mut listed).take(N_LISTED).try_collect::<Vec<_>>().await?;
                Ok((listed, page))
            })?;
            let is_last = page.len() < N_LISTED;
            page.into_iter().try_for_each(&mut give)?;
            if is_last {
                return Ok(());
            }
            listed = rest;
        }
    }

    /// Where an object below this prefix is, whose own path is known.
    fn path_below(&self, folder: &Path, key: &Key) -> PathBuf {
        let rest = key.as_ref().strip_prefix(self.key.as_ref()).unwrap_or(key.as_ref());
        folder.join(rest.trim_start_matches('/'))
    }

    /// Sends a file in pieces, so many at once; their names in the store.
    fn send(&self, file: &mut File, id: &str) -> io::Result<Vec<String>> {
        let n_bytes = file.metadata()?.len();
        let piece_bytes = PIECE_BYTES.max(n_bytes.div_ceil(MAX_PIECES).next_multiple_of(1 << 20));
        let (mut under_way, mut pieces) = (VecDeque::new(), Vec::new());
        let sent = self.send_pieces(file, (n_bytes, piece_bytes), id, &mut under_way, &mut pieces);
        // Whoever drops the upload now would drop it from under the pieces that are still on their way.
        under_way.iter().map(wait).for_each(drop);
        sent.map(|()| pieces)
    }

    fn send_pieces(
        &self,
        file: &mut File,
        (n_bytes, piece_bytes): (u64, u64),
        id: &str,
        under_way: &mut VecDeque<Receiver<io::Result<PartId>>>,
        pieces: &mut Vec<String>,
    ) -> io::Result<()> {
        let mut take = |under_way: &mut VecDeque<Receiver<io::Result<PartId>>>| {
            let first = under_way.pop_front().map(|piece| wait(&piece)).transpose()?;
            pieces.extend(first.map(|piece| piece.content_id));
            io::Result::Ok(())
        };
        for nth in 0..usize::try_from(n_bytes.div_ceil(piece_bytes)).unwrap_or(usize::MAX) {
            if under_way.len() == N_SENT_AT_ONCE {
                take(under_way)?;
            }
            let mut piece = Vec::with_capacity(usize::try_from(piece_bytes).unwrap_or_default());
            file.take(piece_bytes).read_to_end(&mut piece)?;
            let (store, key, id) = (Arc::clone(&self.store), self.key.clone(), id.to_owned());
            let sent = put_piece(store, key, id, nth, piece.into());
            under_way.push_back(self.inner.start(sent)?);
        }
        while !under_way.is_empty() {
            take(under_way)?;
        }
        Ok(())
    }

    /// Begins an upload. One whose reply was lost is begun again, and the store drops the other.
    fn begin_upload(&self) -> io::Result<String> {
        use io::ErrorKind::{NotFound, PermissionDenied, Unsupported};
        let begin = || self.ask(|store, key| async move { store.create_multipart(&key).await });
        for _ in 1..MAX_TRIES {
            match begin() {
                Err(error) if !matches!(error.kind(), NotFound | PermissionDenied | Unsupported) => {}
                begun => return begun,
            }
        }
        begin()
    }
}

impl Fs for StoreFs {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        match self.at(path)? {
            Some(at) => Ok(Box::new(NewObject { at, bytes: Vec::new(), n_bytes: 0, sent: None })),
            None => StdFs.create_new(path),
        }
    }

    fn create_private(&self, path: &Path) -> io::Result<Box<dyn FsFile>> {
        if is_in_store(path) { self.create_new(path) } else { StdFs.create_private(path) }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) { Ok(()) } else { StdFs.create_dir_all(path) }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) { Ok(()) } else { StdFs.sync_dir(path) }
    }

    fn rename_no_replace(&self, from: &Path, to: &Path) -> io::Result<()> {
        on_this_machine([from, to])?;
        StdFs.rename_no_replace(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        on_this_machine([from, to])?;
        StdFs.rename(from, to)
    }

    fn exchange(&self, a: &Path, b: &Path) -> io::Result<()> {
        on_this_machine([a, b])?;
        StdFs.exchange(a, b)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        on_this_machine([from, to])?;
        StdFs.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        match self.at(path)? {
            Some(at) => at.delete(),
            None => StdFs.remove_file(path),
        }
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let Some(at) = self.at(path)? else { return StdFs.remove_dir_all(path) };
        at.each(|object| At { key: object.location, ..at.clone() }.delete())
    }

    fn remove_empty_dir(&self, path: &Path) -> io::Result<()> {
        if is_in_store(path) { Ok(()) } else { StdFs.remove_empty_dir(path) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FsEntry>> {
        let Some(at) = self.at(path)? else { return StdFs.list(path) };
        let listed = at.ask(|store, key| async move { store.list_with_delimiter(Some(&key)).await })?;
        let objects = listed.objects.iter().map(|object| (&object.location, false, object.size));
        let folders = listed.common_prefixes.iter().map(|prefix| (prefix, true, 0));
        let entry = |(key, is_dir, n_bytes)| FsEntry { path: at.path_below(path, key), is_dir, n_bytes };
        let mut entries: Vec<_> = objects.chain(folders).map(entry).collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn read(&self, path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
        let Some(at) = self.at(path)? else { return StdFs.read(path, max_bytes) };
        Ok(at.get(max_bytes)?.ok_or(io::ErrorKind::NotFound)?.0.into())
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn FsRead>> {
        let Some(at) = self.at(path)? else { return StdFs.open_read(path) };
        let found = at.head()?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(OldObject { at, e_tag: found.e_tag, n_bytes: found.size }))
    }

    fn stat(&self, path: &Path) -> io::Result<Option<FsEntry>> {
        let Some(at) = self.at(path)? else { return StdFs.stat(path) };
        if let Some(found) = at.head()? {
            return Ok(Some(FsEntry { path: path.to_owned(), is_dir: false, n_bytes: found.size }));
        }
        let listed = at.ask(|store, key| async move { store.list(Some(&key)).next().await.transpose() })?;
        Ok(listed.map(|_| FsEntry { path: path.to_owned(), is_dir: true, n_bytes: 0 }))
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn FsLock>>> {
        if is_in_store(path) { Ok(Some(Box::new(NoLock))) } else { StdFs.try_lock(path) }
    }

    fn objects(&self, path: &Path) -> Option<&dyn Objects> {
        is_in_store(path).then_some(self)
    }
}

impl Objects for StoreFs {
    fn upload(&self, from: &Path, to: &Path) -> io::Result<Upload> {
        let (at, mut file) = (self.object(to)?, File::open(from)?);
        let id = at.begin_upload()?;
        kill_point("store.upload.begun");
        match at.send(&mut file, &id) {
            Ok(pieces) => {
                kill_point("store.upload.sent");
                Ok(Upload { id, pieces })
            }
            Err(error) => {
                let upload = Upload { id, pieces: Vec::new() };
                if let Err(more) = self.abort(to, &upload) {
                    tracing::debug!(path = %to.display(), error = %more, "an upload was not dropped");
                }
                Err(error)
            }
        }
    }

    fn complete(&self, to: &Path, upload: &Upload) -> io::Result<()> {
        self.object(to)?.complete(upload)
    }

    fn abort(&self, to: &Path, upload: &Upload) -> io::Result<()> {
        let id = upload.id.clone();
        match self.object(to)?.ask(|store, key| async move { store.abort_multipart(&key, &id).await }) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn read_version(&self, path: &Path, max_bytes: u64) -> io::Result<Option<(Vec<u8>, Version)>> {
        let Some((bytes, version)) = self.object(path)?.get(max_bytes)? else { return Ok(None) };
        if version == Version::default() {
            let message = "the store names no versions, without which writers cannot be kept apart";
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        Ok(Some((bytes.into(), version)))
    }

    fn put_over(&self, path: &Path, bytes: &[u8], over: Option<&Version>) -> io::Result<()> {
        let mode = match over {
            None => PutMode::Create,
            Some(Version { e_tag, generation }) => {
                PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: generation.clone() })
            }
        };
        self.object(path)?.put(Bytes::copy_from_slice(bytes), mode)
    }

    fn each_below(&self, folder: &Path, give: &mut dyn FnMut(FsEntry) -> io::Result<()>) -> io::Result<()> {
        let at = self.object(folder)?;
        at.each(|object| {
            let path = at.path_below(folder, &object.location);
            give(FsEntry { path, is_dir: false, n_bytes: object.size })
        })
    }
}

/// An object that appears when it is synced. A small one is held until then; of a larger one, pieces are sent as they come.
struct NewObject {
    at: At,
    bytes: Vec<u8>,
    /// Of all of it.
    n_bytes: u64,
    sent: Option<Upload>,
}

impl NewObject {
    fn send_piece(&mut self) -> io::Result<()> {
        let upload = match &mut self.sent {
            Some(upload) => upload,
            none => {
                let id = self.at.begin_upload()?;
                none.insert(Upload { id, pieces: Vec::new() })
            }
        };
        let (id, nth, piece) = (upload.id.clone(), upload.pieces.len(), std::mem::take(&mut self.bytes));
        let sent = self.at.ask(|store, key| put_piece(store, key, id, nth, piece.into()))?;
        upload.pieces.push(sent.content_id);
        Ok(())
    }

    fn put_small(&mut self) -> io::Result<()> {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let mut put = self.at.put(bytes.clone(), PutMode::Create);
        for _ in 1..MAX_TRIES {
            let Err(error) = put else { break };
            // A try whose reply was lost may have put these very bytes there.
            match self.at.get(bytes.len() as u64) {
                Ok(Some((there, _))) if there == bytes => return Ok(()),
                Ok(None) if error.kind() != io::ErrorKind::PermissionDenied => {}
                _ => return Err(error),
            }
            put = self.at.put(bytes.clone(), PutMode::Create);
        }
        put
    }
}

impl Write for NewObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        self.n_bytes += bytes.len() as u64;
        if self.bytes.len() as u64 >= PIECE_BYTES {
            self.send_piece()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FsFile for NewObject {
    fn sync(&mut self) -> io::Result<()> {
        if self.sent.is_none() {
            return self.put_small();
        }
        if !self.bytes.is_empty() {
            self.send_piece()?;
        }
        let Some(upload) = self.sent.take() else { return Ok(()) };
        let Err(error) = self.at.complete(&upload) else { return Ok(()) };
        // It may have appeared all the same: nobody else writes an object of this name.
        match self.at.head()? {
            Some(there) if there.size == self.n_bytes => Ok(()),
            _ => Err(error),
        }
    }
}

impl Drop for NewObject {
    fn drop(&mut self) {
        let Some(Upload { id, .. }) = self.sent.take() else { return };
        let dropped = self.at.ask(|store, key| async move { store.abort_multipart(&key, &id).await });
        if let Err(error) = dropped {
            tracing::debug!(key = %self.at.key, %error, "an upload was not dropped");
        }
    }
}

/// An object that is read in parts, in the version that was there when it was opened.
struct OldObject {
    at: At,
    e_tag: Option<String>,
    n_bytes: u64,
}

impl FsRead for OldObject {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let range = offset..offset.saturating_add(buffer.len() as u64);
        if range.end > self.n_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if range.is_empty() {
            return Ok(());
        }
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: self.e_tag.clone(),
            ..GetOptions::default()
        };
        let bytes =
            self.at.ask(|store, key| async move { store.get_opts(&key, options).await?.bytes().await })?;
        match bytes.len() == buffer.len() {
            true => buffer.copy_from_slice(&bytes),
            false => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }
}

/// What a store gives for a lock: who writes second finds what it read changed.
#[derive(Debug)]
struct NoLock;

impl FsLock for NoLock {
    fn set_content(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Sends one piece, again where a connection says nothing more.
async fn put_piece(
    store: Arc<dyn Store>,
    key: Key,
    id: String,
    nth: usize,
    piece: Bytes,
) -> object_store::Result<PartId> {
    for _ in 1..MAX_TRIES {
        let sent = store.put_part(&key, &id, nth, piece.clone().into());
        if let Ok(sent) = tokio::time::timeout(MAX_PIECE_TIME, sent).await {
            return sent;
        }
    }
    store.put_part(&key, &id, nth, piece.into()).await
}

fn on_this_machine(paths: [&Path; 2]) -> io::Result<()> {
    if paths.iter().any(|path| is_in_store(path)) { Err(io::ErrorKind::Unsupported.into()) } else { Ok(()) }
}

fn of_store(error: StoreError) -> io::Error {
    let kind = match &error {
        StoreError::NotFound { .. } => io::ErrorKind::NotFound,
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => io::ErrorKind::AlreadyExists,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => io::ErrorKind::Unsupported,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

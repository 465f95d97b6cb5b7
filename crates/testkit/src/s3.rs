//! A server that speaks S3, over a folder, and loses replies or refuses requests when it is told to.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_core::{Fs, StdFs};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpResponse};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// The bucket that is there.
pub const BUCKET: &str = "lake";
/// The credentials that the server takes.
pub const ACCESS_KEY_ID: &str = "a-test";
/// The secret that belongs to [`ACCESS_KEY_ID`].
pub const SECRET_ACCESS_KEY: &str = "not-a-secret";

/// Nothing that a test looks at is larger.
const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is carried out, and the connection is closed before the reply.
    ReplyLost,
    /// It is answered with this status, and not carried out.
    Refused(u16),
    /// It is not carried out, and not answered either, unless it is [released](S3Server::release).
    HeldBefore,
    /// It is carried out, and not answered unless it is released.
    HeldAfter,
}

/// A server that speaks S3 on a port of this machine, with its own threads; it ends when dropped, and its objects with it.
///
/// Requests are told as `PUT lake/out/part.parquet` or `POST lake/out/part.parquet?uploadId=…`.
pub struct S3Server {
    at: SocketAddr,
    root: TempDir,
    script: Arc<Script>,
    /// Taken when dropped.
    runtime: Option<Runtime>,
}

#[derive(Default)]
struct Script {
    seen: Mutex<Vec<String>>,
    wrong: Mutex<Vec<Planned>>,
    n_held: Mutex<usize>,
    is_held: Condvar,
    is_released: Notify,
}

/// What goes wrong with the next requests that look so.
struct Planned {
    method: String,
    part: String,
    /// So many go well before.
    n_passing: usize,
    n_times: usize,
    wrong: Wrong,
}

impl S3Server {
    /// Starts one with an empty bucket.
    ///
    /// # Errors
    /// There is no port, or no room for its folder.
    pub fn start() -> io::Result<Self> {
        let root = tempfile::tempdir()?;
        fs::create_dir(root.path().join(BUCKET))?;
        let files = FileSystem::new(root.path()).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY_ID, SECRET_ACCESS_KEY));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let at = listener.local_addr()?;
        let script = Arc::<Script>::default();
        runtime.spawn(serve(listener, service.build(), Arc::clone(&script), root.path().to_owned()));
        Ok(Self { at, root, script, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.at)
    }

    /// What a flow file says under `storage:` to reach it.
    pub fn storage(&self) -> serde_json::Value {
        serde_json::json!({ format!("s3://{BUCKET}"): {
            "endpoint": self.endpoint(),
            "region": "us-east-1",
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET_ACCESS_KEY,
            "path_style": true,
            "allow_http": true,
        } })
    }

    /// The next requests of a method whose path or query has this in it go wrong, so many times.
    pub fn plan(&self, method: &str, part: &str, n_times: usize, wrong: Wrong) {
        let planned = Planned { method: method.into(), part: part.into(), n_passing: 0, n_times, wrong };
        lock(&self.script.wrong).push(planned);
    }

    /// [`S3Server::plan`] for one request, behind so many others that look so.
    pub fn plan_nth(&self, method: &str, part: &str, n_passing: usize, wrong: Wrong) {
        let planned = Planned { method: method.into(), part: part.into(), n_passing, n_times: 1, wrong };
        lock(&self.script.wrong).push(planned);
    }

    /// Waits until a request is held; whether one was before this is over.
    pub fn holds_within(&self, at_most: Duration) -> bool {
        let n_held = lock(&self.script.n_held);
        let waited = self.script.is_held.wait_timeout_while(n_held, at_most, |n_held| *n_held == 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 > 0
    }

    /// Goes on with the requests that are held.
    pub fn release(&self) {
        self.script.is_released.notify_waiters();
    }

    /// Nothing goes wrong any more; what is held stays so.
    pub fn forget_plans(&self) {
        lock(&self.script.wrong).clear();
        *lock(&self.script.n_held) = 0;
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<String> {
        lock(&self.script.seen).clone()
    }

    /// The keys of the bucket that begin so, with the objects' bytes.
    pub fn objects(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        collect(&self.root.path().join(BUCKET), "", &mut found);
        found.retain(|(key, _)| key.starts_with(prefix));
        found.sort();
        found
            .into_iter()
            .map(|(key, path)| (key, StdFs.read(&path, MAX_OBJECT_BYTES).unwrap_or_default()))
            .collect()
    }

    /// Drops all uploads that were not completed, as a rule of the bucket does.
    pub fn expire_uploads(&self) {
        for entry in fs::read_dir(self.root.path()).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".upload") {
                let removed = fs::remove_file(entry.path());
                assert!(removed.is_ok(), "{removed:?}");
            }
        }
    }

    /// Somebody else puts an object there.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.root.path().join(BUCKET).join(key);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = made.and_then(|()| fs::write(path, bytes));
        assert!(written.is_ok(), "{key}: {written:?}");
    }

    /// Uploads that were begun and neither completed nor aborted.
    pub fn n_uploads(&self) -> usize {
        let entries = fs::read_dir(self.root.path()).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".upload-")).count()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // A test may drop it where nothing may wait.
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), &format!("{name}/"), found),
            _ => found.push((name, entry.path())),
        }
    }
}

async fn serve(listener: TcpListener, service: S3Service, script: Arc<Script>, root: PathBuf) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (service, script, root) = (service.clone(), Arc::clone(&script), root.clone());
        connections.spawn(async move {
            let answer = service_fn(|request| answer(&service, &script, &root, request));
            let connection = hyper::server::conn::http1::Builder::new();
            // A client that goes away, and a reply that is to be lost, end it.
            let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    service: &S3Service,
    script: &Script,
    root: &Path,
    request: Request<Incoming>,
) -> io::Result<HttpResponse> {
    let wrong = script.wrong_with(&request).or_else(|| no_such_upload(&request, root));
    match wrong {
        None => {
            let is_head = request.method() == Method::HEAD;
            let mut answer = service.call(request.map(Body::from)).await.map_err(broken)?;
            // Behind a prefix there is a folder, which the server cannot tell of; in S3 there is nothing.
            if is_head && answer.status() == StatusCode::INTERNAL_SERVER_ERROR {
                *answer.status_mut() = StatusCode::NOT_FOUND;
            }
            Ok(answer)
        }
        Some(Wrong::ReplyLost) => {
            service.call(request.map(Body::from)).await.map_err(broken)?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        Some(Wrong::HeldBefore) => {
            script.hold().await;
            service.call(request.map(Body::from)).await.map_err(broken)
        }
        Some(Wrong::HeldAfter) => {
            let answer = service.call(request.map(Body::from)).await.map_err(broken)?;
            script.hold().await;
            Ok(answer)
        }
        Some(Wrong::Refused(status)) => {
            let mut refused = Response::new(Body::empty());
            *refused.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
            Ok(refused)
        }
    }
}

/// S3 answers so when an upload was completed, aborted or never begun; this server says that access is denied.
fn no_such_upload(request: &Request<Incoming>, root: &Path) -> Option<Wrong> {
    let (_, id) = request.uri().query()?.split_once("uploadId=")?;
    let id = id.split('&').next().unwrap_or(id);
    let is_gone = !root.join(format!(".upload-{id}.json")).exists();
    is_gone.then_some(Wrong::Refused(404))
}

fn broken(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

impl Script {
    /// Says that a request is held, and waits until it may go on.
    async fn hold(&self) {
        let released = self.is_released.notified();
        *lock(&self.n_held) += 1;
        self.is_held.notify_all();
        released.await;
    }

    /// Writes a request down; what goes wrong with it.
    fn wrong_with(&self, request: &Request<Incoming>) -> Option<Wrong> {
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let text = format!("{} {}", request.method(), target.trim_start_matches('/'));
        let mut wrong = lock(&self.wrong);
        let is_meant = |planned: &&mut Planned| {
            planned.n_times > 0 && request.method() == planned.method.as_str() && text.contains(&planned.part)
        };
        let found = wrong.iter_mut().find(is_meant).and_then(|planned| {
            if planned.n_passing > 0 {
                planned.n_passing -= 1;
                return None;
            }
            planned.n_times -= 1;
            Some(planned.wrong)
        });
        lock(&self.seen).push(text);
        found
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

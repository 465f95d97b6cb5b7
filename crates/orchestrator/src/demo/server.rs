//! A small HTTP server on the loopback address, for the demonstration only.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aqueduct_core::{Error, Result};
use aqueduct_primitives::{Task, Tasks};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::data;

/// Connections at once. The window asks for fewer; more would be somebody else.
const MAX_CONNECTIONS: usize = 64;
/// Every so many files, one is slow.
const SLOW_EVERY: u32 = 11;
/// How slow.
const SLOW_BY: Duration = Duration::from_millis(120);
/// Every so many files, the first request for one fails.
const FAILS_ONCE_EVERY: u32 = 17;

/// A server with so many files and their list; it ends when dropped.
pub(crate) struct DemoServer {
    address: SocketAddr,
    _accept: Task<()>,
}

struct Files {
    n_files: u32,
    failed_once: Mutex<HashSet<u32>>,
}

impl DemoServer {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// No port can be had.
    pub(crate) async fn start(n_files: u32, tasks: &Tasks) -> Result<Self> {
        let failed = |error| Error::io("start demo server", "127.0.0.1:0", error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let files = Arc::new(Files { n_files, failed_once: Mutex::default() });
        let accept = tasks.spawn(accept(listener, files, tasks.clone()));
        Ok(Self { address, _accept: accept })
    }

    /// What stands before `/masterfilelist.txt`.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/gdeltv2", self.address)
    }
}

async fn accept(listener: TcpListener, files: Arc<Files>, tasks: Tasks) {
    let mut connections: Vec<Task<()>> = Vec::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() < MAX_CONNECTIONS {
            connections.push(tasks.spawn(serve(stream, Arc::clone(&files), tasks.clone())));
        }
    }
}

async fn serve(stream: TcpStream, files: Arc<Files>, tasks: Tasks) {
    let service = service_fn(move |request| {
        let (files, tasks) = (Arc::clone(&files), tasks.clone());
        async move { Ok::<_, Infallible>(answer(&request, files, &tasks).await) }
    });
    // A client that goes away in the middle is its own affair.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: &Request<Incoming>, files: Arc<Files>, tasks: &Tasks) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let name = request.uri().path().rsplit('/').next().unwrap_or("");
    let base = format!(
        "http://{}/gdeltv2",
        request.headers().get("host").and_then(|host| host.to_str().ok()).unwrap_or("localhost")
    );
    if name == "masterfilelist.txt" {
        let n_files = files.n_files;
        return body(tasks.compute(move || master_list(n_files, &base)).await.ok().flatten());
    }
    let Some(n) = (0..files.n_files).find(|n| data::file_name(*n) == name) else {
        return status(StatusCode::NOT_FOUND);
    };
    if n % FAILS_ONCE_EVERY == 1 && files.failed_once.lock().unwrap_or_else(PoisonError::into_inner).insert(n)
    {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    if n % SLOW_EVERY == 3 {
        tokio::time::sleep(SLOW_BY).await;
    }
    body(tasks.compute(move || data::file(n).ok().map(|file| file.bytes)).await.ok().flatten())
}

/// `size md5 url` of each file, a line each, as the real list has it.
fn master_list(n_files: u32, base: &str) -> Option<Vec<u8>> {
    let mut text = String::new();
    for n in 0..n_files {
        let file = data::file(n).ok()?;
        text.push_str(&format!("{} {} {base}/{}\n", file.bytes.len(), file.md5, file.name));
    }
    Some(text.into_bytes())
}

fn body(bytes: Option<Vec<u8>>) -> Response<Full<Bytes>> {
    match bytes {
        Some(bytes) => Response::new(Full::new(bytes.into())),
        None => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = code;
    response
}

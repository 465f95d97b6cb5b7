//! Requests that are no streams: handed to `hyper` with what was read of them, one a connection.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::ServerLimits;
use super::mounts::Pages;
use super::refusal::Refusal;
use super::socket::Socket;

/// Answers one request whose head is among the bytes that were read, and closes. The caller bounds the time.
pub(super) async fn answer(
    socket: Socket,
    read: Vec<u8>,
    _peer: Option<IpAddr>,
    pages: Arc<dyn Pages>,
    limits: &ServerLimits,
) {
    let max_body_bytes = limits.max_body_bytes;
    let service = service_fn(|request: Request<Incoming>| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(one(request, &*pages, max_body_bytes).await.map(Full::new)) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(limits.max_head_bytes.max(8 << 10))
        .serve_connection(TokioIo::new(Rewound { read, n_given: 0, socket }), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request broke off");
    }
}

async fn one(request: Request<Incoming>, pages: &dyn Pages, max_body_bytes: usize) -> Response<Bytes> {
    let (head, body) = request.into_parts();
    let mut response = match Limited::new(body, max_body_bytes).collect().await {
        Ok(body) => pages.answer(Request::from_parts(head, body.to_bytes())).await,
        Err(_) => {
            let text = format!("the body is more than {max_body_bytes} bytes, or broke off");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
    };
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A socket whose first bytes were read already.
struct Rewound {
    read: Vec<u8>,
    n_given: usize,
    socket: Socket,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.n_given < this.read.len() {
            let n = into.remaining().min(this.read.len() - this.n_given);
            into.put_slice(&this.read[this.n_given..this.n_given + n]);
            this.n_given += n;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.socket).poll_read(cx, into)
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

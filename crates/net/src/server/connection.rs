//! One connection, from its first byte to its last: a head, and then a stream or a page.

use std::net::IpAddr;
use std::sync::Arc;

use aqueduct_primitives::{ByteCount, Reservation};
use http::{Method, StatusCode, header};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::accept::{Admission, Shared};
use super::guard;
use super::head::{self, NoHead, RequestHead};
use super::live;
use super::mounts::{Pages, Route};
use super::page;
use super::refusal::Refusal;
use super::socket::Socket;
use super::subscriber::Subscriber;

/// The page that is there whatever else is.
const HEALTH: &str = "/healthz";

/// When who found no place should come again.
const RETRY_AFTER_SECONDS: u64 = 60;

/// When who found no memory for a request's body should come again.
const BODY_SOON_SECONDS: u64 = 1;

/// When who came too early should come again.
const STARTED_SOON_SECONDS: u64 = 1;

/// What a request gets.
enum Answer {
    Stream(Subscriber),
    /// With what was read of the request, and the memory for its body.
    Page(Arc<dyn Pages>, Vec<u8>, Reservation),
    Refused(Refusal),
}

/// Serves a connection until it ends.
pub(super) async fn serve(
    socket: Socket,
    peer: Option<IpAddr>,
    shared: Arc<Shared>,
    mut admission: Admission,
) {
    // Each part lies on the heap by itself: a stream that lasts for days holds nothing of what came before it.
    let answer = match Box::pin(decide(&socket, peer, &shared, &mut admission)).await {
        Some(answer) => answer,
        None => return,
    };
    match answer {
        Answer::Stream(subscriber) => {
            admission.is_stream();
            shared.wake_clients_of(&subscriber.stream);
            Box::pin(live::send(&socket, subscriber, &shared.limits)).await;
        }
        Answer::Page(pages, read, _memory) => {
            let answered = page::answer(socket, read, peer, pages, &shared.limits);
            let _ = timeout(shared.limits.page_timeout, Box::pin(answered)).await;
        }
        Answer::Refused(refusal) => {
            admission.was_refused();
            Box::pin(say(socket, &refusal, &shared)).await;
        }
    }
}

/// Reads the head and finds who answers; nothing, if nobody is to be answered.
async fn decide(
    socket: &Socket,
    peer: Option<IpAddr>,
    shared: &Shared,
    admission: &mut Admission,
) -> Option<Answer> {
    let given_up = admission.given_up();
    let read = tokio::select! {
        biased;
        () = given_up.cancelled() => {
            shared.counts.timed_out();
            return None;
        }
        read = timeout(shared.limits.head_timeout, head::read(socket, peer, &shared.limits)) => read,
    };
    if !admission.has_asked() {
        return None;
    }
    let read = match read {
        Ok(Ok(read)) => read,
        Ok(Err(NoHead::Refused(refusal))) => return Some(Answer::Refused(refusal)),
        Ok(Err(NoHead::Gone)) => return None,
        Err(_) => {
            shared.counts.timed_out();
            return Some(Answer::Refused(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "the request did not come in time",
            )));
        }
    };
    Some(route(&read.head, read.bytes, shared, admission).await.unwrap_or_else(Answer::Refused))
}

async fn route(
    head: &RequestHead,
    read: Vec<u8>,
    shared: &Shared,
    admission: &Admission,
) -> Result<Answer, Refusal> {
    if !shared.is_unix {
        guard::check_host(head, &shared.limits.hosts)?;
    }
    if head.path == HEALTH && matches!(head.method, Method::GET | Method::HEAD) {
        return match shared.mounts.is_starting() {
            true => Err(Refusal::busy("starting", STARTED_SOON_SECONDS)),
            false => page(Arc::clone(&shared.health), head, read, shared),
        };
    }
    if admission.is_for_health() {
        return Err(Refusal::busy("Too many connections", RETRY_AFTER_SECONDS));
    }
    let found = timeout(shared.limits.page_timeout, shared.mounts.find_when_started(&head.path)).await;
    match found.ok().flatten().ok_or_else(Refusal::not_found)? {
        Route::Streams(streams) => streams.subscribe(head).map(Answer::Stream),
        Route::Pages(pages) => {
            guard::check_site(head, &[])?;
            guard::check_token(head, shared.mounts.token().as_ref())?;
            page(pages, head, read, shared)
        }
    }
}

/// A page, where it may be asked and there is memory for what the request brings.
fn page(
    pages: Arc<dyn Pages>,
    head: &RequestHead,
    read: Vec<u8>,
    shared: &Shared,
) -> Result<Answer, Refusal> {
    pages.admit(head)?;
    let n_bytes = guard::body_bytes(head, shared.limits.max_body_bytes)?;
    let memory = shared.budget.try_reserve(ByteCount::of(n_bytes));
    let memory = memory.map_err(|_| Refusal::busy("no memory for the request's body", BODY_SOON_SECONDS))?;
    Ok(Answer::Page(pages, read, memory))
}

/// Says no. What the peer has still to say is read away for a moment: a socket that is closed with bytes unread takes its
/// answer back.
async fn say(mut socket: Socket, refusal: &Refusal, shared: &Shared) {
    let said = async {
        socket.write_all(&refusal.to_bytes()).await?;
        socket.shutdown().await?;
        let mut junk = [0; 1024];
        for _ in 0..MAX_JUNK_READS {
            socket.readable().await?;
            match socket.try_read(&mut junk) {
                Ok(0) => break,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
        Ok::<_, std::io::Error>(())
    };
    let _ = timeout(LAST_WORDS.min(shared.limits.page_timeout), said).await;
}

/// What is read away of a peer that was refused.
const MAX_JUNK_READS: usize = 64;
/// How long it is listened to.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(1);

/// `/healthz`.
pub(super) struct Health;

#[async_trait::async_trait]
impl Pages for Health {
    async fn answer(&self, _: http::Request<bytes::Bytes>) -> http::Response<bytes::Bytes> {
        let mut response = http::Response::new(bytes::Bytes::from_static(b"ok\n"));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

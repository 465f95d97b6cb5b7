//! A body whose beginning is looked at, and then read again from its start without asking for it again.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use aqueduct_core::{ByteStream, Result};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

/// A body and what was seen of it.
pub(crate) struct Peek {
    /// `None` once the body is read again: a task that still looks, because it has not yet noticed that it was
    /// stopped, sees the end.
    state: Arc<Mutex<Option<State>>>,
}

struct State {
    body: ByteStream,
    /// `None` once it would have been more than `max_bytes`.
    seen: Option<Vec<Bytes>>,
    n_bytes: u64,
    max_bytes: u64,
    has_failed: bool,
}

impl Peek {
    /// A body of which at most so many bytes are kept for the second reading.
    pub(crate) fn new(body: ByteStream, max_bytes: u64) -> Self {
        let state = State { body, seen: Some(Vec::new()), n_bytes: 0, max_bytes, has_failed: false };
        Self { state: Arc::new(Mutex::new(Some(state))) }
    }

    /// The body, to be looked at from where it stands.
    pub(crate) fn look(&self) -> ByteStream {
        Box::pin(Look(Arc::clone(&self.state)))
    }

    /// The whole body from its start. `None` when more was looked at than is kept, or it failed: then it must
    /// be opened again.
    pub(crate) fn again(self) -> Option<ByteStream> {
        let state = lock(&self.state).take()?;
        if state.has_failed {
            return None;
        }
        Some(Box::pin(stream::iter(state.seen?.into_iter().map(Ok)).chain(state.body)))
    }
}

struct Look(Arc<Mutex<Option<State>>>);

impl Stream for Look {
    type Item = Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = lock(&self.0);
        let Some(state) = state.as_mut() else { return Poll::Ready(None) };
        let item = std::task::ready!(state.body.poll_next_unpin(cx));
        match &item {
            Some(Ok(chunk)) => state.keep(chunk),
            Some(Err(_)) => state.has_failed = true,
            None => {}
        }
        Poll::Ready(item)
    }
}

impl State {
    fn keep(&mut self, chunk: &Bytes) {
        self.n_bytes += chunk.len() as u64;
        if self.n_bytes > self.max_bytes {
            self.seen = None;
        } else if let Some(seen) = &mut self.seen {
            seen.push(chunk.clone());
        }
    }
}

fn lock(state: &Mutex<Option<State>>) -> MutexGuard<'_, Option<State>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;

    fn peek(max_bytes: u64) -> Peek {
        let body = stream::iter(["ab", "cd", "ef"].map(|chunk| Ok(Bytes::from(chunk))));
        Peek::new(Box::pin(body), max_bytes)
    }

    async fn rest(body: ByteStream) -> Vec<u8> {
        body.try_collect::<Vec<_>>().await.unwrap().concat()
    }

    #[tokio::test]
    async fn what_was_seen_comes_again_and_then_the_rest() {
        let peek = peek(4);
        assert_eq!(rest(Box::pin(peek.look().take(2))).await, b"abcd");
        assert_eq!(rest(peek.again().unwrap()).await, b"abcdef");
    }

    #[tokio::test]
    async fn too_much_to_keep_is_opened_again() {
        let peek = peek(3);
        assert_eq!(rest(Box::pin(peek.look().take(2))).await, b"abcd");
        assert!(peek.again().is_none());
    }

    #[tokio::test]
    async fn who_still_looks_takes_nothing_away() {
        let peek = peek(10);
        let mut look = peek.look();
        assert_eq!(look.try_next().await.unwrap().unwrap(), "ab");
        let again = peek.again().unwrap();
        assert!(look.next().await.is_none());
        assert_eq!(rest(again).await, b"abcdef");
    }
}

//! A bounded queue between tasks: whoever fills it waits, closing it is a signal.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The items that a buffer holds unless told otherwise. More of them only move memory from who waits to the
/// buffer; with one or two, both sides take turns instead of working at once.
pub const DEFAULT_BUFFER_ITEMS: usize = 1000;

/// A queue of at most `capacity` items (at least one), first in, first out.
///
/// The bound counts items. Where items are large or uneven, reserve their bytes first and send
/// [`Charged`](crate::Charged) values.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use aqueduct_primitives::buffer;
/// use futures::StreamExt;
/// let (sender, receiver) = buffer(2);
/// sender.send(Some(1)).await?;
/// sender.send(None).await?; // an item like any other
/// sender.close();
/// assert_eq!(receiver.collect::<Vec<_>>().await, [Some(1), None]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn buffer<T>(capacity: usize) -> (BufferSender<T>, BufferReceiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity.max(1));
    let closed = CancellationToken::new();
    let closing = Box::pin(closed.clone().cancelled_owned());
    (BufferSender { sender, closed }, BufferReceiver { receiver, closing, is_closed: false })
}

/// Puts items into a [`buffer`]. Clones put into the same one, each waiting its turn.
pub struct BufferSender<T> {
    sender: mpsc::Sender<T>,
    closed: CancellationToken,
}

/// The buffer is closed; here is the item back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the buffer is closed")]
pub struct BufferClosed<T>(pub T);

/// An item was not taken at once; here it is back.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrySendError<T> {
    /// There is no room now.
    #[error("the buffer is full")]
    Full(T),
    /// There never will be.
    #[error("the buffer is closed")]
    Closed(T),
}

impl<T> BufferSender<T> {
    /// Puts an item in, waiting for room in turn.
    ///
    /// # Errors
    /// The buffer is closed, or its receiver dropped.
    ///
    /// # Cancel safety
    /// When the future is dropped before it is done, the item is not in the buffer.
    pub async fn send(&self, item: T) -> Result<(), BufferClosed<T>> {
        let room = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(BufferClosed(item)),
            room = self.sender.reserve() => room,
        };
        match room {
            Ok(room) => {
                room.send(item);
                Ok(())
            }
            Err(_) => Err(BufferClosed(item)),
        }
    }

    /// Puts an item in if there is room now.
    ///
    /// # Errors
    /// There is none, or the buffer is closed.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        if self.closed.is_cancelled() {
            return Err(TrySendError::Closed(item));
        }
        self.sender.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(item) => TrySendError::Full(item),
            mpsc::error::TrySendError::Closed(item) => TrySendError::Closed(item),
        })
    }

    /// No more items, of this sender or any clone: what is in the buffer is still received, then it ends.
    /// Dropping every sender does the same.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// Whether nobody will receive what is sent now.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.sender.is_closed()
    }
}

impl<T> Clone for BufferSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), closed: self.closed.clone() }
    }
}

/// Takes items out of a [`buffer`], as a stream: it ends once the buffer is closed and empty. Dropping it
/// closes the buffer and drops what is in it.
pub struct BufferReceiver<T> {
    receiver: mpsc::Receiver<T>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    is_closed: bool,
}

impl<T> BufferReceiver<T> {
    /// How many items wait in it.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether no item waits in it.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl<T> Stream for BufferReceiver<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if !self.is_closed && self.closing.as_mut().poll(cx).is_ready() {
            self.is_closed = true;
            self.receiver.close();
        }
        self.receiver.poll_recv(cx)
    }
}

impl<T> fmt::Debug for BufferSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capacity = self.sender.max_capacity();
        f.debug_struct("BufferSender")
            .field("n_items", &(capacity - self.sender.capacity()))
            .field("capacity", &capacity)
            .finish()
    }
}

impl<T> fmt::Debug for BufferReceiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferReceiver")
            .field("n_items", &self.len())
            .field("capacity", &self.receiver.max_capacity())
            .finish()
    }
}

impl<T> fmt::Debug for BufferClosed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BufferClosed(..)")
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
        })
    }
}

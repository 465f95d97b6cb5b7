//! Many streams run at once and come out as one.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::stream::{BoxStream, FuturesUnordered};
use futures::{Stream, StreamExt};

use crate::{BufferReceiver, BufferSender, Task, TaskError, Tasks, buffer};

/// Runs every stream in a task of its own and gives all their items as they come, through one buffer of at
/// most `capacity` items. The items of one stream keep their order; each stream waits its turn for room.
///
/// It ends when all streams have ended and the buffer is empty. Items are passed on as they are, error items
/// too: one stream's error ends neither it nor the others. Nothing starts before the first poll.
///
/// # Errors
/// A stream that panics is an error item; the others go on.
///
/// # Cancel safety
/// Dropping it aborts the tasks, and with them the streams; [`Tasks::join`] waits until they are gone.
pub fn merge<I>(streams: I, capacity: usize, tasks: &Tasks) -> Merged<<I::Item as Stream>::Item>
where
    I: IntoIterator,
    I::Item: Stream<Item: Send + 'static> + Send + 'static,
{
    let (sender, receiver) = buffer(capacity);
    let waiting = streams.into_iter().map(StreamExt::boxed).collect();
    Merged {
        start: Some((waiting, sender)),
        tasks: tasks.clone(),
        running: FuturesUnordered::new(),
        receiver,
    }
}

/// The items of a [`merge`].
#[must_use = "nothing runs until it is polled"]
pub struct Merged<T> {
    /// Until the first poll.
    start: Option<(Vec<BoxStream<'static, T>>, BufferSender<T>)>,
    tasks: Tasks,
    running: FuturesUnordered<Task<()>>,
    receiver: BufferReceiver<T>,
}

impl<T: Send + 'static> Stream for Merged<T> {
    type Item = Result<T, TaskError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some((streams, sender)) = self.start.take() {
            for stream in streams {
                let task = self.tasks.spawn(forward(stream, sender.clone()));
                self.running.push(task);
            }
        }
        while let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(cx) {
            if let Err(error) = ended {
                return Poll::Ready(Some(Err(error)));
            }
        }
        match ready!(self.receiver.poll_next_unpin(cx)) {
            Some(item) => Poll::Ready(Some(Ok(item))),
            None if self.running.is_empty() => Poll::Ready(None),
            // A stream lets go of the buffer just before its task ends, and a panic is known only then.
            None => Poll::Pending,
        }
    }
}

async fn forward<T: Send>(mut stream: BoxStream<'static, T>, sender: BufferSender<T>) {
    while let Some(item) = stream.next().await {
        if sender.send(item).await.is_err() {
            return;
        }
    }
}

impl<T> fmt::Debug for Merged<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Merged")
            .field("n_running", &self.running.len())
            .field("n_buffered", &self.receiver.len())
            .finish()
    }
}

//! A look at each item on its way.

use futures::{Stream, StreamExt};

/// Calls `look` on each item and passes it on unchanged.
pub fn tap<S, F>(stream: S, look: F) -> impl Stream<Item = S::Item> + Send
where
    S: Stream + Send,
    F: FnMut(&S::Item) + Send,
{
    stream.inspect(look)
}

//! A stream of events for whoever connects, in a fixed amount of memory, however many they are and however slowly they read.

use std::error::Error;

use aqueduct_net::server::{Event, EventStream, EventStreamOptions, Listen, Server, ServerLimits};
use aqueduct_primitives::{Budget, ByteCount};
use futures::{Stream, StreamExt};

/// What connections take whose request is not answered yet.
const CONNECTIONS: ByteCount = ByteCount::mib(8);

/// Serves texts as events `tick` at `/streams/ticks`, until there are no more: clients are then told the end. `is_open` is
/// told the address when clients may come.
///
/// # Errors
/// The address cannot be had, or `memory` is too little for so many clients.
pub async fn serve(
    texts: impl Stream<Item = String>,
    address: &str,
    max_clients: usize,
    memory: ByteCount,
    is_open: impl FnOnce(&str),
) -> Result<u64, Box<dyn Error>> {
    let memory = Budget::new("server", memory);
    let listen: Listen = address.parse()?;
    let server = Server::bind(&listen, ServerLimits::default(), memory.carve("connections", CONNECTIONS)?)?;
    let options = EventStreamOptions { max_clients, ..EventStreamOptions::default() };
    let stream = EventStream::new("ticks", options, memory.clone())?;
    let mounted = stream.mount(&server.mounts(), "/streams/ticks")?;
    is_open(server.address());

    let mut texts = std::pin::pin!(texts);
    let mut n_sent = 0;
    while let Some(text) = texts.next().await {
        n_sent = stream.send(Event { name: "tick", data: text.as_bytes() }).await?;
    }
    stream.end();
    server.close().await;
    drop(mounted);
    Ok(n_sent)
}

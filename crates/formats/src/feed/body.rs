//! The bytes of a document as they are meant, whatever they were packed in on the way.

use std::sync::Arc;

use aqueduct_core::ByteStream;
use aqueduct_primitives::Tasks;
use async_stream::try_stream;

use crate::unpack::Unpacker;
use crate::{Compression, DecodedLimits};

/// What one piece has at most.
const MAX_PIECE_BYTES: usize = 64 << 10;

/// The bytes of a document, unpacked as they come, within the usual limits. How they are packed is told by `compression`, the
/// name, or their first bytes.
///
/// # Errors
/// In the stream: the body's own; they are damaged, or unpack to more than they may.
pub fn document_bytes(
    body: ByteStream,
    name: Arc<str>,
    compression: Option<Compression>,
    tasks: &Tasks,
) -> ByteStream {
    let tasks = tasks.clone();
    Box::pin(try_stream! {
        let mut bytes = Unpacker::of_stream(body, &name, compression, DecodedLimits::default(), &tasks).await?;
        if bytes.next_member().await? {
            while let Some(piece) = bytes.next_bytes(MAX_PIECE_BYTES).await? {
                yield piece;
            }
        }
    })
}

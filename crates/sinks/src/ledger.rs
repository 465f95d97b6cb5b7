//! What a sink holds back, reserved from its share.

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::{Budget, ByteCount, Reservation};

/// A sink flushes when it holds more than this part of its share; the rest is room for the rows at hand.
const FLUSH_AT_PERCENT: u64 = 75;

/// The one reservation that covers a sink's buffers.
pub(crate) struct Ledger {
    share: Budget,
    held: Reservation,
}

impl Ledger {
    pub(crate) fn new(share: &Budget) -> Self {
        Self { share: share.clone(), held: Reservation::empty() }
    }

    /// The most that may be held back.
    pub(crate) fn limit(&self) -> ByteCount {
        self.share.total().percent(FLUSH_AT_PERCENT)
    }

    /// Says how much is held back now.
    ///
    /// # Errors
    /// The share has no room for it, although all was flushed that can be.
    pub(crate) fn hold(&mut self, bytes: ByteCount) -> Result<()> {
        let more = bytes.saturating_sub(self.held.size());
        if more == ByteCount::ZERO {
            self.held.shrink_to(bytes);
            return Ok(());
        }
        let more = self.share.try_reserve(more).map_err(|cause| {
            Error::new(
                ErrorKind::Limit,
                "write",
                "the files under way need more memory than the step has; raise `memory`",
            )
            .with("needed_bytes", bytes)
            .with("limit_bytes", self.share.total())
            .with_source(cause)
        })?;
        self.held.merge(more);
        Ok(())
    }
}

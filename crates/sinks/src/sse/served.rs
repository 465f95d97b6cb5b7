//! A stream that clients can come to, and what becomes of it with each commit.

use aqueduct_core::{Context, Durable, Error, ErrorKind, Keeper, Result};
use aqueduct_net::server::{EventStream, Mounted};
use aqueduct_primitives::ByteCount;
use async_trait::async_trait;
use serde_json::Value;

use super::frames;
use super::ids::{Ids, Start};
use super::kept::{EventsFile, Kept};
use super::outbox::{Outbox, n_events};

/// A stream that clients can come to. Its end is told when all its rows are committed; until then, to drop it is to hang up.
pub(super) struct Served {
    pub(super) stream: EventStream,
    pub(super) ids: Ids,
    /// Where events lie that wait for a commit, or that an earlier one has announced.
    pub(super) outbox: Option<Outbox>,
    /// Whether rows wait for their commit.
    pub(super) waits: bool,
    /// Whether commits before the end make nothing public.
    pub(super) counts_at_end: bool,
    pub(super) _mounted: Mounted,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stream.break_off();
    }
}

impl Served {
    /// Deals with what an earlier commit left.
    pub(super) async fn begin(&self, left: Left) -> Result<()> {
        let Some(outbox) = &self.outbox else { return Ok(()) };
        outbox.wait(left.waiting)?;
        outbox.announce(left.due.clone())?;
        self.announce(&left.due).await
    }

    /// Sends the events of files, which are committed. From before the first on, their numbers are known to be taken.
    pub(super) async fn announce(&self, files: &[EventsFile]) -> Result<()> {
        let Some(outbox) = self.outbox.as_ref().filter(|_| !files.is_empty()) else { return Ok(()) };
        self.ids.end_at(self.stream.next_id() + n_events(files)).await?;
        for file in files {
            let mut reading = outbox.read(file);
            while let Some(bytes) = reading.next().await? {
                let events = frames::events(&bytes).ok_or_else(|| reading.damaged())?;
                let mut is_too_long = false;
                self.stream.send_all(events.into_iter(), |_| is_too_long = true, |_| {}).await?;
                if is_too_long {
                    return Err(self.too_long());
                }
            }
        }
        Ok(())
    }

    /// Rows are held against the limit before they wait: it was another then.
    fn too_long(&self) -> Error {
        let message = "an event that is committed is larger than what may wait for a client now; raise \
                       `queue_bytes`, or `memory`, to what they were";
        Error::new(ErrorKind::Limit, "send event", message)
            .with("stream", self.stream.name())
            .with("limit", ByteCount::of(self.stream.max_event_bytes()))
    }
}

/// Keeps the number of the next event, and where those lie that wait for the commit.
#[async_trait]
impl Keeper for Served {
    async fn keep(&self) -> Result<Option<Value>> {
        let next_id = self.stream.next_id();
        let kept = match self.outbox.as_ref().filter(|_| self.waits) {
            // Its numbers are given out only when the commit stands.
            Some(outbox) => outbox.keep(next_id),
            None => {
                self.ids.end_at(next_id).await?;
                Kept { next_id, ..Kept::default() }
            }
        };
        kept.value().map(Some)
    }

    async fn committed(&self, is_last: bool) -> Result<()> {
        if let Some(outbox) = self.outbox.as_ref().filter(|_| is_last || !self.counts_at_end) {
            let due = outbox.committed(is_last).await?;
            self.announce(&due).await?;
        }
        if is_last {
            self.stream.end();
        }
        Ok(())
    }
}

/// What an earlier commit left to send.
#[derive(Default)]
pub(super) struct Left {
    /// Goes out at once.
    pub(super) due: Vec<EventsFile>,
    /// Waits for the next commit.
    pub(super) waiting: Vec<EventsFile>,
}

impl Left {
    /// What there is, and where numbers then begin. `waits`: rows wait for their commit.
    pub(super) async fn find(
        cx: &Context,
        outbox: Option<&Outbox>,
        start: Start,
        waits: bool,
    ) -> Result<(Self, Start)> {
        let kept = Kept::of(cx).filter(|kept| !kept.files.is_empty());
        let (Some(outbox), Some(kept)) = (outbox, kept) else { return Ok((Self::default(), start)) };
        let is_waiting = waits && goes_on_alone(cx, &kept);
        if start.n_uncommitted > 0 && !is_waiting {
            // Whoever gave numbers after them sent them first.
            return Ok((Self::default(), start));
        }
        if !outbox.has(&kept.files).await? {
            cx.gap(format!(
                "{} events of the last commit are not there any more; they may not have gone out",
                n_events(&kept.files)
            ));
            return Ok((Self::default(), start));
        }
        let start = start.with_again(n_events(&kept.files));
        let left = match is_waiting {
            true => Self { waiting: kept.files, ..Self::default() },
            false => Self { due: kept.files, ..Self::default() },
        };
        Ok((left, start))
    }
}

/// Whether this run wrote what is kept, and counts at its end, which is still to come.
fn goes_on_alone(cx: &Context, kept: &Kept) -> bool {
    kept.run_id == cx.run_id() && cx.durable().is_some_and(Durable::counts_at_end)
}

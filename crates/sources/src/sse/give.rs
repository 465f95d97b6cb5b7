//! Gives events as rows: a group at a time, in parts that can be admitted, each with the place behind it.

use std::sync::Arc;

use aqueduct_core::{Batch, Context, Positions, Result};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::time::{Instant, timeout_at};

use super::Stream;
use super::gather::Group;
use super::listen::{Happening, shown};
use super::place::behind;
use crate::file_set::memory::Division;
use crate::file_set::open::FLUSH_LIVE_AFTER;
use crate::file_set::oversize::{Part, sorted_out};
use crate::file_set::read::admit;

/// Gives what comes, batch by batch.
pub(super) struct Giving {
    pub(super) stream: Box<Stream>,
    pub(super) cx: Context,
    pub(super) output: SchemaRef,
    pub(super) division: Division,
    pub(super) happenings: BoxStream<'static, Result<Happening>>,
    pub(super) is_over: bool,
}

impl Giving {
    /// What goes on together; nothing at the end.
    pub(super) async fn group(&mut self) -> Result<Option<Group>> {
        let mut group = Group::new(self.stream.is_json);
        let (n_rows, n_bytes) = (self.cx.batch_rows(), self.cx.batch_bytes().min(self.division.batch()));
        let mut until = None;
        while !self.is_over && !group.is_full(n_rows, n_bytes) {
            let next = match until {
                None => self.happenings.try_next().await?,
                Some(until) => match timeout_at(until, self.happenings.try_next()).await {
                    Ok(next) => next?,
                    Err(_) => break,
                },
            };
            match next {
                Some(happening) => group.add(&self.cx, happening),
                None => self.is_over = true,
            }
            until = until.or_else(|| group.has_some().then(|| Instant::now() + FLUSH_LIVE_AFTER));
        }
        Ok((group.has_some() || !self.is_over).then_some(group))
    }

    /// The rows of a group that can be admitted, in order.
    pub(super) fn parts(&self, group: &mut Group) -> BoxStream<'static, Result<Part>> {
        let mut decoded = group.decoded(&self.cx, self.stream.spec(&self.cx, self.division));
        let (cx, name) = (self.cx.clone(), Arc::clone(&self.stream.name));
        Box::pin(try_stream! {
            let mut n_rows = 0;
            while let Some(decoded) = decoded.next().await {
                let mut fitting = sorted_out(&cx, Arc::clone(&name), decoded?, &mut n_rows).await?;
                while let Some(part) = fitting.next(&cx).await? {
                    yield part;
                }
            }
        })
    }

    /// After the wait for memory nothing waits any more: rejects and place go with the batch, or none of them.
    pub(super) async fn give(&mut self, group: &Group, part: Part) -> Result<Batch> {
        let batch = match part.rows {
            Some(rows) => admit(&self.cx, rows).await?,
            None => self.no_rows(),
        };
        for mut reject in part.rejects {
            if let Some(id) = reject.origin.row.take().and_then(|row| group.id_behind(row)) {
                reject.message = format!("{} (the event with id `{}`)", reject.message, shown(id));
            }
            self.cx.reject(reject)?;
        }
        Ok(match group.id_behind(part.n_rows) {
            Some(id) => self.behind(batch, id),
            None => batch,
        })
    }

    /// What stands behind the last row.
    pub(super) fn end(&self, group: Group) -> Result<Option<Batch>> {
        let is_behind = group.behind.as_ref().is_none_or(|id| *id == self.stream.place.id());
        if is_behind && group.reject.is_none() {
            return Ok(None);
        }
        group.reject.into_iter().try_for_each(|reject| self.cx.reject(reject))?;
        Ok(group.behind.map(|id| self.behind(self.no_rows(), &id)))
    }

    fn behind(&self, batch: Batch, id: &str) -> Batch {
        self.stream.place.set(id);
        batch.with_positions(behind(id))
    }

    fn no_rows(&self) -> Batch {
        Batch::only_positions(SchemaRef::clone(&self.output), Positions::default())
    }
}

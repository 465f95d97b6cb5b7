//! What the pages of a Parquet file take in memory. A page is unpacked whole, whatever its size: its header tells what
//! that takes, and what is more than the reader's own is asked for before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_core::{Error, ErrorKind, Result};
use aqueduct_primitives::{ByteCount, Reservation};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::thrift::PageHead;
use crate::LargeRecords;

/// The pages that are in memory: of each column one, and its dictionary.
pub(super) struct Pages {
    /// Where the column chunks begin, in the order of the file, and the column of each.
    chunks: Vec<(u64, usize)>,
    /// What need not be asked for.
    free: ByteCount,
    lane: Arc<dyn LargeRecords>,
    /// Nobody reads the file any more.
    stop: CancellationToken,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    columns: Vec<Column>,
    reserved: Reservation,
}

/// What one column has in memory.
#[derive(Clone, Copy, Default)]
struct Column {
    chunk: usize,
    dictionary: u64,
    page: u64,
}

impl Column {
    fn n_bytes(self) -> u64 {
        self.dictionary.saturating_add(self.page)
    }
}

impl Pages {
    /// None is open yet. Those of up to `free` bytes need nothing; what more they take comes of `lane`, until this is
    /// dropped.
    pub(super) fn new(
        file: &ParquetMetaData,
        free: ByteCount,
        lane: Arc<dyn LargeRecords>,
        stop: CancellationToken,
    ) -> Self {
        let groups = file.row_groups().iter();
        let chunks = groups.flat_map(|group| group.columns().iter().enumerate());
        let start = |chunk: &ColumnChunkMetaData| {
            let first = chunk.dictionary_page_offset().unwrap_or_else(|| chunk.data_page_offset());
            // The reader finds what is wrong with a negative one.
            u64::try_from(first).unwrap_or(0)
        };
        let mut chunks: Vec<_> = chunks.map(|(column, chunk)| (start(chunk), column)).collect();
        chunks.sort_unstable();
        let columns = vec![Column::default(); file.file_metadata().schema_descr().num_columns()];
        Self { chunks, free, lane, stop, open: Mutex::new(Open { columns, reserved: Reservation::empty() }) }
    }

    /// Waits until there is memory for the page whose header is at `at`. Blocks: on a thread that may.
    ///
    /// # Errors
    /// There will never be so much; the file is read no more.
    pub(super) fn admit(&self, at: u64, head: PageHead, runtime: &Handle) -> Result<()> {
        let chunk = self.chunks.partition_point(|(start, _)| *start <= at).saturating_sub(1);
        let Some((_, column)) = self.chunks.get(chunk) else { return Ok(()) };
        let (before, all, mut reserved) = {
            let mut open = self.lock();
            let Some(of_column) = open.columns.get_mut(*column) else { return Ok(()) };
            // The last page of the chunk is in memory until this one is unpacked; those of the chunk before are not.
            let before =
                if of_column.chunk == chunk { *of_column } else { Column { chunk, ..Column::default() } };
            let n_bytes = head.unpacked.saturating_add(head.packed);
            *of_column = Column { page: before.page.saturating_add(n_bytes), ..before };
            let all = open.columns.iter().map(|column| column.n_bytes()).fold(0, u64::saturating_add);
            (before, all, std::mem::take(&mut open.reserved))
        };
        self.reserve(&mut reserved, all, runtime)?;
        let mut open = self.lock();
        open.reserved = reserved;
        if let Some(of_column) = open.columns.get_mut(*column) {
            *of_column = match head.is_dictionary {
                true => Column { dictionary: head.unpacked, ..before },
                false => Column { page: head.unpacked, ..before },
            };
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what so many bytes need beyond what is free, and no more.
    fn reserve(&self, reserved: &mut Reservation, all: u64, runtime: &Handle) -> Result<()> {
        let needed = ByteCount::new(all).saturating_sub(self.free);
        if needed == ByteCount::ZERO {
            *reserved = Reservation::empty();
            return Ok(());
        }
        reserved.shrink_to(needed.min(reserved.size()));
        let more = needed.saturating_sub(reserved.size());
        if more == ByteCount::ZERO {
            return Ok(());
        }
        let got = runtime.block_on(async {
            tokio::select! {
                got = self.lane.reserve(reserved.size(), more) => got,
                () = self.stop.cancelled() => Err(Error::cancelled("read parquet")),
            }
        });
        reserved.merge(got.map_err(|error| too_large(error, all))?);
        Ok(())
    }

    /// What the pages hold, for rows that are made of them and may be as large: they would wait for it. The next page
    /// asks anew.
    pub(super) fn hand_over(&self) -> Reservation {
        std::mem::take(&mut self.lock().reserved)
    }
}

fn too_large(error: Error, all: u64) -> Error {
    if error.kind() != ErrorKind::Limit {
        return error;
    }
    let message = "the pages of the file that must be in memory at once, one of each column, are larger than the memory \
                   left for them; raise `memory`, or write the file in smaller pages or row groups";
    Error::new(ErrorKind::Limit, "read parquet", message).with("page_bytes", all).with_source(error)
}

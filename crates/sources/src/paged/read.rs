//! Reads slices, page after page, and gives their rows with the place behind them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use aqueduct_core::{Batch, BatchStream, Context, Error, Positions, Reject, Result};
use aqueduct_formats::{Decoded, decode_file};
use aqueduct_primitives::{Reservation, Task};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::SchemaRef;
use async_stream::try_stream;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::decoding::Decoding;
use super::given::Given;
use super::pages::{Page, Pages};
use super::progress::{Place, Progress};
use super::trail::{ItemsOfPage, MAX_WALKS, TRAIL_BYTES, Trail, is_lost, tell_lost};
use super::{Ask, Paged, Service};
use crate::file_set::oversize::sorted_out;
use crate::file_set::read::admit;

/// What comes of a slice.
enum Event {
    /// Rows of a page with their keys, and what was wrong before and between them: none, where no row was good.
    Rows { decoded: Option<Decoded>, keys: Vec<u128>, rejects: Vec<Reject>, place: Place },
    /// A page is behind; the next begins here.
    Page { next: Place },
    /// So is the slice.
    End,
}

/// The rows of all slices that are left.
pub(super) fn run(paged: Paged, cx: Context, from: Positions) -> BatchStream {
    let Paged {
        service,
        pages,
        given,
        memory_of_given,
        decoding,
        read,
        options,
        fetched,
        max_items,
        is_whole,
    } = paged;
    let output = aqueduct_formats::output_schema(&read, &options, false);
    Box::pin(try_stream! {
        let _memory_of_given = memory_of_given;
        let progress = Progress::of(&from)?;
        let n_slices = service.n_slices();
        cx.metrics().files_total.add(n_slices);
        let (of_walks, asked) = (cx.clone(), Arc::clone(&service));
        let mut fetched = by_slice(fetched);
        // Made one by one: of the slices that wait for their turn nothing is held.
        let walks = progress.left(n_slices).map(move |(slice, place)| Walk {
            cx: of_walks.clone(),
            pages: Arc::clone(&pages),
            service: Arc::clone(&asked),
            decoding,
            read: SchemaRef::clone(&read),
            slice,
            fetched: fetched.remove(&slice).unwrap_or_default(),
            from: place.unwrap_or_else(|| Place::start_of(1, asked.first(slice))),
        });
        let slices = stream::iter(walks).map(Walk::events);
        let mut events = slices.flatten_unordered(decoding.division.n_files.max(1));
        let mut consumer = Consumer { cx, service, given, output, progress, max_items };
        while !consumer.is_full() {
            let Some(event) = events.next().await else { break };
            let (slice, event) = event?;
            yield consumer.take(slice, event).await?;
        }
        is_whole.store(!consumer.is_full(), Relaxed);
    })
}

fn by_slice(fetched: Vec<(u64, Page)>) -> HashMap<u64, HashMap<u64, Page>> {
    let mut by_slice: HashMap<u64, HashMap<u64, Page>> = HashMap::new();
    for (slice, page) in fetched {
        by_slice.entry(slice).or_default().insert(page.number, page);
    }
    by_slice
}

/// The way through one slice.
struct Walk {
    cx: Context,
    pages: Arc<Pages>,
    service: Arc<dyn Service>,
    decoding: Decoding,
    read: SchemaRef,
    slice: u64,
    fetched: HashMap<u64, Page>,
    from: Place,
}

impl Walk {
    /// What comes of the slice. While the rows of a page are given, the next is fetched.
    fn events(mut self) -> BoxStream<'static, Result<(u64, Event)>> {
        let slice = self.slice;
        Box::pin(try_stream! {
            let _reserve = self.reserve().await?;
            let mut trail = Trail::default();
            let mut n_walks = 1;
            // What was rejected on pages before this one was told on an earlier walk.
            let mut told_before = 0;
            let mut from = self.from.clone();
            let mut ahead = Some(self.fetch(from.page, from.ask.clone()));
            while let Some(fetching) = ahead.take() {
                let page = match fetching.await? {
                    Ok(page) => page,
                    Err(error) if from.page > 1 && n_walks < MAX_WALKS && is_lost(&error) => {
                        n_walks += 1;
                        tell_lost(&self.service.name(slice), from.page, &error);
                        told_before = told_before.max(from.page);
                        (trail, from) = (Trail::default(), Place::start_of(1, self.service.first(slice)));
                        ahead = Some(self.fetch(1, from.ask.clone()));
                        continue;
                    }
                    Err(error) => Err(error)?,
                };
                trail.ask(page.number, &page.ask).map_err(|error| self.at(page.number, error))?;
                ahead = page.next.clone().map(|ask| self.fetch(page.number + 1, ask));
                let next = page.next.clone().map(|ask| Place::start_of(page.number + 1, ask));
                let (number, mut items) = (page.number, ItemsOfPage::default());
                let mut rows = self.rows(page, &from);
                while let Some(event) = rows.next().await {
                    let mut event = event?;
                    if let Event::Rows { keys, rejects, .. } = &mut event {
                        items.add(keys);
                        if number < told_before {
                            rejects.clear();
                        }
                    }
                    yield (slice, event);
                }
                if from.rows == 0 {
                    trail.came(number, &items).map_err(|error| self.at(number, error))?;
                }
                match next {
                    Some(next) => {
                        from = next.clone();
                        yield (slice, Event::Page { next });
                    }
                    None => yield (slice, Event::End),
                }
            }
        })
    }

    async fn reserve(&self) -> Result<Reservation> {
        let bytes = self.decoding.division.per_file.saturating_add(TRAIL_BYTES).min(self.cx.share().total());
        Ok(self.cx.share().reserve(bytes).await?)
    }

    fn at(&self, page: u64, error: Error) -> Error {
        error.with("slice", self.service.name(self.slice)).with("page", page)
    }

    /// Fetches a page, in a task of its own, unless it was fetched before.
    fn fetch(&mut self, number: u64, ask: Ask) -> Task<Result<Page>> {
        let fetched = self.fetched.remove(&number).filter(|page| page.ask == ask);
        let (pages, slice) = (Arc::clone(&self.pages), self.slice);
        self.cx.tasks().spawn(async move {
            match fetched {
                Some(page) => Ok(page),
                None => pages.get(slice, number, ask).await,
            }
        })
    }

    /// The rows of a page after those that are behind.
    fn rows(&self, page: Page, from: &Place) -> BoxStream<'static, Result<Event>> {
        let (cx, service) = (self.cx.clone(), Arc::clone(&self.service));
        let is_same = from.page == page.number && (from.digest.is_none() || from.digest == page.digest);
        let skip = if is_same { from.rows } else { 0 };
        // Of another version of the page, what was told of its rows is not told again.
        let n_told = if from.page == page.number { from.rows } else { 0 };
        let Page { number, ask, file, options, digest, .. } = page;
        let columns = SchemaRef::clone(&self.read);
        let spec = self.decoding.spec(&cx, &ask.shown(), options, columns, skip);
        Box::pin(try_stream! {
            let mut n_rows = skip;
            let name = Arc::clone(&spec.name);
            let mut decoded = decode_file(file, spec, cx.tasks());
            while let Some(decoded) = decoded.next().await {
                let mut fitting = sorted_out(&cx, Arc::clone(&name), decoded?, &mut n_rows).await?;
                while let Some(mut part) = fitting.next(&cx).await? {
                    part.rejects.retain(|reject| reject.origin.row.is_none_or(|row| row > n_told));
                    let place = Place { page: number, ask: ask.clone(), rows: part.n_rows, digest: digest.clone() };
                    let keys = part.rows.as_ref().map(|rows| service.keys(&rows.records)).unwrap_or_default();
                    yield Event::Rows { decoded: part.rows, keys, rejects: part.rejects, place };
                }
            }
        })
    }
}

/// Gives rows that were not given, each with the place behind it.
struct Consumer {
    cx: Context,
    service: Arc<dyn Service>,
    given: Given,
    output: SchemaRef,
    progress: Progress,
    max_items: Option<u64>,
}

impl Consumer {
    /// Whether nothing more is wanted.
    fn is_full(&self) -> bool {
        self.max_items.is_some_and(|most| self.progress.n_given >= most)
    }

    async fn take(&mut self, slice: u64, event: Event) -> Result<Batch> {
        match event {
            Event::Rows { decoded, rejects, place, keys } => {
                let Some(decoded) = decoded else {
                    self.tell(rejects)?;
                    return self.behind(slice, place);
                };
                self.give(slice, decoded, keys, (rejects, place)).await
            }
            Event::Page { next } => self.behind(slice, next),
            Event::End => {
                self.cx.metrics().files_done.add(1);
                let service = Arc::clone(&self.service);
                self.progress.end(slice, |slice| service.first(slice));
                Ok(self.no_rows().with_positions(self.progress.positions()?))
            }
        }
    }

    /// After the wait for memory nothing waits any more: keys, rejects and place go with the batch, or none of them.
    async fn give(
        &mut self,
        slice: u64,
        decoded: Decoded,
        keys: Vec<u128>,
        (rejects, place): (Vec<Reject>, Place),
    ) -> Result<Batch> {
        self.given.make_room().await?;
        let is_new = self.given.are_new(keys.clone()).await?;
        let owned = self.service.owned(slice, &decoded.records);
        let Chosen { records, keys, n_filtered, n_duplicate } =
            choose(&decoded.records, &keys, &is_new, owned.as_ref(), self.room())?;
        let batch = admit(&self.cx, Decoded { records, ..decoded }).await?;
        self.service.give(batch.records());
        self.given.give(keys);
        self.progress.n_given += batch.records().num_rows() as u64;
        let metrics = self.cx.metrics();
        metrics.rows_filtered.add(n_filtered);
        metrics.rows_duplicate.add(n_duplicate);
        self.tell(rejects)?;
        let behind = self.behind(slice, place)?;
        let (_, _, positions, _) = behind.into_parts();
        Ok(batch.with_positions(positions))
    }

    /// How many rows more are wanted.
    fn room(&self) -> usize {
        let left = self.max_items.map_or(u64::MAX, |most| most.saturating_sub(self.progress.n_given));
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    fn tell(&self, rejects: Vec<Reject>) -> Result<()> {
        rejects.into_iter().try_for_each(|reject| self.cx.reject(reject))
    }

    fn behind(&mut self, slice: u64, place: Place) -> Result<Batch> {
        let service = Arc::clone(&self.service);
        self.progress.reach(slice, place, |slice| service.first(slice));
        Ok(self.no_rows().with_positions(self.progress.positions()?))
    }

    fn no_rows(&self) -> Batch {
        Batch::only_positions(SchemaRef::clone(&self.output), Positions::default())
    }
}

/// Rows that are given, and how many are not.
struct Chosen {
    records: RecordBatch,
    keys: Vec<u128>,
    n_filtered: u64,
    n_duplicate: u64,
}

/// The rows that belong to the slice and were not given, so many at most.
fn choose(
    records: &RecordBatch,
    keys: &[u128],
    is_new: &BooleanArray,
    owned: Option<&BooleanArray>,
    room: usize,
) -> Result<Chosen> {
    let wrong = |error| Error::bug("choose items", "a mask that does not fit its rows").with_source(error);
    let n_rows = records.num_rows();
    let n_owned = owned.map_or(n_rows, BooleanArray::true_count);
    let mask = match owned {
        Some(owned) => and(owned, is_new).map_err(wrong)?,
        None => is_new.clone(),
    };
    let n_chosen = mask.true_count();
    let chosen = if n_chosen == n_rows {
        records.clone()
    } else {
        filter_record_batch(records, &mask).map_err(wrong)?
    };
    let n_given = n_chosen.min(room);
    let keys =
        keys.iter().zip(mask.values()).filter_map(|(key, chosen)| chosen.then_some(*key)).take(n_given);
    Ok(Chosen {
        records: chosen.slice(0, n_given),
        keys: keys.collect(),
        n_filtered: (n_rows - n_owned + n_chosen - n_given) as u64,
        n_duplicate: (n_owned - n_chosen) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{AsArray, Int32Array};
    use arrow::datatypes::Int32Type;

    #[test]
    fn rows_of_others_and_rows_that_were_given_are_left_out_and_counted() {
        let column = Arc::new(Int32Array::from(vec![1, 2, 3, 4, 5])) as arrow::array::ArrayRef;
        let records = RecordBatch::try_from_iter([("id", column)]).unwrap();
        let keys = [1, 2, 3, 4, 5];
        let is_new = BooleanArray::from(vec![true, false, true, true, false]);
        let owned = BooleanArray::from(vec![true, true, false, true, true]);
        let ids = |chosen: &Chosen| chosen.records.column(0).as_primitive::<Int32Type>().values().to_vec();
        let chosen = choose(&records, &keys, &is_new, Some(&owned), 10).unwrap();
        assert_eq!((ids(&chosen), &chosen.keys[..]), (vec![1, 4], &[1, 4][..]));
        assert_eq!((chosen.n_filtered, chosen.n_duplicate), (1, 2));
        let chosen = choose(&records, &keys, &is_new, None, 1).unwrap();
        assert_eq!((ids(&chosen), &chosen.keys[..]), (vec![1], &[1][..]));
        assert_eq!((chosen.n_filtered, chosen.n_duplicate), (2, 2));
    }
}

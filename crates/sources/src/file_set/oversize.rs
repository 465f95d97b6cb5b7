//! Rows that are larger than all the memory for data in flight: rejected one by one, by name, so that the flow's
//! policy decides, and not the budget.

use std::collections::VecDeque;
use std::ops::Range;

use aqueduct_core::rows::{copied, row_bytes, runs};
use aqueduct_core::{Context, Origin, Reject, RejectedItem, Result, retained_bytes};
use aqueduct_formats::Decoded;
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::RecordBatch;

/// What was wrong with rows goes to the policy; the others are ready to be admitted. `n_rows` counts the rows of the
/// file, good and bad.
///
/// # Errors
/// The policy says that the run fails.
pub(crate) async fn sorted_out(
    cx: &Context,
    file: &str,
    mut decoded: Decoded,
    n_rows: &mut u64,
) -> Result<Fitting> {
    // Between bad rows, the good ones cannot be counted from here.
    let first_row = decoded.rejects.is_empty().then_some(*n_rows + 1);
    *n_rows += decoded.rows_read;
    for reject in decoded.rejects.drain(..) {
        cx.reject(reject.into_reject(file))?;
    }
    let Decoded { records, reservation, .. } = decoded;
    let limit = cx.flow().total();
    let fits = retained_bytes(&records) <= limit;
    let rows = if fits { whole(&records) } else { in_runs(cx, &records, limit).await? };
    Ok(Fitting { records: Some(records), rows, reservation, file: file.to_owned(), first_row })
}

fn whole(records: &RecordBatch) -> VecDeque<Range<usize>> {
    Some(0..records.num_rows()).into_iter().filter(|rows| !rows.is_empty()).collect()
}

/// Each run takes at most half of the limit, so that the next can be admitted while one drains; a wider row is alone.
async fn in_runs(cx: &Context, records: &RecordBatch, limit: ByteCount) -> Result<VecDeque<Range<usize>>> {
    let (records, most) = (records.clone(), limit.get() / 2);
    Ok(cx.tasks().compute(move || runs(&row_bytes(&records), most).into()).await?)
}

/// Rows that can be admitted, part by part. What was reserved for them is held until the last part has it.
pub(crate) struct Fitting {
    /// All rows; none once the last part is on its way.
    records: Option<RecordBatch>,
    /// Those that are still to come.
    rows: VecDeque<Range<usize>>,
    reservation: Reservation,
    file: String,
    /// The place in the file of the first, if it is known.
    first_row: Option<u64>,
}

impl Fitting {
    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The next rows: all of them if they fit, else a copy of some, made only now. A row that cannot be admitted is
    /// rejected. To be called once the rows before are admitted.
    ///
    /// # Errors
    /// The policy says that the run fails.
    pub(crate) async fn next(&mut self, cx: &Context) -> Result<Option<Decoded>> {
        let limit = cx.flow().total();
        while let Some(rows) = self.rows.pop_front() {
            let Some(records) = self.part(cx, rows.clone()).await? else { break };
            let weight = retained_bytes(&records);
            if weight <= limit {
                return Ok(Some(self.covered(records, limit.saturating_sub(weight))));
            }
            self.refuse(cx, rows, weight)?;
        }
        Ok(None)
    }

    /// Some of the rows in memory of their own, or all as they are. After the last, nothing else is kept.
    async fn part(&mut self, cx: &Context, rows: Range<usize>) -> Result<Option<RecordBatch>> {
        let records = if self.rows.is_empty() { self.records.take() } else { self.records.clone() };
        let Some(records) = records else { return Ok(None) };
        if rows.len() == records.num_rows() && retained_bytes(&records) <= cx.flow().total() {
            return Ok(Some(records));
        }
        cx.tasks().compute(move || copied(&records, rows)).await?.map(Some)
    }

    /// Rows with what is reserved for all, if they are the last, or if there is no room for them beside that.
    fn covered(&mut self, records: RecordBatch, room: ByteCount) -> Decoded {
        let takes_all = self.rows.is_empty() || self.reservation.size() > room;
        let reservation =
            if takes_all { std::mem::take(&mut self.reservation) } else { Reservation::empty() };
        Decoded { rows_read: records.num_rows() as u64, records, rejects: Vec::new(), reservation }
    }

    fn refuse(&self, cx: &Context, rows: Range<usize>, weight: ByteCount) -> Result<()> {
        let message = format!(
            "the row takes {weight} in memory, and there are {} for all data in flight; set `memory` to {}",
            cx.flow().total(),
            cx.memory_for(weight)
        );
        rows.into_iter().try_for_each(|row| {
            let row = self.first_row.map(|first| first + row as u64);
            cx.reject(Reject {
                item: RejectedItem::Row,
                reason: "too large",
                message: message.clone(),
                origin: Origin { file: self.file.clone(), row, ..Origin::default() },
                raw: Vec::new(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::RejectPolicy;
    use aqueduct_primitives::Budget;
    use arrow::array::{ArrayRef, AsArray, StringArray};
    use std::sync::{Arc, Mutex};

    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<Reject>>);

    impl RejectPolicy for Kept {
        fn reject(&self, _: &str, reject: Reject) -> Result<()> {
            self.0.lock().unwrap().push(reject);
            Ok(())
        }
    }

    fn rows(lengths: &[usize]) -> Decoded {
        let texts = lengths.iter().map(|n| "x".repeat(*n));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        Decoded {
            records: RecordBatch::try_from_iter([("text", column)]).unwrap(),
            rows_read: lengths.len() as u64,
            rejects: Vec::new(),
            reservation: Reservation::empty(),
        }
    }

    /// A reservation of the flow with something attached, which tells when all of it is given back.
    async fn reserved(cx: &Context, bytes: ByteCount) -> (Reservation, std::sync::Weak<()>) {
        let lane = Arc::new(());
        let in_lane = Arc::downgrade(&lane);
        let mut reservation = cx.flow().reserve(bytes).await.unwrap();
        reservation.attach(lane);
        (reservation, in_lane)
    }

    #[tokio::test]
    async fn only_the_row_that_is_too_large_is_rejected_with_its_place_and_what_to_set() {
        let budget = Budget::new("memory", ByteCount::mib(2));
        let kept = Arc::new(Kept::default());
        let policy = Arc::clone(&kept);
        let cx = Context::standalone_with(&budget, |run| run.rejects = policy, |_| {}).unwrap();
        let mut n_rows = 0;
        sorted_out(&cx, "a.parquet", rows(&[1, 2, 3]), &mut n_rows).await.unwrap();
        let lengths = [10, 600_000, 10, 2_000_000, 600_000, 10];
        let mut fitting = sorted_out(&cx, "a.parquet", rows(&lengths), &mut n_rows).await.unwrap();
        assert_eq!(n_rows, 9);
        let mut found = Vec::new();
        while let Some(part) = fitting.next(&cx).await.unwrap() {
            assert!(retained_bytes(&part.records) <= cx.flow().total());
            found.extend(part.records.column(0).as_string::<i32>().iter().map(|text| text.unwrap().len()));
        }
        assert_eq!(found, [10, 600_000, 10, 600_000, 10]);
        let kept = kept.0.lock().unwrap();
        let [reject] = kept.as_slice() else { panic!("{kept:?}") };
        assert_eq!((reject.origin.file.as_str(), reject.origin.row), ("a.parquet", Some(7)));
        assert!(reject.message.contains("set `memory` to 9MB"), "{}", reject.message);
    }

    // MEM-3
    #[tokio::test]
    async fn what_is_reserved_for_all_rows_is_held_until_the_last_of_them_have_it() {
        let cx = Context::standalone(&Budget::new("memory", ByteCount::mib(2))).unwrap();
        let (reservation, in_lane) = reserved(&cx, ByteCount::kib(256)).await;
        let wide = Decoded { reservation, ..rows(&[400_000; 6]) };
        let mut fitting = sorted_out(&cx, "a.arrow", wide, &mut 0).await.unwrap();
        let mut n_parts = 0;
        while let Some(part) = fitting.next(&cx).await.unwrap() {
            n_parts += 1;
            assert!(in_lane.upgrade().is_some());
            let batch = super::super::read::admit(&cx, part).await.unwrap();
            let weight = retained_bytes(batch.records());
            assert_eq!(weight, batch.reserved());
            assert_eq!(batch.num_rows(), 1, "two are more than half of it");
        }
        assert_eq!(n_parts, 6);
        assert!(in_lane.upgrade().is_none());
        assert_eq!(cx.flow().free(), cx.flow().total());
    }

    #[tokio::test]
    async fn a_row_that_needs_what_is_reserved_for_all_takes_it() {
        let cx = Context::standalone(&Budget::new("memory", ByteCount::mib(2))).unwrap();
        let total = cx.flow().total().get();
        let (reservation, _) = reserved(&cx, ByteCount::new(total / 2)).await;
        let wide = usize::try_from(total / 4 * 3).unwrap();
        let decoded = Decoded { reservation, ..rows(&[wide, wide]) };
        let mut fitting = sorted_out(&cx, "a.arrow", decoded, &mut 0).await.unwrap();
        for _ in 0..2 {
            let part = fitting.next(&cx).await.unwrap().unwrap();
            drop(super::super::read::admit(&cx, part).await.unwrap());
        }
        assert!(fitting.next(&cx).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn where_nobody_says_otherwise_it_ends_the_run() {
        let cx = Context::standalone(&Budget::new("memory", ByteCount::mib(2))).unwrap();
        let mut fitting = sorted_out(&cx, "a.parquet", rows(&[2_000_000]), &mut 0).await.unwrap();
        let error = fitting.next(&cx).await.err().unwrap();
        assert_eq!(error.context("at"), Some("a.parquet, row 1"));
    }
}

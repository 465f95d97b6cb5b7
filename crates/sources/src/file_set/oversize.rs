//! Rows that are larger than all the memory for data in flight: rejected one by one, by name, so that the flow's
//! policy decides, and not the budget.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use aqueduct_core::rows::{copied, row_bytes, runs};
use aqueduct_core::{Context, Origin, Reject, RejectedItem, Result, retained_bytes};
use aqueduct_formats::{Decoded, RowReject};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::RecordBatch;

/// Makes rows ready to be admitted, and what was wrong between them to be told in step with them. `n_rows` counts the rows
/// of the file, good and bad.
///
/// # Errors
/// None but by a defect.
pub(crate) async fn sorted_out(
    cx: &Context,
    file: Arc<str>,
    decoded: Decoded,
    n_rows: &mut u64,
) -> Result<Fitting> {
    let Decoded { records, rows_read, rejects, reservation } = decoded;
    let at = *n_rows;
    *n_rows += rows_read;
    let limit = cx.flow().total();
    let fits = retained_bytes(&records) <= limit;
    let rows = if fits { whole(&records) } else { in_runs(cx, &records, limit).await? };
    Ok(Fitting { records: Some(records), rows, rejects: rejects.into(), reservation, file, at, end: *n_rows })
}

fn whole(records: &RecordBatch) -> VecDeque<Range<usize>> {
    Some(0..records.num_rows()).into_iter().filter(|rows| !rows.is_empty()).collect()
}

/// Each run takes at most half of the limit, so that the next can be admitted while one drains; a wider row is alone.
async fn in_runs(cx: &Context, records: &RecordBatch, limit: ByteCount) -> Result<VecDeque<Range<usize>>> {
    let (records, most) = (records.clone(), limit.get() / 2);
    Ok(cx.tasks().compute(move || runs(&row_bytes(&records), most).into()).await?)
}

/// Rows that can be admitted, part by part, with what was wrong between them. What was reserved for them is held until the
/// last part has it.
pub(crate) struct Fitting {
    /// All rows; none once the last part is on its way.
    records: Option<RecordBatch>,
    /// Those that are still to come.
    rows: VecDeque<Range<usize>>,
    /// What is still to be told, in order.
    rejects: VecDeque<RowReject>,
    reservation: Reservation,
    file: Arc<str>,
    /// The rows of the file, good and bad, that are behind.
    at: u64,
    /// And once the last part is.
    end: u64,
}

/// Rows, and what was wrong before and between them: to be told when they are given, and not before.
pub(crate) struct Part {
    /// None, where no row was good.
    pub(crate) rows: Option<Decoded>,
    pub(crate) rejects: Vec<Reject>,
    /// The rows of the file, good and bad, that are behind with these.
    pub(crate) n_rows: u64,
}

impl Fitting {
    /// Whether nothing is to come.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.rejects.is_empty()
    }

    /// What the rejects take in memory.
    pub(crate) fn rejected_bytes(&self) -> usize {
        let of = |reject: &RowReject| size_of::<RowReject>() + reject.raw.len() + reject.message.len();
        self.rejects.iter().map(of).sum()
    }

    /// The next rows: all of them if they fit, else a copy of some, made only now. A row that cannot be admitted is
    /// among the rejects. To be called once the rows before are admitted.
    ///
    /// # Errors
    /// None but by a defect.
    pub(crate) async fn next(&mut self, cx: &Context) -> Result<Option<Part>> {
        let limit = cx.flow().total();
        let mut rejects = Vec::new();
        while let Some(rows) = self.rows.pop_front() {
            let n_rows = rows.len() as u64;
            let Some(records) = self.part(cx, rows).await? else { break };
            let weight = retained_bytes(&records);
            if weight <= limit {
                rejects.extend(self.pass(n_rows));
                let rows = Some(self.covered(records, limit.saturating_sub(weight)));
                return Ok(Some(Part { rows, rejects, n_rows: self.at }));
            }
            (0..n_rows).for_each(|_| rejects.extend(self.refuse(cx, weight)));
        }
        rejects.extend(self.pass(0));
        let part = Part { rows: None, rejects, n_rows: self.at };
        Ok((!part.rejects.is_empty()).then_some(part))
    }

    /// Puts so many good rows behind, and the bad ones before and between them; after the last, all of them.
    fn pass(&mut self, n_good: u64) -> Vec<Reject> {
        let mut end = self.at + n_good;
        let mut passed = Vec::new();
        let is_last = self.rows.is_empty();
        while let Some(reject) = self.rejects.pop_front_if(|reject| is_last || reject.row <= end) {
            end += 1;
            passed.push(reject.into_reject(&self.file));
        }
        self.at = if is_last { self.end } else { end };
        passed
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

    /// The next good row is rejected, after the bad ones before it.
    fn refuse(&mut self, cx: &Context, weight: ByteCount) -> Vec<Reject> {
        let mut row = self.at + 1;
        let mut rejects = Vec::new();
        while let Some(reject) = self.rejects.pop_front_if(|reject| reject.row <= row) {
            row += 1;
            rejects.push(reject.into_reject(&self.file));
        }
        self.at = row;
        let message = format!(
            "the row takes {weight} in memory, and there are {} for all data in flight; set `memory` to {}",
            cx.flow().total(),
            cx.memory_for(weight)
        );
        rejects.push(Reject {
            item: RejectedItem::Row,
            reason: "too large",
            message,
            origin: Origin { file: self.file.to_string(), row: Some(row), ..Origin::default() },
            raw: Vec::new(),
        });
        rejects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_primitives::Budget;
    use arrow::array::{ArrayRef, AsArray, StringArray};

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
        let cx = Context::standalone(&Budget::new("memory", ByteCount::mib(2))).unwrap();
        let mut n_rows = 0;
        sorted_out(&cx, "a.parquet".into(), rows(&[1, 2, 3]), &mut n_rows).await.unwrap();
        let lengths = [10, 600_000, 10, 2_000_000, 600_000, 10];
        let mut decoded = rows(&lengths);
        // The rows 4, 6 and 12 are bad: the good ones are 5, 7, 8, 9, 10 and 11.
        decoded.rejects = [4, 6, 12].map(bad).into();
        decoded.rows_read = 9;
        let mut fitting = sorted_out(&cx, "a.parquet".into(), decoded, &mut n_rows).await.unwrap();
        assert_eq!(n_rows, 12);
        let (mut found, mut told) = (Vec::new(), Vec::new());
        while let Some(part) = fitting.next(&cx).await.unwrap() {
            let told_now = part.rejects.iter().map(|reject| (reject.reason, reject.origin.row.unwrap()));
            told.push((told_now.collect::<Vec<_>>(), part.n_rows));
            let Some(rows) = part.rows else { continue };
            assert!(retained_bytes(&rows.records) <= cx.flow().total());
            found.extend(rows.records.column(0).as_string::<i32>().iter().map(|text| text.unwrap().len()));
            let too_large = part.rejects.iter().find(|reject| reject.reason == "too large");
            if let Some(reject) = too_large {
                assert_eq!(reject.origin.file, "a.parquet");
                assert!(reject.message.contains("set `memory` to 9MB"), "{}", reject.message);
            }
        }
        assert_eq!(found, [10, 600_000, 10, 600_000, 10]);
        let all: Vec<_> = told.iter().flat_map(|(told, _)| told.clone()).collect();
        assert_eq!(all, [("json", 4), ("json", 6), ("too large", 9), ("json", 12)]);
        for (told, n_rows) in &told {
            assert!(told.iter().all(|(_, row)| row <= n_rows), "{told:?} at {n_rows}");
        }
        assert_eq!(told.last().unwrap().1, 12);
    }

    fn bad(row: u64) -> RowReject {
        let (byte, column, message, raw) = (None, None, String::new(), Vec::new());
        RowReject { row, byte, column, reason: "json", message, raw, header: None }
    }

    #[tokio::test]
    async fn a_part_without_a_good_row_still_tells_what_was_wrong() {
        let cx = Context::standalone(&Budget::new("memory", ByteCount::mib(2))).unwrap();
        let decoded = Decoded { rejects: [1, 2].map(bad).into(), rows_read: 2, ..rows(&[]) };
        let mut fitting = sorted_out(&cx, "a.json".into(), decoded, &mut 0).await.unwrap();
        assert!(!fitting.is_empty());
        let part = fitting.next(&cx).await.unwrap().unwrap();
        assert_eq!((part.rows.is_none(), part.rejects.len(), part.n_rows), (true, 2, 2));
        assert!(fitting.next(&cx).await.unwrap().is_none());
    }

    // MEM-3
    #[tokio::test]
    async fn what_is_reserved_for_all_rows_is_held_until_the_last_of_them_have_it() {
        let cx = Context::standalone(&Budget::new("memory", ByteCount::mib(2))).unwrap();
        let (reservation, in_lane) = reserved(&cx, ByteCount::kib(256)).await;
        let wide = Decoded { reservation, ..rows(&[400_000; 6]) };
        let mut fitting = sorted_out(&cx, "a.arrow".into(), wide, &mut 0).await.unwrap();
        let mut n_parts = 0;
        while let Some(part) = fitting.next(&cx).await.unwrap() {
            n_parts += 1;
            assert!(in_lane.upgrade().is_some());
            assert_eq!(part.n_rows, n_parts);
            let batch = super::super::read::admit(&cx, part.rows.unwrap()).await.unwrap();
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
        let mut fitting = sorted_out(&cx, "a.arrow".into(), decoded, &mut 0).await.unwrap();
        for _ in 0..2 {
            let part = fitting.next(&cx).await.unwrap().unwrap();
            drop(super::super::read::admit(&cx, part.rows.unwrap()).await.unwrap());
        }
        assert!(fitting.next(&cx).await.unwrap().is_none());
    }
}

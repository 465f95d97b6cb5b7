//! Rows that are larger than all the memory for data in flight: rejected one by one, by name, so that the flow's
//! policy decides, and not the budget.

use aqueduct_core::{Context, Error, Origin, Reject, RejectedItem, Result, retained_bytes};
use aqueduct_formats::Decoded;
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;

/// The rows that can be admitted, none if there are none; what is wrong with the others goes to the policy.
/// `n_rows` counts the rows of the file, good and bad.
///
/// # Errors
/// The policy says that the run fails.
pub(crate) async fn sorted_out(
    cx: &Context,
    file: &str,
    mut decoded: Decoded,
    n_rows: &mut u64,
) -> Result<Vec<Decoded>> {
    // Between bad rows, the good ones cannot be counted from here.
    let first_row = decoded.rejects.is_empty().then_some(*n_rows + 1);
    *n_rows += decoded.rows_read;
    for reject in decoded.rejects.drain(..) {
        cx.reject(reject.into_reject(file))?;
    }
    let limit = cx.flow().total();
    if decoded.records.num_rows() == 0 {
        return Ok(Vec::new());
    }
    if retained_bytes(&decoded.records) <= limit {
        return Ok(vec![decoded]);
    }
    let records = decoded.records;
    drop(decoded.reservation);
    let split = cx.tasks().compute(move || {
        let mut split = Split { limit, fitting: Vec::new(), too_large: Vec::new() };
        split.add(&records, 0).map(|()| split)
    });
    let Split { fitting, too_large, .. } = split.await??;
    for (at, weight) in too_large {
        cx.reject(reject(cx, file, first_row.map(|first| first + at), weight))?;
    }
    let part = |records: RecordBatch| Decoded {
        rows_read: records.num_rows() as u64,
        records,
        rejects: Vec::new(),
        reservation: Reservation::empty(),
    };
    Ok(fitting.into_iter().map(part).collect())
}

fn reject(cx: &Context, file: &str, row: Option<u64>, weight: ByteCount) -> Reject {
    let message = format!(
        "the row takes {weight} in memory, and there are {} for all data in flight; set `memory` to {}",
        cx.flow().total(),
        cx.memory_for(weight)
    );
    Reject {
        item: RejectedItem::Row,
        reason: "too large",
        message,
        origin: Origin { file: file.to_owned(), row, ..Origin::default() },
        raw: Vec::new(),
    }
}

/// Rows apart: those that fit the limit, in as few batches as halving gives, and those that do not.
struct Split {
    limit: ByteCount,
    fitting: Vec<RecordBatch>,
    /// Their places from 0, and what each weighs.
    too_large: Vec<(u64, ByteCount)>,
}

impl Split {
    /// Adds rows, of which the first is the one at `first`.
    fn add(&mut self, records: &RecordBatch, first: u64) -> Result<()> {
        let n_rows = records.num_rows() as u64;
        if retained_bytes(records) <= self.limit {
            self.fitting.push(records.clone());
            return Ok(());
        }
        if n_rows > 1 {
            let half = n_rows / 2;
            self.add(&copied(records, 0..half)?, first)?;
            return self.add(&copied(records, half..n_rows)?, first + half);
        }
        // A buffer may be larger than what is in it.
        let copy = copied(records, 0..n_rows)?;
        let weight = retained_bytes(&copy);
        if weight <= self.limit {
            self.fitting.push(copy);
        } else {
            self.too_large.push((first, weight));
        }
        Ok(())
    }
}

/// Some rows, with buffers of their own.
fn copied(records: &RecordBatch, rows: std::ops::Range<u64>) -> Result<RecordBatch> {
    take_record_batch(records, &UInt64Array::from_iter_values(rows))
        .map_err(|error| Error::bug("split rows", "rows cannot be copied").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aqueduct_core::RejectPolicy;
    use aqueduct_primitives::Budget;
    use arrow::array::{ArrayRef, StringArray};
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

    #[tokio::test]
    async fn only_the_row_that_is_too_large_is_rejected_with_its_place_and_what_to_set() {
        let budget = Budget::new("memory", ByteCount::mib(2));
        let kept = Arc::new(Kept::default());
        let policy = Arc::clone(&kept);
        let cx = Context::standalone_with(&budget, |run| run.rejects = policy, |_| {}).unwrap();
        let mut n_rows = 0;
        sorted_out(&cx, "a.parquet", rows(&[1, 2, 3]), &mut n_rows).await.unwrap();
        let lengths = [10, 600_000, 10, 2_000_000, 600_000, 10];
        let parts = sorted_out(&cx, "a.parquet", rows(&lengths), &mut n_rows).await.unwrap();
        assert_eq!(n_rows, 9);
        assert_eq!(parts.iter().map(|part| part.records.num_rows()).sum::<usize>(), 5);
        assert!(parts.iter().all(|part| retained_bytes(&part.records) <= cx.flow().total()));
        let kept = kept.0.lock().unwrap();
        let [reject] = kept.as_slice() else { panic!("{kept:?}") };
        assert_eq!((reject.origin.file.as_str(), reject.origin.row), ("a.parquet", Some(7)));
        assert!(reject.message.contains("set `memory` to 9MB"), "{}", reject.message);
    }

    #[tokio::test]
    async fn where_nobody_says_otherwise_it_ends_the_run() {
        let cx = Context::standalone(&Budget::new("memory", ByteCount::mib(2))).unwrap();
        let error = sorted_out(&cx, "a.parquet", rows(&[2_000_000]), &mut 0).await.unwrap_err();
        assert_eq!(error.context("at"), Some("a.parquet, row 1"));
    }
}

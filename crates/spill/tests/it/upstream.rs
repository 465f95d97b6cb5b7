//! What becomes of a global stage whose input fails.

use std::sync::Arc;

use aqueduct_core::{Batch, BatchStream, Context, Error, ErrorKind, Scratch};
use aqueduct_primitives::{Budget, ByteCount, Reservation};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

/// Sorts one row and whatever comes after it; why that failed.
fn failure(then: BatchStream) -> Error {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cx = Context::standalone_with(
        &Budget::new("unused", ByteCount::ZERO),
        |run| run.scratch = Scratch::new(folder.path().to_owned(), ByteCount::mib(8)),
        |step| step.share = Budget::new("share", ByteCount::mib(8)),
    )
    .unwrap();
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let row = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let schema = row.schema();
    let sort = aqueduct_spill::ALL.iter().find(|factory| factory.info().name == "sort").unwrap();
    let stage = sort.configure(json!({"by": ["id"]})).unwrap().bind(&[schema]).unwrap();
    let first = futures::stream::iter([Ok(Batch::new(row, Reservation::empty()))]);
    let error = runtime.block_on(async {
        let rows = stage.run(vec![first.chain(then).boxed()], cx.clone());
        let error = rows.try_collect::<Vec<_>>().await.err().unwrap();
        cx.tasks().join().await;
        error
    });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left on disk");
    error
}

#[test]
fn the_error_of_an_input_is_told_as_it_is() {
    let broken = Error::new(ErrorKind::Data, "read", "not a number").with("file", "a.csv");
    let error = failure(futures::stream::iter([Err(broken)]).boxed());
    assert_eq!(
        (error.kind(), error.context("file"), error.context("step")),
        (ErrorKind::Data, Some("a.csv"), None)
    );
}

#[test]
fn a_panic_of_an_input_is_no_interruption() {
    let broken = futures::stream::poll_fn(|_| panic!("out of cheese"));
    let error = failure(broken.boxed());
    assert_eq!(error.kind(), ErrorKind::Bug, "{error:?}");
    assert!(error.chain().contains("out of cheese"), "{}", error.chain());
}

//! The promises of a stage, one function each.

use std::collections::BTreeSet;

use aqueduct_primitives::ByteCount;
use futures::{StreamExt, TryStreamExt};

use super::feed::{BROKEN, Cut, split};
use super::{Running, Trial};
use crate::suite::{Objection, Verdict, ensure, same_rows, texts};

/// What came out of a stage.
#[derive(Default)]
struct Out {
    rows: Vec<String>,
    /// Positions, and how many rows had come when they did.
    passed: Vec<(String, usize)>,
}

impl Running {
    /// Reads to the end, holds nothing, and checks that all memory is back.
    async fn read(mut self) -> Result<Out, Objection> {
        let mut out = Out::default();
        while let Some(batch) = self.stream.try_next().await? {
            ensure!(
                batch.schema() == self.schema,
                "declared {:?}, and gave {:?}",
                self.schema,
                batch.schema()
            );
            out.rows.extend(texts(batch.records()));
            let splits = batch.positions().iter().map(|(split, _)| (split.to_owned(), out.rows.len()));
            out.passed.extend(splits.collect::<Vec<_>>());
        }
        drop(self.stream);
        check_all_passed(&out.passed, self.feeds.iter().flat_map(super::Feed::splits).collect())?;
        self.room.leave().await?;
        Ok(out)
    }
}

/// Whether each split that was taken in came out once.
fn check_all_passed(passed: &[(String, usize)], taken: BTreeSet<String>) -> Verdict {
    let names: BTreeSet<String> = passed.iter().map(|(split, _)| split.clone()).collect();
    ensure!(names.len() == passed.len(), "a position came out twice: {passed:?}");
    ensure!(names == taken, "positions of {taken:?} came in, and of {names:?} went out");
    Ok(())
}

/// All batches have the columns that it declares when it is bound, and the rows are those that are expected.
///
/// # Errors
/// It is not so.
pub async fn the_schema_is_as_declared(trial: Trial) -> Verdict {
    let found = trial.run(Cut::Whole)?.read().await?.rows;
    same_rows(&found, &trial.fixture.rows, trial.fixture.inputs.len() == 1)
}

/// Every position that comes in goes out once, of batches without rows too, and not before the rows that it
/// stands for.
///
/// # Errors
/// It is not so.
pub async fn positions_pass_and_never_overtake_their_rows(trial: Trial) -> Verdict {
    trial.run(Cut::WithEmpty)?.read().await?;
    let all = trial.run(Cut::Tenths(10))?.read().await?;
    if trial.fixture.inputs.len() > 1 {
        return Ok(()); // which rows come of which input is the stage's affair
    }
    for n in 0..10 {
        let n_rows = trial.run(Cut::Tenths(n + 1))?.read().await?.rows.len();
        let name = split(0, n);
        let at = all.passed.iter().find(|(split, _)| *split == name).map_or(usize::MAX, |(_, at)| *at);
        ensure!(at >= n_rows, "`{name}` came out after {at} rows, and {n_rows} come of what it completes");
    }
    Ok(())
}

/// Positions go out although no row does.
///
/// # Errors
/// It is not so.
pub async fn positions_pass_even_when_all_rows_are_dropped(trial: Trial) -> Verdict {
    let dropping = trial.fixture.dropping.as_ref();
    let (options, inputs) = dropping.map_err(|reason| Objection::DoesNotApply(reason))?;
    for cut in [Cut::Whole, Cut::Every(3), Cut::WithEmpty] {
        let n_rows = trial.run_over(options, inputs, cut)?.read().await?.rows.len();
        ensure!(n_rows == 0, "the fixture says that all rows are dropped, and {n_rows} came out");
    }
    Ok(())
}

/// However batches are cut, the same rows come out.
///
/// # Errors
/// It is not so.
pub async fn halves_of_a_batch_give_the_same_rows(trial: Trial) -> Verdict {
    for cut in [Cut::Halves, Cut::Every(7), Cut::Every(1), Cut::WithEmpty] {
        let found = trial.run(cut)?.read().await?.rows;
        same_rows(&found, &trial.fixture.rows, trial.fixture.inputs.len() == 1)
            .map_err(|wrong| Objection::Wrong(format!("{cut:?}: {wrong:?}")))?;
    }
    Ok(())
}

/// Once it has ended it holds nothing, although it is still there. // MEM-1
///
/// # Errors
/// It is not so.
pub async fn nothing_is_held_at_the_end(trial: Trial) -> Verdict {
    let Running { room, feeds, mut stream, .. } = trial.run(Cut::Every(7))?;
    while stream.try_next().await?.is_some() {}
    room.check_all_is_back().await?;
    drop((stream, feeds));
    room.leave().await
}

/// Without batches, or without rows in them, it gives no row, and ends.
///
/// # Errors
/// It is not so.
pub async fn an_empty_input_ends_cleanly(trial: Trial) -> Verdict {
    let inputs: Vec<_> = trial.fixture.inputs.iter().map(|input| input.slice(0, 0)).collect();
    for cut in [Cut::Nothing, Cut::WithEmpty] {
        let n_rows = trial.run_over(&trial.fixture.options, &inputs, cut)?.read().await?.rows.len();
        ensure!(n_rows == 0, "{n_rows} rows of nothing");
    }
    Ok(())
}

/// When nobody reads it any more it lets go of its inputs, and leaves no task and no memory.
///
/// # Errors
/// It is not so.
pub async fn dropping_the_output_drops_the_inputs(trial: Trial) -> Verdict {
    for n_taken in 0..3 {
        let Running { room, feeds, stream, .. } = trial.run(Cut::Every(3))?;
        let held: Vec<_> = stream.take(n_taken).try_collect().await?;
        room.cx().tasks().join().await;
        ensure!(
            !feeds.iter().any(super::Feed::is_held),
            "dropped after {n_taken} batches, it holds its inputs"
        );
        drop((held, feeds));
        room.leave().await?;
    }
    Ok(())
}

/// An error that comes in goes out, with its own words, and nothing after it.
///
/// # Errors
/// It is not so.
pub async fn an_error_of_the_input_is_passed_on_and_is_last(trial: Trial) -> Verdict {
    for n_good in 0..2 {
        let Running { room, feeds, mut stream, .. } = trial.run(Cut::Breaking(n_good))?;
        let mut error = None;
        while let Some(item) = stream.next().await {
            ensure!(error.is_none(), "something comes after the error");
            error = item.err();
        }
        // Who needs no more of its input need not come upon the error.
        let is_seen = feeds.iter().any(|feed| feed.n_pulled() > n_good);
        let told = error.as_ref().map(aqueduct_core::Error::chain);
        ensure!(
            !is_seen || told.as_ref().is_some_and(|told| told.contains(BROKEN)),
            "the error became {told:?}"
        );
        drop((stream, feeds));
        room.leave().await?;
    }
    Ok(())
}

/// With nothing free in the flow, from the first batch on, it still goes on: what it needs beyond its input comes
/// out of its share. // MEM-2
///
/// # Errors
/// It is not so.
pub async fn it_never_waits_for_the_memory_of_the_flow(trial: Trial) -> Verdict {
    let mut running = trial.run(Cut::Every(5))?;
    let flow = running.room.cx().flow().clone();
    ensure!(flow.free() == ByteCount::ZERO, "the suite left {} free", flow.free());
    let mut held = None;
    while let Some(batch) = running.stream.try_next().await? {
        ensure!(flow.n_waiting() == 0, "MEM-2: it waits for memory of the flow");
        // One batch is always on its way further down.
        held = Some(batch);
    }
    drop((running.stream, running.feeds, held, flow));
    running.room.leave().await
}

//! The promises of a source, one function each.

use std::sync::Arc;

use aqueduct_core::{Batch, BatchStream, Durable, ErrorKind, Positions, SourceCaps, retained_bytes};
use aqueduct_primitives::ByteCount;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;

use super::{Input, Trial};
use crate::suite::room::{FLOW_BYTES, Rejected, Room, Share};
use crate::suite::{Objection, Verdict, ensure, same_rows};

/// A source is cut off after every batch; one with more batches than this in so many places, spread over them.
const MAX_CUTS: usize = 64;

/// All batches have the columns that it names when it is open, which are those that it may know before; and
/// the rows are those that are there.
///
/// # Errors
/// It is not so.
pub async fn the_schema_is_constant(trial: Trial) -> Verdict {
    let usual = &trial.fixture.usual;
    let room = trial.room(usual, Share::Best)?;
    let source = trial.open(&room, usual).await?;
    let (schema, is_ordered) = (source.schema(), source.capabilities().ordered);
    if let Some(known) = trial.configure(usual)?.known_schema(&room.planning())? {
        ensure!(known == schema, "known before it is open: {known:?}; open: {schema:?}");
    }
    let mut stream = source.run(room.cx().clone(), Positions::default());
    let mut rows = Vec::new();
    while let Some(batch) = stream.try_next().await? {
        ensure!(batch.schema() == schema, "said {schema:?}, and a batch has {:?}", batch.schema());
        rows.extend(room.texts(batch.records()));
    }
    drop(stream);
    same_rows(&rows, &trial.fixture.rows, is_ordered)?;
    room.leave().await
}

/// Where there is nothing to read it still has columns, gives no row, and ends.
///
/// # Errors
/// It is not so.
pub async fn an_empty_input_ends_cleanly(trial: Trial) -> Verdict {
    let empty = &trial.fixture.empty;
    let room = trial.room(empty, Share::Best)?;
    let source = trial.open(&room, empty).await?;
    let schema = source.schema();
    let mut stream = source.run(room.cx().clone(), empty.from.clone());
    while let Some(batch) = stream.try_next().await? {
        ensure!(batch.schema() == schema, "said {schema:?}, and a batch has {:?}", batch.schema());
        ensure!(batch.num_rows() == 0, "{} rows of nothing", batch.num_rows());
    }
    drop(stream);
    room.leave().await
}

/// Dropped at any moment, open or half read, it gives all memory back and leaves no task. // MEM-1
///
/// # Errors
/// It is not so.
pub async fn dropped_mid_stream_it_gives_everything_back(trial: Trial) -> Verdict {
    let usual = &trial.fixture.usual;
    let opening = trial.room(usual, Share::Best)?;
    // One poll: on its way, and dropped there.
    drop(trial.open(&opening, usual).now_or_never());
    opening.leave().await?;
    for n_taken in 0..4 {
        let room = trial.room(usual, Share::Best)?;
        let mut stream = trial.stream(&room, usual, &Positions::default()).await?;
        let mut held = Vec::new();
        for _ in 0..n_taken {
            held.extend(stream.try_next().await?);
        }
        ensure!(held.len() == n_taken, "only {} batches: the fixture needs more rows", held.len());
        // What is asked for and not waited for is dropped, too.
        held.extend(stream.try_next().now_or_never().transpose()?.flatten());
        drop(stream);
        drop(held);
        room.leave().await?;
    }
    Ok(())
}

/// In the least memory, a consumer that keeps what it gets until no more comes gets all rows in turns, and
/// never holds more than the flow has: every batch is covered by what is reserved for it. // MEM-2
///
/// # Errors
/// It is not so.
pub async fn a_slow_consumer_stays_inside_the_budget(trial: Trial) -> Verdict {
    let usual = &trial.fixture.usual;
    let room = trial.room(usual, Share::Least)?;
    let source = trial.open(&room, usual).await?;
    let is_ordered = source.capabilities().ordered;
    let mut stream = source.run(room.cx().clone(), Positions::default());
    let (mut rows, mut held, mut n_waits) = (Vec::new(), Vec::new(), 0);
    loop {
        match next_or_quiet(&trial, &room, &mut stream, held.is_empty()).await? {
            Next::Batch(batch) => {
                rows.extend(room.texts(batch.records()));
                held.push(batch);
                check_covered(&held)?;
            }
            Next::Quiet => {
                n_waits += 1;
                held.clear();
            }
            Next::End => break,
        }
    }
    drop((stream, held));
    same_rows(&rows, &trial.fixture.rows, is_ordered)?;
    ensure!(n_waits > 0, "all rows fit into {FLOW_BYTES}: the fixture needs more of them");
    room.leave().await
}

enum Next {
    Batch(Batch),
    /// Nothing more comes while the consumer holds what it has.
    Quiet,
    End,
}

async fn next_or_quiet(
    trial: &Trial,
    room: &Room,
    stream: &mut BatchStream,
    may_wait: bool,
) -> Result<Next, Objection> {
    let memory = [room.cx().flow(), room.cx().share()];
    let item = if may_wait {
        stream.next().await
    } else {
        tokio::select! {
            biased;
            item = stream.next() => item,
            () = trial.time.until_quiet(&memory) => return Ok(Next::Quiet),
        }
    };
    Ok(item.transpose()?.map_or(Next::End, Next::Batch))
}

fn check_covered(held: &[Batch]) -> Verdict {
    let weight = |batch: &Batch| retained_bytes(batch.records());
    // One without rows only carries positions, and weighs next to nothing.
    if let Some(last) = held.last().filter(|batch| batch.num_rows() > 0) {
        let (weight, reserved) = (weight(last), last.reserved());
        ensure!(weight <= reserved, "MEM-2: a batch weighs {weight}, and {reserved} are reserved for it");
    }
    let all: ByteCount = held.iter().filter(|batch| batch.num_rows() > 0).map(weight).sum();
    ensure!(all <= FLOW_BYTES, "MEM-2: {all} are out at once, and the flow has {FLOW_BYTES}");
    Ok(())
}

/// What fails while it is read is told by an error, after which nothing comes; and all memory is back.
///
/// # Errors
/// It is not so.
pub async fn an_error_is_the_last_item(trial: Trial) -> Verdict {
    let failing = trial.fixture.failing.as_ref().map_err(|reason| Objection::DoesNotApply(reason))?;
    let room = trial.room(failing, Share::Best)?;
    let mut stream = trial.stream(&room, failing, &failing.from).await?;
    let error = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => return Err(Objection::Wrong("it ends as if nothing had failed".into())),
        }
    };
    ensure!(error.kind() != ErrorKind::Bug, "bad input is called a defect of the program: {error:?}");
    ensure!(stream.next().await.is_none(), "something comes after the error");
    drop(stream);
    room.leave().await
}

/// Positions of a split go forward, its end comes once and last, and in the end all splits were spoken of.
///
/// # Errors
/// It is not so.
pub async fn positions_come_in_order_and_end_each_split_once(trial: Trial) -> Verdict {
    let usual = &trial.fixture.usual;
    let room = trial.room(usual, Share::Best)?;
    let mut stream = trial.stream(&room, usual, &Positions::default()).await?;
    let mut passed = Positions::default();
    while let Some(batch) = stream.try_next().await? {
        for (split, position) in batch.positions().iter() {
            ensure!(!passed.is_done(split), "`{split}` was at its end, and then at {position}");
            if let (Some(before), Some(now)) = (passed.get(split).and_then(Value::as_u64), position.as_u64())
            {
                ensure!(before < now, "`{split}` was at {before}, and then at {now}");
            }
        }
        passed.merge(batch.positions().clone());
    }
    drop(stream);
    let (n_splits, n_expected) = (passed.iter().count(), trial.fixture.n_splits);
    ensure!(n_splits == n_expected, "positions of {n_splits} splits where {n_expected} were expected");
    room.leave().await
}

/// Begun by another process after any batch, with what the last commit kept, a replayable source gives the rows that had
/// not come yet, and none twice; so with what is rejected. Where one split sums up all, that alone is enough. // CKP-1
///
/// # Errors
/// It is not so.
pub async fn a_resumed_run_repeats_and_skips_nothing(trial: Trial) -> Verdict {
    let usual = &trial.fixture.usual;
    let room = trial.room(usual, Share::Best)?;
    let SourceCaps { replayable, ordered, summed_up_in, .. } = trial.open(&room, usual).await?.capabilities();
    let is_promised = trial.configure(usual)?.is_replayable();
    ensure!(replayable || !is_promised, "its options say that it can be read again, and it cannot");
    if !replayable {
        return Err(Objection::DoesNotApply("what was read cannot be read again"));
    }
    room.leave().await?;
    let whole = Arc::new(Rejected::default());
    let room = trial.room_that_tells(usual, Share::Best, Arc::clone(&whole))?;
    let n_cuts = read_up_to(&trial, &room, usual, usize::MAX).await?.n_batches;
    room.leave().await?;
    let n_expected = usual.n_rejected.unwrap_or_default();
    ensure!(whole.all().len() == n_expected, "{} were rejected, not {n_expected}", whole.all().len());
    for n_batches in (1..).step_by(n_cuts.div_ceil(MAX_CUTS).max(1)) {
        let rejected = Arc::new(Rejected::default());
        let room = trial.room_that_tells(usual, Share::Best, Arc::clone(&rejected))?;
        let Begun { mut rows, mut passed, kept, n_batches: n_read } =
            read_up_to(&trial, &room, usual, n_batches).await?;
        if n_read < n_batches {
            return room.leave().await;
        }
        if let Some(split) = summed_up_in {
            passed.keep_only(split);
        }
        let n_before = rows.len();
        let (folders, memory) = room.into_what_stays().await?;
        let room = trial.room_in(folders, memory, usual, kept, Arc::clone(&rejected))?;
        rows.extend(read_after(&trial, &room, usual, &passed).await?);
        let told = format!("after {passed:?} ({n_batches} batches, {n_before} rows): ");
        same_rows(&rows, &trial.fixture.rows, ordered).map_err(|wrong| located(wrong, &told))?;
        let told = format!("{told}of what is rejected, ");
        same_rows(&rejected.all(), &whole.all(), false).map_err(|wrong| located(wrong, &told))?;
        room.leave().await?;
    }
    Ok(())
}

/// A run that was cut off after a commit.
struct Begun {
    rows: Vec<String>,
    passed: Positions,
    /// What the step kept.
    kept: Option<Value>,
    n_batches: usize,
}

/// Reads so many batches, commits, and drops the rest.
async fn read_up_to(trial: &Trial, room: &Room, input: &Input, n_batches: usize) -> Result<Begun, Objection> {
    let mut stream = trial.stream(room, input, &Positions::default()).await?;
    let (mut rows, mut passed, mut n_read) = (Vec::new(), Positions::default(), 0);
    while n_read < n_batches {
        let Some(batch) = stream.try_next().await? else { break };
        rows.extend(room.texts(batch.records()));
        passed.merge(batch.positions().clone());
        n_read += 1;
    }
    let keeper = room.cx().durable().and_then(Durable::keeper);
    let kept = match keeper {
        Some(keeper) => keeper.keep().await?,
        None => None,
    };
    Ok(Begun { rows, passed, kept, n_batches: n_read })
}

async fn read_after(
    trial: &Trial,
    room: &Room,
    input: &Input,
    from: &Positions,
) -> Result<Vec<String>, Objection> {
    let stream = trial.stream(room, input, from).await?;
    let batches: Vec<_> = stream.map_ok(|batch| room.texts(batch.records())).try_collect().await?;
    Ok(batches.concat())
}

fn located(objection: Objection, place: &str) -> Objection {
    match objection {
        Objection::Wrong(told) => Objection::Wrong(format!("{place}{told}")),
        other => other,
    }
}

/// Told to stop while it waits for memory, it leaves no task: dropped where it stands, or read to its end.
///
/// # Errors
/// It is not so.
pub async fn cancelling_leaves_no_task(trial: Trial) -> Verdict {
    let usual = &trial.fixture.usual;
    for is_dropped in [true, false] {
        let room = trial.room(usual, Share::Least)?;
        let mut stream = trial.stream(&room, usual, &Positions::default()).await?;
        let held = until_it_waits(&trial, &room, &mut stream).await?;
        room.cx().tasks().cancel();
        drop(held);
        if !is_dropped {
            // It may give what it has, and it may say that it was told to stop.
            while stream.next().await.is_some() {}
            room.check_all_is_back().await?;
        }
        drop(stream);
        room.leave().await?;
    }
    Ok(())
}

/// Takes batches and keeps them until no more comes.
async fn until_it_waits(
    trial: &Trial,
    room: &Room,
    stream: &mut BatchStream,
) -> Result<Vec<Batch>, Objection> {
    let mut held = Vec::new();
    loop {
        match next_or_quiet(trial, room, stream, held.is_empty()).await? {
            Next::Batch(batch) => held.push(batch),
            Next::Quiet => return Ok(held),
            Next::End => {
                let told = format!("all rows fit into {FLOW_BYTES}: the fixture needs more of them");
                return Err(Objection::Wrong(told));
            }
        }
    }
}

//! The promises of a source, one function each.

use aqueduct_core::{Batch, BatchStream, ErrorKind, Positions, retained_bytes};
use aqueduct_primitives::ByteCount;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde_json::Value;

use super::{Input, Trial};
use crate::suite::room::{FLOW_BYTES, Room, Share};
use crate::suite::{Objection, Verdict, ensure, same_rows, texts};

/// At most so many places are resumed from; more would show the same again.
const MAX_EDGES: usize = 16;

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
        rows.extend(texts(batch.records()));
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
                rows.extend(texts(batch.records()));
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

/// Begun after the positions of any batch, a replayable source gives the rows that had not come yet, and none
/// twice. // CKP-1
///
/// # Errors
/// It is not so.
pub async fn a_resumed_run_repeats_and_skips_nothing(trial: Trial) -> Verdict {
    let usual = &trial.fixture.usual;
    let room = trial.room(usual, Share::Best)?;
    let capabilities = trial.open(&room, usual).await?.capabilities();
    if !capabilities.replayable {
        return Err(Objection::DoesNotApply("what was read cannot be read again"));
    }
    let (all, edges) = read_with_edges(&trial, &room, usual).await?;
    let (mut n_before, mut n_done) = (all.len(), 0);
    for edge in spread(&edges) {
        let rest = read_after(&trial, &room, usual, &edge.passed).await?;
        let told = |why: &str| format!("after {:?} ({} rows): {why}", edge.passed, edge.n_rows);
        ensure!(rest.len() <= n_before, "{}", told("it gives more rows than from an earlier place"));
        let ends_a_split = edge.n_done() > n_done;
        ensure!(!ends_a_split || rest.len() < n_before, "{}", told("rows of a split come after its end"));
        (n_before, n_done) = (rest.len(), edge.n_done());
        let left = all.get(edge.n_rows..).unwrap_or_default();
        if capabilities.ordered {
            same_rows(&rest, left, true).map_err(|wrong| located(wrong, &told("")))?;
        } else {
            ensure!(is_within(left, &rest), "{}", told("a row that had not come is skipped"));
            ensure!(is_within(&rest, &all), "{}", told("rows come that are not in a whole run"));
        }
    }
    ensure!(n_before == 0, "after its last positions it still gives {n_before} rows");
    room.leave().await
}

/// A place between two batches.
struct Edge {
    passed: Positions,
    n_rows: usize,
}

impl Edge {
    /// How many splits are at their end.
    fn n_done(&self) -> usize {
        self.passed.iter().filter(|(split, _)| self.passed.is_done(split)).count()
    }
}

/// All rows, and the places after batches that carried positions.
async fn read_with_edges(
    trial: &Trial,
    room: &Room,
    input: &Input,
) -> Result<(Vec<String>, Vec<Edge>), Objection> {
    let mut stream = trial.stream(room, input, &Positions::default()).await?;
    let (mut rows, mut edges, mut passed) = (Vec::new(), Vec::new(), Positions::default());
    while let Some(batch) = stream.try_next().await? {
        rows.extend(texts(batch.records()));
        if !batch.positions().is_empty() {
            passed.merge(batch.positions().clone());
            edges.push(Edge { passed: passed.clone(), n_rows: rows.len() });
        }
    }
    Ok((rows, edges))
}

async fn read_after(
    trial: &Trial,
    room: &Room,
    input: &Input,
    from: &Positions,
) -> Result<Vec<String>, Objection> {
    let stream = trial.stream(room, input, from).await?;
    let batches: Vec<_> = stream.map_ok(|batch| texts(batch.records())).try_collect().await?;
    Ok(batches.concat())
}

/// At most [`MAX_EDGES`], the last among them.
fn spread(edges: &[Edge]) -> impl Iterator<Item = &Edge> {
    let step = edges.len().div_ceil(MAX_EDGES).max(1);
    let last = edges.len().saturating_sub(1);
    edges.iter().enumerate().filter(move |(at, _)| at % step == 0 || *at == last).map(|(_, edge)| edge)
}

/// Whether each of these rows is among the others, as often.
fn is_within(rows: &[String], others: &[String]) -> bool {
    let mut others: Vec<&String> = others.iter().collect();
    others.sort_unstable();
    let mut rows: Vec<&String> = rows.iter().collect();
    rows.sort_unstable();
    let mut others = others.into_iter();
    rows.into_iter().all(|row| others.any(|other| other == row))
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

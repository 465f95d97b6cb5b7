use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aqueduct_commit::SightingsReader;
use aqueduct_core::{Context, Durable, Positions};
use aqueduct_primitives::Budget;
use aqueduct_testkit::faults::FixedClock;
use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
use arrow::datatypes::Int32Type;
use futures::TryStreamExt;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::{Bench, batch_of, int_column, problems};

/// One flow, run again and again: what it has committed, and where its keys lie.
struct Runs {
    folder: tempfile::TempDir,
    kept: Option<Value>,
    share: ByteCount,
    day: i64,
}

/// One run that is under way.
struct Run {
    cx: Context,
    out: Vec<RecordBatch>,
    positions: Positions,
}

impl Runs {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), kept: None, share: ByteCount::kib(64), day: 20_000 }
    }

    fn context(&self) -> Context {
        let durable = Durable::new(
            self.kept.clone(),
            self.folder.path().join("keys"),
            Path::new("/nowhere").to_owned(),
        );
        let budget = Budget::new("test", ByteCount::mib(32));
        let clock = FixedClock::at(self.day * 86_400 + 5);
        let change = |step: &mut aqueduct_core::StepContext| {
            step.share = Budget::new("share", self.share);
            step.durable = Some(durable);
        };
        Context::standalone_with(&budget, |run| run.clock = Arc::new(clock), change).unwrap()
    }

    /// The rows that pass of these, in a run that is not committed yet.
    async fn start(&self, options: Value, batches: Vec<RecordBatch>) -> Result<Run> {
        let config: Config = serde_json::from_value(options).unwrap();
        assert_eq!(config.validate(), []);
        let stage = config.bind(&[batches[0].schema()]).unwrap();
        let cx = self.context();
        let admitting = cx.clone();
        let input = futures::stream::iter(batches).enumerate().then(move |(n, rows)| {
            let cx = admitting.clone();
            async move { Ok(cx.admit(rows).await?.with_positions(Positions::done(format!("split-{n}")))) }
        });
        let mut stream = stage.run(vec![Box::pin(input)], cx.clone());
        let (mut out, mut positions) = (Vec::new(), Positions::default());
        while let Some(batch) = stream.try_next().await? {
            positions.merge(batch.positions().clone());
            out.push(batch.records().clone());
        }
        Ok(Run { cx, out, positions })
    }

    /// The rows that pass of these, committed.
    async fn run(&mut self, options: Value, rows: RecordBatch) -> Result<RecordBatch> {
        let schema = rows.schema();
        let run = self.start(options, vec![rows]).await?;
        self.kept = run.cx.durable().unwrap().keeper().unwrap().keep().await?;
        Ok(arrow::compute::concat_batches(&schema, &run.out).unwrap())
    }

    async fn ids(&mut self, options: Value, rows: RecordBatch) -> Vec<i64> {
        int_column(&self.run(options, rows).await.unwrap(), "id")
    }
}

fn by_id() -> Value {
    json!({"keys": ["id"]})
}

fn ids(ids: impl IntoIterator<Item = i64>) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

#[tokio::test]
async fn a_key_passes_once_in_all_runs_that_are_committed() {
    let mut runs = Runs::new();
    assert_eq!(runs.ids(by_id(), ids([3, 1, 3, 2, 1])).await, [3, 1, 2]);
    assert_eq!(runs.ids(by_id(), ids([4, 2, 3, 5])).await, [4, 5]);
    // A run that ends before it is committed leaves nothing behind.
    runs.start(by_id(), vec![ids([6, 7])]).await.unwrap();
    assert_eq!(runs.ids(by_id(), ids([7, 5])).await, [7]);
    runs.kept = None;
    assert_eq!(runs.ids(by_id(), ids([7, 5])).await, [7, 5], "after a full refresh all are new");
}

#[tokio::test]
async fn many_keys_in_little_memory_keep_their_order_and_all_positions() {
    let mut runs = Runs::new();
    let all: Vec<i64> = (0..60_000).map(|n| n * 7919 % 60_000).collect();
    let batches = |of: &[i64]| of.chunks(5000).map(|rows| ids(rows.iter().copied())).collect::<Vec<_>>();
    let run = runs.start(by_id(), batches(&all[..40_000])).await.unwrap();
    assert_eq!(int_column(&concat(&run), "id"), all[..40_000]);
    runs.kept = run.cx.durable().unwrap().keeper().unwrap().keep().await.unwrap();
    let run = runs.start(by_id(), batches(&all)).await.unwrap();
    assert_eq!(int_column(&concat(&run), "id"), all[40_000..]);
    assert_eq!(run.cx.metrics().rows_duplicate.get(), 40_000);
    assert!((0..12).all(|n| run.positions.is_done(&format!("split-{n}"))));
    let (share, flow) = (run.cx.share().clone(), run.cx.flow().clone());
    drop(run);
    assert_eq!((share.free(), flow.free()), (share.total(), flow.total()), "MEM-1");
}

fn concat(run: &Run) -> RecordBatch {
    arrow::compute::concat_batches(&run.out[0].schema(), &run.out).unwrap()
}

#[tokio::test]
async fn a_greater_version_passes_and_a_tie_does_not() {
    let mut runs = Runs::new();
    let options = || json!({"keys": ["id"], "version": "v"});
    let rows = |json: &str| batch_of(json);
    let first = r#"[{"id": 1, "v": 5}, {"id": 1, "v": 5}, {"id": 1, "v": 4}, {"id": 1, "v": 6}, {"id": 2, "v": null}]"#;
    let out = runs.run(options(), rows(first)).await.unwrap();
    assert_eq!((int_column(&out, "id"), int_column(&out, "v")), (vec![1, 1, 2], vec![5, 6, 0]));
    let later = r#"[{"id": 1, "v": 6}, {"id": 2, "v": null}, {"id": 2, "v": -9}, {"id": 1, "v": null}, {"id": 1, "v": 7}]"#;
    let out = runs.run(options(), rows(later)).await.unwrap();
    assert_eq!((int_column(&out, "id"), int_column(&out, "v")), (vec![2, 1], vec![-9, 7]));
}

#[tokio::test]
async fn keys_that_were_not_seen_for_long_are_forgotten() {
    let mut runs = Runs::new();
    let options = || json!({"keys": ["id"], "forget_after": "30d"});
    assert_eq!(runs.ids(options(), ids([1, 2])).await, [1, 2]);
    runs.day += 30;
    assert!(runs.ids(options(), ids([1])).await.is_empty(), "seen again");
    runs.day += 1;
    assert_eq!(runs.ids(options(), ids([1, 2])).await, [2]);
    // What was kept with another time, or none, is kept on.
    assert!(runs.ids(by_id(), ids([1, 2])).await.is_empty());
}

/// The sightings of the last commit: key, first, last, count, places.
fn sightings(runs: &Runs) -> Vec<(String, i64, i64, u64, Vec<String>)> {
    let fs: Arc<dyn aqueduct_core::Fs> = Arc::new(aqueduct_core::StdFs);
    let all = SightingsReader::open(&fs, runs.folder.path().join("keys"), runs.kept.as_ref().unwrap());
    let day = |micros: i64| micros / 86_400_000_000;
    let told = |(key, one): (String, aqueduct_commit::Sighting)| {
        (key, day(one.first_seen), day(one.last_seen), one.count, one.from.into_iter().collect())
    };
    all.unwrap().map(|one| told(one.unwrap())).collect()
}

// S2.8, S2.12
#[tokio::test]
async fn each_row_is_a_sighting_of_its_key_once_it_is_committed() {
    let mut runs = Runs::new();
    let options = || json!({"keys": ["id", "t"], "sightings": true});
    let first = r#"[{"id": 2, "t": "x", "feed_url": "b"}, {"id": 1, "t": null, "feed_url": "a"}, {"id": 2, "t": "x", "feed_url": "a"}]"#;
    assert_eq!(runs.ids(options(), batch_of(first)).await, [2, 1]);
    runs.day += 3;
    // A run that ends before it is committed has seen nothing.
    runs.start(options(), vec![batch_of(first)]).await.unwrap();
    let later = r#"[{"id": 1, "t": null, "feed_url": null}, {"id": 3, "t": "y", "feed_url": "c"}]"#;
    assert_eq!(runs.ids(options(), batch_of(later)).await, [3]);
    let of = |key: &str, first, last, count, from: &[&str]| {
        (key.to_owned(), first, last, count, from.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
    };
    let expected = [
        of(r#"{"id":1,"t":null}"#, 20_000, 20_003, 2, &["a"]),
        of(r#"{"id":2,"t":"x"}"#, 20_000, 20_000, 2, &["a", "b"]),
        of(r#"{"id":3,"t":"y"}"#, 20_003, 20_003, 1, &["c"]),
    ];
    assert_eq!(sightings(&runs), expected);
    // Without recording, what was recorded stays; with another column it goes on.
    let without = json!({"keys": ["id", "t"]});
    assert!(runs.ids(without, batch_of(later)).await.is_empty());
    assert_eq!(sightings(&runs), expected);
    let from_id = json!({"keys": ["id", "t"], "sightings": true, "sightings_from": "id"});
    assert!(runs.ids(from_id, batch_of(later)).await.is_empty());
    assert_eq!(sightings(&runs)[2], of(r#"{"id":3,"t":"y"}"#, 20_003, 20_003, 2, &["3", "c"]));
}

#[tokio::test]
async fn sightings_are_forgotten_with_their_keys() {
    let mut runs = Runs::new();
    let options = || json!({"keys": ["id"], "forget_after": "30d", "sightings": true});
    assert_eq!(runs.ids(options(), ids([1, 2, 2])).await, [1, 2]);
    runs.day += 31;
    assert_eq!(runs.ids(options(), ids([2])).await, [2]);
    let of_two = sightings(&runs).pop().unwrap();
    assert_eq!((of_two.1, of_two.3), (20_031, 1));
}

#[tokio::test]
async fn many_sightings_in_little_memory_are_all_counted() {
    let mut runs = Runs::new();
    let options = || json!({"keys": ["id"], "sightings": true});
    for round in 1..=3_u64 {
        let all = (0..4_000).map(|n| n * 7919 % 4_000);
        runs.run(options(), ids(all)).await.unwrap();
        let seen = sightings(&runs);
        assert_eq!(seen.len(), 4_000);
        assert!(seen.iter().all(|one| one.3 == round && one.4.is_empty()));
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "by key");
    }
}

#[tokio::test]
async fn wider_columns_forget_nothing_and_other_columns_are_refused() {
    let mut runs = Runs::new();
    let narrow: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1, 2]));
    runs.run(by_id(), RecordBatch::try_from_iter([("id", narrow)]).unwrap()).await.unwrap();
    assert_eq!(runs.ids(by_id(), ids([2, 3])).await, [3]);
    for options in
        [json!({"keys": ["v"]}), json!({"keys": ["id", "v"]}), json!({"keys": ["id"], "version": "v"})]
    {
        let told = runs.run(options, batch_of(r#"[{"id": 1, "v": 5}]"#)).await.unwrap_err().chain();
        assert!(told.contains("--full-refresh") && told.contains("keys [id]"), "{told}");
    }
}

#[tokio::test]
async fn nulls_and_several_columns_are_keys_too() {
    let mut runs = Runs::new();
    let rows = r#"[{"a": null, "b": "x"}, {"a": "", "b": "x"}, {"a": null, "b": "x"}, {"a": "x", "b": null}, {"a": "xx", "b": ""}]"#;
    let out = runs.run(json!({"keys": ["a", "b"]}), batch_of(rows)).await.unwrap();
    assert_eq!(out.num_rows(), 4);
    assert_eq!(runs.run(json!({"keys": ["a", "b"]}), batch_of(rows)).await.unwrap().num_rows(), 0);
}

/// Where a run leaves nothing behind, keys are remembered for its time.
#[tokio::test]
async fn without_a_place_of_its_own_it_drops_what_comes_twice_in_the_run() {
    for _ in 0..2 {
        let bench = Bench::with_share(ByteCount::kib(64));
        let batches = vec![ids(0..20_000), ids(10_000..30_000), ids(0..30_000)];
        let out = bench.run("unseen", by_id(), batches).await.unwrap();
        assert_eq!(int_column(&out, "id"), (0..30_000).collect::<Vec<_>>());
        assert_eq!(bench.metrics().rows_duplicate.get(), 40_000);
        assert!(bench.metrics().spilled_bytes.get() > 0);
        assert!((0..3).all(|n| bench.positions().is_done(&format!("split-{n}"))));
        let disk = &bench.cx.scratch().disk;
        assert_eq!(disk.free(), disk.total());
    }
}

#[tokio::test]
async fn rows_wider_than_the_room_for_them_pass_in_pieces() {
    let text: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..40).map(|n| format!("{}{}", n / 2, "x".repeat(4000)))));
    let rows = RecordBatch::try_from_iter([("t", text)]).unwrap();
    let bench = Bench::with_share(ByteCount::kib(64));
    // Halves that a stage before has cut weigh nothing by themselves.
    let out = bench.run("unseen", json!({"keys": ["t"]}), vec![rows.slice(0, 30), rows]).await.unwrap();
    assert_eq!(out.num_rows(), 20);
}

#[test]
fn what_cannot_be_a_key_or_a_version_is_refused_in_words() {
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)])]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["2026-01-01"]));
    let rows = RecordBatch::try_from_iter([("list", list), ("text", text)]).unwrap();
    let told = |options: Value| {
        let problems = problems("unseen", options, &rows);
        problems
            .into_iter()
            .map(|one| format!("{}: {}", one.pointer, one.message))
            .collect::<Vec<_>>()
            .join("; ")
    };
    let all = told(json!({"keys": ["list", "txt"], "version": "text"}));
    for part in [
        "/keys/0: `list` is List",
        "cast it to string",
        "/keys/1: unknown column `txt`",
        "/version: `text` is Utf8",
    ] {
        assert!(all.contains(part), "{all}");
    }
    assert!(told(json!({"keys": []})).contains("/keys: no column"));
    assert!(told(json!({"keys": ["text"], "sightings_from": "text"})).contains("expected `sightings: true`"));
    assert!(
        told(json!({"keys": ["text"], "sightings": true, "sightings_from": "txt"}))
            .contains("/sightings_from: unknown column `txt`")
    );
    assert!(
        told(json!({"keys": ["text"], "forget_after": "0s"}))
            .contains("/forget_after: keys are remembered by the day")
    );
    assert_eq!(days(Duration::from_secs(86_401)), Some(2));
}

#[tokio::test]
async fn what_was_kept_and_is_damaged_is_told_by_the_file_and_the_next_step() {
    let mut runs = Runs::new();
    runs.run(by_id(), ids(0..100)).await.unwrap();
    let folder = runs.folder.path().join("keys");
    let path = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&path, "x").unwrap();
    let told = runs.run(by_id(), ids(0..100)).await.unwrap_err().chain();
    assert!(told.contains(path.to_str().unwrap()) && told.contains("aqueduct run --full-refresh"), "{told}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Runs of rows `(id, version)`, each committed or not.
    #[test]
    fn what_passes_is_what_a_map_says(
        all in prop::collection::vec(
            (prop::collection::vec((prop::option::of(0_i64..20), prop::option::of(-3_i64..4)), 1..30), any::<bool>()),
            1..6,
        ),
        has_version in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = if has_version { json!({"keys": ["id"], "version": "v"}) } else { by_id() };
        let (mut runs, mut committed) = (Runs::new(), HashMap::new());
        runs.share = ByteCount::kib(1);
        for (rows, is_committed) in all {
            let mut known = committed.clone();
            let expected: Vec<_> = rows.iter().copied().filter(|(id, version)| {
                let passes = known.get(id).is_none_or(|greatest| has_version && version > greatest);
                if passes {
                    known.insert(*id, *version);
                }
                passes
            }).collect();
            let columns: [(&str, ArrayRef); 2] = [
                ("id", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
                ("v", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
            ];
            let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap();
            let out = runtime.block_on(async {
                let run = runs.start(options.clone(), vec![batch]).await.unwrap();
                if is_committed {
                    runs.kept = run.cx.durable().unwrap().keeper().unwrap().keep().await.unwrap();
                }
                concat(&run)
            });
            let expected_ids: Vec<_> = expected.iter().map(|row| row.0.unwrap_or_default()).collect();
            let expected_versions: Vec<_> = expected.iter().map(|row| row.1.unwrap_or_default()).collect();
            prop_assert_eq!((int_column(&out, "id"), int_column(&out, "v")), (expected_ids, expected_versions));
            if is_committed {
                committed = known;
            }
        }
    }
}

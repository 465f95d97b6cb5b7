use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use aqueduct_core::{Fs, StdFs, SystemClock};
use aqueduct_primitives::{Budget, ByteCount, Tasks};
use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::flow::RunIdentity;
use crate::run::RunOptions;

/// Flows that run until they are let go, or told to stop.
pub(super) struct Fake {
    pub(super) gate: Semaphore,
    /// What is wrong with its one scheduled flow.
    unread: Mutex<Option<String>>,
    /// Why its flows cannot be listed.
    unlisted: Mutex<Option<Refused>>,
}

impl Fake {
    fn new() -> Self {
        Self { gate: Semaphore::new(0), unread: Mutex::default(), unlisted: Mutex::default() }
    }
}

#[async_trait]
impl Flows for Fake {
    fn list(&self) -> Result<Vec<serde_json::Value>, Refused> {
        Ok(vec![serde_json::json!({ "name": "a" })])
    }

    fn schedules(&self) -> Result<Schedules, Refused> {
        if let Some(refused) = self.unlisted.lock().unwrap().clone() {
            return Err(refused);
        }
        let text = "name: a\nsource: { files: { paths: [a] } }\nsink: { discard: {} }\nevery: 10m\n";
        let flow = crate::flow::fake::load_yaml(text).unwrap().remove(0);
        let read = self.unread.lock().unwrap().clone();
        let read = read.map_or_else(|| Ok(("a".to_owned(), flow.schedule.unwrap())), Err);
        Ok([("a.yaml".into(), read)].into())
    }

    fn check(&self, request: &StartRequest) -> Result<Wanted, Refused> {
        match request.flow.as_str() {
            "none" => Err(Refused::Unknown("no flow `none`".into())),
            "wrong" => Err(Refused::Wrong("flow.yaml:1:1: sink: missing".into())),
            name => {
                let mb = request.set.get("mb").and_then(|mb| mb.parse().ok()).unwrap_or(10);
                let secrets: BTreeSet<_> = request.set.get("password").cloned().into_iter().collect();
                let (memory, locks) = (ByteCount::mb(mb), vec![name.to_owned()]);
                Ok(Wanted { memory, locks, masks: secrets.into() })
            }
        }
    }

    async fn run(
        &self,
        _: RunIdentity,
        request: &StartRequest,
        (_, goes_on): (ByteCount, bool),
        options: RunOptions,
    ) -> Outcome {
        if request.flow == "panics" {
            panic!("a flow that panics");
        }
        tokio::select! {
            biased;
            () = options.stop.cancelled() => Outcome::interrupted(),
            permit = self.gate.acquire() => {
                permit.unwrap().forget();
                let error = goes_on.then(|| "went on".to_owned());
                Outcome { status: JobStatus::Done, error, reports: Vec::new() }
            }
        }
    }
}

pub(super) struct House {
    state: tempfile::TempDir,
    pub(super) flows: Arc<Fake>,
}

impl House {
    pub(super) fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap(), flows: Arc::new(Fake::new()) }
    }

    pub(super) async fn serve(&self, limits: Limits) -> Runs {
        let records = Records::new(Arc::new(StdFs), self.state.path().join("serve"));
        let memory = Budget::new("server", ByteCount::mb(100));
        let flows = Arc::clone(&self.flows) as _;
        Runs::open(flows, Some(records), memory, limits, Arc::new(SystemClock)).await.unwrap()
    }
}

/// Runs of nobody.
pub(super) fn shown_only() -> Runs {
    Runs::shown_only(Arc::new(Fake::new()), Budget::new("memory", ByteCount::mb(1)))
}

pub(super) fn request(flow: &str, mb: u64) -> StartRequest {
    let set = [("mb".to_owned(), mb.to_string())].into();
    StartRequest { flow: flow.to_owned(), set, ..StartRequest::default() }
}

pub(super) async fn stands_at(job: &Job, status: JobStatus) {
    job.changes().wait_for(|now| *now == status).await.unwrap();
}

pub(super) fn all() -> Query {
    Query { limit: 1000, before: None, status: None, text: None }
}

// Contract "serve": a run that cannot be admitted waits, visibly; S1.13
#[tokio::test]
async fn runs_share_one_budget_and_wait_in_turn() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    let first = runs.start(request("a", 60)).await.unwrap();
    stands_at(&first, JobStatus::Running).await;
    let second = runs.start(request("b", 60)).await.unwrap();
    let third = runs.start(request("c", 10)).await.unwrap();
    let shown = runs.summary(&third);
    assert_eq!((&shown["status"], &shown["waits_behind"]), (&"waiting".into(), &1.into()));
    assert_eq!(runs.memory().free(), ByteCount::mb(40));
    house.flows.gate.add_permits(1);
    stands_at(&first, JobStatus::Done).await;
    stands_at(&second, JobStatus::Running).await;
    stands_at(&third, JobStatus::Running).await;
    house.flows.gate.add_permits(2);
    stands_at(&second, JobStatus::Done).await;
    stands_at(&third, JobStatus::Done).await;
    runs.close().await;
    assert_eq!(runs.memory().free(), ByteCount::mb(100));
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_with_the_reason() {
    let house = House::new();
    let runs = house.serve(Limits { max_runs: 1, max_waiting: 1 }).await;
    let refused = async |flow| runs.start(request(flow, 1)).await.unwrap_err();
    assert!(matches!(refused("none").await, Refused::Unknown(_)));
    assert!(matches!(refused("wrong").await, Refused::Wrong(_)));
    let first = runs.start(request("a", 1)).await.unwrap();
    stands_at(&first, JobStatus::Running).await;
    assert_eq!(refused("a").await, Refused::Busy { id: first.id.clone() });
    let waiting = runs.start(request("b", 1)).await.unwrap();
    assert_eq!(refused("c").await, Refused::Full { n: 1 });
    runs.close().await;
    assert_eq!(refused("c").await, Refused::Closing);
    assert_eq!(waiting.status(), JobStatus::Waiting);
}

#[tokio::test]
async fn a_cancelled_run_is_interrupted_whether_it_waits_or_runs() {
    let house = House::new();
    let runs = house.serve(Limits { max_runs: 1, ..Limits::default() }).await;
    let running = runs.start(request("a", 1)).await.unwrap();
    stands_at(&running, JobStatus::Running).await;
    let waiting = runs.start(request("b", 1)).await.unwrap();
    for job in [&waiting, &running] {
        runs.cancel(&job.id).await.unwrap();
        stands_at(job, JobStatus::Interrupted).await;
    }
    assert!(runs.cancel("no-such-run").await.is_none());
    runs.close().await;
    let again = house.serve(Limits::default()).await;
    assert!(again.active().is_empty());
    assert_eq!(again.job(&running.id).unwrap().status(), JobStatus::Interrupted);
}

// S1.15: state is not lost when the server is started again
#[tokio::test]
async fn the_next_server_goes_on_with_what_had_not_ended() {
    let house = House::new();
    let runs = house.serve(Limits { max_runs: 1, ..Limits::default() }).await;
    let [done, running, waiting] = ["a", "b", "c"].map(|flow| request(flow, 1));
    let done = runs.start(done).await.unwrap();
    house.flows.gate.add_permits(1);
    stands_at(&done, JobStatus::Done).await;
    let running = runs.start(running).await.unwrap();
    stands_at(&running, JobStatus::Running).await;
    let waiting = runs.start(waiting).await.unwrap();
    runs.close().await;
    drop(runs);

    house.flows.gate.add_permits(2);
    let again = house.serve(Limits { max_runs: 1, ..Limits::default() }).await;
    assert_eq!(again.job(&done.id).unwrap().status(), JobStatus::Done);
    let [running, waiting] = [running, waiting].map(|job| again.job(&job.id).unwrap());
    stands_at(&running, JobStatus::Done).await;
    stands_at(&waiting, JobStatus::Done).await;
    let how = |job: &Job| job.summary()["error"].clone();
    assert_eq!((how(&running), how(&waiting)), ("went on".into(), serde_json::Value::Null));
    assert_eq!(again.page(&all()).total, 3);
    again.close().await;
}

// The thread that answers requests has a runtime of its own, which is gone before the runs are.
// T11: what was given for a run and is secret is shown by no later server, and not kept longer than it takes
#[tokio::test]
async fn secret_values_of_a_run_that_has_ended_are_not_there_any_more() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    let mut secret = request("a", 1);
    secret.set.insert("password".to_owned(), "hunter2-hunter2".to_owned());
    let (ends, goes_on) =
        (runs.start(secret.clone()).await.unwrap(), StartRequest { flow: "b".into(), ..secret });
    house.flows.gate.add_permits(1);
    stands_at(&ends, JobStatus::Done).await;
    let goes_on = runs.start(goes_on).await.unwrap();
    stands_at(&goes_on, JobStatus::Running).await;
    runs.close().await;
    let kept = |id: &str| {
        let path = house.state.path().join("serve").join(format!("{id}.json"));
        String::from_utf8(StdFs.read(&path, 1 << 20).unwrap()).unwrap()
    };
    assert!(!kept(&ends.id).contains("hunter2"), "{}", kept(&ends.id));
    assert!(kept(&goes_on.id).contains("hunter2"), "the next server needs it");

    let runs = house.serve(Limits::default()).await;
    for id in [&ends.id, &goes_on.id] {
        let job = runs.job(id).unwrap();
        assert_eq!(runs.detail(&job).await["set"], serde_json::json!({ "mb": "1", "password": "***" }));
    }
    runs.close().await;
}

#[tokio::test]
async fn a_run_is_carried_out_where_the_runs_were_opened_wherever_it_is_asked_for() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    let asking = runs.clone();
    let tasks = Tasks::default();
    let elsewhere = tasks.block(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(asking.start(request("a", 1))).unwrap()
    });
    let job = elsewhere.await.unwrap();
    house.flows.gate.add_permits(1);
    stands_at(&job, JobStatus::Done).await;
    runs.close().await;
}

// Whoever asked has hung up while the run was being kept.
#[tokio::test]
async fn a_run_goes_on_when_nobody_waits_for_its_start() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    let is_listed = async {
        while runs.active().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        () = is_listed => {}
        _ = runs.start(request("a", 1)) => {}
    }
    let job = runs.active().remove(0);
    stands_at(&job, JobStatus::Running).await;
    runs.cancel(&job.id).await.unwrap();
    stands_at(&job, JobStatus::Interrupted).await;
    house.flows.gate.add_permits(1);
    stands_at(&runs.start(request("a", 1)).await.unwrap(), JobStatus::Done).await;
    runs.close().await;
}

#[tokio::test]
async fn a_run_that_panics_has_failed_and_the_server_goes_on() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    let job = runs.start(request("panics", 1)).await.unwrap();
    stands_at(&job, JobStatus::Failed).await;
    assert!(job.summary()["error"].as_str().unwrap().contains("a flow that panics"));
    house.flows.gate.add_permits(1);
    stands_at(&runs.start(request("a", 1)).await.unwrap(), JobStatus::Done).await;
    runs.close().await;
}

#[tokio::test]
async fn runs_are_listed_page_by_page_and_searched() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    house.flows.gate.add_permits(7);
    for n in 0..7 {
        stands_at(&runs.start(request(["even", "odd"][n % 2], 1)).await.unwrap(), JobStatus::Done).await;
    }
    let first = runs.page(&Query { limit: 4, ..all() });
    assert_eq!((first.runs.len(), first.total), (4, 7));
    let rest = runs.page(&Query { limit: 4, before: first.next.clone(), ..all() });
    assert_eq!((rest.runs.len(), rest.next.as_ref()), (3, None));
    let named = |page: &crate::serve::runs::Page, n: usize| page.runs[n]["flow"].as_str().unwrap().to_owned();
    assert_eq!([named(&first, 0), named(&rest, 2)], ["even", "even"]);
    let odd = runs.page(&Query { text: Some("ODD".into()), ..all() });
    assert_eq!(odd.total, 3);
    assert_eq!(runs.page(&Query { status: Some(JobStatus::Failed), ..all() }).total, 0);
    runs.close().await;
}

/// A clock that is moved by hand.
#[derive(Debug)]
struct ByHand(Mutex<chrono::DateTime<chrono::Utc>>);

impl aqueduct_core::Clock for ByHand {
    fn now(&self) -> chrono::DateTime<chrono::Utc> {
        *self.0.lock().unwrap()
    }
}

// Contract: under `serve` a flow with `every` is started; an overrun is skipped and counted
#[tokio::test]
async fn a_flow_with_a_schedule_is_started_when_it_is_due() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    let clock = ByHand(Mutex::new("2026-03-01T10:00:00Z".parse().unwrap()));
    let pass = |minutes| *clock.0.lock().unwrap() += chrono::TimeDelta::minutes(minutes);
    let mut scheduler = super::scheduler::Scheduler::default();
    let mut look = async || scheduler.look(&runs, &clock).await.unwrap().format("%H:%M").to_string();
    assert_eq!((look().await.as_str(), runs.page(&all()).total), ("10:10", 1));
    pass(9);
    assert_eq!((look().await.as_str(), runs.page(&all()).total), ("10:10", 1));
    // Still running when the second turn is due.
    pass(2);
    assert_eq!((look().await.as_str(), runs.counted()["a"].turns_skipped), ("10:20", 1));
    house.flows.gate.add_permits(2);
    stands_at(&runs.active()[0], JobStatus::Done).await;
    // Nobody looked for a while.
    pass(31);
    assert_eq!((look().await.as_str(), runs.counted()["a"].turns_skipped), ("10:50", 3));
    assert_eq!(runs.page(&all()).total, 2);
    runs.close().await;
}

// A flow file that is being edited, or a disk that fails for a moment
#[tokio::test]
async fn a_schedule_that_cannot_be_read_for_a_while_keeps_its_turns() {
    let house = House::new();
    let runs = house.serve(Limits::default()).await;
    let clock = ByHand(Mutex::new("2026-03-01T10:00:00Z".parse().unwrap()));
    let mut scheduler = super::scheduler::Scheduler::default();
    house.flows.gate.add_permits(2);
    let mut look = async |minutes| {
        *clock.0.lock().unwrap() += chrono::TimeDelta::minutes(minutes);
        let next = scheduler.look(&runs, &clock).await.unwrap().format("%H:%M").to_string();
        (next, runs.page(&all()).total)
    };
    assert_eq!(look(0).await, ("10:10".to_owned(), 1));
    *house.flows.unread.lock().unwrap() = Some("a.yaml:1:1: half a file".to_owned());
    assert_eq!(look(1).await, ("10:10".to_owned(), 1));
    *house.flows.unread.lock().unwrap() = None;
    *house.flows.unlisted.lock().unwrap() = Some(Refused::Failed("flows: cannot be read".to_owned()));
    assert_eq!(look(1).await, ("10:10".to_owned(), 1));
    *house.flows.unlisted.lock().unwrap() = None;
    // As if nothing had been.
    assert_eq!(look(1).await, ("10:10".to_owned(), 1));
    let first = runs.page(&all()).runs[0]["id"].as_str().unwrap().to_owned();
    stands_at(&runs.job(&first).unwrap(), JobStatus::Done).await;
    assert_eq!(look(8).await, ("10:20".to_owned(), 2));
    runs.close().await;
}

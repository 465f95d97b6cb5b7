//! A server as its clients meet it.

use aqueduct_net::Secret;
use aqueduct_net::server::{Server, ServerLimits};
use aqueduct_primitives::{Budget, ByteCount};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tests::{House, request, stands_at};
use super::*;
use crate::logging::Console;

struct Served {
    house: House,
    runs: Runs,
    site: Site,
    server: Server,
}

impl Served {
    async fn with(access: Access) -> Self {
        let house = House::new();
        let runs = house.serve(Limits { max_runs: 2, max_waiting: 1 }).await;
        Self::of(house, runs, access)
    }

    fn of(house: House, runs: Runs, access: Access) -> Self {
        let budget = |name: &str| Budget::new(name, ByteCount::mib(4));
        let server =
            Server::bind(&"127.0.0.1:0".parse().unwrap(), ServerLimits::default(), budget("connections"))
                .unwrap();
        let site =
            Site::mount(&server, runs.clone(), Console::default(), access, budget("watchers")).unwrap();
        Self { house, runs, site, server }
    }

    /// The status, the head and the body of an answer, read to its end.
    async fn ask(&self, line: &str, headers: &str, body: &str) -> (u16, String, String) {
        let address = self.server.address();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let text = format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        socket.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
    }

    async fn status(&self, line: &str, headers: &str, body: &str) -> u16 {
        self.ask(line, headers, body).await.0
    }

    async fn close(self) {
        self.runs.close().await;
        self.site.close().await;
        self.server.close().await;
    }
}

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

/// The names of the events of a stream, and the data of the last.
fn events(body: &str) -> (Vec<&str>, Value) {
    let names = body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    let last = body.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
    (names, last.map(json).unwrap_or_default())
}

// Contract "serve"; S1.16
#[tokio::test]
async fn runs_are_started_told_and_cancelled() {
    let served = Served::with(Access::default()).await;
    assert_eq!(served.status("POST /runs", "", r#"{"flow": "none"}"#).await, 404);
    for wrong in [r#"{"folw": "a"}"#, "[", r#"{"flow": "wrong"}"#] {
        let (status, _, body) = served.ask("POST /runs", "", wrong).await;
        assert_eq!(status, 400);
        assert!(!json(&body)["error"].as_str().unwrap().is_empty());
    }
    assert_eq!(served.status("GET /runs/no-such-run", "", "").await, 404);
    assert_eq!(served.status("DELETE /runs/no-such-run", "", "").await, 404);
    assert_eq!(served.status("GET /runs/no-such-run/events", "", "").await, 404);
    assert_eq!(served.status("PUT /runs", "", "").await, 405);
    assert_eq!(served.status("GET /runs?status=odd", "", "").await, 400);

    let (status, head, body) = served.ask("POST /runs", "", r#"{"flow": "a"}"#).await;
    let place = format!("/runs/{}", json(&body)["id"].as_str().unwrap());
    assert_eq!(status, 201);
    assert!(head.contains(&format!("location: {place}")), "{head}");
    assert_eq!(served.status("POST /runs", "", r#"{"flow": "a"}"#).await, 409);

    let id = place.strip_prefix("/runs/").unwrap();
    stands_at(&served.runs.job(id).unwrap(), JobStatus::Running).await;
    let watch = async || served.ask(&format!("GET {place}/events"), "", "").await.2;
    let cancel = async {
        // When all three are there.
        while served.server.stats().n_streams < 3 {
            tokio::task::yield_now().await;
        }
        served.status(&format!("DELETE {place}"), "", "").await
    };
    let (one, two, three, status) = tokio::join!(watch(), watch(), watch(), cancel);
    assert!(matches!(status, 200 | 202), "{status}");
    for watched in [one, two, three] {
        let (names, last) = events(&watched);
        assert_eq!((names.first(), names.last()), (Some(&"start"), Some(&"error")));
        assert_eq!(last["status"], "interrupted");
    }
    let late = watch().await;
    assert_eq!(events(&late).0, ["error"]);
    served.close().await;
}

// A run goes on when its watchers leave; a late one is told the end at once
#[tokio::test]
async fn a_run_outlives_its_watchers_and_is_told_of_after() {
    let served = Served::with(Access::default()).await;
    let job = served.runs.start(request("a", 1)).await.unwrap();
    stands_at(&job, JobStatus::Running).await;
    let mut left = TcpStream::connect(served.server.address()).await.unwrap();
    let line = format!("GET /runs/{}/events HTTP/1.1\r\nHost: localhost\r\n\r\n", job.id);
    left.write_all(line.as_bytes()).await.unwrap();
    let mut head = [0; 15];
    left.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    drop(left);
    served.house.flows.gate.add_permits(1);
    stands_at(&job, JobStatus::Done).await;
    let (_, _, body) = served.ask(&format!("GET /runs/{}/events", job.id), "", "").await;
    let (names, last) = events(&body);
    assert_eq!((names.last(), &last["status"]), (Some(&"complete"), &"done".into()));
    served.close().await;
}

// Contract: 503 over the limits
#[tokio::test]
async fn more_than_may_wait_is_503() {
    let served = Served::with(Access::default()).await;
    for flow in ["a", "b", "c"] {
        let job = served.runs.start(request(flow, 1)).await.unwrap();
        if flow != "c" {
            stands_at(&job, JobStatus::Running).await;
        }
    }
    let (status, head, _) = served.ask("POST /runs", "", r#"{"flow": "d"}"#).await;
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: "), "{head}");
    served.close().await;
}

// T11, T12
#[tokio::test]
async fn strangers_are_refused() {
    let token = Some(Secret::new("tok-4711"));
    let served = Served::with(Access { token, is_public: true }).await;
    let start = r#"{"flow": "a"}"#;
    let right = "Authorization: Bearer tok-4711\r\n";
    assert_eq!(served.status("GET /runs", "", "").await, 401);
    assert_eq!(served.status("GET /metrics", "", "").await, 401);
    assert_eq!(served.status("POST /runs", "Authorization: Bearer tok\r\n", start).await, 401);
    assert_eq!(
        served.status("POST /runs", &format!("{right}Origin: http://evil.example\r\n"), start).await,
        403
    );
    assert_eq!(served.runs.page(&tests::all()).total, 0);
    assert_eq!(served.status("GET /runs", right, "").await, 200);
    assert_eq!(served.status("GET /", "", "").await, 200);
    assert_eq!(served.status("GET /healthz", "", "").await, 200);
    let job = served.runs.start(request("a", 1)).await.unwrap();
    assert_eq!(served.status(&format!("GET /runs/{}/events", job.id), "", "").await, 401);
    served.close().await;
}

// T13: a thousand runs make no series
#[tokio::test]
async fn metrics_hold_no_names_of_runs_and_stay_as_many() {
    let served = Served::with(Access::default()).await;
    let series = async || {
        let text = served.ask("GET /metrics", "", "").await.2;
        (text.lines().filter(|line| !line.starts_with('#')).count(), text)
    };
    served.house.flows.gate.add_permits(41);
    stands_at(&served.runs.start(request("a", 1)).await.unwrap(), JobStatus::Done).await;
    let (n_before, _) = series().await;
    for _ in 0..40 {
        stands_at(&served.runs.start(request("a", 1)).await.unwrap(), JobStatus::Done).await;
    }
    let (n_after, text) = series().await;
    assert_eq!(n_before, n_after);
    assert!(text.contains("aqueduct_runs_total{status=\"done\"} 41"), "{text}");
    let ids = served.runs.page(&tests::all()).runs;
    assert!(ids.iter().all(|run| !text.contains(run["id"].as_str().unwrap())));
    served.close().await;
}

// `run --listen`: who may read its streams may not stop it
#[tokio::test]
async fn a_run_that_is_only_shown_is_not_stopped() {
    let served = Served::of(House::new(), tests::shown_only(), Access::default());
    let job = served.runs.show("r1".to_owned(), "a", ByteCount::mb(1));
    let (status, head, body) = served.ask("DELETE /runs/r1", "", "").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: GET"), "{head}");
    assert!(json(&body)["error"].as_str().unwrap().contains("ctrl-c"), "{body}");
    assert!(!job.is_cancelled() && !job.stop.is_cancelled());
    assert_eq!(served.status("DELETE /runs/r2", "", "").await, 404);
    served.runs.has_ended(&job, Outcome::interrupted()).await;
    served.close().await;
}

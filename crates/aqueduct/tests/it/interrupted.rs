//! Runs that are stopped, killed, or started twice: the output is as it was, and the next run goes on.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::Ordering::SeqCst;

use rustix::process::{Pid, Signal, kill_process};

use crate::job::Job;
use crate::stalled::Stalled;

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_ends_with_130_and_the_next_one_goes_on() {
    let stalled = Stalled::after_a_run().await;
    let mut first = None;
    for signal in [Signal::INT, Signal::TERM] {
        let run = stalled.start("run flow.yaml --report report.json").await;
        run.signal(signal);
        run.wait().exits(130).says(&["interrupted", "goes on from there"]);
        stalled.server.until_connections(0).await;
        let report = stalled.job.report();
        assert_eq!(report["status"], "interrupted");
        assert_eq!(report["resumed_from"], first.clone().unwrap_or(serde_json::Value::Null), "{report}");
        first = Some(report["run_id"].clone());
        assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>(), "what the run before wrote");
    }
    stalled.stalls.store(false, SeqCst);
    let n_before = stalled.server.asked("/0.ndjson").len();
    stalled.job.run("run flow.yaml --report report.json").exits(0).says(&["going on"]);
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    let report = stalled.job.report();
    assert_eq!((&report["rows_in"], Some(&report["resumed_from"])), (&20.into(), first.as_ref()));
    let asked = stalled.server.asked("/0.ndjson");
    assert!(asked[n_before..].iter().all(|one| one.method == "HEAD"), "asked only whether it has changed");
    assert!(
        stalled.job.files(".").iter().all(|name| !name.contains("stage-")),
        "{:?}",
        stalled.job.files(".")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_to_begin_afresh_or_was_edited_goes_on_with_nothing() {
    let stalled = Stalled::after_a_run().await;
    let edited = stalled.job.read("flow.yaml").replace("path: out", "path: out, compression: gzip");
    for (words, flow) in [("run flow.yaml --fresh", None), ("run flow.yaml", Some(edited))] {
        stalled.stalls.store(true, SeqCst);
        let run = stalled.start("run flow.yaml").await;
        run.signal(Signal::TERM);
        run.wait().exits(130);
        stalled.stalls.store(false, SeqCst);
        if let Some(flow) = &flow {
            stalled.job.write("flow.yaml", flow);
        }
        let done = stalled.job.run(&format!("{words} --report report.json")).exits(0);
        if flow.is_some() {
            done.says(&["sink.ndjson.compression", "begins anew"]);
        }
        let report = stalled.job.report();
        assert_eq!((&report["resumed_from"], &report["rows_in"]), (&serde_json::Value::Null, &20.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_old_rows_are_there_and_the_next_run_clears_up() {
    let stalled = Stalled::after_a_run().await;
    let before = stalled.job.files(".").len();
    let run = stalled.start("run flow.yaml").await;
    run.signal(Signal::KILL);
    drop(run);
    stalled.server.until_connections(0).await;
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    stalled.stalls.store(false, SeqCst);
    stalled.job.run("run flow.yaml").exits(0);
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    assert_eq!(stalled.job.files(".").len(), before, "{:?}", stalled.job.files("."));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_flow_does_not_run_twice_at_once() {
    let stalled = Stalled::after_a_run().await;
    let first = stalled.start("run flow.yaml").await;
    let process = format!("process {}", first.pid());
    stalled.job.run("run flow.yaml").exits(4).says(&["running already", &process]);
    stalled.gate.open();
    first.wait().exits(0);
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    stalled.job.run("run flow.yaml").exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_stops_the_run() {
    let job = Job::with_flow(
        r#"
name: head
source: { generate: { rows: 1000000000 } }
sink: { stdout: {} }
"#,
    );
    let mut run = job.start("run flow.yaml");
    assert!(run.line().starts_with('{'));
    run.close_stdout();
    run.wait().exits(130);
}

// reliability 47: a second interrupt ends a run whose sink stands still
#[test]
fn a_second_interrupt_stops_at_once() {
    let job =
        Job::with_flow("name: twice\nsource: { generate: { rows: 1000000000 } }\nsink: { stdout: {} }\n");
    let mut command = job.command("run flow.yaml");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut rows = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    rows.read_line(&mut first).unwrap();
    assert!(first.starts_with('{'), "{first}");
    let process = Pid::from_child(&child);
    let interrupt = || kill_process(process, Signal::INT).unwrap();
    interrupt();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(told.any(|line| line.contains("once more to stop at once")), "the first one is not told");
    interrupt();
    // Nobody reads the rows, so that nothing but the second one, or the end of patience, can end it.
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(rows);
}

// reliability 47: a terminal that is closed
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_stops_a_run_as_an_interrupt_does_and_the_next_one_goes_on() {
    let stalled = Stalled::after_a_run().await;
    let run = stalled.start("run flow.yaml").await;
    run.signal(Signal::HUP);
    run.wait().exits(130).says(&["interrupted", "goes on from there"]);
    stalled.server.until_connections(0).await;
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
    stalled.open();
    stalled.job.run("run flow.yaml").exits(0).says(&["going on"]);
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
}

// reliability 47: as `nohup` starts it
#[tokio::test(flavor = "multi_thread")]
async fn who_is_to_outlive_the_terminal_does() {
    let stalled = Stalled::after_a_run().await;
    let run = stalled.started(stalled.job.command_after("trap '' HUP", "run flow.yaml")).await;
    run.signal(Signal::HUP);
    stalled.gate.open();
    run.wait().exits(0);
    assert_eq!(stalled.numbers(), (0..20).collect::<Vec<_>>());
}

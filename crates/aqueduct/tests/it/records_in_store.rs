//! The log of a flow and its output, both in a server that speaks S3: replies that are lost, requests that are refused, and
//! a second writer.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use aqueduct::commit::{End, Epoch, FlowLog, Mode, NewRun, Start, Target, Transaction};
use aqueduct::core::{Clock, Error, ErrorKind, Fs, Output, Part, Positions, Result, SystemClock};
use aqueduct::net::{HttpOptions, StorageOptions, StoreFs};
use aqueduct_testkit::s3::{S3Server, Wrong};

fn fs(server: &S3Server) -> Arc<dyn Fs> {
    let storage: StorageOptions = serde_json::from_value(server.storage()).unwrap();
    let http: HttpOptions = serde_json::from_value(serde_json::json!({ "retries": 0 })).unwrap();
    Arc::new(StoreFs::new(storage, http))
}

fn begin(fs: &Arc<dyn Fs>, local: &Path, run_id: &str) -> Result<Transaction> {
    let path = "s3://lake/out".into();
    let output = Output { path, is_file: false, allow_empty: false, mode: None };
    let run = NewRun {
        flow: "nightly".into(),
        run_id: run_id.into(),
        now: SystemClock.now(),
        identity: BTreeMap::new(),
        fixed: BTreeMap::new(),
        targets: vec![Target { output, mode: Mode::Append, is_filled_last: false }],
    };
    let log = FlowLog::open(fs, Path::new("s3://lake/state/nightly"))?;
    log.with_local_dir(&local.join(run_id)).begin(run, Start::Resume)
}

/// Commits one part with this name.
fn commit(fs: &Arc<dyn Fs>, run: &mut Transaction, name: &str, end: End) -> Result<()> {
    let staged = run.stage_dir(0).unwrap().join(name);
    let write = || {
        let mut file = fs.create_new(&staged)?;
        file.write_all(name.as_bytes())?;
        file.sync()
    };
    write().map_err(|error| Error::io("write", staged.display(), error))?;
    let blake3 = blake3::hash(name.as_bytes()).to_hex().to_string();
    let part = Part { staged, name: name.into(), rows: 1, n_bytes: name.len() as u64, blake3, extents: None };
    let positions = BTreeMap::from([("source".to_owned(), Positions::done(name.to_owned()))]);
    let epoch = Epoch { parts: vec![vec![part]], positions, ..Epoch::default() };
    let committed = run.commit(epoch, end, SystemClock.now())?;
    committed.pending.map_or(Ok(()), Err)
}

fn names(server: &S3Server, prefix: &str) -> Vec<String> {
    server.objects(prefix).into_iter().map(|(key, _)| key).filter(|key| !key.contains("_aqueduct")).collect()
}

#[test]
fn a_record_whose_reply_is_lost_is_ours_and_committed_once() {
    let (server, local) = (S3Server::start().unwrap(), tempfile::tempdir().unwrap());
    let fs = fs(&server);
    for n in [1, 2, 3] {
        server.plan("PUT", &format!("log/{n:020}.json"), 1, Wrong::ReplyLost);
    }
    let mut run = begin(&fs, local.path(), "r1").unwrap();
    commit(&fs, &mut run, "a", End::GoOn).unwrap();
    commit(&fs, &mut run, "b", End::Finish).unwrap();
    run.close().unwrap();
    assert_eq!(names(&server, "out/"), ["out/a", "out/b"]);
    assert_eq!(names(&server, "state/").len(), 3, "{:?}", names(&server, "state/"));
}

#[test]
fn a_record_that_is_refused_is_sent_again() {
    for status in [500, 503, 409] {
        let (server, local) = (S3Server::start().unwrap(), tempfile::tempdir().unwrap());
        let fs = fs(&server);
        server.plan("PUT", "log/00000000000000000002.json", 2, Wrong::Refused(status));
        let mut run = begin(&fs, local.path(), "r1").unwrap();
        commit(&fs, &mut run, "a", End::Finish).unwrap();
        run.close().unwrap();
        assert_eq!(names(&server, "out/"), ["out/a"], "{status}");
        let puts =
            server.seen().into_iter().filter(|seen| seen.starts_with("PUT") && seen.contains("0002.json"));
        assert_eq!(puts.count(), 3, "{status}");
    }
}

#[test]
fn a_store_that_never_says_what_became_of_a_record_leaves_it_to_the_next_run() {
    let (server, local) = (S3Server::start().unwrap(), tempfile::tempdir().unwrap());
    let fs = fs(&server);
    let mut run = begin(&fs, local.path(), "r1").unwrap();
    server.plan("PUT", "log/00000000000000000002.json", 1, Wrong::ReplyLost);
    server.plan("GET", "log/00000000000000000002.json", usize::MAX, Wrong::Refused(500));
    let error = commit(&fs, &mut run, "a", End::Finish).unwrap_err();
    assert!(error.chain().contains("00000000000000000002.json"), "{}", error.chain());
    run.close().unwrap();
    server.forget_plans();
    assert_eq!(names(&server, "out/"), [] as [String; 0]);
    let again = begin(&fs, local.path(), "r2").unwrap();
    assert_eq!(names(&server, "out/"), ["out/a"], "it was committed");
    again.close().unwrap();
}

#[test]
fn who_was_taken_over_stops_and_deletes_nothing() {
    let (server, local) = (S3Server::start().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (fs(&server), fs(&server));
    let mut zombie = begin(&first, local.path(), "r1").unwrap();
    commit(&first, &mut zombie, "a", End::GoOn).unwrap();
    let mut owner = begin(&second, local.path(), "r2").unwrap();
    let fenced = commit(&first, &mut zombie, "late", End::GoOn).unwrap_err();
    assert_eq!(fenced.kind(), ErrorKind::Conflict, "{}", fenced.chain());
    assert!(fenced.chain().contains("taken over"), "{}", fenced.chain());
    let before = server.objects("");
    zombie.close().unwrap();
    let gone: Vec<_> = before.iter().filter(|object| !server.objects("").contains(object)).collect();
    assert!(gone.is_empty(), "{gone:?}");
    commit(&second, &mut owner, "b", End::Finish).unwrap();
    owner.close().unwrap();
    assert_eq!(names(&server, "out/"), ["out/a", "out/b"]);
}

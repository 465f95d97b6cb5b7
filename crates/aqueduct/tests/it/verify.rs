//! `verify`: what was done to a committed output is found, all of it.

use aqueduct::core::{Fs, StdFs};

use crate::job::{Done, Job, ndjson};

/// A folder of several parts in two partitions, and two single files.
fn committed() -> Job {
    let job = Job::with_flow(
        r#"
name: proof
source: { files: { paths: ["in.ndjson"] } }
stages: [{ with: { text: "concat('line', chr(10), '\"', cast(n as string))", third: "n % 3" } }]
sinks:
  table: { parquet: { path: out, partition_by: [third], file_bytes: 20KB } }
  csv: { csv: { path: one.csv.gz } }
  json: { json: { path: one.json } }
  lines: { ndjson: { path: lines, compression: zstd } }
  arrow: { arrow: { path: one.arrow } }
"#,
    );
    job.write("in.ndjson", ndjson(0..9000));
    job.run("run flow.yaml").exits(0);
    job
}

fn parts(job: &Job, folder: &str) -> Vec<String> {
    job.files(folder).into_iter().filter(|name| !name.starts_with("_aqueduct/")).collect()
}

fn wrong(job: &Job, path: &str) -> Done {
    let done = job.run(&format!("verify {path}")).exits(1);
    assert!(done.stdout.lines().last().unwrap().starts_with("wrong: "), "{}", done.stdout);
    done
}

#[test]
fn every_sinks_output_is_proved_with_its_rows() {
    let job = committed();
    for path in ["out", "out/", "one.csv.gz", "one.json", "lines", "one.arrow"] {
        let done = job.run(&format!("verify {path}")).exits(0);
        let (summary, n_lines) = (done.stdout.lines().last().unwrap(), done.stdout.lines().count());
        assert!(summary.starts_with("ok: ") && summary.contains(" 9,000 rows, "), "{path}: {summary}");
        assert!(!summary.contains("no rows"), "{path}: {summary}");
        assert_eq!((n_lines, done.stderr.as_str()), (1, ""), "{path}");
    }
    let from_within = job.run("-C out verify .").exits(0);
    assert!(from_within.stdout.starts_with("ok: "), "{}", from_within.stdout);
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let job = committed();
    let names = parts(&job, "out");
    assert!(names.len() >= 3, "{names:?}");
    let [flipped, missing, truncated] = [&names[0], &names[1], &names[2]];
    let path = |name: &str| job.path(&format!("out/{name}"));
    let bytes = |name: &str| StdFs.read(&path(name), 1 << 20).unwrap();
    let mut changed = bytes(flipped);
    changed[100] ^= 1;
    std::fs::write(path(flipped), changed).unwrap();
    std::fs::remove_file(path(missing)).unwrap();
    let whole = bytes(truncated);
    std::fs::write(path(truncated), &whole[..whole.len() - 1]).unwrap();
    job.write("out/mine.parquet", "not of any run");
    let done = wrong(&job, "out");
    for (name, words) in [
        (flipped.as_str(), "BLAKE3"),
        (missing, "missing"),
        (truncated, "bytes, the manifest says"),
        ("mine.parquet", "does not list"),
    ] {
        let is_told = |line: &str| line.starts_with(name) && line.contains(words);
        assert!(done.stdout.lines().any(is_told), "{name}: {}", done.stdout);
    }
    assert_eq!(done.stdout.lines().count(), 5, "{}", done.stdout);
    assert!(done.stdout.contains("wrong: 4 problems"), "{}", done.stdout);
    done.says(&["out", "and 3 more"]);
}

#[test]
fn rows_are_counted_not_believed() {
    let job = committed();
    for (path, manifest) in [
        ("one.csv.gz", "_aqueduct/one.csv.gz.manifest.json"),
        ("one.arrow", "_aqueduct/one.arrow.manifest.json"),
    ] {
        let text = job.read(manifest);
        assert!(text.contains("\"rows\":9000"), "{text}");
        job.write(manifest, text.replace("\"rows\":9000", "\"rows\":9001"));
        let told = wrong(&job, path).stdout;
        assert!(told.starts_with(&format!("{path}: has 9000 rows, the manifest says 9001")), "{told}");
    }
    let text = job.read("out/_aqueduct/manifest.json");
    job.write("out/_aqueduct/manifest.json", text.replacen("\"rows\":9000", "\"rows\":8000", 1));
    let told = wrong(&job, "out").stdout;
    assert!(told.contains("8000 rows in all, its parts have 9000"), "{told}");
}

#[test]
fn copies_are_proved_by_their_bytes() {
    let job = Job::with_flow(
        r#"
name: copies
source: { files: { paths: ["in/*"], format: binary } }
sink: { files: { path: copied } }
"#,
    );
    job.write("in/a.ndjson", ndjson(0..100_000));
    job.write("in/part-other-00000.csv", "n\n1\n2\n");
    job.run("run flow.yaml").exits(0);
    let done = job.run("verify copied").exits(0);
    assert!(
        done.stdout.starts_with("ok: 2 parts, ") && done.stdout.contains("of 2 parts"),
        "{}",
        done.stdout
    );
    job.write("copied/part-other-00000.csv", "n\n1\n3\n");
    wrong(&job, "copied").says(&["part-other-00000.csv"]);
}

#[test]
fn without_a_known_manifest_nothing_is_proved() {
    let job = committed();
    job.run("verify in.ndjson").exits(2).says(&["in.ndjson", "no manifest"]);
    job.run("verify nowhere").exits(2).says(&["nowhere"]);
    let manifest = "out/_aqueduct/manifest.json";
    let text = job.read(manifest);
    job.write(manifest, text.replacen("\"version\":1", "\"version\":7", 1));
    job.run("verify out").exits(2).says(&["newer", "7"]);
    job.write(manifest, &text[..text.len() / 2]);
    job.run("verify out").exits(1).says(&["manifest"]);
}

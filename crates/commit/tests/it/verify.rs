//! A proof finds whatever was done to an output.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use aqueduct_commit::{Manifest, verify};
use aqueduct_core::{ErrorKind, Fs, StdFs};
use tempfile::TempDir;

fn disk() -> Arc<dyn Fs> {
    Arc::new(StdFs)
}

/// A folder output of two parts, one in a partition, as a run leaves it.
fn output() -> TempDir {
    let dir = TempDir::new().unwrap();
    let parts: Vec<_> = [("a.csv", "n\n1\n"), ("k=1/b.csv", "n\n2\n3\n")]
        .iter()
        .map(|(name, text)| {
            let path = dir.path().join("out").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let rows = text.lines().count() - 1;
            let hash = blake3::hash(text.as_bytes()).to_hex().to_string();
            serde_json::json!({ "name": name, "rows": rows, "bytes": text.len(), "blake3": hash })
        })
        .collect();
    write_manifest(&dir.path().join("out/_aqueduct/manifest.json"), &parts, 3);
    dir
}

fn write_manifest(path: &Path, parts: &[serde_json::Value], rows: u64) {
    let manifest = serde_json::json!({
        "version": 1, "flow": "f", "run_id": "r", "mode": "replace",
        "written": "2026-01-01T00:00:00Z", "rows": rows, "parts": parts,
    });
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, manifest.to_string()).unwrap();
}

fn read(path: &Path) -> Vec<u8> {
    StdFs.read(path, 1 << 20).unwrap()
}

fn flaws(dir: &TempDir) -> Vec<String> {
    let verified = verify(&disk(), &dir.path().join("out")).unwrap().unwrap();
    verified.flaws.iter().map(ToString::to_string).collect()
}

fn change_manifest(dir: &TempDir, from: &str, to: &str) {
    let path = dir.path().join("out/_aqueduct/manifest.json");
    let text = String::from_utf8(read(&path)).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn what_is_as_it_was_committed_has_no_flaw() {
    let dir = output();
    let verified = verify(&disk(), &dir.path().join("out")).unwrap().unwrap();
    assert_eq!(verified.flaws, []);
    let intact: Vec<_> = verified.intact.iter().map(|(part, path)| (part.rows, path.clone())).collect();
    assert_eq!(intact, [(1, dir.path().join("out/a.csv")), (2, dir.path().join("out/k=1/b.csv"))]);
}

#[test]
fn every_flaw_is_told_not_only_the_first() {
    let dir = output();
    let out = dir.path().join("out");
    fs::write(out.join("a.csv"), "n\n7\n").unwrap();
    fs::remove_file(out.join("k=1/b.csv")).unwrap();
    fs::write(out.join("k=1/mine.txt"), "x").unwrap();
    fs::create_dir_all(out.join("k=1/_aqueduct")).unwrap();
    fs::write(out.join("k=1/_aqueduct/manifest.json"), "x").unwrap();
    change_manifest(&dir, "\"rows\":3,\"", "\"rows\":4,\"");
    let found = flaws(&dir);
    let expected = [
        ("a.csv: ", "BLAKE3"),
        ("k=1/_aqueduct/manifest.json: ", "does not list"),
        ("k=1/b.csv: ", "missing"),
        ("k=1/mine.txt: ", "does not list"),
        ("out: ", "4 rows in all, its parts have 3"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (flaw, (name, words)) in found.iter().zip(expected) {
        assert!(flaw.starts_with(name) && flaw.contains(words), "{flaw}");
    }
}

#[test]
fn a_part_cut_short_is_told_with_both_sizes() {
    let dir = output();
    fs::write(dir.path().join("out/a.csv"), "n\n").unwrap();
    assert_eq!(flaws(&dir), ["a.csv: has 2 bytes, the manifest says 4"]);
}

#[test]
fn a_folder_or_a_pipe_in_a_parts_place_is_not_opened() {
    let dir = output();
    fs::remove_file(dir.path().join("out/a.csv")).unwrap();
    fs::create_dir(dir.path().join("out/a.csv")).unwrap();
    let found = flaws(&dir);
    assert!(matches!(&found[..], [one] if one.starts_with("a.csv: no file any more")), "{found:?}");
}

#[test]
fn a_manifest_that_leads_out_of_the_output_is_not_followed() {
    let dir = output();
    fs::write(dir.path().join("a.csv"), "n\n1\n").unwrap();
    change_manifest(&dir, "\"a.csv\"", "\"../a.csv\"");
    let found = flaws(&dir).join("\n");
    assert!(found.contains("../a.csv: the manifest's name for it leads out"), "{found}");
    assert!(found.contains("\na.csv: the manifest does not list it"), "{found}");
}

#[test]
fn one_file_is_proved_by_the_manifest_beside_it() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("out.csv");
    let hash = blake3::hash(b"n\n1\n").to_hex().to_string();
    let part = serde_json::json!({ "name": "out.csv", "rows": 1, "bytes": 4, "blake3": hash });
    write_manifest(&dir.path().join("_aqueduct/out.csv.manifest.json"), &[part], 1);
    fs::write(dir.path().join("beside.txt"), "of no concern").unwrap();
    let missing = verify(&disk(), &path).unwrap().unwrap().flaws;
    assert!(matches!(&missing[..], [one] if one.found.starts_with("missing")), "{missing:?}");
    fs::write(&path, "n\n1\n").unwrap();
    assert_eq!(verify(&disk(), &path).unwrap().unwrap().flaws, []);
}

#[test]
fn without_a_manifest_that_is_known_there_is_no_proof() {
    let dir = output();
    assert!(verify(&disk(), dir.path()).unwrap().is_none());
    assert!(verify(&disk(), &dir.path().join("nowhere")).unwrap().is_none());
    let path = dir.path().join("out/_aqueduct/manifest.json");
    let whole: Manifest = serde_json::from_slice(&read(&path)).unwrap();
    fs::write(&path, serde_json::to_string(&Manifest { version: 2, ..whole }).unwrap()).unwrap();
    let newer = verify(&disk(), &dir.path().join("out")).unwrap_err();
    assert_eq!(newer.kind(), ErrorKind::Newer, "{newer}");
    fs::write(&path, "{\"version\": 1").unwrap();
    let damaged = verify(&disk(), &dir.path().join("out")).unwrap_err();
    assert_eq!(damaged.kind(), ErrorKind::Data, "{damaged}");
}

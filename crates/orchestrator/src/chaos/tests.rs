//! Scripts as people write them.

use std::path::Path;

use super::Chaos;

/// What is wrong with a script, one line each, without the file's name.
fn wrong(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chaos.yaml");
    std::fs::write(&path, text).unwrap();
    let Err(errors) = Chaos::read(&path) else { return String::new() };
    errors.to_string().replace(&format!("{}:", path.display()), "")
}

#[test]
fn mistakes_are_told_with_their_places_and_all_at_once() {
    for (script, told) in [
        (
            "routes: [{ path: /a, body: x, faults: [{ cut: 3 }] }]",
            vec!["1:42: routes.0.faults.0.cut: ", "cut_at"],
        ),
        (
            "routes:\n  - { path: a, body: x }\n  - { path: /b, file: gone.csv }\n",
            vec!["2:13: ", "begins with /", "\n3:23: ", "no file `gone.csv`"],
        ),
        (
            "routes: [{ path: /a, body: x, faults: [{ always: true, status: 500 }, { hang: true }] }]",
            vec!["1:50: ", "let it be the last"],
        ),
        (
            "routes: [{ path: /a, body: x, faults: [{ always: true, times: 2 }] }]",
            vec!["one of `times`, `for` and `always`"],
        ),
        ("listen: here\nroutes: [{ path: /a, body: x }]", vec!["1:9: ", "127.0.0.1:0"]),
        ("routes: [{ path: /a, body: x, faults: [{ delay: soon }] }]", vec!["a duration such as 10s"]),
        ("routes: [{ path: /a }]", vec!["nothing is served"]),
        ("routes: []", vec!["1:1: ", "no route"]),
        ("route: []", vec!["1:1: ", "`routes`"]),
    ] {
        let found = wrong(script);
        for words in told {
            assert!(found.contains(words), "`{words}` is missing in: {found}");
        }
    }
}

#[test]
fn the_script_in_the_help_is_one() {
    let lines = super::HELP.lines().skip_while(|line| !line.starts_with("  listen:"));
    let script: String = lines.take_while(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(dir.path().join("data/a.csv"), "n\n1\n").unwrap();
    let path = dir.path().join("chaos.yaml");
    std::fs::write(&path, script).unwrap();
    let chaos = Chaos::read(&path).unwrap();
    assert_eq!(chaos.script.routes.len(), 4);
}

#[test]
fn a_folder_serves_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("in")).unwrap();
    std::fs::write(dir.path().join("in/a b.csv"), "n\n").unwrap();
    std::fs::write(dir.path().join("secret"), "n\n").unwrap();
    let path = dir.path().join("chaos.yaml");
    std::fs::write(&path, "routes: [{ path: \"/*\", folder: in }]").unwrap();
    let chaos = Chaos::read(&path).unwrap();
    let is_there = |path: &str| chaos.script.routes[0].body(dir.path(), path).is_some();
    assert!(is_there("/a%20b.csv"));
    for path in ["/../secret", "/%2e%2e/secret", "/%2Fetc/passwd", "/", "/gone"] {
        assert!(!is_there(path), "{path}");
    }
    assert!(Path::new(&dir.path().join("secret")).exists());
}

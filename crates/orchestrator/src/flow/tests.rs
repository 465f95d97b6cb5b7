//! Flow files as users write them, and what they are told.

use aqueduct_primitives::ByteCount;

use crate::flow::fake::{load_as, load_yaml, settings};
use crate::flow::{Expected, Flow, MaxRejected, OnError, SecretMode, Settings, StepKind};

const HEAD: &str =
    "name: x\nsource: { files: { paths: [none.csv], schema: { id: int64, country: string } } }\n";
const TAIL: &str = "sink: { parquet: { path: out.parquet } }\n";

fn refused(text: &str) -> String {
    match load_yaml(text) {
        Err(errors) => errors,
        Ok(_) => panic!("expected an error of:\n{text}"),
    }
}

fn one(text: &str) -> Flow {
    load_yaml(text).unwrap_or_else(|errors| panic!("{errors}")).remove(0)
}

fn step_names(flow: &Flow) -> Vec<(&str, Vec<&str>)> {
    let inputs =
        |step: &crate::flow::Step| step.inputs.iter().map(|n| flow.steps[*n].name.as_str()).collect();
    flow.steps.iter().map(|step| (step.name.as_str(), inputs(step))).collect()
}

#[test]
fn the_short_form_names_its_steps() {
    let flow = one(&format!(
        "{HEAD}stages: [{{filter: id}}, {{limit: 3}}, {{filter: country, name: last}}, {{filter: id}}]\n{TAIL}"
    ));
    assert_eq!(
        step_names(&flow),
        [
            ("source", vec![]),
            ("filter", vec!["source"]),
            ("limit", vec!["filter"]),
            ("last", vec!["limit"]),
            ("filter_2", vec!["last"]),
            ("sink", vec!["filter_2"]),
        ]
    );
    assert!(flow.schemas.iter().all(Option::is_some));
}

#[test]
fn the_long_form_merges_chains_and_fans_out() {
    let flow = one("name: x\n\
        sinks: { o: { input: [c], parquet: { path: o } }, d: { input: c, discard: } }\n\
        stages: { c: { input: [a, b], stages: [ { limit: 1 }, { limit: 2 } ] } }\n\
        sources: { a: { files: { paths: [n] }, on_error: skip }, b: { files: { paths: [n] }, max_concurrency: 2 } }\n");
    assert_eq!(
        step_names(&flow),
        [
            ("a", vec![]),
            ("b", vec![]),
            ("limit", vec!["a", "b"]),
            ("c", vec!["limit"]),
            ("o", vec!["c"]),
            ("d", vec!["c"])
        ]
    );
    assert_eq!((flow.steps[0].on_error, flow.steps[1].max_concurrency), (Some(OnError::Skip), Some(2)));
    assert!(flow.schemas.iter().all(Option::is_none), "unknown until run");
}

#[test]
fn a_join_takes_a_step_or_a_source_beside_its_input() {
    let other = "files: { paths: [none.csv], schema: { id: int64 } }";
    let flow = one(&format!(
        "{HEAD}stages: [{{limit: 3}}, {{join: {{with: {{ {other} }}}}}}, {{limit: 4}}]\n{TAIL}"
    ));
    assert_eq!(
        step_names(&flow),
        [
            ("source", vec![]),
            ("limit", vec!["source"]),
            ("files", vec![]),
            ("join", vec!["limit", "files"]),
            ("limit_2", vec!["join"]),
            ("sink", vec!["limit_2"]),
        ]
    );
    assert!(flow.schemas.iter().all(Option::is_some));
    let flow = one(&format!(
        "name: x\nsources: {{ a: {{ files: {{ paths: [n] }} }}, b: {{ files: {{ paths: [n] }} }}, c: {{ {other} }} }}\n\
         stages: {{ j: {{ input: [a, b], stages: [ {{ join: {{ with: {{ {other} }} }} }}, {{ join: {{ with: c }} }} ] }} }}\n\
         sink: {{ input: j, discard: }}\n"
    ));
    let joined: Vec<_> = step_names(&flow).into_iter().filter(|(_, inputs)| inputs.len() > 1).collect();
    assert_eq!(joined, [("join", vec!["a", "b", "files"]), ("j", vec!["join", "c"])]);
}

#[test]
fn what_a_join_names_is_checked() {
    let with = |with: &str| refused(&format!("{HEAD}stages: [{{join: {{with: {with} }}}}]\n{TAIL}"));
    let unknown = with("sourc");
    assert!(unknown.contains("flow.yaml:3:24: stages.0.join.with: no step is called `sourc`"), "{unknown}");
    assert!(unknown.contains("did you mean `source`?"), "{unknown}");
    assert!(with("sink").contains("stages.0.join.with: `sink` is a sink"));
    assert!(with("{ fils: {} }").contains("stages.0.join.with.fils: unknown source `fils`"));
    assert!(with("source").contains("stages.0.join.with: expected two inputs that differ"));
    assert!(with("join").contains("a cycle"));
}

#[test]
fn defaults_are_those_of_the_contract() {
    let flow = one(&format!("{HEAD}{TAIL}"));
    let execution = &flow.execution;
    assert_eq!(
        (execution.batch_size, execution.batch_bytes, execution.max_concurrency),
        (8192, ByteCount::mib(4), 10)
    );
    assert_eq!((execution.on_error, execution.max_rejected), (OnError::Fail, MaxRejected::Percent(10.0)));
    assert!(flow.state_dir.ends_with(".aqueduct"));
    assert!(flow.memory <= ByteCount::mb(512));
}

#[test]
fn json_and_toml_mean_the_same() {
    let json = "{\n\t\"name\": \"x\", \"memory\": \"64MB\",\n\t\"source\": {\"files\": {\"paths\": [\"a\\u00e9\"]}}, \"sink\": {\"parquet\": {\"path\": \"o\"}}}";
    let toml = "name = 'x'\nmemory = '64MB'\n[source.files]\npaths = ['aé']\n[sink.parquet]\npath = 'o'\n";
    for (name, text) in [("flow.json", json), ("flow.toml", toml)] {
        let flow = load_as(name, text, &Settings::default()).unwrap().remove(0);
        assert_eq!((flow.name.as_str(), flow.memory), ("x", ByteCount::mb(64)), "{name}");
        assert_eq!(step_names(&flow), [("source", vec![]), ("sink", vec!["source"])]);
    }
    let wrong = load_as("flow.toml", toml.replace("path =", "pth ="), &Settings::default()).err().unwrap();
    assert!(wrong.starts_with("flow.toml:6:1: sink.parquet.pth: unknown key `pth`"), "{wrong}");
}

#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let told = refused(
        "name: bad\nmemory: lots\nexecution:\n  batchsize: 10\nsource:\n  fils:\n    paths: [a.csv]\nstages:\n  - filtre: \"x > 1\"\n  - limit: many\nsink:\n  parquet:\n    pth: out.parquet\n",
    );
    assert_eq!(
        told.lines().collect::<Vec<_>>(),
        [
            "flow.yaml:2:9: memory: found the text `lots`; expected a number of bytes such as 64MB",
            "flow.yaml:4:3: execution.batchsize: unknown key `batchsize`; expected one of batch_size, batch_bytes, \
             max_concurrency, spill_threshold_mb, spill, on_error, dead_letter, max_rejected; did you mean `batch_size`?",
            "flow.yaml:6:3: source.fils: unknown source `fils`; expected one of files, gdelt; did you mean `files`?",
            "flow.yaml:9:5: stages.0.filtre: unknown stage `filtre`; expected one of filter, join, limit, once, sort; did you mean `filter`?",
            "flow.yaml:10:12: stages.1.limit: found the text `many`; expected a whole number",
            "flow.yaml:13:5: sink.parquet.pth: unknown key `pth`; expected one of path, level; did you mean `path`?",
        ]
    );
}

#[test]
fn what_cannot_fit_together_is_told() {
    let flow = |stages: &str| format!("{HEAD}{stages}{TAIL}");
    let cases = [
        (
            flow("stages: [{ filter: \"contry = 'FR'\" }]\n"),
            ":3:20: stages.0.filter: no column `contry`; did you mean `country`?",
        ),
        (
            flow("stages: [{ filter: \"x = '${LAND_NAME}'\" }]\n"),
            ":3:20: stages.0.filter: nobody gives `LAND_NAME` a value",
        ),
        (HEAD.into(), ":1:1: sink: no sink"),
        (
            flow("").replace("name: x", "name: a/b"),
            ":1:7: name: found the text `a/b`; expected a name of letters",
        ),
        (flow("").replace("name: x\n", ""), ":1:1: `name` is missing"),
        (flow("stages: [limit]\n"), ":3:10: stages.0: found the text `limit`; expected a map with one key"),
        (
            flow("stages: [{limit: 1, filter: id}]\n"),
            ":3:21: stages.0.filter: several keys that could be the component: `limit`, `filter`",
        ),
        (flow("stages: [{parquet: 1}]\n"), "; `parquet` is a sink"),
        (
            flow("").replace("parquet: {", "parquet: { level: 300,"),
            ":3:27: sink.parquet.level: found the number 300; expected at most 255",
        ),
        (flow("").replace("int64", "int65"), ":2:53: source.files.schema.id: unknown type `int65`"),
        (
            flow("").replace("paths:", "format: csb, paths:"),
            "source.files.format: found the text `csb`; expected one of csv, ndjson, auto; did you mean `csv`?",
        ),
        (
            flow("").replace("paths: [none.csv]", "format: csv"),
            ":2:11: source.files: `paths` is missing; expected a list of texts",
        ),
        (
            flow("").replace("paths:", "auth: {basik: 1}, paths:"),
            "source.files.auth.basik: unknown key `basik`; expected one of bearer, basic; did you mean `basic`?",
        ),
        (
            flow("").replace("paths:", "auth: {basic: {user: u}}, paths:"),
            "source.files.auth.basic: `password` is missing",
        ),
        (
            flow("execution: {on_error: ignore}\n"),
            ":3:23: execution.on_error: found the text `ignore`; expected one of fail, skip, dead_letter",
        ),
        (flow("execution: {max_rejected: 200%}\n"), "expected a count or a share such as 10%"),
        (flow("http: {retrys: 1}\n"), ":3:8: http.retrys: unknown key `retrys`"),
    ];
    for (text, expected) in cases {
        let told = refused(&text);
        assert!(
            told.starts_with("flow.yaml:") && told.contains(expected),
            "expected {expected}\nfound    {told}\nof\n{text}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn graphs_that_lead_nowhere_are_told() {
    let sources = "name: x\nsources: { alpha: { files: { paths: [n] } } }\n";
    let cases = [
        (
            "stages:\n  b: { input: c, limit: 1 }\n  c: { input: b, limit: 1 }\nsinks: { o: { input: c, parquet: { path: o } } }\n",
            "a cycle: c -> b -> c",
        ),
        (
            "sinks: { o: { input: alhpa, parquet: { path: o } } }\n",
            ":3:22: sinks.o.input: no step is called `alhpa`; expected one of alpha, o; did you mean `alpha`?",
        ),
        (
            "stages:\n  alpha: { input: alpha, limit: 1 }\nsinks: { o: { input: alpha, parquet: { path: o } } }\n",
            ":4:3: stages.alpha: a duplicate name: a step in line 2 is called `alpha` already",
        ),
        (
            "stages: { a: { limit: 1 } }\nsinks: { o: { input: a, discard: {} } }\n",
            "stages.a: `input` is missing",
        ),
        (
            "stages: { a: { input: alpha, limit: 1 } }\nsinks: { o: { input: alpha, discard: {} } }\n",
            "stages.a: nobody takes the rows of `a`",
        ),
        (
            "sinks: { o: { input: alpha, parquet: { path: o } }, p: { input: alpha, parquet: { path: ./a/../o } } }\n",
            "`p` and `o` write to one path",
        ),
        ("sinks: { o: { input: alpha, discard: {} }, p: { input: o, discard: {} } }\n", "`o` is a sink"),
    ];
    for (rest, expected) in cases {
        let told = refused(&format!("{sources}{rest}"));
        assert!(told.contains(expected), "expected {expected}\nfound    {told}");
    }
}

#[test]
fn inputs_that_merge_must_have_the_same_columns() {
    let flow = |second: &str| {
        format!(
            "name: x\nsources: {{ a: {{ files: {{ paths: [n], schema: {{ id: int64, c: string }} }} }}, \
             b: {{ files: {{ paths: [n], schema: {{ {second} }} }} }} }}\nsinks: {{ o: {{ input: [a, b], discard: }} }}\n"
        )
    };
    assert!(one(&flow("c: string, id: int64")).schemas.iter().all(Option::is_some));
    assert!(
        refused(&flow("c: string, id: string"))
            .contains("sinks.o.input: the column `id` is Utf8 in `b` and Int64 in `a`")
    );
    assert!(refused(&flow("c: string")).contains("`b` has no column `id`"));
    assert!(
        refused(&flow("c: string, id: int64, d: string")).contains("`b` has a column `d`, which `a` lacks")
    );
}

#[test]
fn values_come_in_their_order() {
    let text = format!(
        "vars: {{ a: vars, b: vars }}\n{HEAD}stages: [{{ filter: \"id ${{a}} ${{b}} ${{c}} ${{d:-default}}\", name: \"s-${{a}}-${{b}}-${{c}}-${{d:-default}}\" }}]\n{TAIL}"
    );
    let env = [("a", "env"), ("b", "env"), ("c", "env")];
    let flow = load_as("f.yaml", &text, &settings(&[("a", "set")], &env)).unwrap().remove(0);
    assert_eq!(flow.steps[1].name, "s-set-vars-env-default");
    assert_eq!(flow.values.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "set".to_owned())]);
}

#[test]
fn numbers_out_of_variables_are_texts_where_texts_are_expected() {
    let text =
        format!("{HEAD}stages: [{{ limit: \"${{n}}\" }}]\nsink: {{ parquet: {{ path: \"${{n}}\" }} }}\n");
    let flow = load_as("f.yaml", &text, &settings(&[("n", "17")], &[])).unwrap();
    assert_eq!(flow[0].steps.len(), 3);
    let wrong = load_as("f.yaml", &text, &settings(&[("n", "many")], &[])).err().unwrap();
    assert!(wrong.contains("stages.0.limit: found the text `many`"), "{wrong}");
}

#[test]
fn set_overrides_keys_and_must_be_used() {
    let text = format!("{HEAD}stages: [{{ limit: 3 }}]\n{TAIL}");
    let load = |key: &str, value: &str| load_as("f.yaml", &text, &settings(&[(key, value)], &[]));
    assert_eq!(load("execution.batch_size", "7").unwrap()[0].execution.batch_size, 7);
    assert!(load("stages.0.limit", "many").err().unwrap().contains("stages.0.limit: found the text `many`"));
    assert!(load("source.files.paths", "[a, b]").is_ok());
    assert!(load("sink.parquet.pth", "a").err().unwrap().contains("did you mean `path`?"));
    assert!(load("sink.parquet.path.x", "a").err().unwrap().contains("--set sink.parquet.path.x: "));
    let unused = load("nobody", "1").err().unwrap();
    assert!(unused.contains("--set nobody: nothing uses it"), "{unused}");
}

#[test]
fn a_matrix_makes_one_flow_an_entry() {
    let text = |path: &str| {
        format!(
            "matrix: {{ land: [FR, DE], year: [2024, 2025] }}\n{HEAD}stages: [{{ filter: \"id ${{land}} ${{year}}\" }}]\nsink: {{ parquet: {{ path: \"{path}\" }} }}\n"
        )
    };
    let flows = load_yaml(&text("out/${land}/${year}")).unwrap();
    let entries: Vec<String> = flows
        .iter()
        .map(|flow| flow.entry.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(entries, ["FR 2024", "FR 2025", "DE 2024", "DE 2025"]);
    assert_ne!(flows[0].lock_name(), flows[1].lock_name());
    let only = Settings { only: vec![("land".into(), "DE".into())], ..Settings::default() };
    assert_eq!(load_as("f.yaml", text("${land}/${year}"), &only).unwrap().len(), 2);
    assert!(refused(&text("out/${land}")).contains("write to one path"));
    let none = Settings { only: vec![("land".into(), "XX".into())], ..Settings::default() };
    assert!(
        load_as("f.yaml", text("${land}/${year}"), &none).err().unwrap().contains("no entry has this value")
    );
    let list = text("${land}")
        .replace("{ land: [FR, DE], year: [2024, 2025] }", "[{land: FR, year: 1}, {land: DE, year: 2}]");
    assert_eq!(load_yaml(&list).unwrap().len(), 2);
    assert!(refused(&list.replace("[{land", "[3, {land")).contains("matrix.0: found the number 3"));
}

#[test]
fn every_entry_is_a_run_of_its_own_and_its_variables_name_it() {
    let text = format!("{HEAD}sink: {{ parquet: {{ path: 'out/${{run.id}}' }} }}\n");
    let one = Settings::default();
    let paths = |text: &str| -> Vec<(String, String)> {
        let flows = load_as("f.yaml", text, &one).unwrap();
        let output = |flow: &Flow| {
            let StepKind::Sink(sink) = &flow.steps[1].kind else { panic!("no sink") };
            sink.output(&flow.planning(&flow.steps[1])).unwrap().path
        };
        let named =
            |flow: &Flow| (flow.run.id.clone(), output(flow).file_name().unwrap().display().to_string());
        flows.iter().map(named).collect()
    };
    assert_eq!(paths(&text), [(one.run.id.clone(), one.run.id.clone())]);
    let [first, second] = paths(&format!("matrix: {{ n: [1, 2] }}\n{text}")).try_into().unwrap();
    assert!(first.0 == first.1 && second.0 == second.1 && first.0 < second.0, "{first:?} {second:?}");
}

#[test]
fn byte_counts_may_be_numbers_and_durations_need_a_unit() {
    let flow = |http: &str| format!("{HEAD}http: {{ {http} }}\n{TAIL}");
    assert_eq!(one(&flow("max_bytes: 5000")).http.max_bytes, Some(ByteCount::new(5000)));
    assert_eq!(one(&flow("max_bytes: '5000'")).http.max_bytes, Some(ByteCount::new(5000)));
    assert_eq!(one(&flow("max_bytes: 64MB")).http.max_bytes, Some(ByteCount::mb(64)));
    for (http, told) in [
        (
            "max_bytes: lots",
            ":3:20: http.max_bytes: found the text `lots`; expected a number of bytes such as 64MB",
        ),
        ("max_bytes: -1", ":3:20: http.max_bytes: found the number -1; expected at least 0"),
        ("read_timeout: 5", ":3:23: http.read_timeout: found the number 5; expected a duration such as 10s"),
    ] {
        let found = refused(&flow(http));
        assert!(found.contains(told), "{found}");
    }
}

#[test]
fn one_mistake_is_told_once_however_many_entries_make_it() {
    let told = refused(&format!(
        "matrix: {{ n: [1, 2, 3] }}\n{HEAD}stages: [{{ limt: \"${{n}}\" }}]\nsink: {{ parquet: {{ path: \"${{n}}\" }} }}\n"
    ));
    assert_eq!(told.lines().count(), 1, "{told}");
}

// reliability T2
#[test]
fn secrets_are_hidden_and_not_read_before_a_run() {
    let text = format!(
        "secrets: {{ key: {{ env: KEY_VAR }}, other: {{ file: nothing-here }} }}\n{}{TAIL}",
        HEAD.replace("paths:", "auth: { bearer: \"${key}\" }, headers: { x-db-password: \"${pw}\" }, paths:")
    );
    let flow = load_as("f.yaml", &text, &settings(&[("pw", "pw-2718")], &[])).unwrap().remove(0);
    assert_eq!(flow.masks.mask("sent pw-2718 to KEY_VAR"), "sent *** to KEY_VAR");
    assert!(!flow.values.contains_key("pw"), "{:?}", flow.values);
    let read = |env: &[(&str, &str)]| Settings { secrets: SecretMode::Read, ..settings(&[("pw", "1")], env) };
    let flow = load_as("f.yaml", &text, &read(&[("KEY_VAR", "s3c")])).unwrap().remove(0);
    assert_eq!(flow.masks.mask("s3c, 1"), "***, 1");
    for (value, what) in [("", "is empty"), ("a\nb", "more than one line")] {
        let told = load_as("f.yaml", &text, &read(&[("KEY_VAR", value)])).err().unwrap();
        assert!(told.contains("the secret `key`") && told.contains(what), "{told}");
    }
    let missing = load_as("f.yaml", &text, &read(&[])).err().unwrap();
    assert!(missing.contains("the environment has no `KEY_VAR`"), "{missing}");
    let shown = load_as("f.yaml", &text, &read(&[("KEY_VAR", "with blank")])).err().unwrap();
    assert!(shown.contains("has a blank") && !shown.contains("with blank"), "{shown}");
}

#[test]
fn long_secrets_are_hidden_before_messages_are_cut_short() {
    let text = format!("{HEAD}stages: [{{ limit: \"${{API_TOKEN}}\" }}]\n{TAIL}");
    let token = "tok".repeat(1000);
    let told = load_as("f.yaml", &text, &settings(&[("API_TOKEN", &token)], &[])).err().unwrap();
    assert_eq!(told, "f.yaml:3:19: stages.0.limit: found the text `***`; expected a whole number");
    // What could not be filled in is told once, not again as a text where a number is expected.
    let missing = load_as("f.yaml", &text, &settings(&[], &[])).err().unwrap();
    assert!(
        missing.contains("nobody gives `API_TOKEN` a value") && missing.lines().count() == 1,
        "{missing}"
    );
    let long = load_as("f.yaml", text.replace("API_TOKEN", "other"), &settings(&[("other", &token)], &[]));
    assert!(long.err().unwrap().ends_with("tok…`; expected a whole number"));
}

#[test]
fn secrets_come_out_of_files_and_programs() {
    let text = format!(
        "secrets: {{ key: {{ command: [printf, \"from-%s\\\\n\", program] }} }}\n{}{TAIL}",
        HEAD.replace("paths:", "auth: { bearer: \"${key}\" }, paths:")
    );
    let read = Settings { secrets: SecretMode::Read, ..Settings::default() };
    let flow = load_as("f.yaml", &text, &read).unwrap().remove(0);
    assert_eq!(flow.masks.mask("from-program"), "***");
    let fails = text.replace("printf", "\"false\"");
    assert!(load_as("f.yaml", fails, &read).err().unwrap().contains("`false` failed"));
}

// reliability T7, §5 39
#[test]
fn bombs_and_broken_files_are_told_with_a_line() {
    let mut bomb = "name: bomb\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        bomb += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(", "));
    }
    let deep = format!("name: deep\nsource: {}{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let mut tower = "a0: &a0 1\n".to_owned();
    for n in 1..40 {
        tower += &format!("a{n}: &a{n} {}*a{}{}\n", "[".repeat(100), n - 1, "]".repeat(100));
    }
    let long = format!("name: long\nvars: {{ a: '{}' }}\n", "x".repeat(2_000_000));
    let cases = [
        (bomb.as_bytes(), "the limit is 200000"),
        (deep.as_bytes(), "lists and maps more than 128 deep"),
        (tower.as_bytes(), "more than 128 deep"),
        (long.as_bytes(), ":1:1: more than 1048576 bytes"),
        (b"a: &x [*x]\n", ":1:8: an alias within what it names"),
        (b"a: 1\nb: 2\na: 3\n", ":3:1: a: the same key twice; it stands in line 1 already"),
        (b"a:\n\t- b\n", ":2:2: a tab in the indentation"),
        (b"a: 1\nb: \xff\n", ":2:4: the byte 0xff is no UTF-8"),
        (b"a: {b: ${x}}\n", "put quotes around"),
        (b"a: 1\n---\nb: 2\n", "a second document begins here"),
        (b"a: !file x\n", "unknown tag `!file`"),
        (b"- a\n", "a list instead of a flow"),
        (b"", "nothing instead of a flow"),
    ];
    for (text, expected) in cases {
        let told = load_as("f.yaml", text, &Settings::default()).err().unwrap();
        assert!(told.contains(expected) && told.len() < 2000, "expected {expected}\nfound {told}");
    }
}

#[test]
fn core_types_are_those_of_yaml_1_2() {
    let text = format!("{HEAD}stages: [{{ filter: id, name: on }}]\nsink: {{ parquet: {{ path: yes }} }}\n");
    assert_eq!(one(&text).steps[1].name, "on");
}

#[test]
fn tests_of_a_flow_are_read() {
    let flow = one(&format!(
        "{HEAD}{TAIL}tests: [{{ name: t, given: {{ source: a.ndjson }}, expect: {{ sink: {{ rows: 2 }}, source: b.ndjson, peak_memory: 1MiB }} }}]\n"
    ));
    let test = &flow.tests[0];
    assert_eq!(test.expect["sink"], Expected::Rows(2));
    assert_eq!(test.expect["source"], Expected::File("b.ndjson".into()));
    assert_eq!(test.peak_memory, Some(ByteCount::mib(1)));
}

#[test]
fn built_in_values_are_those_of_the_run() {
    let text = format!(
        "{HEAD}stages: [{{ filter: id, name: \"d${{today}}-${{yesterday}}\" }}]\nsink: {{ parquet: {{ path: \"${{run.id}}\" }} }}\n"
    );
    let mut settings = Settings::default();
    settings.run.started = "2026-03-01T12:00:00Z".parse().unwrap();
    let flow = load_as("f.yaml", text, &settings).unwrap().remove(0);
    assert_eq!(flow.steps[1].name, "d2026-03-01-2026-02-28");
}

proptest::proptest! {
    /// Whatever stands in a file, it is a flow or it is told what is wrong, in lines that name the file.
    #[test]
    fn no_text_makes_it_panic(text in "[a-z:{}\\[\\]\"'&*!|>#$,\\- \t\n]{0,200}") {
        for name in ["f.yaml", "f.toml", "f.json"] {
            if let Err(told) = load_as(name, &text, &Settings::default()) {
                proptest::prop_assert!(told.lines().all(|line| line.starts_with(name) || line.starts_with("and ")), "{}", told);
            }
        }
    }
}

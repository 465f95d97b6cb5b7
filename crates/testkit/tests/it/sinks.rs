//! Sinks that break a promise each.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use aqueduct_core::{
    Batch, ComponentInfo, Context, Error, Factory, Guarantee, MemoryNeed, Output, Part, Planning, Positions,
    Result, Sink, SinkConfig, SinkFactory,
};
use aqueduct_testkit::sink_suite::{self, Fixture, Reading, Suite};
use aqueduct_testkit::suite::texts;
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::told;

static FACTORY: Factory<Config> =
    Factory::new(ComponentInfo { name: "bad", summary: "Breaks a promise", example: "bad: None" });

const ALL: &[&dyn SinkFactory] = &[&FACTORY];

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
struct Config(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
enum Fault {
    None,
    WrongHash,
    LosesRows,
    LeavesFiles,
    WritesInPlace,
    KeepsBatches,
    IgnoresDisk,
}

#[async_trait]
impl SinkConfig for Config {
    fn output(&self, planning: &Planning) -> Option<Output> {
        Some(Output { path: planning.resolve("out"), is_file: false, allow_empty: false })
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::default()
    }

    async fn open(self: Box<Self>, _: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        let fault = self.0;
        Ok(Box::new(Bad { fault, cx: cx.clone(), batches: Vec::new(), parts: Vec::new() }))
    }
}

/// Writes the rows of each batch into a part of their own.
struct Bad {
    fault: Fault,
    cx: Context,
    batches: Vec<Batch>,
    parts: Vec<Part>,
}

impl Bad {
    fn stage(&self, rows: &[String]) -> Result<Part> {
        let name = format!("part-{}", rows.first().map_or("", String::as_str));
        let folder: PathBuf = match self.fault {
            Fault::WritesInPlace => self.cx.resolve(""),
            _ => self.cx.stage_dir()?.to_owned(),
        };
        let (staged, text) = (folder.join(&name), rows.join("\n"));
        let failed = |error| Error::io("write", staged.display(), error);
        match self.cx.fs().create_new(&staged).and_then(|mut file| file.write_all(text.as_bytes())) {
            Err(_) if self.fault == Fault::IgnoresDisk => {}
            other => other.map_err(failed)?,
        }
        let hash = if self.fault == Fault::WrongHash { "none" } else { &text };
        let blake3 = blake3::hash(hash.as_bytes()).to_hex().to_string();
        let (rows, n_bytes) = (rows.len() as u64, text.len() as u64);
        Ok(Part { staged, name, rows, n_bytes, blake3 })
    }
}

#[async_trait]
impl Sink for Bad {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let mut rows = texts(batch.records());
        if self.fault == Fault::LosesRows {
            rows.pop();
        }
        if !rows.is_empty() {
            self.parts.push(self.stage(&rows)?);
        }
        if self.fault == Fault::KeepsBatches {
            self.batches.push(batch);
        }
        Ok(())
    }

    async fn seal(&mut self) -> Result<Vec<Part>> {
        self.batches.clear();
        Ok(std::mem::take(&mut self.parts))
    }

    async fn abort(self: Box<Self>) {
        if self.fault == Fault::LeavesFiles {
            return;
        }
        for entry in self.cx.fs().list(self.cx.stage_dir().unwrap()).unwrap() {
            let is_unsealed = self.parts.iter().any(|part| part.staged == entry.path);
            // One that could not be written has no part.
            if is_unsealed || entry.n_bytes == 0 {
                self.cx.fs().remove_file(&entry.path).unwrap();
            }
        }
    }
}

fn fixture(fault: &str) -> Fixture {
    let batch = |first: i64| -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + 10));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    };
    let read = |_: &str, bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    Fixture {
        component: "bad",
        variant: "",
        options: json!(fault),
        batches: [0, 10].map(|first| (batch(first), Positions::default())).into(),
        reading: Reading::Rows(read),
    }
}

macro_rules! judged {
    ($fault:literal, $case:ident) => {{
        let fixtures = || vec![fixture($fault)];
        let suite = Suite { components: ALL, fixtures, services: |_| {}, file: file!() };
        sink_suite::judge(&suite, stringify!($case), sink_suite::$case)
    }};
}

#[test]
fn a_good_sink_passes() {
    judged!("None", parts_are_what_is_on_disk);
    judged!("None", nothing_is_visible_before_it_is_published);
    judged!("None", abort_leaves_nothing_staged);
    judged!("None", two_seals_hold_all_rows);
    judged!("None", what_is_written_is_held_in_its_share);
    judged!("None", an_empty_input_gives_a_valid_output);
    judged!("None", a_failing_disk_is_an_error_and_leaves_nothing);
}

#[test]
fn each_broken_promise_is_found_and_names_component_and_case() {
    let found = [
        (told(|| judged!("WrongHash", parts_are_what_is_on_disk)), "BLAKE3"),
        (told(|| judged!("LosesRows", two_seals_hold_all_rows)), "is missing"),
        (told(|| judged!("LeavesFiles", abort_leaves_nothing_staged)), "staged are"),
        (told(|| judged!("WritesInPlace", nothing_is_visible_before_it_is_published)), "once written"),
        (told(|| judged!("KeepsBatches", what_is_written_is_held_in_its_share)), "MEM-2"),
        (told(|| judged!("IgnoresDisk", a_failing_disk_is_an_error_and_leaves_nothing)), "nobody was told"),
    ];
    for (found, expected) in found {
        assert!(found.contains(expected), "expected `{expected}` in {found}");
        assert!(found.contains("sink `bad`, case `"), "{found}");
    }
}

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
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{check_fault, faults};

static FACTORY: Factory<Config> =
    Factory::new(ComponentInfo { name: "bad", summary: "Breaks a promise", example: "bad: None" });

const ALL: &[&dyn SinkFactory] = &[&FACTORY];

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
struct Config(Fault);

#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
enum Fault {
    None,
    WrongHash,
    LosesRows,
    LeavesFiles,
    WritesInPlace,
    KeepsBatches,
    IgnoresDisk,
    /// It makes a file when it is opened, and does not say that it could not.
    IgnoresDiskAtOpening,
    WritesRowsOfNothing,
}

#[async_trait]
impl SinkConfig for Config {
    fn output(&self, planning: &Planning) -> Option<Output> {
        Some(Output { path: planning.resolve("out"), is_file: false, allow_empty: false, mode: None })
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn memory(&self, _: &Planning) -> MemoryNeed {
        MemoryNeed::default()
    }

    async fn open(self: Box<Self>, _: SchemaRef, cx: &Context) -> Result<Box<dyn Sink>> {
        let fault = self.0;
        if fault == Fault::IgnoresDiskAtOpening {
            let _ = cx.fs().create_dir_all(cx.stage_dir()?);
        }
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
        Ok(Part { staged, name, rows, n_bytes, blake3, extents: None })
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
        if self.fault == Fault::WritesRowsOfNothing {
            self.parts.push(self.stage(&["made up".into()])?);
        }
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

fn suite(fault: Fault) -> Suite {
    let batch = |first: i64| -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(first..first + 10));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    };
    let read = |_: &str, bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    let fixture = Fixture {
        component: "bad",
        variant: "",
        options: json!(fault),
        batches: [0, 10].map(|first| (batch(first), Positions::default())).into(),
        reading: Reading::Rows(read),
    };
    Suite { components: ALL, fixtures: vec![fixture], services: |_| {}, file: file!() }
}

aqueduct_testkit::sink_cases!([faults] sink_suite;);

#[test]
fn each_broken_promise_is_found_and_names_component_and_case() {
    let faults = Faults {
        parts_are_what_is_on_disk: (Fault::WrongHash, "BLAKE3"),
        nothing_is_visible_before_it_is_published: (Fault::WritesInPlace, "once written"),
        abort_leaves_nothing_staged: (Fault::LeavesFiles, "staged are"),
        two_seals_hold_all_rows: (Fault::LosesRows, "is missing"),
        what_is_written_is_held_in_its_share: (Fault::KeepsBatches, "MEM-2"),
        an_empty_input_gives_a_valid_output: (Fault::WritesRowsOfNothing, "1 rows of nothing"),
        a_failing_disk_is_an_error_and_leaves_nothing: (Fault::IgnoresDisk, "nobody was told"),
    };
    faults.check();
    let (at_opening, expected) = (Fault::IgnoresDiskAtOpening, "change 0 failed, and nobody was told");
    check_fault!(sink_suite, a_failing_disk_is_an_error_and_leaves_nothing, at_opening, expected);
}

//! `aqueduct runs`: what ran here, and how it ended.

use aqueduct_core::StdFs;
use aqueduct_primitives::ByteCount;
use comfy_table::{Table, presets};

use super::arguments::RunsArguments;
use super::{Program, exit};
use crate::ledger::Ledger;
use crate::progress::grouped;
use crate::report::Report;

/// Lists the runs, or tells one in detail; the exit code.
pub(super) fn runs(program: &Program, arguments: &RunsArguments) -> u8 {
    let ledger = Ledger::new(&StdFs, &arguments.state);
    let told = match &arguments.run {
        None => ledger.runs().map(|runs| list(&runs)),
        Some(name) => {
            match ledger.run(name) {
                Ok(Some(report)) => Ok(detail(&report)),
                Ok(None) => {
                    let folder = arguments.state.display();
                    program.say_error(&format!("no run, or more than one, begins with `{name}` in {folder}; `aqueduct runs` lists them"));
                    return exit::WRONG;
                }
                Err(error) => Err(error),
            }
        }
    };
    match told {
        Ok(text) => {
            program.write_out(text.as_bytes());
            exit::DONE
        }
        Err(error) => {
            program.say_error(&error.chain());
            exit::FAILED
        }
    }
}

fn list(runs: &[Report]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "run", "flow", "status", "started", "rows in", "rows out", "rejected", "memory", "resident",
    ]);
    for report in runs {
        table.add_row([
            report.run_id.clone(),
            report.flow.clone(),
            report.status.word().to_owned(),
            report.started.clone(),
            grouped(report.rows_in),
            grouped(report.rows_out),
            grouped(report.rows_rejected + report.files_rejected),
            ByteCount::new(report.memory_peak_bytes).human(),
            ByteCount::new(report.rss_peak_bytes).human(),
        ]);
    }
    format!("{table}\n")
}

/// The report as it was written: every key has its name.
fn detail(report: &Report) -> String {
    serde_json::to_string_pretty(report).map_or_else(|error| format!("{error}\n"), |text| format!("{text}\n"))
}

//! `extract`: asks an AI service about each row, a section of a document say, and gives each its answer.
//!
//! For each section: look whether it was answered before; upload it; ask; keep the answer; delete what was uploaded. The last
//! is done on every path: when something fails, takes too long, panics, or the run is stopped. What a killed run has left at
//! the service is written down ([`journal`]) and deleted when the step is next opened.
//!
//! Order: as rows come, one batch a row. Memory: of the step's share, a slot for each section that is asked about, from the
//! question to the answer's column; of the flow, the rows that are asked about and those that are answered and wait for one
//! before them, which is how a source that brings large sections is held back.
//!
//! A section's failure is its `status` and `error`; the run fails only where no section could fare better: the service does
//! not know us, the disk fails, or all questions are asked that a run may ask. Answers are kept ([`answers`]) before their rows
//! go on: a run that goes on asks nothing twice.

mod answers;
mod call;
mod config;
mod durably;
mod form;
mod journal;
mod line;
mod pace;
mod prompt;
mod remote;
mod section;
mod service;
mod shop;
mod stage;
#[cfg(test)]
mod tests;
mod trouble;

use std::sync::Arc;

use aqueduct_core::{
    ComponentInfo, Factory, MemoryNeed, Planning, Problem, Stage, StageConfig, column_clashes, only_input,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub(crate) use self::config::Config;
use self::form::Form;
use self::section::SectionColumns;
use self::stage::Extract;

pub(crate) static FACTORY: Factory<Config> = Factory::new(ComponentInfo {
    name: "extract",
    summary: "Asks an AI service about each section of a document: upload, ask, always delete",
    example: "extract: { service: gemini, model: gemini-2.5-flash, prompt: \"Summarise this in three sentences.\", section: text }",
});

impl StageConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        self.problems()
    }

    fn memory(&self, planning: &Planning) -> MemoryNeed {
        self.memory_need(planning)
    }

    fn bind(&self, inputs: &[SchemaRef]) -> Result<Box<dyn Stage>, Vec<Problem>> {
        let input = only_input(inputs)?;
        let columns = SectionColumns::bind(self, &input)?;
        let form = Form::of(&self.answer);
        let mut fields = input.fields().to_vec();
        fields.extend([
            Arc::new(Field::new(&self.answer.column, form::type_of(form.as_ref()), true)),
            Arc::new(Field::new("status", DataType::Utf8, false)),
            Arc::new(Field::new("error", DataType::Utf8, true)),
            Arc::new(Field::new("error_message", DataType::Utf8, true)),
        ]);
        let schema = Arc::new(Schema::new_with_metadata(fields, input.metadata().clone()));
        let clashes = column_clashes(&schema, "");
        if !clashes.is_empty() {
            return Err(clashes);
        }
        Ok(Box::new(Extract { config: self.clone(), schema, columns, form }))
    }
}

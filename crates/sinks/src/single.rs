//! Rows into one part after the other.

use aqueduct_core::{Part, Result};
use aqueduct_primitives::ByteCount;
use arrow::array::RecordBatch;

use crate::ledger::Ledger;
use crate::part::{OpenPart, PartMaker};
use crate::staged_file::StagedPart;

/// One open part at a time.
pub(crate) struct Single {
    maker: PartMaker,
    file_bytes: Option<ByteCount>,
    part: Option<OpenPart>,
    done: Vec<StagedPart>,
    has_parts: bool,
}

impl Single {
    pub(crate) fn new(maker: PartMaker, file_bytes: Option<ByteCount>) -> Self {
        Self { maker, file_bytes, part: None, done: Vec::new(), has_parts: false }
    }

    /// Writes rows; `cut` asks for a new file before them.
    pub(crate) fn write(&mut self, records: &RecordBatch, cut: bool, ledger: &mut Ledger) -> Result<()> {
        if cut && !self.maker.is_one_file() {
            self.close(ledger)?;
        }
        if records.num_rows() == 0 {
            return Ok(());
        }
        let mut part = match self.part.take() {
            Some(part) => part,
            None => self.open(ledger)?,
        };
        part.write(records, ledger.limit())?;
        ledger.hold(part.memory())?;
        let is_long = self.file_bytes.is_some_and(|most| part.n_bytes() >= most) || part.is_full();
        self.part = Some(part);
        if is_long && !self.maker.is_one_file() {
            self.close(ledger)?;
        }
        Ok(())
    }

    /// The parts since the last call, the open one completed. The first time there is one even without rows,
    /// so that an output without rows has its columns.
    pub(crate) fn seal(&mut self, ledger: &mut Ledger) -> Result<Vec<Part>> {
        if !self.has_parts {
            self.part = Some(self.open(ledger)?);
        }
        self.close(ledger)?;
        Ok(StagedPart::seal(std::mem::take(&mut self.done)))
    }

    fn open(&mut self, ledger: &Ledger) -> Result<OpenPart> {
        self.has_parts = true;
        self.maker.open("", ledger.limit())
    }

    fn close(&mut self, ledger: &mut Ledger) -> Result<()> {
        if let Some(part) = self.part.take() {
            self.done.push(part.complete()?.sync()?);
            ledger.hold(ByteCount::ZERO)?;
        }
        Ok(())
    }
}

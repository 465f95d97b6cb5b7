//! A run of sightings: records by key, in blocks that are written and read as a whole.
//!
//! A block is its length (4 bytes), its checksum (8 bytes: the first of its BLAKE3) and its records. The BLAKE3 of the file,
//! by which it is named, is that of all lengths and checksums, in order: it stands for every block.

use std::path::PathBuf;

use aqueduct_core::{Error, ErrorKind, FsFile, FsRead, Result};
use serde::{Deserialize, Serialize};

use super::super::home::Home;
use super::super::layout::checksum;
use super::record::{MAX_RECORD_BYTES, Sighting};

/// A block is written when it has so many bytes; it is longer by less than one record.
pub(super) const BLOCK_BYTES: usize = 16 << 10;
const HEAD_BYTES: usize = 12;

/// A run as a commit names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunName {
    /// The file, in the folder of the sightings.
    pub(super) name: String,
    pub(super) keys: u64,
    /// Of all its keys.
    pub(super) sightings: u64,
    pub(super) bytes: u64,
    /// BLAKE3 of the heads of its blocks, in hex.
    pub(super) blake3: String,
}

/// A run that is being written; it takes keys in ascending order.
pub(super) struct Writer<'h> {
    home: &'h Home,
    path: PathBuf,
    file: Box<dyn FsFile>,
    block: Vec<u8>,
    heads: blake3::Hasher,
    run: RunName,
}

impl<'h> Writer<'h> {
    pub(super) fn create(home: &'h Home, name: String) -> Result<Self> {
        let path = home.path(&name);
        let (file, _) = home.create(&path)?;
        let run = RunName { name, keys: 0, sightings: 0, bytes: 0, blake3: String::new() };
        let block = Vec::with_capacity(BLOCK_BYTES + MAX_RECORD_BYTES);
        Ok(Self { home, path, file, block, heads: blake3::Hasher::new(), run })
    }

    pub(super) fn push(&mut self, key: &str, sighting: &Sighting) -> Result<()> {
        sighting.push(key, &mut self.block);
        self.run.keys += 1;
        self.run.sightings = self.run.sightings.saturating_add(sighting.count);
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> Result<()> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&u32::try_from(self.block.len()).unwrap_or(u32::MAX).to_be_bytes());
        head.extend_from_slice(&checksum(&self.block).to_be_bytes());
        self.heads.update(&head);
        for bytes in [&head, &self.block] {
            self.file
                .write_all(bytes)
                .map_err(|error| Error::io("write sightings", self.path.display(), error))?;
            self.run.bytes += bytes.len() as u64;
        }
        self.block.clear();
        Ok(())
    }

    /// The run, which is durable once its folder is.
    pub(super) fn end(mut self) -> Result<RunName> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        self.home.finish(&mut *self.file, &self.path)?;
        self.run.blake3 = self.heads.finalize().to_hex().to_string();
        Ok(self.run)
    }
}

/// A run that is read from its beginning to its end, a block at a time.
pub(super) struct Reader {
    run: RunName,
    path: PathBuf,
    file: Box<dyn FsRead>,
    heads: blake3::Hasher,
    block: Vec<u8>,
    /// How much of the block is behind, and of the file.
    at: usize,
    next_block: u64,
    pub(super) current: Option<(String, Sighting)>,
}

impl Reader {
    /// At the first record.
    ///
    /// # Errors
    /// It is gone or damaged.
    pub(super) fn open(home: &Home, run: &RunName) -> Result<Self> {
        let path = home.path(&run.name);
        let file = home.fs().open_read(&path).map_err(|error| unreadable(&path, error))?;
        let mut reader = Self {
            run: run.clone(),
            path,
            file,
            heads: blake3::Hasher::new(),
            block: Vec::new(),
            at: 0,
            next_block: 0,
            current: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    /// To the next record; behind the last there is none.
    pub(super) fn advance(&mut self) -> Result<()> {
        if self.at == self.block.len() && !self.load()? {
            self.current = None;
            return Ok(());
        }
        let mut rest = &self.block[self.at..];
        let record = Sighting::take(&mut rest).ok_or_else(|| self.damaged("a record"))?;
        self.at = self.block.len() - rest.len();
        self.current = Some(record);
        Ok(())
    }

    /// The next block; whether there is one.
    fn load(&mut self) -> Result<bool> {
        if self.next_block == self.run.bytes {
            let is_whole = self.heads.finalize().to_hex().as_str() == self.run.blake3;
            return if is_whole { Ok(false) } else { Err(self.damaged("its blocks")) };
        }
        let mut head = [0; HEAD_BYTES];
        self.read(0, &mut head)?;
        self.heads.update(&head);
        let [a, b, c, d, sum @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let end = self.next_block + (HEAD_BYTES + length) as u64;
        if length == 0 || length > BLOCK_BYTES + MAX_RECORD_BYTES || end > self.run.bytes {
            return Err(self.damaged("the length of a block"));
        }
        let mut block = std::mem::take(&mut self.block);
        block.resize(length, 0);
        self.read(HEAD_BYTES as u64, &mut block)?;
        if checksum(&block) != u64::from_be_bytes(sum) {
            return Err(self.damaged("a block"));
        }
        (self.block, self.at, self.next_block) = (block, 0, end);
        Ok(true)
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(bytes, self.next_block + at).map_err(|error| unreadable(&self.path, error))
    }

    fn damaged(&self, what: &'static str) -> Error {
        damaged(&self.path).with("changed", what)
    }
}

pub(super) fn damaged(path: &std::path::Path) -> Error {
    let message = "the sightings of earlier runs are gone or were changed after they were written; put the file back, or \
                   forget all keys with `aqueduct run --full-refresh`";
    Error::new(ErrorKind::Conflict, "read sightings", message).with("path", path.display())
}

fn unreadable(path: &std::path::Path, error: std::io::Error) -> Error {
    use std::io::ErrorKind as Io;
    match error.kind() {
        Io::NotFound | Io::UnexpectedEof => damaged(path).with_source(error),
        _ => Error::io("read sightings", path.display(), error),
    }
}

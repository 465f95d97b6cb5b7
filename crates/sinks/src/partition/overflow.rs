//! Rows of values that have no file open, on disk until the seal: sixteen buckets of Arrow IPC streams. They lie beside
//! the parts, and take from what the run may put on the disk for itself.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::{BufReader, BufWriter};
use std::path::Path;

use aqueduct_core::{Error, Result, retained_bytes};
use aqueduct_primitives::{ByteCount, Reservation};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow_ipc::CompressionType;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};

use super::{by, take};
use crate::ledger::Ledger;
use crate::part::{OpenPart, PartMaker};
use crate::partition::By;
use crate::scratch_file::{self, ScratchFile};
use crate::staged_file::{Place, Syncs};

/// Buckets of one level. More split faster and hold more buffers.
pub(super) const N_BUCKETS: usize = 16;
/// Sixteen to the power of this many buckets: more than there are files in any file system.
const MAX_LEVELS: u32 = 12;
/// Each bucket's write buffer.
const BUFFER_BYTES: usize = 32 << 10;
/// A bucket is loaded when it is smaller than this part of the memory: its rows are held up to three times,
/// as they were read, in one piece, and as one value's.
const LOAD_PART: u64 = 4;
/// Even in the smallest memory, so that rows larger than it are not split without end.
const MIN_LOAD: u64 = 256 << 10;

/// A number that spreads keys evenly, differently on each level.
pub(super) fn hash(key: &[u8], level: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u32(level);
    hasher.write(key);
    hasher.finish()
}

/// The bucket of a key on a level.
pub(super) fn bucket_of(key: &[u8], level: u32) -> usize {
    // The low bits of level 0 name keys in the set of those seen; the high ones choose the bucket.
    ByteCount::new(hash(key, level) >> 60).as_usize() % N_BUCKETS
}

/// The buckets of one level.
#[derive(Default)]
pub(super) struct Overflow {
    level: u32,
    buckets: [Option<Bucket>; N_BUCKETS],
}

/// Rows on disk.
struct Bucket {
    writer: StreamWriter<BufWriter<ScratchFile>>,
    place: Place,
    n_bytes: ByteCount,
    n_batches: u64,
}

impl Overflow {
    /// The bytes held in write buffers.
    pub(super) fn memory(&self) -> ByteCount {
        ByteCount::of(self.buckets.iter().flatten().count() * BUFFER_BYTES)
    }

    /// Adds rows to a bucket.
    pub(super) fn write(&mut self, maker: &PartMaker, bucket: usize, records: &RecordBatch) -> Result<()> {
        let level = self.level;
        let slot = &mut self.buckets[bucket];
        let bucket = match slot {
            Some(bucket) => bucket,
            None => slot.insert(Bucket::create(maker, &format!("wait-{level}-{bucket}"), records)?),
        };
        bucket.write(maker, records)
    }

    /// Writes all rows into parts, value by value.
    pub(super) fn drain(
        self,
        by: &By,
        maker: &mut PartMaker,
        file_bytes: Option<ByteCount>,
        ledger: &mut Ledger,
        syncs: &mut Syncs,
    ) -> Result<()> {
        let level = self.level;
        let mut drain = Drain { by, maker, file_bytes, ledger, syncs };
        self.buckets.into_iter().flatten().try_for_each(|bucket| drain.bucket(bucket, level))
    }
}

impl Bucket {
    fn create(maker: &PartMaker, name: &str, records: &RecordBatch) -> Result<Self> {
        let (place, file) = Place::create(maker.fs(), maker.scratch_path(&format!("{name}.tmp")))?;
        let file = ScratchFile::new(file, maker.scratch().clone());
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let writer = IpcWriteOptions::default()
            .try_with_compression(Some(CompressionType::LZ4_FRAME))
            .and_then(|options| StreamWriter::try_new_with_options(file, &records.schema(), options))
            .map_err(|error| at(place.path(), error))?;
        Ok(Self { writer, place, n_bytes: ByteCount::ZERO, n_batches: 0 })
    }

    fn write(&mut self, maker: &PartMaker, records: &RecordBatch) -> Result<()> {
        let weight = retained_bytes(records);
        self.n_bytes = self.n_bytes.saturating_add(weight);
        self.n_batches += 1;
        maker.metrics().spilled_bytes.add(weight.get());
        self.writer.write(records).map_err(|error| at(self.place.path(), error))
    }

    /// Ends the writing; the rows to read back.
    fn read_back(mut self) -> Result<(Stored, OnDisk)> {
        let path = self.place.path();
        self.writer.finish().map_err(|error| at(path, error))?;
        let file = self.writer.into_inner().map_err(|error| at(path, error))?;
        let file = file.into_inner().map_err(|error| at(path, error.into_error().into()))?;
        let on_disk = OnDisk { place: self.place, _taken: file.close() };
        let path = on_disk.place.path();
        let file = File::open(path).map_err(|error| Error::io("read", path.display(), error))?;
        let reader = StreamReader::try_new(BufReader::with_capacity(BUFFER_BYTES, file), None);
        Ok((reader.map_err(|error| at(path, error))?, on_disk))
    }
}

type Stored = StreamReader<BufReader<File>>;

/// A bucket that is read back, and what it takes of the disk.
struct OnDisk {
    place: Place,
    _taken: Reservation,
}

impl OnDisk {
    fn path(&self) -> &Path {
        self.place.path()
    }

    fn remove(self) -> Result<()> {
        self.place.remove()
    }
}

/// What writes the waiting rows at a seal.
struct Drain<'a> {
    by: &'a By,
    maker: &'a mut PartMaker,
    file_bytes: Option<ByteCount>,
    ledger: &'a mut Ledger,
    syncs: &'a mut Syncs,
}

impl Drain<'_> {
    fn bucket(&mut self, bucket: Bucket, level: u32) -> Result<()> {
        let most = ByteCount::new((self.ledger.limit().get() / LOAD_PART).max(MIN_LOAD));
        let is_small = bucket.n_bytes <= most || level >= MAX_LEVELS;
        let n_bytes = bucket.n_bytes;
        let (rows, place) = bucket.read_back()?;
        if is_small {
            self.ledger.hold(n_bytes.saturating_mul(3).min(self.ledger.limit()))?;
            self.load(rows, place.path())?;
            self.ledger.hold(ByteCount::ZERO)?;
        } else {
            self.split(rows, place.path(), level + 1)?;
        }
        place.remove()
    }

    /// One bucket in memory: sorted by value, each value into its file.
    fn load(&mut self, rows: Stored, path: &Path) -> Result<()> {
        let schema = rows.schema();
        let batches = rows.collect::<Result<Vec<_>, _>>().map_err(|error| at(path, error))?;
        let records = concat_batches(&schema, &batches).map_err(by::failed)?;
        drop(batches);
        let columns = self.by.columns(&records)?;
        let keys = self.by.keys(&columns)?;
        let data = self.by.data(&records)?;
        let mut order: Vec<u32> = (0..).take(records.num_rows()).collect();
        let key = |row: &u32| keys.row(*row as usize);
        order.sort_by(|a, b| key(a).cmp(&key(b)));
        for rows in order.chunk_by(|a, b| key(a) == key(b)) {
            self.write_value(&columns, &take(&data, rows.to_vec())?, rows[0] as usize)?;
        }
        Ok(())
    }

    fn write_value(&mut self, columns: &[ArrayRef], data: &RecordBatch, row: usize) -> Result<()> {
        let mut part = self.maker.open(&self.by.folder(columns, row)?, self.ledger.limit())?;
        part.write(data, self.ledger.limit())?;
        self.syncs.push(part.complete()?)?;
        Ok(())
    }

    /// A bucket that is too large for memory: into sixteen, unless all its rows have one value, which is
    /// then written as it is read.
    fn split(&mut self, rows: Stored, path: &Path, level: u32) -> Result<()> {
        let mut lower = Overflow { level, ..Overflow::default() };
        let mut alone = Alone::default();
        for records in rows {
            let records = records.map_err(|error| at(path, error))?;
            let columns = self.by.columns(&records)?;
            let keys = self.by.keys(&columns)?;
            let mut routes = vec![Vec::new(); N_BUCKETS];
            for (at, row) in (0..).zip(0..records.num_rows()) {
                let key = keys.row(row).data();
                alone.meet(key);
                routes[bucket_of(key, level)].push(at);
            }
            for (bucket, rows) in routes.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
                lower.write(self.maker, bucket, &take(&records, rows)?)?;
            }
            self.ledger.hold(lower.memory())?;
        }
        match alone.is_one {
            true => lower.buckets.into_iter().flatten().try_for_each(|bucket| self.stream(bucket)),
            false => lower.buckets.into_iter().flatten().try_for_each(|bucket| self.bucket(bucket, level)),
        }
    }

    /// The rows of one value, more than fit in memory.
    fn stream(&mut self, bucket: Bucket) -> Result<()> {
        let (rows, place) = bucket.read_back()?;
        let mut open: Option<OpenPart> = None;
        for records in rows {
            let records = records.map_err(|error| at(place.path(), error))?;
            let mut part = match open.take() {
                Some(part) => part,
                None => {
                    let folder = self.by.folder(&self.by.columns(&records)?, 0)?;
                    self.maker.open(&folder, self.ledger.limit())?
                }
            };
            part.write(&self.by.data(&records)?, self.ledger.limit())?;
            self.ledger.hold(part.memory())?;
            if self.file_bytes.is_some_and(|most| part.n_bytes() >= most) || part.is_full() {
                self.syncs.push(part.complete()?)?;
            } else {
                open = Some(part);
            }
        }
        if let Some(part) = open {
            self.syncs.push(part.complete()?)?;
        }
        self.ledger.hold(ByteCount::ZERO)?;
        place.remove()
    }
}

/// Whether all rows seen have one value.
#[derive(Default)]
struct Alone {
    first: Option<Box<[u8]>>,
    is_one: bool,
}

impl Alone {
    fn meet(&mut self, key: &[u8]) {
        match &self.first {
            None => {
                self.first = Some(key.into());
                self.is_one = true;
            }
            Some(first) => self.is_one &= **first == *key,
        }
    }
}

fn at(path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, error) => scratch_file::failed("keep waiting rows", path, error),
        other => by::failed(other).with("path", path.display()),
    }
}

//! What aqueduct is made of: the traits [`Source`], [`Stage`] and [`Sink`], the [`Batch`] that flows between
//! them, the [`Context`] they run in, the [`Registry`] that names them, and the seams to disk ([`Fs`]) and
//! time ([`Clock`]). Knows no concrete component, no file format, no network.

mod batch;
mod bytes_io;
mod changed;
mod clock;
pub mod collections;
mod columns;
mod component;
mod context;
mod durable;
mod error;
mod fs;
mod kill_point;
mod map_stage;
mod metrics;
mod objects;
mod positions;
mod registry;
mod reject;
pub mod rows;
mod stored;
mod traits;
pub mod units;
pub mod worker;

pub use batch::{Batch, array_bytes, retained_bytes};
pub use bytes_io::{ByteStream, RandomAccess};
pub use changed::{Changed, ReadAgain};
pub use clock::{Clock, SystemClock};
pub use columns::{column_clashes, find_column, only_input, pointer_to};
pub use component::{
    ComponentInfo, Factory, Guarantee, MemoryNeed, Mode, OtherFiles, Output, Planning, Problem, Serving,
    SinkConfig, SinkFactory, SourceConfig, SourceFactory, StageConfig, StageFactory, nearest,
};
pub use context::{
    Context, IN_FLIGHT_PART, NoticeList, Notices, RecordRoom, RunContext, Scratch, Services, StepContext,
    run_id,
};
pub use durable::{Durable, Keeper};
pub use error::{Error, ErrorKind, Result, Retry};
pub use fs::{Fs, FsEntry, FsFile, FsLock, FsRead, StdFs};
pub use kill_point::kill_point;
pub use map_stage::{BeyondMemory, MapRows, map_stage};
pub use metrics::{Counter, InFlight, StepMetrics};
pub use objects::{Objects, Upload, Version, is_in_store, resolve_path};
pub use positions::Positions;
pub use registry::{MergeBefore, Registry};
pub use reject::{FailOnReject, Origin, Reject, RejectPolicy, RejectedItem};
pub use stored::{
    ColumnShape, Folders, Merging, RecordStream, Stored, StoredPart, StoredRead, StoredRows, TableShape,
};
pub use traits::{BatchStream, Inputs, Part, Sink, Source, SourceCaps, Stage};

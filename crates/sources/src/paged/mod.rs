//! Items that a server gives page by page, as one source.
//!
//! What is to be read comes in *slices*, of which some are read at once, each page after page. A page is saved to disk as it
//! comes and read from there, so that a page of any size takes no more memory than a small one, and the next page is
//! fetched while the rows of one are given: never more than one ahead.
//!
//! Order: within a slice as the server has it, none between slices. Memory: one reserve for each slice that is read.
//!
//! A run goes on after any batch ([`progress`]): the page is fetched again, and rows that were given are left out, by their
//! number if it is the same page to the byte, else by their keys ([`given`]). The same keys leave out what the server gives
//! twice because its order changed on the way, and let a slice be walked once more from its start if the way to its next
//! page is no longer known there.

mod decoding;
pub(crate) mod given;
mod opening;
mod pages;
mod progress;
mod read;
mod trail;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use aqueduct_core::{BatchStream, Context, Positions, Result, Source, SourceCaps};
use aqueduct_formats::{ReadOptions, output_schema};
use aqueduct_net::Location;
use aqueduct_primitives::Reservation;
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub(crate) use self::opening::{Opening, Sampling, need, newest, planned, reached};

use self::decoding::Decoding;
use self::given::Given;
use self::pages::{Page, Pages};

/// A request for one page: a GET, or a POST if there is a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) body: Option<Value>,
}

impl Ask {
    /// Its URL without secrets.
    pub(crate) fn shown(&self) -> String {
        match Location::parse(&self.url, Path::new("")) {
            Ok(at) => at.to_string(),
            Err(_) => "a URL".to_owned(),
        }
    }
}

/// What a page says beside its items.
pub(crate) type Envelope = Map<String, Value>;

/// A service that gives items page by page.
pub(crate) trait Service: Send + Sync {
    /// How many slices there are.
    fn n_slices(&self) -> u64;

    /// What a slice is called, in errors and logs.
    fn name(&self, slice: u64) -> String;

    /// The request of a slice's first page.
    fn first(&self, slice: u64) -> Ask;

    /// The request of the page after one of a slice; nothing after the last.
    ///
    /// # Errors
    /// The page says something that is no request.
    fn next(&self, slice: u64, asked: &Ask, page: &Envelope) -> Result<Option<Ask>>;

    /// Which rows belong to the slice; nothing, where all do.
    fn owned(&self, slice: u64, rows: &RecordBatch) -> Option<BooleanArray>;

    /// What each row is known by: rows with one key are one item.
    fn keys(&self, rows: &RecordBatch) -> Vec<u128>;

    /// Looks at rows that are given with the next batch.
    fn give(&self, rows: &RecordBatch);

    /// The newest time of all that were given in this run, in microseconds since 1970, where that says what the next one asks
    /// for.
    fn reached(&self) -> Option<i64>;

    /// What is asked for but for the time: what was reached says something to those alone who ask the same.
    fn asks(&self) -> String;
}

/// Pages, ready to be read.
pub(crate) struct Paged {
    pub(crate) service: Arc<dyn Service>,
    pub(crate) pages: Arc<Pages>,
    pub(crate) given: Given,
    pub(crate) memory_of_given: Reservation,
    pub(crate) decoding: Decoding,
    /// The columns to read.
    pub(crate) read: SchemaRef,
    pub(crate) options: Arc<ReadOptions>,
    /// Pages that were fetched in search of the columns.
    pub(crate) fetched: Vec<(u64, Page)>,
    /// Rows at most.
    pub(crate) max_items: Option<u64>,
    /// Set once all there is was given.
    pub(crate) is_whole: Arc<AtomicBool>,
}

impl Source for Paged {
    fn schema(&self) -> SchemaRef {
        output_schema(&self.read, &self.options, false)
    }

    fn capabilities(&self) -> SourceCaps {
        SourceCaps {
            replayable: true,
            ordered: false,
            endless: false,
            remote: true,
            summed_up_in: Some(progress::SPLIT),
        }
    }

    fn run(self: Box<Self>, cx: Context, from: Positions) -> BatchStream {
        read::run(*self, cx, from)
    }
}

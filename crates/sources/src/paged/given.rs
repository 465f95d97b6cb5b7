//! Which items were given, by their keys: in this run, and in all runs whose rows are committed.
//!
//! A commit keeps them with the rows, however many there are, in a [`KeyStore`]. What was given since waits in memory for a
//! moment: keys are noted in the very poll that gives the batch, so that whoever commits between two batches has the rows and
//! their keys, or neither.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aqueduct_commit::{KeyStore, Keyed, KeysIn, Remembering};
use aqueduct_core::{Context, Durable, Error, Result};
use aqueduct_primitives::{ByteCount, Reservation, Tasks};
use arrow::array::BooleanArray;
use serde_json::Value;

/// With less, keys would be written to disk every few pages.
const MIN_MEMORY: ByteCount = ByteCount::mib(2);
/// With more, ten million items are looked up no faster.
const MAX_MEMORY: ByteCount = ByteCount::mib(16);
/// Of the step's share, one part in so many is for keys.
const PART_OF_SHARE: u64 = 4;
/// So many keys wait for the next look into the store.
const MAX_WAITING: usize = 16 << 10;

/// The part of a share that is for keys.
pub(crate) fn memory_of_keys(share: ByteCount) -> ByteCount {
    ByteCount::new(share.get() / PART_OF_SHARE).clamp(MIN_MEMORY, MAX_MEMORY)
}

/// The least memory for keys, and the most.
pub(crate) fn need_of_keys() -> (ByteCount, ByteCount) {
    (MIN_MEMORY, MAX_MEMORY)
}

/// The items that were given. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Given {
    keys: Arc<Mutex<KeyStore>>,
    waiting: Arc<Mutex<HashSet<u128>>>,
    tasks: Tasks,
}

impl Given {
    /// What the last commit kept; where the run leaves nothing behind, keys are remembered for its time. The reservation is
    /// for as long as items are given: the keys may be asked for once more after it.
    ///
    /// # Errors
    /// What was kept is damaged, or of a newer version.
    pub(crate) async fn open(cx: &Context, kept: Option<Value>) -> Result<(Self, Reservation)> {
        let memory = memory_of_keys(cx.share().total());
        let reservation = cx.share().reserve(memory).await?;
        let how = Remembering { versioned: false, forget_after_days: None, memory };
        let place = match cx.durable() {
            Some(durable) => KeysIn::Folder(durable.dir().clone()),
            None => KeysIn::Scratch(cx.scratch().clone()),
        };
        let beside = cx.durable().and_then(Durable::fallback).and_then(|value| value.get("given")).cloned();
        let fs = Arc::clone(cx.fs());
        let opening = move || KeyStore::open_beside(&fs, place, how, kept.as_ref(), beside.as_ref());
        let store = cx.tasks().block(opening).await??;
        let keys = Arc::new(Mutex::new(store));
        Ok((Self { keys, waiting: Arc::default(), tasks: cx.tasks().clone() }, reservation))
    }

    /// Which rows with these keys were not given: of several with one key the first.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn are_new(&self, keys: Vec<u128>) -> Result<BooleanArray> {
        let this = self.clone();
        self.with_store(move |store| {
            let known = store.known(&keys)?;
            let mut met = HashSet::with_capacity(keys.len());
            let waiting = this.waiting();
            let is_new = |(key, known): (&u128, Option<u128>)| {
                known.is_none() && !waiting.contains(key) && met.insert(*key)
            };
            Ok(keys.iter().zip(known).map(is_new).collect::<Vec<_>>().into())
        })
        .await
    }

    /// Makes room for the keys of the next batch.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn make_room(&self) -> Result<()> {
        if self.waiting().len() < MAX_WAITING {
            return Ok(());
        }
        let this = self.clone();
        self.with_store(move |store| this.take_in(store)).await
    }

    /// These are given, with the next batch.
    pub(crate) fn give(&self, keys: impl IntoIterator<Item = u128>) {
        self.waiting().extend(keys);
    }

    /// Makes durable what was given, and gives the value to commit.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn keep(&self) -> Result<Value> {
        let this = self.clone();
        self.with_store(move |store| {
            this.take_in(store)?;
            store.keep()
        })
        .await
    }

    fn take_in(&self, store: &mut KeyStore) -> Result<()> {
        let waiting = std::mem::take(&mut *self.waiting());
        let mut keys: Vec<_> = waiting.into_iter().map(|key| Keyed { key, version: 0 }).collect();
        keys.sort_unstable_by_key(|keyed| keyed.key);
        store.admit(&keys, 0).map(drop)
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut KeyStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let keys = Arc::clone(&self.keys);
        let done = self.tasks.block(move || {
            // After a panic the store says that it has failed.
            let mut store = keys.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut store)
        });
        done.await?
    }

    fn waiting(&self) -> MutexGuard<'_, HashSet<u128>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value that was kept has no keys where they should be.
pub(crate) fn damaged(value: &Value) -> Error {
    let message =
        "what was kept names no items that were given; forget them with `aqueduct run --full-refresh`";
    Error::new(aqueduct_core::ErrorKind::Conflict, "read given items", message).with("kept", value)
}

//! The items that documents have linked to, each given once, however many there are.

use std::sync::{Arc, Mutex, PoisonError};

use aqueduct_commit::{KeyStore, Keyed, KeysIn, Remembering};
use aqueduct_core::{Context, Result};
use aqueduct_net::Location;
use aqueduct_primitives::{ByteCount, Tasks};

/// Keys of items in memory, 16 bytes each. With less they would be written to disk every few documents; what it does not hold
/// lies there.
pub(super) const KEYS_BYTES: ByteCount = ByteCount::mib(2);

/// Places of items, by a hash of 128 bits.
pub(super) struct LinkedItems {
    keys: Arc<Mutex<KeyStore>>,
    tasks: Tasks,
}

impl LinkedItems {
    /// None yet. The caller has reserved [`KEYS_BYTES`].
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn new(cx: &Context) -> Result<Self> {
        let how = Remembering { versioned: false, forget_after_days: None, memory: KEYS_BYTES };
        let (fs, scratch) = (Arc::clone(cx.fs()), cx.scratch().clone());
        let opening = move || KeyStore::open(&fs, KeysIn::Scratch(scratch), how, None);
        let keys = Arc::new(Mutex::new(cx.tasks().block(opening).await??));
        Ok(Self { keys, tasks: cx.tasks().clone() })
    }

    /// Those that no document has linked to before, in order.
    ///
    /// # Errors
    /// The disk's.
    pub(super) async fn first_met(&mut self, items: Vec<Location>) -> Result<Vec<Location>> {
        let keys = Arc::clone(&self.keys);
        let look = move || {
            let rows: Vec<_> = items.iter().map(|at| Keyed { key: key(at), version: 0 }).collect();
            // After a panic the store says that it has failed.
            let is_new = keys.lock().unwrap_or_else(PoisonError::into_inner).admit(&rows, 0)?;
            let new = items.into_iter().zip(is_new).filter_map(|(at, is_new)| is_new.then_some(at));
            Ok(new.collect())
        };
        self.tasks.block(look).await?
    }
}

/// Of the whole place: what is shown of it leaves secrets out, and by one of these alone two may differ.
fn key(at: &Location) -> u128 {
    let shown = at.to_string();
    let whole = if let Location::Http(url) = at { url.as_str() } else { &shown };
    let mut key = [0; 16];
    blake3::Hasher::new().update(whole.as_bytes()).finalize_xof().fill(&mut key);
    u128::from_le_bytes(key)
}

//! What callers of the fetcher can rely on, shown against a server that misbehaves on purpose.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

mod calls;
mod closing;
mod credentials;
mod inputs;
mod limits;
mod locals;
mod ranges;
mod resume;
mod retries;
mod server;
mod slow;
mod store_fs;
mod stores;
mod tls;
mod trust;
mod validators;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aqueduct_core::{Error, Result, StepMetrics};
use aqueduct_net::{Backoff, Fetcher, HttpOptions, Location, StorageOptions, Trust};
use aqueduct_primitives::Tasks;
use futures::TryStreamExt;

/// A fetcher that does not wait between tries, and its counters.
struct Client {
    fetcher: Fetcher,
    metrics: Arc<StepMetrics>,
}

/// So long a `Retry-After` may be in these tests.
const SHORT: Duration = Duration::from_millis(20);

fn options(json: serde_json::Value) -> HttpOptions {
    serde_json::from_value(json).unwrap()
}

fn client(json: serde_json::Value) -> Client {
    let fetcher = Fetcher::new(options(json), StorageOptions::default(), Tasks::default()).unwrap();
    let backoff = Backoff { first: Duration::ZERO, max: Duration::ZERO, max_retry_after: SHORT };
    Client { fetcher: fetcher.with_backoff(backoff), metrics: Arc::default() }
}

fn plain_client() -> Client {
    client(serde_json::json!({}))
}

fn location(text: &str) -> Location {
    Location::parse(text, Path::new("/nowhere")).unwrap()
}

fn from_data() -> Trust {
    Trust::Data { origin: None }
}

impl Client {
    async fn read(&self, url: &str) -> Result<Vec<u8>> {
        self.read_from(url, Trust::Flow).await
    }

    async fn read_from(&self, url: &str, from: Trust) -> Result<Vec<u8>> {
        let fetched = self.fetcher.get(&location(url), from, &self.metrics).await?;
        let pieces: Vec<bytes::Bytes> = fetched.body.try_collect().await?;
        Ok(pieces.concat())
    }

    async fn fails(&self, url: &str) -> Error {
        self.read(url).await.unwrap_err()
    }

    fn n_retries(&self) -> u64 {
        self.metrics.retries.get()
    }
}

#[track_caller]
fn says(error: &Error, parts: &[&str]) {
    let text = error.chain();
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

/// Bytes that differ at every place, nearly.
fn sample(n_bytes: usize) -> Vec<u8> {
    (0..n_bytes).map(|n| u8::try_from((n * 31 + n / 251) % 256).unwrap()).collect()
}

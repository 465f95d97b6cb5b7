//! Bytes from anywhere: local files, HTTP and object stores, behind one [`Fetcher`].
//!
//! One HTTP client serves a whole run. It retries what can pass, takes a broken body up again by Range
//! where the server allows, checks that what came is whole, keeps credentials at the origin they are meant
//! for, and goes to no private address that only the data named ([`Trust`]). Everything has a named limit.
//! Knows no file format and no component.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::path::Path;
//! use std::sync::Arc;
//!
//! use aqueduct_net::{Fetcher, HttpOptions, Location, StorageOptions, Trust};
//! use aqueduct_primitives::Tasks;
//! use futures::TryStreamExt;
//!
//! let fetcher = Fetcher::new(HttpOptions::default(), StorageOptions::default(), Tasks::default())?;
//! let place = Location::parse("memory://lake/hello.txt", Path::new("."))?;
//! fetcher.put(&place, "hello".into()).await?;
//!
//! let mut file = fetcher.get(&place, Trust::Flow, &Arc::default()).await?;
//! assert_eq!(file.meta.n_bytes, Some(5));
//! while let Some(bytes) = file.body.try_next().await? {
//!     assert_eq!(bytes, "hello");
//! }
//! fetcher.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod auth;
mod body;
mod call;
mod clients;
mod failure;
mod fetched;
mod fetcher;
mod http_ranges;
mod inner;
mod list;
mod listener;
mod local;
mod location;
mod mask;
mod objects;
mod options;
mod pace;
mod range;
mod rate;
mod request;
mod retry;
pub mod server;
mod store;
mod store_fs;
mod validator;
mod web;

pub use address::Trust;
pub use call::{Call, Reply};
pub use failure::{TimedOut, does_no_ranges};
pub use fetched::{ContentEncoding, Fetched, Known, Meta, Ranged};
pub use fetcher::Fetcher;
pub use list::Listed;
pub use listener::Listener;
pub use location::Location;
pub use mask::masked_url;
pub use options::{Auth, HttpOptions, Secret};
pub use retry::Backoff;
pub use store::{StorageOptions, StoreSettings};
pub use store_fs::StoreFs;
pub use validator::Validator;

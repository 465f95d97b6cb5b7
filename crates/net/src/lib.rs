//! Bytes from anywhere: local files, HTTP and object stores, behind one [`Fetcher`].
//!
//! One HTTP client serves a whole run. It retries what can pass, takes a broken body up again by Range
//! where the server allows, checks that what came is whole, keeps credentials at the origin they are meant
//! for, and goes to no private address that only the data named ([`Trust`]). Everything has a named limit.
//! Knows no file format and no component.

mod address;
mod auth;
mod body;
mod clients;
mod failure;
mod fetcher;
mod http_ranges;
mod list;
mod local;
mod location;
mod mask;
mod objects;
mod options;
mod range;
mod rate;
mod request;
mod retry;
mod store;

pub use address::Trust;
pub use failure::does_no_ranges;
pub use fetcher::{ContentEncoding, Fetched, Fetcher, Meta};
pub use list::Listed;
pub use location::Location;
pub use mask::masked_url;
pub use options::{Auth, HttpOptions, Secret};
pub use retry::Backoff;
pub use store::{StorageOptions, StoreSettings};

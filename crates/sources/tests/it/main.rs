//! Sources from options to rows, as a runner uses them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that fails panics")]

mod changes;
mod conformance;
mod documents;
mod feeds;
mod gdelt;
mod http;
mod incremental;
mod local;
mod resume;
mod sse;
mod stac;
mod stac_api;
mod stac_catalog;
mod stalled;
mod support;
mod template;

//! Sources from options to rows, as a runner uses them.

mod gdelt;
mod http;
mod local;
mod support;

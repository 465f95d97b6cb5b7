//! DataFusion's operators inside a flow: under one lease of memory, on a thread of their own, over live streams.
//!
//! A stage makes an [`Input`] for each of its inputs and a plan over their [`scan`](Input::scan)s, of one partition,
//! sorts as DataFusion's `SortExec`; [`run`] does the rest:
//!
//! - every `SortExec` becomes a `SortRunsExec`, our external sort; those at work at one moment share the larger part of
//!   the lease. Everything else gets its memory from a `LeasePool`, whose total holds on every request;
//! - batches enter with plain types and cut by bytes: operators take a batch whole, however wide its rows are;
//! - operators read and write spill files while they compute, so the plan runs [beside](crate::beside) the flow. A plan
//!   of one partition has no `RepartitionExec`, which can wait for ever under memory pressure.

mod drive;
mod error;
mod grouped;
mod input;
#[cfg(test)]
mod known_limits;
mod pool;
#[cfg(feature = "sql")]
mod query;
mod session;
mod sort_runs;
mod spill_files;

pub(crate) use drive::run;
pub(crate) use error::{inside, outside};
pub(crate) use grouped::grouped;
pub(crate) use input::Input;
#[cfg(feature = "sql")]
pub(crate) use query::Query;

//! Bounded streams: a byte budget and what moves data under it.
#![doc = include_str!("../README.md")]

mod budget;
mod byte_count;
mod sync;
mod tasks;

pub use budget::{Budget, Charged, Reservation, Reserve, ReserveError};
pub use byte_count::{ByteCount, ParseByteCountError};
pub use tasks::{Task, TaskError, Tasks};

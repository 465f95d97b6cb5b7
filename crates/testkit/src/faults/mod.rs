//! Seams that misbehave on purpose: the disk ([`FailingFs`]) and the time ([`FixedClock`]).

mod failing_fs;
mod fixed_clock;

pub use failing_fs::FailingFs;
pub use fixed_clock::FixedClock;

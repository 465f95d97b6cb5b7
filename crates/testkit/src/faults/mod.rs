//! Seams that misbehave on purpose: the disk ([`FailingFs`]) and the time ([`ManualClock`]).

mod failing_fs;
mod manual_clock;

pub use failing_fs::FailingFs;
pub use manual_clock::ManualClock;

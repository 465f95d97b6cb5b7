//! Seams that misbehave on purpose: the disk ([`FailingFs`], [`SimFs`]) and the time ([`FixedClock`]).

mod failing_fs;
mod fixed_clock;
mod sim_fs;

pub use failing_fs::FailingFs;
pub use fixed_clock::FixedClock;
pub use sim_fs::{Fault, SimFs};

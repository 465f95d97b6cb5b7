//! Publishing as a user of the crate sees it: on a real disk, and on one that fails at every step in turn.

#[cfg(test)]
mod checkpoints;
#[cfg(test)]
mod cleaning;
#[cfg(test)]
mod clocks;
#[cfg(test)]
mod edits;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod key_kills;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod kills;
#[cfg(test)]
mod machines;
#[cfg(test)]
mod notes;
#[cfg(test)]
mod publish;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod sightings;
#[cfg(test)]
mod state;
#[cfg(test)]
mod syncs;
#[cfg(test)]
mod verify;
#[cfg(test)]
mod zombies;

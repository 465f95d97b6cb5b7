//! Streaming stages: one file a stage. Each takes batches in order, gives batches in order, passes every
//! position on, and holds no more than one batch beyond its input, and in its own share what it remembers.
//!
//! A value that a stage cannot compute or cast is one bad *row*: it goes to the flow's policy with its column,
//! what was found and what was expected, and the rows around it go on.

mod batch;
mod cast;
mod columns;
mod drop;
mod explode;
#[cfg(feature = "http")]
mod extract;
#[cfg(feature = "expr")]
mod filter;
mod flatten;
mod limit;
mod pairs;
#[cfg(test)]
mod properties;
mod rename;
mod rows;
mod sample;
#[cfg(feature = "expr")]
mod select;
mod tap;
#[cfg(test)]
mod testing;
mod throttle;
mod unseen;
mod update;
#[cfg(feature = "validate")]
mod validate;
#[cfg(feature = "expr")]
mod with;

use aqueduct_core::StageFactory;

/// Every stage of this crate, in the order in which help lists them.
pub const ALL: &[&dyn StageFactory] = &[
    #[cfg(feature = "expr")]
    &filter::FACTORY,
    #[cfg(feature = "expr")]
    &select::FACTORY,
    #[cfg(feature = "expr")]
    &with::FACTORY,
    &drop::FACTORY,
    &rename::FACTORY,
    &cast::FACTORY,
    &flatten::FACTORY,
    &explode::FACTORY,
    &limit::FACTORY,
    &sample::FACTORY,
    &batch::FACTORY,
    &tap::FACTORY,
    &throttle::FACTORY,
    &unseen::FACTORY,
    #[cfg(feature = "validate")]
    &validate::FACTORY,
    &update::FACTORY,
    #[cfg(feature = "http")]
    &extract::FACTORY,
];

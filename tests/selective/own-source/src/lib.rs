//! A source that aqueduct does not have. The program `own-source` is aqueduct with it.

pub mod primes;

//! SQL expressions over a batch, from DataFusion's expression crates.

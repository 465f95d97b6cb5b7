//! Any amount of data through a fixed amount of memory.

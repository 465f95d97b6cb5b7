//! Whole files in, rows out: formats, compressions, archives, hostile files.

mod columnar;
mod support;
mod text;
mod unpacking;

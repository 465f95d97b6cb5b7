//! Whole files in, rows out: formats, compressions, archives, hostile files.

#[cfg(test)]
mod columnar;
#[cfg(test)]
mod skip;
#[cfg(test)]
mod stac;
#[cfg(test)]
mod support;
#[cfg(test)]
mod text;
#[cfg(test)]
mod unpacking;

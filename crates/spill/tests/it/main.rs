//! The global stages as the runner uses them: made by their factories, given batches, read to their end.

#[cfg(test)]
mod aggregate;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod join;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod sql;
#[cfg(test)]
mod upstream;

//! The stages as the runner uses them: made by their factories, given batches, read to their end.

#[cfg(test)]
mod asking;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod template;

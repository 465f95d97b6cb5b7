//! The sinks as the runner uses them: made by their factories, given batches, sealed.

#[cfg(test)]
mod binary_files;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod partitions;
#[cfg(test)]
mod sse;
#[cfg(test)]
mod stac_geoparquet;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod template;

//! Parquet and Arrow files.
use crate::{DecodeSpec, DecodedStream, Format};
use aqueduct_core::{Error, RandomAccess, Result};
use aqueduct_primitives::Tasks;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;
pub(crate) fn decode_columnar(
    _f: Arc<dyn RandomAccess>,
    _format: Format,
    _spec: DecodeSpec,
    _t: &Tasks,
) -> DecodedStream {
    Box::pin(futures::stream::once(async { Err(Error::bug("decode", "not there yet")) }))
}
pub(crate) async fn infer_columnar(
    _f: Arc<dyn RandomAccess>,
    _format: Format,
    _t: &Tasks,
) -> Result<SchemaRef> {
    Err(Error::bug("decode", "not there yet"))
}

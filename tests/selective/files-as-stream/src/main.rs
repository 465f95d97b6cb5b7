//! Prints how many rows files have: `files-as-stream PATH...`, without paths those of `data/` beside it.

use std::error::Error;
use std::io::Write;

use aqueduct_sources::primitives::{Budget, ByteCount};
use files_as_stream::read;
use futures::StreamExt;
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        paths.push(format!("{}/data/*", env!("CARGO_MANIFEST_DIR")));
    }
    let memory = Budget::new("memory", ByteCount::mb(32));
    let mut rows = read(json!({ "paths": paths }), std::env::current_dir()?, &memory).await?;
    let mut n_rows = 0;
    while let Some(batch) = rows.batches.next().await {
        n_rows += batch?.num_rows();
    }
    let columns: Vec<_> = rows.schema.fields().iter().map(|field| field.name().as_str()).collect();
    writeln!(std::io::stdout(), "{n_rows} rows of {}", columns.join(", "))?;
    Ok(())
}

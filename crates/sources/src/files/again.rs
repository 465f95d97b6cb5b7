//! The same source over other files: records that were rejected, or files that could not be read.

use aqueduct_core::OtherFiles;
use aqueduct_formats::{Compression, CompressionOption, Format, FormatOption, ReadOptions};

use super::{ListedPaths, Paths};

/// How a file is named that holds records of a file of this name.
pub(crate) fn suffix(read: &ReadOptions, file: &str) -> Option<&'static str> {
    match read.format.named().or_else(|| Format::of_name(file))? {
        // A record of a JSON document is a line of its own.
        Format::Ndjson | Format::Json => Some("ndjson"),
        Format::Csv => Some("csv"),
        Format::Tsv => Some("tsv"),
        Format::Text => Some("txt"),
        _ => None,
    }
}

/// The files.
pub(crate) fn listed(files: &OtherFiles) -> Paths {
    Paths::Listed(ListedPaths { file: files.list.display().to_string() })
}

/// How they are read: records by the suffix of the file that holds them, which nothing packs.
pub(crate) fn options(read: &ReadOptions, files: &OtherFiles) -> ReadOptions {
    let Some(columns) = &files.records else { return read.clone() };
    ReadOptions {
        format: FormatOption::Auto,
        compression: CompressionOption::Is(Compression::None),
        records: None,
        schema: if read.schema.is_empty() { columns.clone() } else { read.schema.clone() },
        ..read.clone()
    }
}

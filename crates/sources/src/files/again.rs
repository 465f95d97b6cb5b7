//! The same source over other files: records that were rejected, or files that could not be read.

use aqueduct_core::OtherFiles;
use aqueduct_formats::{Compression, CompressionOption, Format, FormatOption, ReadOptions};

use super::{ListedPaths, Paths};

/// How a file is named that holds records of a file of this name.
pub(crate) fn suffix(read: &ReadOptions, file: &str) -> Option<&'static str> {
    let by_name = Format::of_name(file);
    match read.format.named().or(by_name)? {
        // Of Parquet there are no records as they stood.
        Format::Stac if by_name.is_some_and(Format::needs_random_access) => None,
        // A record of a JSON document is a line of its own.
        Format::Ndjson | Format::Json | Format::Stac => Some("ndjson"),
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
    let is_stac = read.format.named() == Some(Format::Stac);
    ReadOptions {
        format: if is_stac { read.format } else { FormatOption::Auto },
        compression: CompressionOption::Is(Compression::None),
        records: None,
        schema: if read.schema.is_empty() { columns.clone() } else { read.schema.clone() },
        ..read.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(options: serde_json::Value) -> ReadOptions {
        serde_json::from_value(options).unwrap()
    }

    #[test]
    fn records_are_read_as_they_stood_whatever_their_file_was_packed_in() {
        let auto = read(json!({}));
        for (file, told) in [
            ("a.csv.gz", Some("csv")),
            ("a.json", Some("ndjson")),
            ("https://h/a.tsv?x=1", Some("tsv")),
            ("a.parquet", None),
        ] {
            assert_eq!(suffix(&auto, file), told, "{file}");
        }
        assert_eq!(suffix(&read(json!({"format": "csv"})), "a"), Some("csv"));
        let columns = vec![("n".to_owned(), "int64".to_owned())];
        let records = OtherFiles { list: "l".into(), records: Some(columns.clone()) };
        let packed = read(
            json!({"format": "json", "records": "/rows", "compression": "gzip", "csv": {"delimiter": ";"}}),
        );
        let again = options(&packed, &records);
        assert_eq!((again.format, again.compression.named()), (FormatOption::Auto, Some(Compression::None)));
        assert_eq!((again.records, again.schema, again.csv.delimiter), (None, columns, Some(';')));
        let stac = read(json!({"format": "stac", "records": "/features"}));
        assert_eq!(suffix(&stac, "page.json"), Some("ndjson"));
        assert_eq!(suffix(&stac, "items.parquet"), None);
        assert_eq!(options(&stac, &records).format.named(), Some(Format::Stac));
        let declared = read(json!({"schema": {"t": "timestamp('%d/%m/%Y')"}}));
        assert_eq!(options(&declared, &records).schema, declared.schema, "with its hints");
        let files = OtherFiles { records: None, ..records };
        assert_eq!(options(&packed, &files).compression.named(), Some(Compression::Gzip));
    }
}

//! Formats and compressions by name, and how `auto` finds them: by the file's name, then by its first bytes.

use aqueduct_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How rows are written down in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// An array of objects, one object, or objects one after the other (RFC 8259).
    Json,
    /// Comma-separated values (RFC 4180).
    Csv,
    /// Tab-separated values. Nothing is quoted unless `csv.quote` says so.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC file.
    Arrow,
    /// Items of STAC, in the columns of stac-geoparquet: one, a list of them, objects one after the other, or a collection
    /// with `features`; also Parquet, as it is.
    Stac,
    /// Lines of text, in one column, `line`.
    Text,
    /// Bytes as they are, in rows of at most 256 KiB: `_file`, `_offset`, `bytes`.
    Binary,
}

/// How a file is compressed as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952), one or several members.
    Gzip,
    /// Zstandard (RFC 8878), one or several frames.
    Zstd,
    /// bzip2, one or several streams.
    Bzip2,
    /// xz, one or several streams.
    Xz,
    /// A zip archive: its members one after the other.
    Zip,
}

const FORMAT_SUFFIXES: [(&str, Format); 15] = [
    ("ndjson", Format::Ndjson),
    ("jsonl", Format::Ndjson),
    ("geojsonl", Format::Ndjson),
    ("json", Format::Json),
    ("geojson", Format::Json),
    ("csv", Format::Csv),
    ("tsv", Format::Tsv),
    ("tab", Format::Tsv),
    ("parquet", Format::Parquet),
    ("geoparquet", Format::Parquet),
    ("arrow", Format::Arrow),
    ("feather", Format::Arrow),
    ("ipc", Format::Arrow),
    ("txt", Format::Text),
    ("log", Format::Text),
];

const COMPRESSION_SUFFIXES: [(&str, Compression); 8] = [
    ("gz", Compression::Gzip),
    ("gzip", Compression::Gzip),
    ("zst", Compression::Zstd),
    ("zstd", Compression::Zstd),
    ("bz2", Compression::Bzip2),
    ("bzip2", Compression::Bzip2),
    ("xz", Compression::Xz),
    ("zip", Compression::Zip),
];

const COMPRESSION_MAGIC: [(&[u8], Compression); 6] = [
    (b"\x1f\x8b", Compression::Gzip),
    (b"\x28\xb5\x2f\xfd", Compression::Zstd),
    (b"BZh", Compression::Bzip2),
    (b"\xfd7zXZ\0", Compression::Xz),
    (b"PK\x03\x04", Compression::Zip),
    (b"PK\x05\x06", Compression::Zip),
];

/// The UTF-8 byte order mark.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

impl Format {
    /// The name in flow files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Stac => "stac",
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }

    /// Whether it is read by range, from the end of the file.
    pub fn needs_random_access(self) -> bool {
        matches!(self, Self::Parquet | Self::Arrow)
    }

    /// The format by the name alone: the suffix, or the one before a compression's suffix. `name` may be a
    /// URL; its query and fragment do not count.
    pub fn of_name(name: &str) -> Option<Self> {
        let suffixes = suffixes(name);
        let (last, before) = suffixes;
        let suffix = if compression_of_suffix(&last).is_some() { before } else { last };
        FORMAT_SUFFIXES.iter().find(|(text, _)| *text == suffix).map(|(_, format)| *format)
    }

    /// The format by the first bytes, if it is one that is read by range.
    pub(crate) fn columnar(head: &[u8]) -> Option<Self> {
        let magic = [(&b"PAR1"[..], Self::Parquet), (b"ARROW1", Self::Arrow)];
        magic.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| format)
    }

    /// The format by the name, else by the first bytes after decompression.
    ///
    /// # Errors
    /// Neither tells. An HTML page is named as one.
    pub fn detect(name: &str, head: &[u8]) -> Result<Self> {
        if let Some(format) = Self::of_name(name) {
            return Ok(format);
        }
        sniff(head).ok_or_else(|| {
            let found =
                if is_html(head) { "an HTML page" } else { "neither a known suffix nor known content" };
            Error::new(ErrorKind::Data, "detect format", format!("found {found}; say which `format` it is"))
                .with("file", name)
        })
    }
}

impl Compression {
    /// The name in flow files.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zip => "zip",
        }
    }

    /// The compression by the name's suffix alone.
    pub fn of_name(name: &str) -> Option<Self> {
        compression_of_suffix(&suffixes(name).0)
    }

    /// The compression by the first bytes, else none. The bytes win over the name: servers unpack `.gz`
    /// files on their way, and a name says nothing about a URL.
    pub fn detect(name: &str, head: &[u8]) -> Self {
        let found = COMPRESSION_MAGIC.iter().find(|(magic, _)| head.starts_with(magic));
        match found {
            Some((_, compression)) => *compression,
            None if head.is_empty() => Self::of_name(name).unwrap_or_default(),
            None => Self::None,
        }
    }
}

fn compression_of_suffix(suffix: &str) -> Option<Compression> {
    COMPRESSION_SUFFIXES.iter().find(|(text, _)| *text == suffix).map(|(_, compression)| *compression)
}

/// The last suffix of a name and the one before it, in lower case, empty where there is none.
fn suffixes(name: &str) -> (String, String) {
    let path = if name.contains("://") { name.split(['?', '#']).next().unwrap_or(name) } else { name };
    let base = path.rsplit(['/', '\\']).next().unwrap_or(path).to_ascii_lowercase();
    let mut parts = base.rsplit('.');
    let last = parts.next().unwrap_or_default();
    let Some(before) = parts.next() else { return Default::default() };
    let before = if parts.next().is_some() { before } else { "" };
    (last.to_owned(), before.to_owned())
}

fn sniff(head: &[u8]) -> Option<Format> {
    if let Some(format) = Format::columnar(head) {
        return Some(format);
    }
    let text = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    match text.first()? {
        b'[' => Some(Format::Json),
        // One object a line is the rule; an object over several lines is one record of JSON.
        b'{' if first_line(text).trim_ascii_end().ends_with(b"}") => Some(Format::Ndjson),
        b'{' => Some(Format::Json),
        b'<' => None,
        _ if first_line(text).contains(&b'\t') => Some(Format::Tsv),
        _ if first_line(text).contains(&b',') => Some(Format::Csv),
        _ => None,
    }
}

fn first_line(text: &[u8]) -> &[u8] {
    text.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// Whether the bytes begin a web page: a login page, say, where data was expected. Comments and the head of an XML file may
/// come before it.
pub(crate) fn is_html(head: &[u8]) -> bool {
    let mut text = head.strip_prefix(BOM).unwrap_or(head).trim_ascii_start();
    for (start, end) in [(&b"<?xml"[..], &b"?>"[..]), (b"<!--", b"-->"), (b"<!--", b"-->")] {
        if text.starts_with(start) {
            let end = text.windows(end.len()).position(|window| window == end).map(|at| at + end.len());
            text = text.get(end.unwrap_or(text.len())..).unwrap_or_default().trim_ascii_start();
        }
    }
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/');
    let starts = |word: &[u8]| {
        let is_word = text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
        is_word && text.get(word.len()).is_none_or(is_end)
    };
    [&b"<!doctype html"[..], b"<html", b"<head", b"<body"].into_iter().any(starts)
}

/// A web page came in the place of a file of this format.
pub(crate) fn found_html(format: Format) -> Error {
    Error::new(ErrorKind::Data, "read", format!("found an HTML page, expected {}", format.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_format_and_compression() {
        for (name, format, compression) in [
            ("a.ndjson", Some(Format::Ndjson), None),
            ("a/b.CSV.zip", Some(Format::Csv), Some(Compression::Zip)),
            ("https://host/x.json.gz?sig=a.csv", Some(Format::Json), Some(Compression::Gzip)),
            ("a.tsv.zst", Some(Format::Tsv), Some(Compression::Zstd)),
            ("archive.zip", None, Some(Compression::Zip)),
            ("https://example.org", None, None),
            ("ndjson", None, None),
            (".csv", Some(Format::Csv), None),
        ] {
            assert_eq!(Format::of_name(name), format, "{name}");
            assert_eq!(Compression::of_name(name), compression, "{name}");
        }
    }

    #[test]
    fn content_tells_where_the_name_does_not() {
        for (head, format) in [
            (&b"{\"a\":1}\n{\"a\":2}\n"[..], Format::Ndjson),
            (b"{\n \"a\": 1\n}", Format::Json),
            (b"\xef\xbb\xbf [1]", Format::Json),
            (b"a,b\n1,2", Format::Csv),
            (b"a\tb\n1\t2", Format::Tsv),
            (b"PAR1....", Format::Parquet),
        ] {
            assert_eq!(Format::detect("download", head).unwrap(), format);
        }
        assert_eq!(Compression::detect("a.gz", b"{}"), Compression::None);
        assert_eq!(Compression::detect("a", b"\x1f\x8b\x08"), Compression::Gzip);
    }

    // S0 reliability 11
    #[test]
    fn a_web_page_is_named() {
        let error = Format::detect("download", b"<!DOCTYPE html><html>").unwrap_err();
        assert!(error.message().contains("HTML page"), "{error}");
        for page in [
            "\u{feff} \n<HTML lang=\"en\">",
            "<?xml version=\"1.0\"?>\n<!-- a --><!-- b -->\n<!doctype HTML PUBLIC",
            "<!-- > --><head>",
        ] {
            assert!(is_html(page.as_bytes()), "{page}");
        }
        for other in [
            "",
            "<",
            "<!--",
            "<header>,1",
            "<bodyweight>",
            "<?xml version=\"1.0\"?><rss>",
            "<p>,1",
            "{\"a\": \"<html>\"}",
            "<!-- <html>",
        ] {
            assert!(!is_html(other.as_bytes()), "{other}");
        }
    }
}

//! The options of everything that reads files: how they look, and what to do when they look otherwise.

use aqueduct_core::{Problem, pointer_to, units};
use aqueduct_primitives::ByteCount;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::{ColumnType, Compression, Format, parse_type};

/// How to read files. Meant to be flattened into a source's options.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReadOptions {
    /// The files' format; `auto` goes by the name's suffix, then by the first bytes.
    pub format: FormatOption,
    /// The files' compression; `auto` goes by the first bytes.
    pub compression: CompressionOption,
    /// Details of CSV and TSV.
    pub csv: CsvOptions,
    /// The columns and their types, in order. Without it they are inferred.
    #[serde(deserialize_with = "ordered_columns")]
    #[schemars(with = "std::collections::BTreeMap<String, String>", extend("default" = {}))]
    pub schema: Vec<(String, String)>,
    /// From how many rows to infer the columns: a number or `all`.
    pub infer_rows: InferRows,
    /// What to do with a field that is no column.
    pub new_fields: NewFields,
    /// Where the records are in a JSON document, as a JSON pointer (RFC 6901): `/features`, say.
    pub records: Option<String>,
    /// A record or line larger than this is an error.
    #[serde(deserialize_with = "units::byte_count")]
    #[schemars(with = "units::Size", extend("default" = "16MiB"))]
    pub max_record_bytes: ByteCount,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: FormatOption::default(),
            compression: CompressionOption::default(),
            csv: CsvOptions::default(),
            schema: Vec::new(),
            infer_rows: InferRows::default(),
            new_fields: NewFields::default(),
            records: None,
            max_record_bytes: ByteCount::mib(16),
        }
    }
}

/// A format, or `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FormatOption {
    /// By the name's suffix, then by the first bytes.
    #[default]
    Auto,
    /// This one.
    #[serde(untagged)]
    Is(Format),
}

impl FormatOption {
    /// The format that was named, if one was.
    pub fn named(self) -> Option<Format> {
        match self {
            Self::Auto => None,
            Self::Is(format) => Some(format),
        }
    }
}

/// A compression, or `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CompressionOption {
    /// By the first bytes; with `format: binary` none, so that files stay as they are.
    #[default]
    Auto,
    /// This one.
    #[serde(untagged)]
    Is(Compression),
}

impl CompressionOption {
    /// The compression that was named, if one was.
    pub fn named(self) -> Option<Compression> {
        match self {
            Self::Auto => None,
            Self::Is(compression) => Some(compression),
        }
    }
}

/// Details of CSV and TSV.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CsvOptions {
    /// Whether the first row holds the columns' names. Without, columns go by place.
    pub header: bool,
    /// What stands between fields: one ASCII character; default a comma, in TSV a tab.
    pub delimiter: Option<char>,
    /// What fields may be wrapped in: one ASCII character, doubled inside, or `none`; default `"`, in TSV
    /// `none`.
    pub quote: Option<String>,
    /// Rows that begin with this character are passed over.
    pub comment: Option<char>,
    /// The text of a field that is null. Beside it, an empty field is null in all but string columns.
    pub null: Option<String>,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self { header: true, delimiter: None, quote: None, comment: None, null: None }
    }
}

/// From how many rows to infer the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InferRows {
    /// The whole file, which is then read twice; with `format: stac`, all files.
    All,
    /// So many rows, from the start.
    #[serde(untagged)]
    First(u64),
}

impl Default for InferRows {
    fn default() -> Self {
        Self::First(1000)
    }
}

/// What to do with a field that is no column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NewFields {
    /// The row is rejected; in CSV, whose fields are named once, the file.
    #[default]
    Fail,
    /// It is dropped.
    Ignore,
    /// It is kept, as JSON, in the column `_extra`.
    Extra,
}

impl ReadOptions {
    /// All that is wrong with the options. Pure.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = self.csv.validate();
        for (name, text) in &self.schema {
            if let Err(mut problem) = parse_type(text) {
                problem.pointer = format!("/schema{}", pointer_to(name));
                problems.push(problem);
            }
        }
        if self.infer_rows == InferRows::First(0) {
            problems
                .push(Problem::at("/infer_rows", "0 rows tell nothing; expected a number from 1 on, or all"));
        }
        if self.max_record_bytes < ByteCount::kib(1) {
            problems.push(Problem::at("/max_record_bytes", "expected at least 1KiB"));
        }
        if let Some(pointer) = &self.records
            && !(pointer.is_empty() || pointer.starts_with('/'))
        {
            problems.push(Problem::at(
                "/records",
                format!(
                    "`{pointer}` is no JSON pointer; expected one that begins with `/`, such as /{pointer}"
                ),
            ));
        }
        problems
    }

    /// The most bytes of one record, where those may be larger than a batch: bytes that are no records are
    /// cut.
    pub fn largest_record(&self) -> ByteCount {
        if self.format.named() == Some(Format::Binary) { ByteCount::ZERO } else { self.max_record_bytes }
    }

    /// The declared columns; empty when they are to be inferred.
    ///
    /// # Errors
    /// The first type that cannot be read; [`ReadOptions::validate`] finds them all.
    pub fn declared(&self) -> Result<Vec<(String, ColumnType)>, Problem> {
        self.schema.iter().map(|(name, text)| Ok((name.clone(), parse_type(text)?))).collect()
    }
}

impl CsvOptions {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let ascii = |c: &char| c.is_ascii() && !matches!(c, '\n' | '\r');
        if self.delimiter.is_some_and(|c| !ascii(&c)) {
            problems
                .push(Problem::at("/csv/delimiter", "expected one ASCII character other than a line end"));
        }
        if self.comment.is_some_and(|c| !ascii(&c)) {
            problems.push(Problem::at("/csv/comment", "expected one ASCII character other than a line end"));
        }
        if let Some(text) = &self.quote
            && text != "none"
            && !(text.chars().count() == 1 && text.chars().all(|c| ascii(&c)))
        {
            problems.push(Problem::at("/csv/quote", "expected one ASCII character, or `none`"));
        }
        problems
    }

    /// The delimiter of this format.
    pub(crate) fn delimiter_of(&self, format: Format) -> u8 {
        let default = if format == Format::Tsv { b'\t' } else { b',' };
        self.delimiter.and_then(|c| u8::try_from(c).ok()).unwrap_or(default)
    }

    /// The quote of this format, if it has one.
    pub(crate) fn quote_of(&self, format: Format) -> Option<u8> {
        match self.quote.as_deref() {
            Some("none") => None,
            Some(text) => text.bytes().next(),
            None => (format != Format::Tsv).then_some(b'"'),
        }
    }

    /// The character that begins a row to be passed over.
    pub(crate) fn comment_byte(&self) -> Option<u8> {
        self.comment.and_then(|c| u8::try_from(c).ok())
    }
}

/// A map in the order in which it was written.
/// Reads columns and their types in the order in which they stand: for a `schema` of one's own.
///
/// # Errors
/// It is no map of texts.
pub fn ordered_columns<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<(String, String)>, D::Error> {
    struct Pairs;
    impl<'de> serde::de::Visitor<'de> for Pairs {
        type Value = Vec<(String, String)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a map of columns to types")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    deserializer.deserialize_map(Pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> ReadOptions {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn options_have_the_contracts_names_and_defaults() {
        let options = read(json!({}));
        assert_eq!(options.format, FormatOption::Auto);
        assert_eq!(options.infer_rows, InferRows::First(1000));
        assert_eq!(options.new_fields, NewFields::Fail);
        assert_eq!(options.max_record_bytes, ByteCount::mib(16));
        let options = read(json!({
            "format": "csv", "compression": "zip", "infer_rows": "all", "new_fields": "extra",
            "csv": {"header": false, "delimiter": ";", "quote": "none", "null": "NA"},
            "schema": {"z": "int64", "a": "string"}, "max_record_bytes": "1MiB"
        }));
        assert_eq!(options.format.named(), Some(Format::Csv));
        assert_eq!(options.compression.named(), Some(Compression::Zip));
        assert_eq!(options.infer_rows, InferRows::All);
        assert_eq!(options.schema[0].0, "z", "the order of the file is kept");
        assert!(options.validate().is_empty());
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let options = read(json!({
            "csv": {"delimiter": "é", "quote": "''"}, "schema": {"a/b": "int63"}, "records": "features",
            "infer_rows": 0
        }));
        let pointers: Vec<_> = options.validate().into_iter().map(|problem| problem.pointer).collect();
        assert_eq!(pointers, ["/csv/delimiter", "/csv/quote", "/schema/a~1b", "/infer_rows", "/records"]);
    }
}

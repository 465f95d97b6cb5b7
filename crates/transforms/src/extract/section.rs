//! A row as what is asked about.

use std::sync::Arc;

use aqueduct_core::{Problem, find_column};
use arrow::array::{Array, ArrayRef, AsArray, GenericByteArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    ArrowNativeType, ByteArrayType, DataType, GenericBinaryType, GenericStringType, Int64Type, Schema,
};
use bytes::Bytes;

use super::config::Config;
use super::prompt::Prompt;
use super::trouble::{Trouble, TroubleKind};

/// Names that people see are no longer.
const MAX_BASE_CHARS: usize = 60;
/// How a PDF begins (ISO 32000-2, 7.5.2).
const PDF_MAGIC: &[u8] = b"%PDF-";

/// Where what is asked about stands in a row.
#[derive(Clone, Debug)]
pub(super) struct SectionColumns {
    /// The section itself, if it is uploaded.
    content: Option<usize>,
    prompt: Prompt,
    max_prompt_bytes: usize,
    document: Option<usize>,
    section: Option<usize>,
    index: Option<usize>,
}

/// One section: what is uploaded and asked, and what it is called in logs.
pub(super) struct Section {
    /// What is uploaded, if anything is; it is where the row has it, not copied.
    pub(super) content: Option<Content>,
    pub(super) prompt: String,
    pub(super) label: Label,
}

#[derive(Clone)]
pub(super) struct Content {
    pub(super) bytes: Bytes,
    pub(super) media_type: &'static str,
    pub(super) extension: &'static str,
}

/// What a section is called.
#[derive(Clone, Debug, Default)]
pub(super) struct Label {
    pub(super) document: String,
    pub(super) section: String,
    pub(super) index: i64,
    /// Of the documents that came, the how manieth this is.
    pub(super) nth_document: u64,
}

impl SectionColumns {
    /// Finds the columns.
    ///
    /// # Errors
    /// They are not there, or hold something else.
    pub(super) fn bind(config: &Config, input: &Schema) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let content = match config.upload {
            true => content_column(config.section.as_deref(), input)
                .map_err(|problem| problems.push(problem))
                .ok(),
            false => None,
        };
        if !config.upload && config.section.is_some() {
            let message = "nothing is uploaded; name the column in `prompt`";
            problems.push(Problem::at("/section", message));
        }
        let prompt = Prompt::new(&config.prompt, input).map_err(|problem| problems.push(problem)).ok();
        let typed = |name: &str, of: &DataType| {
            let (at, field) = input.column_with_name(name)?;
            (field.data_type() == of).then_some(at)
        };
        match prompt.filter(|_| problems.is_empty()) {
            Some(prompt) => Ok(Self {
                content,
                prompt,
                max_prompt_bytes: config.max_prompt_bytes.as_usize(),
                document: typed("document", &DataType::Utf8),
                section: typed("section", &DataType::Utf8),
                index: typed("index", &DataType::Int64),
            }),
            None => Err(problems),
        }
    }

    /// The section of a row.
    ///
    /// # Errors
    /// There is nothing to ask about.
    pub(super) fn section(&self, rows: &RecordBatch, row: usize, label: &Label) -> Result<Section, Trouble> {
        let content = self.content.map(|at| content_of(rows.column(at), row)).transpose()?;
        let prompt = self.prompt.of(rows, row, self.max_prompt_bytes)?;
        Ok(Section { content, prompt, label: label.clone() })
    }

    /// What the section of a row is called, after the one before it.
    pub(super) fn label(&self, rows: &RecordBatch, row: usize, before: &Label) -> Label {
        let text = |at: Option<usize>| {
            at.map(|at| rows.column(at).as_string::<i32>())
                .filter(|column| column.is_valid(row))
                .map(|column| column.value(row).to_owned())
                .unwrap_or_default()
        };
        let document = text(self.document);
        let is_next = before.nth_document == 0 || document != before.document;
        let index = self.index.map_or(0, |at| rows.column(at).as_primitive::<Int64Type>().value(row));
        Label {
            nth_document: before.nth_document + u64::from(is_next),
            document,
            section: text(self.section),
            index,
        }
    }
}

impl Label {
    /// A name for people: that of the document, without what other systems take for something else.
    pub(super) fn base_name(&self) -> String {
        let name = self.document.rsplit('/').next().unwrap_or_default();
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
        let base: String = stem.chars().map(plain).take(MAX_BASE_CHARS).collect();
        if base.is_empty() { "section".into() } else { base }
    }
}

fn content_column(name: Option<&str>, input: &Schema) -> Result<usize, Problem> {
    let at = match name {
        Some(name) => find_column(input, name, "/section")?,
        None => ["pdf", "text"].iter().find_map(|name| input.index_of(name).ok()).ok_or_else(|| {
            let message = "no column `pdf` or `text`; expected the name of the column with the section";
            Problem::at("/section", message)
        })?,
    };
    let field = input.field(at);
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => Ok(at),
        other => {
            let message =
                format!("`{}` is {other}; expected a text or binary column: cast it before", field.name());
            Err(Problem::at("/section", message))
        }
    }
}

fn content_of(column: &ArrayRef, row: usize) -> Result<Content, Trouble> {
    if column.is_null(row) {
        return Err(Trouble::new(TroubleKind::SplitFailed, "there is no section: its column is null"));
    }
    let bytes = match column.data_type() {
        DataType::Utf8 => value_of(column.as_bytes::<GenericStringType<i32>>(), row),
        DataType::LargeUtf8 => value_of(column.as_bytes::<GenericStringType<i64>>(), row),
        DataType::LargeBinary => value_of(column.as_bytes::<GenericBinaryType<i64>>(), row),
        _ => value_of(column.as_bytes::<GenericBinaryType<i32>>(), row),
    };
    if bytes.is_empty() {
        return Err(Trouble::new(TroubleKind::EmptyDownload, "the section has no bytes"));
    }
    let (media_type, extension) = match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => ("text/plain", "txt"),
        _ if bytes.starts_with(PDF_MAGIC) => ("application/pdf", "pdf"),
        _ => ("application/octet-stream", "bin"),
    };
    Ok(Content { bytes, media_type, extension })
}

/// A value, which keeps its column's buffer alive.
fn value_of<T: ByteArrayType>(column: &GenericByteArray<T>, row: usize) -> Bytes {
    let offsets = column.value_offsets();
    let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
    Bytes::from_owner(Held(column.values().slice_with_length(start, end - start)))
}

struct Held(Buffer);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// What tells sections apart, whatever they are called.
pub(super) fn key_of(salt: &[u8], section: &Section) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    let parts = [salt, section.prompt.as_bytes(), section.content.as_ref().map_or(&[][..], |one| &one.bytes)];
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

/// Shared by those who ask about it and those who hash it.
pub(super) type SharedSection = Arc<Section>;

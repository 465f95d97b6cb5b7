//! What is wrong with a flow file: every mistake with its place, all of them at once.

use std::fmt;

use crate::flow::{Masks, Span};

/// One mistake in a flow file. `Display` is one line:
/// `FILE:LINE:COLUMN: path.to.key: what is wrong; what was expected; nearest valid name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowError {
    /// The file, as it was named on the command line.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The key, with dots between its parts; empty for the file as a whole.
    pub path: String,
    /// What is wrong, what was expected, the nearest valid name.
    pub message: String,
}

impl fmt::Display for FlowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// All that is wrong with a flow file, in the order of its lines. `Display` is one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowErrors(pub Vec<FlowError>);

/// More mistakes than this are counted only: whoever reads them mends the first ones anyway.
const MAX_SHOWN: usize = 50;

impl fmt::Display for FlowErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        match self.0.len().checked_sub(MAX_SHOWN) {
            Some(more) if more > 0 => write!(f, "\nand {more} more"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for FlowErrors {}

impl From<FlowError> for FlowErrors {
    fn from(error: FlowError) -> Self {
        Self(vec![error])
    }
}

/// A mistake whose file is still to be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) at: Span,
    pub(crate) path: String,
    pub(crate) message: String,
}

impl Mistake {
    pub(crate) fn new(at: Span, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { at, path: path.into(), message: message.into() }
    }

    /// The error that it is in a file. Secrets are hidden before anything is cut short, as half a secret
    /// would not be found.
    pub(crate) fn in_file(self, file: &str, masks: &Masks) -> FlowError {
        let Self { at, path, message } = self;
        let message = one_line(&with_short_quotes(&masks.mask(&message)));
        FlowError { file: file.into(), line: at.line, column: at.column, path: masks.mask(&path), message }
    }
}

/// What stands between back quotes came from the file; its beginning is enough.
fn with_short_quotes(message: &str) -> String {
    const MAX_CHARS: usize = 60;
    let shortened = |(n, part): (usize, &str)| match part.char_indices().nth(MAX_CHARS) {
        Some((end, _)) if n % 2 == 1 => format!("{}…", &part[..end]),
        _ => part.to_owned(),
    };
    message.split('`').enumerate().map(shortened).collect::<Vec<_>>().join("`")
}

/// A message without line breaks and of bounded length, so that one mistake is one line.
fn one_line(message: &str) -> String {
    const MAX_CHARS: usize = 1000;
    let printable = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut text: String = printable.take(MAX_CHARS).collect();
    if message.chars().nth(MAX_CHARS).is_some() {
        text.push('…');
    }
    text
}

/// Names with commas between them, the first few of many.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const MAX_NAMES: usize = 30;
    let mut names = names.into_iter();
    let mut text = names.by_ref().take(MAX_NAMES).collect::<Vec<_>>().join(", ");
    if names.next().is_some() {
        text.push_str(", …");
    }
    text
}

/// `; did you mean …?`, or nothing.
pub(crate) fn did_you_mean<'a>(wrong: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    match aqueduct_core::nearest(wrong, names) {
        Some(name) => format!("; did you mean `{name}`?"),
        None => String::new(),
    }
}

//! What is wrong with an expression, in one line.

use datafusion_common::{DataFusionError, SchemaError};
use datafusion_sql::sqlparser::parser::ParserError;

/// An expression that cannot be parsed, or does not fit the columns.
///
/// `Display` is one line: what was found, what there is, the nearest valid name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    message: String,
    nearest: Option<String>,
}

impl ExprError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: one_line(&message.into()), nearest: None }
    }

    /// A name that is none of those there are; says up to [`MAX_NAMES`] of them and the nearest.
    pub(crate) fn unknown<'a>(what: &str, name: &str, there_are: impl Iterator<Item = &'a str>) -> Self {
        let mut names: Vec<&str> = there_are.collect();
        names.sort_unstable();
        names.dedup();
        let nearest = nearest_in_any_case(name, &names);
        let mut message = format!("unknown {what} `{name}`");
        match &nearest {
            Some(nearest) => message.push_str(&format!("; nearest `{nearest}`")),
            None if names.len() <= MAX_NAMES => {
                message.push_str(&format!("; there are: {}", names.join(", ")));
            }
            None => {
                let first = names[..MAX_NAMES].join(", ");
                message.push_str(&format!("; there are {}: {first}, …", names.len()));
            }
        }
        Self { message, nearest }
    }

    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.message.push_str("; ");
        self.message.push_str(hint);
        self
    }

    /// What an error of DataFusion says, in one line, without its prefix and its backtrace.
    pub fn text_of(error: &DataFusionError) -> String {
        text_of(error.find_root())
    }

    /// What is wrong, in one line without a final dot.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The column or function nearest to an unknown name, if any is near.
    pub fn nearest(&self) -> Option<&str> {
        self.nearest.as_deref()
    }
}

/// A message that lists more names than this cannot be read.
const MAX_NAMES: usize = 12;

fn nearest_in_any_case(name: &str, names: &[&str]) -> Option<String> {
    let wanted = name.to_lowercase();
    let lower: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
    let found = aqueduct_core::nearest(&wanted, lower.iter().map(String::as_str))?;
    let at = lower.iter().position(|name| name == found)?;
    names.get(at).map(|name| (*name).to_owned())
}

impl From<DataFusionError> for ExprError {
    fn from(error: DataFusionError) -> Self {
        match error.find_root() {
            DataFusionError::SQL(parser, _) => Self::from((**parser).clone()),
            DataFusionError::SchemaError(schema, _) => from_schema(schema),
            root => Self::new(text_of(root)),
        }
    }
}

fn from_schema(error: &SchemaError) -> ExprError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            ExprError::unknown("column", &field.name, valid_fields.iter().map(|column| column.name.as_str()))
        }
        other => ExprError::new(other.to_string()),
    }
}

impl From<ParserError> for ExprError {
    fn from(error: ParserError) -> Self {
        match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => Self::new(text),
            ParserError::RecursionLimitExceeded => crate::parse::too_deep(),
        }
    }
}

/// DataFusion's message without its prefix, its backtrace and its line breaks.
pub(crate) fn text_of(error: &DataFusionError) -> String {
    let message = error.message();
    let text = message.split(DataFusionError::BACK_TRACE_SEP).next().unwrap_or_default();
    one_line(text.split(ASKS_FOR_REPORT).next().unwrap_or_default())
}

/// How DataFusion ends its internal errors: with an address that is not ours.
const ASKS_FOR_REPORT: &str = "This issue was likely caused";

fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join(" ").trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_or_with_all() {
        let names = || ["GlobalEventID", "country"].into_iter();
        assert_eq!(
            ExprError::unknown("column", "contry", names()).to_string(),
            "unknown column `contry`; nearest `country`"
        );
        assert_eq!(ExprError::unknown("column", "globaleventid", names()).nearest(), Some("GlobalEventID"));
        assert_eq!(
            ExprError::unknown("column", "x", names()).to_string(),
            "unknown column `x`; there are: GlobalEventID, country"
        );
    }

    #[test]
    fn messages_are_one_line() {
        assert_eq!(ExprError::new("first\n\n  second.\n").message(), "first second");
    }
}

//! What a schema finds wrong with a document: the first thing, said in one line, and how many more.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

use aqueduct_primitives::ByteCount;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use serde_json::{Map, Value};

/// More faults of one document are not counted.
const MAX_COUNTED: usize = 1000;
/// A document is told what is wrong with it where it takes no more than this: the alternatives of a schema keep copies of
/// what they look at.
const MAX_EXPLAINED: ByteCount = ByteCount::mib(4);
/// More of a value, or of a message, nobody reads.
const MAX_SHOWN_CHARS: usize = 60;
const MAX_MESSAGE_CHARS: usize = 400;

/// The first thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Where, as a JSON pointer; empty for the whole.
    pub(super) pointer: String,
    /// What, and how many more there are.
    pub(super) message: String,
}

impl Fault {
    /// The column that it is in, if it is in one.
    pub(super) fn column(&self) -> Option<String> {
        let mut names = self.pointer.split('/').skip(1);
        let name = match names.next()? {
            "properties" => names.next()?,
            name => name,
        };
        Some(name.replace("~1", "/").replace("~0", "~"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "the whole row" } else { &self.pointer };
        write!(f, "{place}: {}", self.message)
    }
}

/// Whether a fault is looked for in all places, or it is enough to know that there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    Place,
    Whether,
}

impl Detail {
    /// For a document of such a weight.
    pub(super) fn of(weight: ByteCount) -> Self {
        if weight <= MAX_EXPLAINED { Self::Place } else { Self::Whether }
    }
}

/// What one schema, or several, find wrong with a document.
#[derive(Debug, Default)]
pub(super) struct Faults {
    first: Option<Fault>,
    n_more: usize,
}

impl Faults {
    /// Adds what this schema finds.
    pub(super) fn look(&mut self, validator: &Validator, schema: &str, document: &Value, detail: Detail) {
        if validator.is_valid(document) {
            return;
        }
        if detail == Detail::Whether {
            let message = format!("does not match {schema}; the row is too large to tell where");
            return self.add(Fault { pointer: String::new(), message });
        }
        for error in validator.iter_errors(document).take(MAX_COUNTED) {
            match self.first {
                Some(_) => self.n_more += 1,
                None => self.add(first_of(&error, schema)),
            }
        }
    }

    /// Adds one that was found otherwise.
    pub(super) fn add(&mut self, fault: Fault) {
        match self.first {
            Some(_) => self.n_more += 1,
            None => self.first = Some(fault),
        }
    }

    /// The first, with how many there are beside it.
    pub(super) fn told(self) -> Option<Fault> {
        let mut first = self.first?;
        if self.n_more > 0 {
            let at_least = if self.n_more >= MAX_COUNTED { "at least " } else { "" };
            first.message.push_str(&format!("; and {at_least}{} more", self.n_more));
        }
        Some(first)
    }
}

fn first_of(error: &ValidationError<'_>, schema: &str) -> Fault {
    let cause = cause(error);
    let mut message = match missing_of_several(cause) {
        Some(names) => format!("one of {names} is required"),
        None if is_ban(cause) => format!("{} must not be there", shown(cause.instance())),
        None => cause.masked_with(shown(cause.instance())).to_string(),
    };
    if let Some((at, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
        message.truncate(at);
        message.push('…');
    }
    Fault { pointer: cause.instance_path().as_str().to_owned(), message: format!("{message}, says {schema}") }
}

/// Scalars as they are, the rest by its kind.
fn shown(value: &Value) -> Cow<'static, str> {
    match value {
        Value::Object(_) => "the object".into(),
        Value::Array(_) => "the list".into(),
        scalar => {
            let text = scalar.to_string();
            match text.char_indices().nth(MAX_SHOWN_CHARS) {
                Some((at, _)) => format!("{}…", &text[..at]).into(),
                None => text.into(),
            }
        }
    }
}

/// Of an error that no alternative of several fits, the error within the one that was most likely meant.
fn cause<'a, 'b>(error: &'a ValidationError<'b>) -> &'a ValidationError<'b>
where
    'b: 'a,
{
    let alternatives = match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => context,
        _ => return error,
    };
    if missing_of_several(error).is_some() {
        return error;
    }
    meant(error, alternatives).and_then(|errors| errors.first()).map_or(error, |error| cause(error))
}

/// The alternative that a document comes nearest to: one that takes it for what it is, `Feature` say, and in which the
/// fault lies deepest.
fn meant<'a>(
    error: &ValidationError<'_>,
    alternatives: &'a [Vec<ValidationError<'static>>],
) -> Option<&'a Vec<ValidationError<'static>>> {
    let here = depth(error);
    let is_of_another_kind = |found: &ValidationError<'_>| {
        let found = cause(found);
        depth(found) <= here + 1 && matches!(found.kind().keyword(), "type" | "const" | "enum")
    };
    alternatives.iter().filter(|errors| !errors.is_empty()).min_by_key(|errors| {
        let deepest = errors.iter().map(|error| depth(cause(error))).max();
        (errors.iter().any(is_of_another_kind), Reverse(deepest), errors.len())
    })
}

fn depth(error: &ValidationError<'_>) -> usize {
    error.instance_path().as_str().matches('/').count()
}

/// Whether nothing at all may stand there.
fn is_ban(error: &ValidationError<'_>) -> bool {
    match error.kind() {
        ValidationErrorKind::FalseSchema => true,
        ValidationErrorKind::Not { schema } => schema.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The names of which one must be there, where that is all that the alternatives ask for.
fn missing_of_several(error: &ValidationError<'_>) -> Option<String> {
    let ValidationErrorKind::AnyOf { context } = error.kind() else { return None };
    let mut names = Vec::new();
    for alternative in context {
        let [only] = alternative.as_slice() else { return None };
        let ValidationErrorKind::Required { property } = only.kind() else { return None };
        if depth(only) != depth(error) {
            return None;
        }
        names.push(property.to_string());
    }
    (names.len() > 1).then(|| names.join(", "))
}

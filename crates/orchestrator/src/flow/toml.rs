//! TOML 1.0 to a [`Node`].

use ::toml::Spanned;
use ::toml::de::{DeInteger, DeTable, DeValue};

use crate::flow::Span;
use crate::flow::error::Mistake;
use crate::flow::node::{Entry, Kind, Node};
use crate::flow::scalar;
use crate::flow::yaml::MAX_DEPTH;

/// Reads one document. The depth of arrays and inline tables is limited by the `toml` crate; that of dotted
/// tables here. The nodes are limited by the length of the file, as TOML cannot repeat any.
pub(crate) fn parse(text: &str) -> Result<Node, Mistake> {
    let lines = Lines::of(text);
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(Span::START, |span| lines.span(span.start));
        Mistake::new(at, "", error.message())
    })?;
    let kind = map(table.into_inner(), &lines, 0)?;
    Ok(Node::new(kind, Span::START))
}

/// A table's keys come sorted by name; people expect the order of the file.
fn map(table: DeTable<'_>, lines: &Lines<'_>, depth: usize) -> Result<Kind, Mistake> {
    let mut pairs: Vec<_> = table.into_iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let mut entries = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let key_at = lines.span(key.span().start);
        let value = node(value, lines, depth + 1)?;
        entries.push(Entry { key: key.into_inner().into_owned(), key_at, value });
    }
    Ok(Kind::Map(entries))
}

fn node(value: Spanned<DeValue<'_>>, lines: &Lines<'_>, depth: usize) -> Result<Node, Mistake> {
    let at = lines.span(value.span().start);
    if depth > MAX_DEPTH {
        return Err(Mistake::new(
            at,
            "",
            format!("tables more than {MAX_DEPTH} deep; the limit is {MAX_DEPTH}"),
        ));
    }
    let kind = match value.into_inner() {
        DeValue::String(text) => Kind::Text(text.into_owned()),
        DeValue::Integer(number) => integer(&number),
        DeValue::Float(number) => float(number.as_str()),
        DeValue::Boolean(value) => Kind::Bool(value),
        DeValue::Datetime(time) => Kind::Text(time.to_string()),
        DeValue::Array(items) => {
            Kind::List(items.into_iter().map(|item| node(item, lines, depth + 1)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => map(table, lines, depth)?,
    };
    Ok(Node::new(kind, at))
}

fn integer(number: &DeInteger<'_>) -> Kind {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_or_else(|_| scalar::typed(number.as_str()), Kind::Int)
}

fn float(text: &str) -> Kind {
    text.parse().map_or_else(|_| Kind::Text(text.into()), Kind::Float)
}

/// Where lines begin, to turn byte offsets into lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after_breaks).collect() }
    }

    fn span(&self, offset: usize) -> Span {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        Span::new(line, before.chars().count() + 1)
    }
}

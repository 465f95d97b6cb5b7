//! YAML 1.2 (and JSON, which is YAML) to a [`Node`], within limits on depth, nodes and aliases.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, StrInput, Tag};

use crate::flow::Span;
use crate::flow::error::Mistake;
use crate::flow::node::{Entry, Kind, Node};
use crate::flow::scalar;

/// Lists and maps within each other. Deeper ones would overflow the stack of whoever walks them.
pub(crate) const MAX_DEPTH: usize = 128;

/// Values in a file, those that aliases repeat among them. More of them take more memory than a flow is
/// worth; a bomb of aliases would have billions.
pub(crate) const MAX_NODES: usize = 200_000;

/// Reads one document.
pub(crate) fn parse(text: &str) -> Result<Node, Mistake> {
    let mut reader = Reader { parser: Parser::new_from_str(text), anchors: HashMap::new(), n_nodes: 0 };
    let node = reader.document().map_err(|mut mistake| {
        explain(&mut mistake, text);
        mistake
    })?;
    Ok(node)
}

/// Says what the parser's words mean where the cause is a common one.
fn explain(mistake: &mut Mistake, text: &str) {
    let line = text.lines().nth(mistake.at.line.saturating_sub(1)).unwrap_or_default();
    if line.contains("${") && mistake.message.contains("flow ") {
        mistake.message.push_str("; put quotes around \"${…}\" between { and }");
    } else if mistake.message.contains("recursion limit") {
        mistake.message = too_deep(mistake.at).message;
    } else if mistake.message.contains("tabs disallowed") {
        mistake.message = "a tab in the indentation; expected spaces".into();
    }
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Anchor>,
    n_nodes: usize,
}

/// A value that aliases may repeat.
struct Anchor {
    node: Node,
    n_nodes: usize,
    height: usize,
}

type Spanned<'t> = (Event<'t>, Span);

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Node, Mistake> {
        let mut root = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(Mistake::new(
                        at,
                        "",
                        "a second document begins here; expected one flow a file",
                    ));
                }
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ => root = Some(self.node(event, at, 0)?),
            }
        }
        Ok(root.unwrap_or_else(|| Node::new(Kind::Null, Span::START)))
    }

    fn next(&mut self) -> Result<Spanned<'t>, Mistake> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span_of(&span.start))),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Span::START)),
        }
    }

    fn node(&mut self, event: Event<'t>, at: Span, depth: usize) -> Result<Node, Mistake> {
        if depth > MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.count(1, at)?;
        let n_before = self.n_nodes;
        let (kind, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar_of(text, style, tag.as_deref(), at)?, anchor),
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), at)?;
                (self.map(depth)?, anchor)
            }
            Event::Alias(id) => return self.alias(id, at, depth),
            _ => return Err(Mistake::new(at, "", "the document ends too early")),
        };
        let node = Node::new(kind, at);
        if anchor != 0 {
            let n_nodes = self.n_nodes - n_before + 1;
            self.count(n_nodes, at)?;
            self.anchors.insert(anchor, Anchor { node: node.clone(), n_nodes, height: height(&node) });
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Kind, Mistake> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Kind::List(items));
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Kind, Mistake> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, key_at) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Kind::Map(entries));
            }
            let key = self.key(event, key_at, depth)?;
            if let Some(first) = seen.insert(key.clone(), key_at) {
                let message = format!("the same key twice; it stands in line {} already", first.line);
                return Err(Mistake::new(key_at, key, message));
            }
            let (event, at) = self.next()?;
            let value = self.node(event, at, depth + 1)?;
            entries.push(Entry { key, key_at, value });
        }
    }

    fn key(&mut self, event: Event<'t>, at: Span, depth: usize) -> Result<String, Mistake> {
        let node = match event {
            // A key is its text: `null: x` and `1: x` are the keys "null" and "1".
            Event::Scalar(text, _, 0, None) => return Ok(text.into_owned()),
            other => self.node(other, at, depth + 1)?,
        };
        node.scalar_text()
            .ok_or_else(|| Mistake::new(at, "", format!("{} as a key; expected a word", node.describe())))
    }

    fn alias(&mut self, id: usize, at: Span, depth: usize) -> Result<Node, Mistake> {
        let Some(anchor) = self.anchors.get(&id) else {
            return Err(Mistake::new(at, "", "an alias within what it names; it would never end"));
        };
        if depth + anchor.height > MAX_DEPTH {
            return Err(too_deep(at));
        }
        let n_nodes = anchor.n_nodes;
        self.count(n_nodes, at)?;
        Ok(self.anchors[&id].node.clone())
    }

    fn count(&mut self, n: usize, at: Span) -> Result<(), Mistake> {
        self.n_nodes = self.n_nodes.saturating_add(n);
        if self.n_nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!(
            "more than {MAX_NODES} values, those that aliases repeat among them; the limit is {MAX_NODES}: \
             put long lists into a file of their own"
        );
        Err(Mistake::new(at, "", message))
    }
}

/// How many lists and maps stand within each other.
fn height(node: &Node) -> usize {
    let below = node.items().iter().chain(node.entries().iter().map(|entry| &entry.value));
    below.map(|child| height(child) + 1).max().unwrap_or(0)
}

fn too_deep(at: Span) -> Mistake {
    Mistake::new(at, "", format!("lists and maps more than {MAX_DEPTH} deep; the limit is {MAX_DEPTH}"))
}

/// A plain scalar is typed by its text, a quoted one is a text; `!!str` and its like overrule that.
fn scalar_of(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>, at: Span) -> Result<Kind, Mistake> {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Kind::Text(text.into_owned())),
        Some(tag) if tag.is_yaml_core_schema() => Ok(scalar::typed(&text)),
        Some(_) => refuse_tag(tag, at).map(|()| Kind::Null),
        None if style == ScalarStyle::Plain => Ok(scalar::typed(&text)),
        None => Ok(Kind::Text(text.into_owned())),
    }
}

fn refuse_tag(tag: Option<&Tag>, at: Span) -> Result<(), Mistake> {
    match tag {
        Some(tag) if !tag.is_yaml_core_schema() => {
            Err(Mistake::new(at, "", format!("unknown tag `{tag}`; expected a value without a tag")))
        }
        _ => Ok(()),
    }
}

fn syntax(error: &ScanError) -> Mistake {
    Mistake::new(span_of(error.marker()), "", error.info())
}

fn span_of(marker: &Marker) -> Span {
    Span::new(marker.line(), marker.col() + 1)
}

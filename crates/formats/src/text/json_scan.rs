//! Finds the records of a JSON document while it comes: the elements of an array, wherever a JSON pointer
//! says it is, or whole documents one after the other. Only brackets and strings are looked at; what is
//! within a record is the parser's affair.
//!
//! Items of STAC are such documents, or the elements of `features` in one. Which of the two an object is shows with its
//! `type`, or with the array: until then it is held, as a record is.

use aqueduct_core::{Error, ErrorKind, Result};

use super::cut::{CutBlock, Span};

/// The state of the search.
pub(crate) struct JsonScan {
    /// Keys on the way to the records, and how many of them have been found.
    pointer: Vec<Vec<u8>>,
    n_found: usize,
    /// Whether records are items of STAC; then there is no pointer.
    of_items: bool,
    /// The object at hand that is an item or holds some.
    object: Option<Object>,
    state: State,
    /// Looked at so far.
    seen: usize,
    /// Where the record, key or value at hand begins.
    start: usize,
    spans: Vec<Span>,
    /// Bytes before the start of the buffer, for messages.
    before: u64,
}

/// An object that is an item or holds some. That it is an item is no state of it: then it is a record like any other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Object {
    /// It may be either; where it begins.
    Held { start: usize },
    /// It is a collection.
    Collection { has_features: bool },
}

/// What a key on the way stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    /// What is looked for is in its value.
    Way,
    /// Its value tells an item from a collection.
    Type,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Between documents; a comma is as good as a space, so that lists of objects without brackets are read.
    Top,
    /// Between the elements of the array of records.
    Elements,
    /// Within an object on the way: before a key, within one, behind one.
    BeforeKey,
    Key {
        escaped: bool,
    },
    /// Behind a key.
    Colon(Role),
    /// Before the value of that key.
    Value(Role),
    /// Within a value that is a record, or is passed over.
    Within(Inner),
    /// Behind the records: the rest is passed over.
    Done,
}

/// A value that is a record, or is passed over.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Inner {
    /// Brackets that are open.
    depth: usize,
    in_string: bool,
    /// The next byte of the string stands for something else.
    escaped: bool,
    is_record: bool,
    /// Where the value stands.
    next: After,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Top,
    Elements,
    BeforeKey,
    /// The value of `type` was it, which is looked at; then as before a key.
    Type,
    Done,
}

impl Inner {
    /// Goes on in a string, to its end if the buffer has it. Returns how far it came.
    fn through_string(&mut self, buffer: &[u8], at: usize) -> usize {
        if std::mem::take(&mut self.escaped) {
            return at + 1;
        }
        let rest = buffer.get(at..).unwrap_or_default();
        let Some(n) = memchr::memchr2(b'"', b'\\', rest) else { return buffer.len() };
        self.escaped = rest.get(n) == Some(&b'\\');
        self.in_string = self.escaped;
        at + n + 1
    }
}

impl JsonScan {
    /// `pointer` is a JSON pointer (RFC 6901) to the array of records; without one, or with an empty one,
    /// the document itself is that array, or is one record.
    pub(crate) fn new(pointer: Option<&str>) -> Self {
        let keys = pointer.unwrap_or("").split('/').skip(1);
        let keys = keys.map(|key| key.replace("~1", "/").replace("~0", "~").into_bytes());
        Self {
            pointer: keys.collect(),
            n_found: 0,
            of_items: false,
            object: None,
            state: State::Top,
            seen: 0,
            start: 0,
            spans: Vec::new(),
            before: 0,
        }
    }

    /// Looks for items of STAC.
    pub(crate) fn of_items() -> Self {
        Self { of_items: true, ..Self::new(None) }
    }

    pub(crate) fn has_whole(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Cuts off the whole records, and what is no part of one.
    pub(crate) fn cut(&mut self) -> CutBlock {
        let is_open = matches!(self.state, State::Key { .. } | State::Within(Inner { is_record: true, .. }));
        let mut end = if is_open { self.start } else { self.seen };
        if let Some(Object::Held { start }) = &mut self.object {
            end = *start;
            *start = 0;
        }
        self.seen -= end;
        self.start = self.start.saturating_sub(end);
        self.before += end as u64;
        CutBlock { end, spans: Some(std::mem::take(&mut self.spans)) }
    }

    /// Looks at what is new in the buffer.
    ///
    /// # Errors
    /// The document is cut off, goes too deep, or there is nothing where the pointer leads.
    pub(crate) fn scan(&mut self, buffer: &[u8], is_end: bool) -> Result<()> {
        while let Some(byte) = buffer.get(self.seen).copied() {
            self.step(buffer, byte)?;
        }
        if is_end { self.end(buffer) } else { Ok(()) }
    }

    fn step(&mut self, buffer: &[u8], byte: u8) -> Result<()> {
        if let State::Within(inner) = self.state {
            self.within(buffer, inner);
            return Ok(());
        }
        let is_space = byte.is_ascii_whitespace();
        self.state = match (self.state, byte) {
            (State::Key { escaped }, _) => self.step_key(buffer, byte, escaped),
            (State::Done, _) => {
                self.seen = buffer.len();
                return Ok(());
            }
            (state, _) if is_space => state,
            (State::Top | State::Elements | State::BeforeKey, b',') => self.state,
            (State::Top, b'[') if self.pointer.is_empty() => State::Elements,
            (State::Top, b'{') if self.of_items => {
                self.object = Some(Object::Held { start: self.seen });
                State::BeforeKey
            }
            (State::Top, b'{') if !self.pointer.is_empty() => State::BeforeKey,
            (State::Top, b']' | b'}') => return Err(self.wrong("a bracket closes what none has opened")),
            (State::Top, _) if !self.pointer.is_empty() => return Err(self.missing()),
            (State::Top, _) => {
                return {
                    self.begin(After::Top, true);
                    Ok(())
                };
            }
            (State::Elements, b']') if self.object.is_some() => State::BeforeKey,
            (State::Elements, b']') if self.pointer.is_empty() => State::Top,
            (State::Elements, b']') => State::Done,
            (State::Elements, b'}') => return Err(self.wrong("found `}` where the array of records ends")),
            (State::Elements, _) => {
                return {
                    self.begin(After::Elements, true);
                    Ok(())
                };
            }
            (State::BeforeKey, b'"') => {
                self.start = self.seen;
                State::Key { escaped: false }
            }
            (State::BeforeKey, b'}') if self.of_items => self.end_object()?,
            (State::BeforeKey, b'}') => return Err(self.missing()),
            (State::BeforeKey, _) => return Err(self.wrong("expected a key in quotes")),
            (State::Colon(role), b':') => State::Value(role),
            (State::Colon(_), _) => return Err(self.wrong("expected `:` behind a key")),
            (State::Value(Role::Way), _) => return self.enter(byte),
            (State::Value(role), _) => {
                return {
                    self.begin(if role == Role::Type { After::Type } else { After::BeforeKey }, false);
                    Ok(())
                };
            }
            (State::Within(_), _) => self.state,
        };
        self.seen += 1;
        Ok(())
    }

    fn step_key(&self, buffer: &[u8], byte: u8, escaped: bool) -> State {
        match byte {
            _ if escaped => State::Key { escaped: false },
            b'\\' => State::Key { escaped: true },
            b'"' => {
                let raw = buffer.get(self.start + 1..self.seen).unwrap_or_default();
                let meant = super::json::unescaped(raw);
                State::Colon(self.role(meant.as_deref().unwrap_or(raw)))
            }
            _ => State::Key { escaped: false },
        }
    }

    fn role(&self, key: &[u8]) -> Role {
        match key {
            b"features" if self.of_items => Role::Way,
            b"type" if self.of_items => Role::Type,
            _ if self.pointer.get(self.n_found).is_some_and(|wanted| wanted == key) => Role::Way,
            _ => Role::Other,
        }
    }

    /// Goes into the value of a key on the way.
    fn enter(&mut self, byte: u8) -> Result<()> {
        if self.of_items {
            self.enter_features(byte);
            return Ok(());
        }
        self.n_found += 1;
        let is_last = self.n_found == self.pointer.len();
        match byte {
            b'[' if is_last => self.state = State::Elements,
            b'{' if !is_last => self.state = State::BeforeKey,
            b'{' => {
                return {
                    self.begin(After::Done, true);
                    Ok(())
                };
            }
            _ => return Err(self.missing()),
        }
        self.seen += 1;
        Ok(())
    }

    /// Goes into the array that makes an object a collection; any other value is passed over.
    fn enter_features(&mut self, byte: u8) {
        if byte != b'[' {
            return self.begin(After::BeforeKey, false);
        }
        self.object = Some(Object::Collection { has_features: true });
        self.state = State::Elements;
        self.seen += 1;
    }

    /// Decides what an object is once its type is known.
    fn look_at_type(&mut self, value: &[u8]) {
        match (self.object, value) {
            (Some(Object::Held { start }), b"\"Feature\"") => {
                self.object = None;
                self.start = start;
                let (in_string, escaped, next) = (false, false, After::Top);
                self.state = State::Within(Inner { depth: 1, in_string, escaped, is_record: true, next });
            }
            (Some(Object::Held { .. }), b"\"FeatureCollection\"") => {
                self.object = Some(Object::Collection { has_features: false });
            }
            _ => {}
        }
    }

    /// The end of an object that is no item by its type: one that holds none either is a record, to be rejected.
    fn end_object(&mut self) -> Result<State> {
        match self.object.take() {
            Some(Object::Held { start }) => self.spans.push((start, self.seen + 1)),
            Some(Object::Collection { has_features: false }) => {
                return Err(self.wrong("a FeatureCollection without an array `features`"));
            }
            Some(Object::Collection { .. }) | None => {}
        }
        Ok(State::Top)
    }

    /// Begins a value at the byte at hand.
    fn begin(&mut self, next: After, is_record: bool) {
        self.start = self.seen;
        self.state = State::Within(Inner { depth: 0, in_string: false, escaped: false, is_record, next });
    }

    /// Goes on within a value, to its end if the buffer has it.
    fn within(&mut self, buffer: &[u8], mut inner: Inner) {
        let mut at = self.seen;
        while let Some(byte) = buffer.get(at).copied() {
            if inner.in_string {
                at = inner.through_string(buffer, at);
                if inner.in_string || inner.depth > 0 {
                    continue;
                }
                return self.finish(buffer, at, inner);
            }
            match byte {
                b'"' => inner.in_string = true,
                b'{' | b'[' => inner.depth += 1,
                b'}' | b']' if inner.depth > 1 => inner.depth -= 1,
                b'}' | b']' if inner.depth == 1 => return self.finish(buffer, at + 1, inner),
                b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if inner.depth == 0 => {
                    return self.finish(buffer, at, inner);
                }
                _ => {}
            }
            at += 1;
        }
        self.seen = at;
        self.state = State::Within(inner);
    }

    fn finish(&mut self, buffer: &[u8], end: usize, inner: Inner) {
        self.seen = end;
        if inner.is_record {
            self.spans.push((self.start, end));
        }
        self.state = match inner.next {
            After::Top => State::Top,
            After::Elements => State::Elements,
            After::BeforeKey | After::Type => State::BeforeKey,
            After::Done => State::Done,
        };
        if inner.next == After::Type {
            self.look_at_type(buffer.get(self.start..end).unwrap_or_default());
        }
    }

    fn end(&mut self, buffer: &[u8]) -> Result<()> {
        match self.state {
            State::Top if self.pointer.is_empty() => Ok(()),
            State::Top if self.before == 0 && buffer.trim_ascii().is_empty() => Ok(()),
            State::Done => Ok(()),
            State::Within(inner @ Inner { depth: 0, in_string: false, next: After::Top, .. }) => {
                self.finish(buffer, buffer.len(), inner);
                Ok(())
            }
            State::Top => Err(self.missing()),
            _ => Err(self.wrong("the document ends before it is complete")),
        }
    }

    fn wrong(&self, message: &str) -> Error {
        Error::new(ErrorKind::Data, "read json", message).with("byte", self.before + self.seen as u64)
    }

    fn missing(&self) -> Error {
        let pointer: String =
            self.pointer.iter().map(|key| format!("/{}", String::from_utf8_lossy(key))).collect();
        let message = "no array or object of records where `records` points to";
        Error::new(ErrorKind::Data, "read json", message).with("records", pointer)
    }
}

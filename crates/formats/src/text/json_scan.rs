//! Finds the records of a JSON document while it comes: the elements of an array, wherever a JSON pointer
//! says it is, or whole documents one after the other. Only brackets and strings are looked at; what is
//! within a record is the parser's affair.

use aqueduct_core::{Error, ErrorKind, Result};

use super::cut::{CutBlock, Span};

/// The state of the search.
pub(crate) struct JsonScan {
    /// Keys on the way to the records, and how many of them have been found.
    pointer: Vec<Vec<u8>>,
    n_found: usize,
    state: State,
    /// Looked at so far.
    seen: usize,
    /// Where the record, key or value at hand begins.
    start: usize,
    spans: Vec<Span>,
    /// Bytes before the start of the buffer, for messages.
    before: u64,
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
    /// Behind a key; whether it is the one that is looked for.
    Colon {
        wanted: bool,
    },
    /// Before the value of that key.
    Value {
        wanted: bool,
    },
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
            state: State::Top,
            seen: 0,
            start: 0,
            spans: Vec::new(),
            before: 0,
        }
    }

    pub(crate) fn has_whole(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Cuts off the whole records, and what is no part of one.
    pub(crate) fn cut(&mut self) -> CutBlock {
        let is_open = matches!(self.state, State::Key { .. } | State::Within(Inner { is_record: true, .. }));
        let end = if is_open { self.start } else { self.seen };
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
            (State::Top, b'{') if !self.pointer.is_empty() => State::BeforeKey,
            (State::Top, b']' | b'}') => return Err(self.wrong("a bracket closes what none has opened")),
            (State::Top, _) if !self.pointer.is_empty() => return Err(self.missing()),
            (State::Top, _) => {
                return {
                    self.begin(After::Top, true);
                    Ok(())
                };
            }
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
            (State::BeforeKey, b'}') => return Err(self.missing()),
            (State::BeforeKey, _) => return Err(self.wrong("expected a key in quotes")),
            (State::Colon { wanted }, b':') => State::Value { wanted },
            (State::Colon { .. }, _) => return Err(self.wrong("expected `:` behind a key")),
            (State::Value { wanted: false }, _) => {
                return {
                    self.begin(After::BeforeKey, false);
                    Ok(())
                };
            }
            (State::Value { wanted: true }, _) => return self.enter(byte),
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
                let wanted = self.pointer.get(self.n_found).map(Vec::as_slice);
                State::Colon { wanted: wanted == Some(meant.as_deref().unwrap_or(raw)) }
            }
            _ => State::Key { escaped: false },
        }
    }

    /// Goes into the value of a key on the way.
    fn enter(&mut self, byte: u8) -> Result<()> {
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
                return self.finish(at, inner);
            }
            match byte {
                b'"' => inner.in_string = true,
                b'{' | b'[' => inner.depth += 1,
                b'}' | b']' if inner.depth > 1 => inner.depth -= 1,
                b'}' | b']' if inner.depth == 1 => return self.finish(at + 1, inner),
                b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if inner.depth == 0 => {
                    return self.finish(at, inner);
                }
                _ => {}
            }
            at += 1;
        }
        self.seen = at;
        self.state = State::Within(inner);
    }

    fn finish(&mut self, end: usize, inner: Inner) {
        self.seen = end;
        if inner.is_record {
            self.spans.push((self.start, end));
        }
        self.state = match inner.next {
            After::Top => State::Top,
            After::Elements => State::Elements,
            After::BeforeKey => State::BeforeKey,
            After::Done => State::Done,
        };
    }

    fn end(&mut self, buffer: &[u8]) -> Result<()> {
        match self.state {
            State::Top if self.pointer.is_empty() => Ok(()),
            State::Top if self.before == 0 && buffer.trim_ascii().is_empty() => Ok(()),
            State::Done => Ok(()),
            State::Within(inner @ Inner { depth: 0, in_string: false, next: After::Top, .. }) => {
                self.finish(buffer.len(), inner);
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

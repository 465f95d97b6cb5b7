//! What the bytes of an event stream say (WHATWG HTML, 9.2.5 and 9.2.6, "Parsing" and "Interpreting an event stream").
//!
//! Bytes are taken as they come, cut anywhere. Memory: the data of one event, at most as many bytes as there is room for,
//! and two short fields; of comments and unknown fields nothing is kept.

use std::sync::Arc;

use memchr::{memchr, memchr2};

const BOM: [u8; 3] = [0xef, 0xbb, 0xbf];

/// The longest name of a field that means something: `event`, `retry`.
const MAX_NAME_BYTES: usize = 5;

/// A longer `id` or `event` makes its event too large: an id is to fit into a header.
pub(crate) const MAX_FIELD_BYTES: usize = 4 << 10;

/// Of an event that is too large, so much is kept to be shown.
const SHOWN_BYTES: usize = 4 << 10;

/// An event as it was dispatched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The last id that was given, by this event or one before; empty, if none was.
    pub(crate) id: Arc<str>,
    /// Whether this event gave it.
    pub(crate) has_own_id: bool,
    /// Its type: `message`, unless it says another.
    pub(crate) name: String,
    /// Its lines of data.
    pub(crate) data: String,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Event(Event),
    /// An id without data: only from where to go on is another.
    Id(Arc<str>),
    /// So many milliseconds to wait before the stream is asked for again.
    Retry(u64),
    /// There must be more [room](Parser::grow) before the rest of the bytes can be taken.
    Full,
    /// An event that is larger than it may be is behind, with the start of its data.
    TooLarge {
        id: Arc<str>,
        has_own_id: bool,
        n_bytes: u64,
        start: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Event,
    Data,
    Id,
    Retry,
    /// A comment, or a field that means nothing.
    Other,
}

/// Where in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Name,
    /// Behind the colon: one space is passed over.
    Space(Field),
    Value(Field),
}

/// Reads the streams of one source, one after the other.
#[derive(Debug)]
pub(crate) struct Parser {
    /// Data of one event may take so many bytes now, and so many in all.
    room: usize,
    max_bytes: usize,
    /// Bytes of a byte order mark that were passed over; all of them, once it is behind.
    n_bom: usize,
    after_cr: bool,
    line: Line,
    /// The start of the line, up to a colon.
    name: Vec<u8>,
    /// The value of an `id`, `event` or `retry` that is open.
    value: Vec<u8>,
    value_is_long: bool,
    event: String,
    data: Vec<u8>,
    n_data_lines: u64,
    /// Bytes of data, also of those that were not kept.
    n_data_bytes: u64,
    is_too_large: bool,
    has_own_id: bool,
    /// The id as the fields have it, and as of the last event that was dispatched.
    id: Arc<str>,
    last_id: Arc<str>,
}

impl Parser {
    /// With room for events of so many bytes; there can be more, up to so many.
    pub(crate) fn new(room: usize, max_bytes: usize) -> Self {
        Self {
            room: room.min(max_bytes),
            max_bytes,
            n_bom: 0,
            after_cr: false,
            line: Line::Name,
            name: Vec::new(),
            value: Vec::new(),
            value_is_long: false,
            event: String::new(),
            data: Vec::new(),
            n_data_lines: 0,
            n_data_bytes: 0,
            is_too_large: false,
            has_own_id: false,
            id: Arc::default(),
            last_id: Arc::default(),
        }
    }

    /// A new stream begins, behind this event. What was open is forgotten.
    pub(crate) fn begin(&mut self, last_id: &Arc<str>) {
        let fresh = Self::new(self.room, self.max_bytes);
        *self = Self { id: Arc::clone(last_id), last_id: Arc::clone(last_id), ..fresh };
    }

    /// How many bytes of data there is room for.
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// How many bytes of data one event may have.
    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// There is so much room now for the event that is open.
    pub(crate) fn grow(&mut self, room: usize) {
        self.room = room.min(self.max_bytes);
        self.data.reserve_exact(self.room.saturating_sub(self.data.len()));
    }

    /// There will be no more room for the event that is open: its data is passed over.
    pub(crate) fn give_up(&mut self) {
        self.is_too_large = true;
        self.data.truncate(SHOWN_BYTES);
        self.data.shrink_to_fit();
    }

    /// From the next event on there is so much room again.
    pub(crate) fn shrink(&mut self, room: usize) {
        self.room = room.min(self.max_bytes);
    }

    /// Takes bytes off the front until something is found. Nothing, when all are taken.
    pub(crate) fn feed(&mut self, bytes: &mut &[u8]) -> Option<Found> {
        while let Some(first) = self.behind_bom(bytes) {
            // The next line may bring a line end, and nothing else that would ask for room.
            if self.is_full() {
                return Some(Found::Full);
            }
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                *bytes = &bytes[1..];
                continue;
            }
            let n = memchr2(b'\r', b'\n', bytes).unwrap_or(bytes.len());
            let (text, rest) = bytes.split_at(n);
            let taken = self.take(text);
            if taken < n {
                *bytes = &bytes[taken..];
                return Some(Found::Full);
            }
            *bytes = rest;
            let (end, rest) = rest.split_first()?;
            *bytes = rest;
            self.after_cr = *end == b'\r';
            if let Some(found) = self.end_line() {
                return Some(found);
            }
        }
        None
    }

    /// Whether the event that is open can have more data only with more room.
    fn is_full(&self) -> bool {
        !self.is_too_large && self.data.len() >= self.room && self.room < self.max_bytes
    }

    /// The first byte that is no part of a byte order mark at the very start.
    fn behind_bom(&mut self, bytes: &mut &[u8]) -> Option<u8> {
        while let (Some(expected), Some((first, rest))) = (BOM.get(self.n_bom), bytes.split_first()) {
            if first == expected {
                self.n_bom += 1;
                *bytes = rest;
            } else {
                let n_held = std::mem::replace(&mut self.n_bom, BOM.len());
                self.take(&BOM[..n_held]);
            }
        }
        bytes.first().copied()
    }

    /// Takes bytes of a line; how many there was room for.
    fn take(&mut self, text: &[u8]) -> usize {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            at += match self.line {
                Line::Name => self.take_name(rest),
                Line::Space(field) => {
                    self.line = Line::Value(field);
                    usize::from(rest[0] == b' ')
                }
                Line::Value(Field::Data) => match self.take_data(rest) {
                    0 => return at,
                    n => n,
                },
                Line::Value(Field::Other) => rest.len(),
                Line::Value(_) => self.take_value(rest),
            };
        }
        at
    }

    fn take_name(&mut self, text: &[u8]) -> usize {
        let colon = memchr(b':', text);
        let name = &text[..colon.unwrap_or(text.len())];
        // One byte more than any name has tells that it is none.
        let n_kept = name.len().min(MAX_NAME_BYTES + 1 - self.name.len());
        self.name.extend_from_slice(&name[..n_kept]);
        let Some(colon) = colon else { return text.len() };
        let field = self.begin_field();
        self.line = Line::Space(field);
        colon + 1
    }

    fn begin_field(&mut self) -> Field {
        let field = match self.name.as_slice() {
            b"event" => Field::Event,
            b"data" => Field::Data,
            b"id" => Field::Id,
            b"retry" => Field::Retry,
            _ => Field::Other,
        };
        self.value.clear();
        self.value_is_long = false;
        if field == Field::Data {
            if self.n_data_lines > 0 {
                self.n_data_bytes += 1;
                if !self.is_too_large && self.data.len() >= self.room {
                    self.give_up();
                }
                if !self.is_too_large {
                    self.data.push(b'\n');
                }
            }
            self.n_data_lines += 1;
        }
        field
    }

    /// Nothing is taken when there is no room, and there can be more.
    fn take_data(&mut self, text: &[u8]) -> usize {
        let room = self.room.saturating_sub(self.data.len());
        if !self.is_too_large && room == 0 {
            if self.room < self.max_bytes {
                return 0;
            }
            self.give_up();
        }
        let n = if self.is_too_large { text.len() } else { text.len().min(room) };
        if !self.is_too_large {
            self.data.extend_from_slice(&text[..n]);
        }
        self.n_data_bytes += n as u64;
        n
    }

    fn take_value(&mut self, text: &[u8]) -> usize {
        let n_kept = text.len().min(MAX_FIELD_BYTES - self.value.len());
        self.value_is_long |= n_kept < text.len();
        self.value.extend_from_slice(&text[..n_kept]);
        text.len()
    }

    fn end_line(&mut self) -> Option<Found> {
        let found = match self.line {
            Line::Name if self.name.is_empty() => self.dispatch(),
            Line::Name => {
                let field = self.begin_field();
                self.end_field(field)
            }
            Line::Space(field) | Line::Value(field) => self.end_field(field),
        };
        self.line = Line::Name;
        self.name.clear();
        found
    }

    fn end_field(&mut self, field: Field) -> Option<Found> {
        match field {
            Field::Data | Field::Other => {}
            Field::Retry => return digits(&self.value).filter(|_| !self.value_is_long).map(Found::Retry),
            Field::Event | Field::Id if self.value_is_long => self.give_up(),
            Field::Event => self.event = String::from_utf8_lossy(&self.value).into_owned(),
            Field::Id if self.value.contains(&0) => {}
            Field::Id => {
                self.id = String::from_utf8_lossy(&self.value).into();
                self.has_own_id = true;
            }
        }
        None
    }

    fn dispatch(&mut self) -> Option<Found> {
        let has_moved = self.last_id != self.id;
        self.last_id = Arc::clone(&self.id);
        let (id, data) = (Arc::clone(&self.id), std::mem::take(&mut self.data));
        let name = std::mem::take(&mut self.event);
        let n_lines = std::mem::take(&mut self.n_data_lines);
        let n_bytes = std::mem::take(&mut self.n_data_bytes);
        let has_own_id = std::mem::take(&mut self.has_own_id);
        let is_too_large = std::mem::take(&mut self.is_too_large);
        if n_lines == 0 {
            return has_moved.then_some(Found::Id(id));
        }
        if is_too_large {
            return Some(Found::TooLarge { id, has_own_id, n_bytes, start: data });
        }
        let name = if name.is_empty() { "message".to_owned() } else { name };
        Some(Found::Event(Event { id, has_own_id, name, data: text_of(data) }))
    }
}

/// Bytes that are no UTF-8 become U+FFFD, as the standard has it.
fn text_of(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A number of ASCII digits and nothing else.
fn digits(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let add = |n: u64, digit: &u8| n.saturating_mul(10).saturating_add(u64::from(digit - b'0'));
    is_number.then(|| value.iter().fold(0, add))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

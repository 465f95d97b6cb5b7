//! A pull parser over one line of JSON (RFC 8259): strict, without recursion deeper than [`MAX_DEPTH`], and
//! with the place of what is wrong.
//!
//! It exists beside a library because columns are filled straight from the bytes: no tree, no tape.

use super::value::BadValue;

/// Lists and objects within each other at most.
pub(crate) const MAX_DEPTH: usize = 128;

type Result<T> = std::result::Result<T, BadValue>;

/// What may begin a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    List,
    Object,
}

impl Kind {
    /// For messages: `found a list`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a bool",
            Self::Number => "a number",
            Self::String => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

/// Where a parser is in its text. A copy looks ahead.
#[derive(Clone)]
pub(crate) struct Json<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Json<'a> {
    /// Begins at the start of the text.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The byte at hand, 0 at the end: no token holds one.
    fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn skip_space(&mut self) {
        while matches!(self.byte(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
    }

    /// Passes over this byte, and white space before it, if it comes next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is_there = self.byte() == byte;
        self.at += usize::from(is_there);
        is_there
    }

    /// Passes over exactly these bytes if they come next.
    pub(crate) fn eat_bytes(&mut self, bytes: &[u8]) -> bool {
        let is_there = self.rest().starts_with(bytes);
        if is_there {
            self.at += bytes.len();
        }
        is_there
    }

    /// What kind of value comes next.
    pub(crate) fn kind(&mut self) -> Result<Kind> {
        self.skip_space();
        Ok(match self.byte() {
            b'n' => Kind::Null,
            b't' | b'f' => Kind::Bool,
            b'-' | b'0'..=b'9' => Kind::Number,
            b'"' => Kind::String,
            b'[' => Kind::List,
            b'{' => Kind::Object,
            _ => return Err(self.unexpected("a value")),
        })
    }

    /// The end of the text, white space apart.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at >= self.bytes.len() { Ok(()) } else { Err(self.unexpected("the end")) }
    }

    pub(crate) fn null(&mut self) -> Result<()> {
        if self.eat_bytes(b"null") { Ok(()) } else { Err(self.unexpected("a value")) }
    }

    pub(crate) fn bool(&mut self) -> Result<bool> {
        if self.eat_bytes(b"true") {
            return Ok(true);
        }
        if self.eat_bytes(b"false") { Ok(false) } else { Err(self.unexpected("a value")) }
    }

    /// The text of a number, checked to be one.
    pub(crate) fn number(&mut self) -> Result<&'a [u8]> {
        let start = self.at;
        self.at += usize::from(self.byte() == b'-');
        if self.byte() == b'0' {
            self.at += 1;
        } else if self.digits() == 0 {
            return Err(self.unexpected("a digit"));
        }
        if self.byte() == b'.' {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), b'+' | b'-'));
            if self.digits() == 0 {
                return Err(self.unexpected("a digit"));
            }
        }
        Ok(&self.bytes[start..self.at])
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    /// Appends a string to `out`, unescaped.
    pub(crate) fn string(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.expect(b'"')?;
        loop {
            let start = self.at;
            self.at = plain_end(self.bytes, start);
            out.extend_from_slice(&self.bytes[start..self.at]);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape(out)?,
                _ => return Err(self.unexpected("the end of a string")),
            }
        }
    }

    /// A key, without its quotes, as it is written.
    pub(crate) fn raw_string(&mut self) -> Result<&'a [u8]> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.byte() {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.bytes[start..self.at - 1]);
                }
                b'\\' => self.escape(&mut Vec::new())?,
                _ => return Err(self.unexpected("the end of a string")),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let code = self.bytes.get(self.at + 1).copied().unwrap_or(0);
        let byte = match code {
            b'"' | b'\\' | b'/' => code,
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 8,
            b'f' => 12,
            b'u' => return self.unicode_escape(out),
            _ => return Err(self.unexpected("an escape that exists")),
        };
        self.at += 2;
        out.push(byte);
        Ok(())
    }

    fn unicode_escape(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let high = self.code_unit()?;
        let code = match high {
            0xd800..=0xdbff => {
                let low = self.code_unit().ok().filter(|low| (0xdc00..=0xdfff).contains(low));
                let Some(low) = low else { return Err(self.lone_surrogate()) };
                0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00)
            }
            _ => high,
        };
        let Some(c) = char::from_u32(code) else { return Err(self.lone_surrogate()) };
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok(())
    }

    fn code_unit(&mut self) -> Result<u32> {
        let hex = self.rest().strip_prefix(b"\\u").and_then(|hex| hex.get(..4));
        let hex = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let unit = hex.and_then(|hex| std::str::from_utf8(hex).ok()?.parse_hex());
        let Some(unit) = unit else { return Err(self.unexpected("four hexadecimal digits")) };
        self.at += 6;
        Ok(unit)
    }

    /// Passes over any value and returns it as it is written. `depth` lists and objects are open around it.
    pub(crate) fn skip_value(&mut self, depth: usize) -> Result<&'a [u8]> {
        let kind = self.kind()?;
        let start = self.at;
        match kind {
            Kind::Null => self.null()?,
            Kind::Bool => drop(self.bool()?),
            Kind::Number => drop(self.number()?),
            Kind::String => drop(self.raw_string()?),
            Kind::List => self.skip_list(depth + 1)?,
            Kind::Object => self.skip_object(depth + 1)?,
        }
        Ok(&self.bytes[start..self.at])
    }

    fn skip_list(&mut self, depth: usize) -> Result<()> {
        self.enter(depth)?;
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            self.skip_value(depth)?;
            if !self.another(b']')? {
                return Ok(());
            }
        }
    }

    fn skip_object(&mut self, depth: usize) -> Result<()> {
        self.enter(depth)?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.key()?;
            self.skip_value(depth)?;
            if !self.another(b'}')? {
                return Ok(());
            }
        }
    }

    /// Passes over the bracket that opens a list or an object.
    ///
    /// # Errors
    /// Too many are open.
    pub(crate) fn enter(&mut self, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let message = format!("lists and objects go deeper than {MAX_DEPTH}, which is the limit");
            return Err(BadValue::new("depth", message));
        }
        self.at += 1;
        Ok(())
    }

    /// A key and its colon.
    pub(crate) fn key(&mut self) -> Result<&'a [u8]> {
        self.skip_space();
        let key = self.raw_string()?;
        if self.eat(b':') { Ok(key) } else { Err(self.unexpected("`:`")) }
    }

    /// Whether a comma comes next; else `close` must.
    pub(crate) fn another(&mut self, close: u8) -> Result<bool> {
        self.skip_space();
        let byte = self.byte();
        if byte != b',' && byte != close {
            return Err(self.unexpected(if close == b']' { "`,` or `]`" } else { "`,` or `}`" }));
        }
        self.at += 1;
        Ok(byte == b',')
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.byte() != byte {
            return Err(self.unexpected("a string"));
        }
        self.at += 1;
        Ok(())
    }

    fn unexpected(&self, expected: &str) -> BadValue {
        let found = match self.bytes.get(self.at) {
            None => "the end of the record".to_owned(),
            Some(byte) if byte.is_ascii_graphic() => format!("`{}`", char::from(*byte)),
            Some(byte) => format!("byte 0x{byte:02x}"),
        };
        BadValue::new("json", format!("found {found} at its byte {}, expected {expected}", self.at))
    }

    fn lone_surrogate(&self) -> BadValue {
        BadValue::new("utf8", format!("half a surrogate pair before its byte {}", self.at))
    }
}

trait ParseHex {
    fn parse_hex(self) -> Option<u32>;
}

impl ParseHex for &str {
    fn parse_hex(self) -> Option<u32> {
        u32::from_str_radix(self, 16).ok()
    }
}

/// The first byte from `at` on that does not stand for itself in a string: a quote, a backslash, a control
/// character, or the end. Eight bytes at a time.
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The lowest marked byte is right even where a borrow marks one too many above it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found =
            zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return at + usize::try_from(found.trailing_zeros() / 8).unwrap_or(0);
        }
        at += 8;
    }
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(tail.len())
}

/// A key as it is meant, when it was written with escapes.
pub(crate) fn unescaped(raw: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', raw)?;
    let quoted = [b"\"", raw, b"\""].concat();
    let mut out = Vec::with_capacity(raw.len());
    Json::new(&quoted).string(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_json(text: &[u8]) -> bool {
        let mut json = Json::new(text);
        std::str::from_utf8(text).is_ok() && json.skip_value(0).and_then(|_| json.end()).is_ok()
    }

    #[test]
    fn depth_is_limited_without_recursion_beyond_it() {
        let nested = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(is_json(&nested(MAX_DEPTH)));
        assert!(!is_json(&nested(MAX_DEPTH + 1)));
        assert!(!is_json(&nested(1_000_000)));
    }

    #[test]
    fn strings_are_unescaped() {
        let mut out = Vec::new();
        Json::new(br#""a\n\u00e9\ud83d\ude00/\/ plain and long enough""#).string(&mut out).unwrap();
        assert_eq!(out, "a\né😀// plain and long enough".as_bytes());
        for wrong in [r#""\ud83d""#, r#""\ud83d\u0041""#, r#""\x""#, "\"a\u{1}b\"", r#""open"#, r#""\u12"#] {
            assert!(Json::new(wrong.as_bytes()).string(&mut Vec::new()).is_err(), "{wrong}");
        }
    }

    proptest! {
        // The oracle is serde_json, which takes duplicate keys and numbers out of range as we do here.
        #[test]
        fn takes_what_serde_json_takes(text in r#"([\[\]{}:,"\\ u0-9a-f.eE+\-]|true|null|"a":|\\n){0,12}"#) {
            let oracle = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(is_json(text.as_bytes()), oracle, "{}", text);
        }

        #[test]
        fn strings_end_where_a_slow_search_ends(bytes in proptest::collection::vec(any::<u8>(), 0..40), at in 0usize..40) {
            let at = at.min(bytes.len());
            let slow = bytes[at..].iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
            prop_assert_eq!(plain_end(&bytes, at), slow.map_or(bytes.len(), |n| at + n));
        }
    }
}

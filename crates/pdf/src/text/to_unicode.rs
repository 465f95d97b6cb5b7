//! Maps from codes to characters (ISO 32000-2, 9.10.3) that are not written as they should be: what stands between the words
//! that begin and end a list is taken, whatever stands around it.

use std::collections::HashMap;

use hayro_syntax::object::{Dict, Stream};

use crate::strings::text_of;

/// Characters of a map at most.
const MAX_ENTRIES: usize = 1 << 17;

/// The map of a font.
#[derive(Debug, Default)]
pub(super) struct ToUnicode {
    texts: HashMap<u32, String>,
}

impl ToUnicode {
    /// The map of a font that has one.
    pub(super) fn of(font: &Dict<'_>) -> Option<Self> {
        let map = font.get::<Stream<'_>>(b"ToUnicode")?;
        Some(Self::read(&map.decoded_data().ok()?))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    pub(super) fn text_of(&self, code: u32) -> Option<&str> {
        self.texts.get(&code).map(String::as_str)
    }

    fn read(map: &[u8]) -> Self {
        let mut read = Self::default();
        let mut tokens = Tokens(map);
        while let Some(token) = tokens.next() {
            match token {
                Token::Word(b"beginbfchar") => read.characters(&mut tokens),
                Token::Word(b"beginbfrange") => read.ranges(&mut tokens),
                _ => {}
            }
        }
        read
    }

    fn characters(&mut self, tokens: &mut Tokens<'_>) {
        while let (Some(Token::Hex(code)), Some(Token::Hex(text))) = (tokens.next(), tokens.next()) {
            self.add(number(&code), &text);
        }
    }

    fn ranges(&mut self, tokens: &mut Tokens<'_>) {
        while let (Some(Token::Hex(first)), Some(Token::Hex(last))) = (tokens.next(), tokens.next()) {
            let codes = number(&first)..=number(&last);
            match tokens.next() {
                Some(Token::Hex(text)) => self.counted(codes, text),
                Some(Token::Open) => {
                    for code in codes {
                        let Some(Token::Hex(text)) = tokens.next() else { break };
                        self.add(code, &text);
                    }
                }
                _ => return,
            }
        }
    }

    /// The last byte counts on.
    fn counted(&mut self, codes: std::ops::RangeInclusive<u32>, mut text: Vec<u8>) {
        for code in codes.take(MAX_ENTRIES) {
            self.add(code, &text);
            let Some(last) = text.last_mut() else { return };
            *last = last.wrapping_add(1);
        }
    }

    fn add(&mut self, code: u32, utf16: &[u8]) {
        if self.texts.len() < MAX_ENTRIES {
            let text = match utf16 {
                [byte] => char::from(*byte).to_string(),
                _ => text_of(&[&[0xfe, 0xff], utf16].concat()),
            };
            self.texts.insert(code, text);
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number: u32, byte| number << 8 | u32::from(*byte))
}

enum Token<'a> {
    Hex(Vec<u8>),
    Word(&'a [u8]),
    Open,
}

/// What is left of a map.
struct Tokens<'a>(&'a [u8]);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let begin = self.0.iter().position(|byte| !byte.is_ascii_whitespace())?;
        let rest = &self.0[begin..];
        let (token, n_bytes) = match rest[0] {
            b'<' if rest.get(1) != Some(&b'<') => {
                let end = rest.iter().position(|byte| *byte == b'>').unwrap_or(rest.len());
                (Token::Hex(unhexed(&rest[1..end])), end + 1)
            }
            b'[' => (Token::Open, 1),
            _ => {
                let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'<' | b'[');
                let end = rest[1..].iter().position(is_end).map_or(rest.len(), |end| end + 1);
                (Token::Word(&rest[..end]), end)
            }
        };
        self.0 = rest.get(n_bytes..).unwrap_or_default();
        Some(token)
    }
}

fn unhexed(digits: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .iter()
        .filter_map(|digit| char::from(*digit).to_digit(16))
        .filter_map(|d| u8::try_from(d).ok())
        .collect();
    // An odd number of digits ends with a 0 by the letter, and lacks one at its beginning by what writers mean.
    let padded = if digits.len() % 2 == 1 { [&[0], &digits[..]].concat() } else { digits };
    padded.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_whatever_stands_around_them() {
        let map = ToUnicode::read(
            b"/Ordering (UC>) /Name/X> def 1 begincodespacerange <00> <ff> endcodespacerange 2 beginbfchar <2B> <0048>\n\
              <0048><d83dde00> endbfchar 2 beginbfrange <10> <12> <0061> <20><21> [<0041> <004200430044>] endbfrange end",
        );
        let of = |code| map.text_of(code);
        assert_eq!((of(0x2b), of(0x48)), (Some("H"), Some("\u{1f600}")));
        assert_eq!((of(0x10), of(0x12), of(0x13)), (Some("a"), Some("c"), None));
        assert_eq!((of(0x20), of(0x21)), (Some("A"), Some("BCD")));
    }
}
